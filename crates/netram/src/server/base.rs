//! The base of a joining member: the pages of a group as of one commit, read from its members as a client reads them.
//!
//! Invariants: commits behind that one arrive by themselves and are held above the base; the primary keeps the pages for
//! as long as this node says, every third of a lease, that it still reads them. Where it does no longer, or where they take
//! too much here, the rest is read as of a newer commit: what changed since is here as records. Whatever else breaks, the
//! base is begun anew: nothing of a part is ever shown. With `join_rate` no more bytes a second are asked for, by all copies
//! of this node.

use super::flush;
use super::group::SharedGroup;
use super::node::Node;
use super::pages::{PATIENCE, Reader, Source};
use crate::wire::{from_json, json};
use dspm_proto::control::{Control, NodeStatus};
use dspm_proto::{DatasetId, Error, GroupId, Header, Kind, PAGE_SIZE, PageNo, SetId, limits};
use dspm_store::BaseWriter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pages that are asked for at once.
const BATCH: u64 = limits::READ_PAGES_MAX as u64;
/// Batches a second where there is a rate to keep to: what else goes over the link waits for one at most.
const BATCHES: u64 = 20;
/// How often the same pages are asked for as of newer commits: as long as one answer takes a commit has to be kept.
const TRIES: usize = 10;
/// Pause between two looks whether the log has what the base needs.
const PAUSE: Duration = Duration::from_millis(10);

/// Pages to ask for at once, at a rate in bytes a second.
fn batch(rate: u64) -> u64 {
    if rate == 0 { BATCH } else { (rate / BATCHES / PAGE_SIZE as u64).clamp(1, BATCH) }
}

/// A base on its way.
struct Copy<'a> {
    node: &'a Arc<Node>,
    group: &'a SharedGroup,
    reader: Reader<'a>,
    base: BaseWriter,
}

impl Node {
    /// Brings the group's pages here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and others that pass: begin again. [`Error::Full`]: when there is room on the disk.
    pub(super) fn copy_base(
        self: &Arc<Self>,
        id: GroupId,
        group: &SharedGroup,
        from: &Source,
        set: SetId,
    ) -> Result<(), Error> {
        let mut copied = 0;
        let done = self.copy_pages(id, group, from, &mut |bytes| {
            copied += bytes;
            self.joins.add(set, bytes);
        });
        if done.is_err() {
            self.joins.take_back(set, copied);
        }
        done
    }

    fn copy_pages(
        self: &Arc<Self>,
        id: GroupId,
        group: &SharedGroup,
        from: &Source,
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let (reader, sizes) = Reader::open(self, id, from.clone())?;
        let listed: Vec<(DatasetId, u64)> = sizes.iter().map(|s| (s.dataset, s.size)).collect();
        let base = {
            let mut g = group.lock();
            let records = &mut g.replica.records.group;
            let here = records.record_id(reader.at.lsn).is_some();
            here.then_some(()).ok_or_else(|| Error::Unavailable(format!("commit {} is not here", reader.at)))?;
            self.store.begin_base(records, reader.at, &listed)?
        };
        let mut copy = Copy { node: self, group, reader, base };
        listed.into_iter().try_for_each(|(dataset, size)| copy.dataset(dataset, size, copied))?;
        copy.finish()
    }
}

impl Copy<'_> {
    fn dataset(&mut self, dataset: DatasetId, size: u64, copied: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let (end, rate) = (PageNo::count(size), self.node.options.join_rate);
        let batch = batch(rate);
        for from in (0..end).step_by(batch as usize) {
            let pages: Vec<PageNo> = (from..end.min(from + batch)).map(PageNo).collect();
            self.pages(dataset, &pages)?;
            self.node.counters.pages_copied.fetch_add(pages.len() as u64, Ordering::Relaxed);
            let bytes = (pages.len() * PAGE_SIZE) as u64;
            copied(bytes.min(size - from * PAGE_SIZE as u64));
            self.reader.keep_to(rate, bytes)?;
        }
        Ok(())
    }

    fn pages(&mut self, dataset: DatasetId, pages: &[PageNo]) -> Result<(), Error> {
        if self.pins_too_much() {
            self.go_on()?;
        }
        let mut read = self.reader.read(dataset, pages);
        for _ in 0..TRIES {
            if !matches!(read, Err(Error::TooOld(_))) {
                break;
            }
            self.go_on()?;
            read = self.reader.read(dataset, pages);
        }
        read?.into_iter().try_for_each(|(page, lsn, content)| self.base.write(dataset, page, lsn, &content))
    }

    /// Old versions are kept for this copy, and there are too many of them here.
    fn pins_too_much(&self) -> bool {
        let g = self.group.lock();
        let records = &g.replica.records.group;
        records.committed() > self.reader.at.lsn && self.node.store.is_history_full(records.history_bytes())
    }

    fn go_on(&mut self) -> Result<(), Error> {
        self.reader.go_on()?;
        self.base.go_on(&mut self.group.lock().replica.records.group, self.reader.at)
    }

    /// All pages are here.
    fn finish(&mut self) -> Result<(), Error> {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            match self.base.finish(&flush::Source(self.node.clone())) {
                Err(Error::Busy(_)) if std::time::Instant::now() < until => {
                    self.reader.renew()?;
                    std::thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
}

impl Node {
    /// Bytes of these groups as the primary knows them.
    pub(super) fn bytes_of(&self, groups: &[GroupId], from: &Source) -> Result<u64, Error> {
        let mut primary = from.primary.dial(self, None)?;
        let mut bytes = 0;
        for part in groups.chunks(limits::LISTED_MAX) {
            let mut rest = part.to_vec();
            while !rest.is_empty() {
                let question = json(&Control::Status { groups: rest.clone(), held: false });
                let until = std::time::Instant::now() + PATIENCE;
                let answer = primary.ask(Header::new(Kind::Control), &question, &[], until)?.accept()?;
                let status: NodeStatus = from_json(&answer.meta)?;
                bytes += status.groups.iter().flat_map(|g| &g.sizes).map(|(_, size)| size).sum::<u64>();
                rest.drain(..(status.covered as usize).clamp(1, rest.len()));
            }
        }
        Ok(bytes)
    }
}
