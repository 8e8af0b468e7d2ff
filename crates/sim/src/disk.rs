//! What a power cut leaves of a group: the log, in numbered batches, and the base that checkpoints write.
//!
//! Fault model: of the batch whose sync did not return any record may be whole, torn or missing, in any order. A disk
//! may lie: a synced record reads with a flipped bit. A checkpoint's base is written as a whole (torn ones are the
//! store's own crash tests').
//!
//! Invariants, which recovery stands on: a batch is written after the sync of the one before; a base holds nothing
//! that is not in the synced log. So a bad record is the end of the log if nothing of a later batch is whole, and
//! damage otherwise.

use crate::rng::Rng;
use dspm_proto::record::Record;
use dspm_proto::{Lsn, PageNo, Part, RecordId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A base: everything up to a commit, one value a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) at: Lsn,
    pub(crate) pages: BTreeMap<PageNo, u64>,
}

/// The place of a record in the log. Without one it never reached the disk.
#[derive(Clone, Debug)]
struct Entry {
    batch: u64,
    record: Option<Rc<Record>>,
    /// Checksum of what was to be written.
    sum: u64,
}

impl Entry {
    fn new(batch: u64, record: &Rc<Record>) -> Entry {
        Entry { batch, sum: sum(record), record: Some(record.clone()) }
    }

    fn whole(&self) -> Option<&Rc<Record>> {
        self.record.as_ref().filter(|r| sum(r) == self.sum)
    }

    /// Other bits than were written.
    fn damage(&mut self) {
        let Some(record) = &mut self.record else { return };
        let mut other = (**record).clone();
        other.pages.iter_mut().for_each(|p| p.checksum ^= 1 << 40);
        *record = Rc::new(other);
    }
}

fn sum(record: &Record) -> u64 {
    record.pages.iter().fold(record.id.hash, |h, p| h.rotate_left(7) ^ p.checksum.wrapping_mul(31) ^ p.page.0)
}

/// What recovery takes for good although it is not; a fault each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credulous {
    /// A torn record is replayed.
    pub(crate) torn: bool,
    /// Damage in the middle of the log is taken for its end.
    pub(crate) damage: bool,
}

/// The disk of a group at one member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// The last record of before the log, and whether the pages of those before it are still to come.
    pub(crate) start: RecordId,
    pub(crate) baseless: bool,
    log: Vec<Entry>,
    batch: u64,
    pub(crate) base: Base,
}

impl Disk {
    /// Last LSN in the log.
    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.start.lsn.0 + self.log.len() as u64)
    }

    /// The sync of a batch with these records returned.
    pub(crate) fn sync(&mut self, records: &[Rc<Record>], lost: bool) {
        self.batch += 1;
        let entry = |r: &Rc<Record>| Entry { record: (!lost).then(|| r.clone()), ..Entry::new(self.batch, r) };
        self.log.extend(records.iter().map(entry));
    }

    /// Something whole of a later batch follows the record.
    pub(crate) fn is_before_end(&self, lsn: Lsn) -> bool {
        let index = lsn.0.wrapping_sub(self.start.lsn.0).wrapping_sub(1) as usize;
        let batch = self.log.get(index).map(|e| e.batch);
        batch.is_some_and(|b| self.log[index..].iter().any(|e| e.batch > b && e.whole().is_some()))
    }

    pub(crate) fn truncate(&mut self, last: Lsn) {
        self.log.truncate(last.0.saturating_sub(self.start.lsn.0) as usize);
    }

    /// Everything is forgotten but that this is the last record.
    pub(crate) fn rebase(&mut self, start: RecordId) {
        *self = Disk { start, baseless: start.lsn > Lsn(0), batch: self.batch, ..Disk::default() };
    }

    /// A base was written.
    pub(crate) fn install(&mut self, base: Base) {
        (self.base, self.baseless) = (base, false);
    }

    /// Power fails while these are written.
    pub(crate) fn power_cut(&mut self, unsynced: &[Rc<Record>], rng: &mut Rng) {
        self.batch += 1;
        for record in unsynced {
            let mut entry = Entry::new(self.batch, record);
            match rng.below(4) {
                0 => entry.record = None,
                1 => entry.damage(),
                _ => {}
            }
            self.log.push(entry);
        }
    }

    /// From now on a record of the log reads with other bits than were written. False: there is none.
    pub(crate) fn flip(&mut self, lsn: Lsn) -> bool {
        let index = lsn.0.wrapping_sub(self.start.lsn.0).wrapping_sub(1);
        let entry = self.log.get_mut(index as usize);
        entry.map(Entry::damage).is_some()
    }

    /// Brings the base up to a commit that the log has.
    pub(crate) fn checkpoint(&mut self, log: &[Rc<Record>], to: Lsn) {
        let aborted = |lsn: Lsn| log.iter().any(|r| r.id.lsn == lsn.next() && r.part == Part::Aborts);
        let new = |r: &&Rc<Record>| r.id.lsn > self.base.at && r.id.lsn <= to && !aborted(r.id.lsn);
        for record in log.iter().filter(new).collect::<Vec<_>>() {
            self.base.pages.extend(record.pages.iter().map(|p| (p.page, p.checksum)));
        }
        self.base.at = self.base.at.max(to);
    }

    /// Reads the log. None: it is damaged, and nothing of this store may be trusted.
    pub(crate) fn recover(&mut self, credulous: Credulous) -> Option<Vec<Rc<Record>>> {
        let readable = |e: &Entry| e.whole().or(e.record.as_ref().filter(|_| credulous.torn)).cloned();
        let good: Vec<Rc<Record>> = self.log.iter().map_while(readable).collect();
        if let Some(bad) = self.log.get(good.len()) {
            let later = |e: &Entry| e.batch > bad.batch && e.whole().is_some();
            if self.log[good.len()..].iter().any(later) && !credulous.damage {
                return None;
            }
        }
        self.log.truncate(good.len());
        Some(good)
    }
}
