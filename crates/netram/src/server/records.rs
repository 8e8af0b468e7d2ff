//! The store's side of a replica: dspm-txn decides, dspm-store keeps.

use super::shortage::Shortages;
use dspm_proto::record::{Payload, Record, apply_delta, verify_page};
use dspm_proto::{
    ClientId, DatasetId, Error, Link, Lsn, PAGE_SIZE, PageNo, Part, RecordId, Refusal, Session, checksum,
};
use dspm_store::{FrameBuf, GroupStore, Lookup, Store, StoredPage, StoredRecord};
use dspm_txn::{Fence, Origin, Records};
use std::sync::Arc;

/// A record's page data as it came: frames of its full pages, which were checked, and the bytes of its deltas.
pub(crate) struct Pages {
    pub(crate) meta: Vec<u8>,
    pub(crate) frames: Vec<FrameBuf>,
    pub(crate) deltas: Vec<u8>,
}

/// One group's records in the arena.
pub(crate) struct StoreRecords {
    pub(crate) group: GroupStore,
    store: Arc<Store>,
    shortages: Arc<Shortages>,
}

impl StoreRecords {
    pub(crate) fn new(group: GroupStore, store: Arc<Store>, shortages: Arc<Shortages>) -> StoreRecords {
        StoreRecords { group, store, shortages }
    }

    /// Pages of a record that is to be sent again whose copies here are damaged.
    pub(crate) fn damaged_of(&self, stored: &StoredRecord) -> Vec<(DatasetId, PageNo)> {
        let known = self.group.damaged_pages();
        let all = stored.record.pages.iter().zip(&stored.pages);
        let named = all.map(|(p, copy)| (stored.record.datasets[p.dataset as usize].dataset, p, copy));
        let damaged = named.filter(|(dataset, p, copy)| match copy {
            StoredPage::Frame(content) => checksum(&content[..]) != p.checksum,
            StoredPage::Gone => known.contains(&(*dataset, p.page)),
            StoredPage::Zero => false,
        });
        damaged.map(|(dataset, p, _)| (dataset, p.page)).collect()
    }

    /// Notes whether there was room.
    fn met<T>(&self, done: Result<T, Refusal>) -> Result<T, Refusal> {
        match done {
            Ok(_) => self.shortages.served(self.group.id()),
            Err(Refusal::Full) => self.shortages.refused(self.group.id()),
            Err(_) => {}
        }
        done
    }

    fn put(&mut self, record: &Record, mut payload: Pages, origin: Origin) -> Result<(), Refusal> {
        if origin == Origin::Commit && self.store.shortage(record.pages.len()).is_some() {
            return Err(Refusal::Full);
        }
        let meta = std::mem::take(&mut payload.meta);
        let frames = self.whole(record, payload)?;
        let done = match origin {
            Origin::Commit => self.group.append(record, &meta, frames),
            Origin::Settle => self.group.append_settled(record, &meta, frames),
        };
        done.map_err(|e| match e {
            Error::Full(_) => Refusal::Full,
            Error::Refused(why) => why,
            _ => Refusal::Corrupt, // a record that contradicts itself
        })
    }

    /// One frame a page, whole: deltas are applied to a copy of the version that they name. (A settle sends none.)
    fn whole(&self, record: &Record, pages: Pages) -> Result<Vec<Option<FrameBuf>>, Refusal> {
        let mut full = pages.frames.into_iter();
        let mut deltas = &pages.deltas[..];
        let mut out = Vec::with_capacity(record.pages.len());
        for p in &record.pages {
            out.push(match p.payload {
                Payload::Full => Some(full.next().ok_or(Refusal::Corrupt)?),
                Payload::Zero => None,
                Payload::Delta => {
                    let (delta, rest) = deltas.split_at_checked(p.bytes as usize).ok_or(Refusal::Corrupt)?;
                    deltas = rest;
                    let dataset = record.datasets[p.dataset as usize].dataset;
                    let mut page = self.store.alloc().ok_or(Refusal::Full)?;
                    let mut based_on = None;
                    match self.group.lookup(dataset, p.page, self.group.tail().lsn) {
                        Lookup::Frame { lsn, frame, checksum } if lsn == p.base => {
                            page.copy_from_slice(self.group.page(frame));
                            based_on = Some((frame, checksum));
                        }
                        // Each member forgets at its own time which commit made a page zeros; that these are the
                        // zeros that were meant is told by the checksum of the whole page below.
                        Lookup::Zero { .. } => page.fill(0),
                        _ => return Err(Refusal::Missing), // the writer sends the page in full then
                    }
                    let content: &mut [u8; PAGE_SIZE] = &mut page;
                    let applied = apply_delta(content, delta).and_then(|()| verify_page(content, p.checksum));
                    // Where what it stands on is damaged here, the page in full puts that right.
                    let damaged = |(frame, sum)| checksum(self.group.page(frame)) != sum;
                    applied
                        .map_err(|_| if based_on.is_some_and(damaged) { Refusal::Missing } else { Refusal::Corrupt })?;
                    Some(page)
                }
            });
        }
        Ok(out)
    }
}

impl Records for StoreRecords {
    type Payload = Pages;

    fn tail(&self) -> RecordId {
        self.group.tail()
    }

    fn id_at(&self, lsn: Lsn) -> Option<RecordId> {
        self.group.record_id(lsn)
    }

    fn newest_of(&self, client: ClientId) -> Option<RecordId> {
        self.group.newest_of(client)
    }

    fn fence(&self) -> Fence {
        let f = self.group.fence();
        Fence { generation: f.generation, token: f.token }
    }

    fn part(&self, lsn: Lsn) -> Part {
        self.group.part(lsn)
    }

    fn links(&self, lsn: Lsn) -> Vec<Link> {
        self.group.links(lsn)
    }

    fn close(&mut self, decision: Lsn) {
        self.group.close(decision);
    }

    fn without_pages(meta: Vec<u8>) -> Pages {
        Pages { meta, frames: Vec::new(), deltas: Vec::new() }
    }

    fn set_fence(&mut self, fence: Fence) {
        self.group.set_fence(dspm_store::Fence { generation: fence.generation, token: fence.token });
    }

    fn committed(&self) -> Lsn {
        self.group.committed()
    }

    fn set_committed(&mut self, lsn: Lsn) {
        if lsn > self.group.committed() {
            self.group.set_committed(lsn);
        }
    }

    fn flushed(&self) -> Lsn {
        // While the log has more than this group, a start from it would find what is told to be void.
        let most = if self.group.owes_log() { self.tail().lsn.0.saturating_sub(1) } else { u64::MAX };
        self.group.flushed().min(Lsn(most))
    }

    fn session(&self, client: ClientId) -> u64 {
        self.group.session_number(client)
    }

    fn set_session(&mut self, session: Session) {
        if session.number > self.group.session_number(session.client) {
            // Without room for it the session is only not remembered over a restart, after which every token is new.
            let _ = self.group.set_session(session);
        }
    }

    fn append(&mut self, record: &Record, payload: Pages, origin: Origin) -> Result<(), Refusal> {
        if record.part == Part::Aborts && self.flushed() < self.tail().lsn {
            self.store.request_flush(self.group.id(), self.tail().lsn); // the log has to have what is taken back
            return self.put(record, payload, origin); // room is not what it waits for
        }
        let done = self.put(record, payload, origin);
        self.met(done)
    }

    fn is_whole(&self) -> bool {
        self.group.is_whole()
    }

    fn keeps_from(&self, lsn: Lsn) -> bool {
        self.group.keeps_from(lsn)
    }

    fn cut(&mut self, to: Lsn) -> bool {
        self.group.cut(to).is_ok()
    }

    fn rebase(&mut self, tail: RecordId) {
        if let Err(e) = self.group.rebase(tail) {
            eprintln!("dspm-node: group {} cannot begin anew: {e}", self.group.id()); // it is asked again
            self.shortages.refused(self.group.id());
        }
    }

    fn horizon(&self) -> Lsn {
        self.group.horizon()
    }

    fn set_horizon(&mut self, horizon: Lsn) {
        self.group.set_horizon(horizon);
    }

    fn is_pinned_too_much(&self) -> bool {
        self.store.is_history_full(self.group.history_bytes())
    }
}
