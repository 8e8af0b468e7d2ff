//! One commit: build the record, send it to all members at once, wait for all; settle what is in doubt.

use super::cache::OPEN;
use super::group::{GroupClient, Place, State, is_outage};
use crate::clock;
use crate::wire::Connection;
use dspm_proto::message::{self, Ack, Outcome, OutcomeReply};
use dspm_proto::record::{DatasetChange, PageChange, Payload, Record, delta};
use dspm_proto::{DatasetId, Error, Generation, Kind, Lsn, PAGE_SIZE, RecordId, Token, checksum, limits};
use dspm_txn::dataset::{Change, PageBuf, Snapshot};
use std::time::{Duration, Instant};

/// A member that says nothing for this many lease lengths is not waited for any longer: the primary is asked.
const SILENCE: u32 = 2;

/// A sealed record and the page data that travels with it.
struct Built {
    record: Record,
    meta: Vec<u8>,
    /// Encoded deltas, in the order of the record's pages.
    deltas: Vec<Vec<u8>>,
    /// Full pages, by their place in the change.
    full: Vec<usize>,
}

impl Built {
    fn data<'a>(&'a self, change: &'a Change<'_>) -> Vec<&'a [u8]> {
        let full = self.full.iter().map(|i| &change.pages[*i].1[..]);
        full.chain(self.deltas.iter().map(|d| &d[..])).collect()
    }
}

impl GroupClient {
    /// Commits under the reservation; the snapshot becomes the commit's own state.
    pub(crate) fn commit(
        &self,
        dataset: DatasetId,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
    ) -> Result<Lsn, Error> {
        let bytes = change.pages.len() * PAGE_SIZE;
        if bytes as u64 > u64::from(limits::DATA_MAX) {
            let text = format!("a transaction of {} pages; at most {} are possible", change.pages.len(), limits::DATA_MAX as usize / PAGE_SIZE);
            return Err(Error::Full(text));
        }
        let deadline = self.deadline();
        let mut again = false;
        loop {
            let place = self.place();
            let built = self.launch(&place, dataset, snapshot, change, !again)?;
            let id = built.record.id;
            let sent = self.send_to_all(&place, &built, change);
            let error = match sent {
                Ok(()) => {
                    self.committed(dataset, snapshot, change, id);
                    return Ok(id.lsn);
                }
                Err(e) => e,
            };
            match self.resolve(deadline)? {
                true => {
                    self.committed(dataset, snapshot, change, id);
                    return Ok(id.lsn);
                }
                false if matches!(error, Error::Full(_) | Error::Refused(dspm_proto::Refusal::Full)) => {
                    return Err(Error::Full("the arena of a member is full".into()));
                }
                false if again => return Err(conflict()),
                false => {
                    // Once more under a new token, if nothing came in between.
                    again = true;
                    self.regain(snapshot)?;
                }
            }
        }
    }

    /// Builds the record and marks it as in flight.
    fn launch(
        &self,
        place: &Place,
        dataset: DatasetId,
        snapshot: &Snapshot,
        change: &Change<'_>,
        deltas: bool,
    ) -> Result<Built, Error> {
        let mut state = self.lock();
        let token = state.holder.token().ok_or_else(conflict)?;
        let base = state.holder.tail();
        if !state.holder.is_open() || base.lsn != snapshot.lsn {
            return Err(conflict());
        }
        state.transactions += 1;
        let built = self.build(&state, place.set.generation, token, base, dataset, change, deltas);
        let members = place.peers.iter().map(|p| p.number).collect();
        state.holder.send(built.record.id, members);
        Ok(built)
    }

    fn build(
        &self,
        state: &State,
        generation: Generation,
        token: Token,
        base: RecordId,
        dataset: DatasetId,
        change: &Change<'_>,
        with_deltas: bool,
    ) -> Built {
        let (mut full, mut deltas, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
        let (mut full_at, mut delta_bytes) = (Vec::new(), Vec::new());
        for (i, (page, content)) in change.pages.iter().enumerate() {
            let mut p = PageChange {
                dataset: 0,
                page: *page,
                payload: Payload::Full,
                bytes: PAGE_SIZE as u32,
                checksum: checksum(&content[..]),
                base: Lsn(0),
            };
            if content.iter().all(|b| *b == 0) {
                (p.payload, p.bytes, p.checksum) = (Payload::Zero, 0, 0);
                zeros.push(p);
                continue;
            }
            let changed = self.client.cache.with(dataset, *page, base.lsn, |old, lsn| delta(old, content).map(|d| (d, lsn)));
            match changed.flatten().filter(|(_, lsn)| with_deltas && *lsn > Lsn(0)) {
                Some((d, lsn)) => {
                    (p.payload, p.bytes, p.base) = (Payload::Delta, d.len() as u32, lsn);
                    deltas.push(p);
                    delta_bytes.push(d);
                }
                _ => {
                    full.push(p);
                    full_at.push(i);
                }
            }
        }
        full.append(&mut deltas);
        full.append(&mut zeros);
        let mut record = Record {
            group: self.entry.group,
            id: RecordId { generation, lsn: base.lsn.next(), hash: 0 },
            token,
            session: self.client.session,
            transaction: state.transactions,
            predecessor: base.hash,
            floor: self.floor(state),
            stage: 0,
            staged: 0,
            datasets: vec![DatasetChange { dataset, size: change.size }],
            pages: full,
        };
        let meta = record.seal();
        Built { record, meta, deltas: delta_bytes, full: full_at }
    }

    /// Sends the record to every member, then waits for every answer. Any error: the record is in doubt.
    fn send_to_all(&self, place: &Place, built: &Built, change: &Change<'_>) -> Result<(), Error> {
        let data = built.data(change);
        let deadline = Instant::now() + self.lease * SILENCE;
        self.client.count_round_trip();
        let mut failed = None;
        let mut waiting: Vec<(usize, Connection, u64)> = Vec::with_capacity(place.peers.len());
        for (i, peer) in place.peers.iter().enumerate() {
            let sent = peer.link.take(|| self.client.dialer(false)).and_then(|mut c| {
                let header = built.record.header(Kind::Commit, &built.meta, peer.store, 0);
                let request = c.send(header, &built.meta, &data)?;
                Ok((i, c, request))
            });
            match sent {
                Ok(x) => waiting.push(x),
                Err(e) => failed = Some(e),
            }
        }
        let mut done = false;
        for (i, mut c, request) in waiting {
            let peer = &place.peers[i];
            let answer = c.receive(request, deadline).and_then(|a| Ok((message::decode::<Ack>(&a.meta)?, a.header)));
            match answer {
                Ok((ack, header)) if header.store == peer.store => {
                    done = self.lock().holder.acked(peer.number, ack.id, clock::now());
                    peer.link.give(c);
                }
                Ok(_) => failed = Some(Error::Protocol("an acknowledgement of another store".into())),
                Err(e) => {
                    if matches!(e, Error::Refused(_)) {
                        peer.link.give(c);
                    }
                    failed = Some(e);
                }
            }
        }
        match failed {
            None if done => Ok(()),
            other => {
                self.lock().holder.doubt();
                Err(other.unwrap_or_else(|| Error::Unavailable("not all members acknowledged".into())))
            }
        }
    }

    /// Asks until it is known whether the record in doubt was committed. One asker at a time; the background thread
    /// goes on asking when the caller's time is over.
    pub(crate) fn resolve(&self, deadline: Instant) -> Result<bool, Error> {
        let mut state = self.lock();
        let Some(flight) = state.holder.flight().cloned() else { return Ok(false) };
        state.resolving = true;
        drop(state);
        let question =
            || Outcome { session: self.client.session, token: flight.token, id: flight.id };
        let answer = self.ask_primary::<_, OutcomeReply>(Kind::Outcome, deadline, question);
        let mut state = self.lock();
        state.resolving = false;
        let result = match answer {
            Ok((reply, _)) => {
                state.holder.resolved(reply.committed);
                Ok(reply.committed)
            }
            Err(e) => Err(self.unknown(flight.id, &e)),
        };
        drop(state);
        self.notify();
        result
    }

    fn unknown(&self, id: RecordId, e: &Error) -> Error {
        let text = match is_outage(e) {
            true => format!("the outcome of commit {} is unknown: {e}", id.lsn),
            false => format!("the outcome of commit {} cannot be told: {e}", id.lsn),
        };
        Error::OutcomeUnknown(text)
    }

    /// Takes the lease again for the same transaction, if its snapshot is still the newest state.
    fn regain(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let mut state = self.lock();
        state.holder.close(clock::now());
        drop(state);
        let until = Instant::now() + Duration::from_millis(500);
        loop {
            match self.reserve(snapshot, None)? {
                dspm_txn::dataset::Reserved::Granted => return Ok(()),
                dspm_txn::dataset::Reserved::Busy(t) if Instant::now() < until => self.forget(t),
                _ => return Err(conflict()),
            }
        }
    }

    /// All members hold it: the process's own view moves on.
    fn committed(&self, dataset: DatasetId, snapshot: &mut Snapshot, change: &Change<'_>, id: RecordId) {
        let cache = &self.client.cache;
        let mut state = self.lock();
        let known = state.holder.tail().lsn;
        let until = if known > id.lsn { id.lsn.next() } else { OPEN };
        let old = state.sizes.get(&dataset).copied().unwrap_or(snapshot.size);
        if change.size < old {
            cache.supersede_from(dataset, dspm_proto::PageNo(dspm_proto::PageNo::count(change.size)), id.lsn);
        }
        for (page, content) in change.pages {
            let content: &PageBuf = content;
            cache.supersede(dataset, *page, id.lsn);
            cache.put(dataset, *page, id.lsn, until, content);
        }
        state.sizes.insert(dataset, change.size);
        state.copies_now = self.place().peers.len() as u32;
        state.pins.remove(Lsn(snapshot.pin));
        state.pins.add(id.lsn);
        (snapshot.lsn, snapshot.size, snapshot.pin) = (id.lsn, change.size, id.lsn.0);
        drop(state);
        self.notify();
    }
}

fn conflict() -> Error {
    Error::Conflict("another commit came first".into())
}
