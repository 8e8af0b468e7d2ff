//! Forgetting a group's history for another one's, of which the pages come later ([`crate::incoming`]).
//!
//! Order: the ring's rebase entry (the point of no return), the slot, then frames and parts are freed. Recovery finishes
//! what a crash cut short: behind the entry nothing counts that stood before it, and pages at or below its record never
//! do. The log hears of it before any other entry of the group; then the old base files are removed; only then may new
//! ones be begun, for they have the same names.
//!
//! Invariant: while the base is missing no page is answered that a record behind the rebase did not write, and the group
//! has no checkpoint; both outlive the process (slot) and the memory (the log keeps the entry's segment).

use std::sync::Arc;

use dspm_proto::codec::Writer;
use dspm_proto::{Error, GroupId, Header, Kind, Lsn, RecordId};

use crate::arena::lock;
use crate::base::BaseFile;
use crate::flusher::FlushSource;
use crate::group::GroupStore;
use crate::log::{Batch, LogError};
use crate::maintain::base_error;
use crate::room::Draw;
use crate::slot::Rebased;
use crate::step::step;
use crate::store::Store;

impl GroupStore {
    /// Forgets all records, pages, sizes and base files; the group's history goes on behind `tail`, which is committed.
    /// Its pages come by [`Store::begin_base`]; until then it is not whole. Fence and session numbers stay.
    ///
    /// # Errors
    /// [`Error::Full`] when the arena has no frame left, not even of the reserve: nothing has changed.
    pub fn rebase(&mut self, tail: RecordId) -> Result<(), Error> {
        let meta = self.encode_rebase(tail);
        self.ring.reserve(meta.len(), Draw::Keep)?;
        let mut header = Header::new(Kind::Rebase).for_meta(&meta);
        (header.group, header.lsn, header.generation) = (self.id(), tail.lsn, tail.generation);
        let position = self.ring.push(header, &meta);
        self.enter_rebased(position, tail);
        let files = self.forget_pages();
        self.records.clear();
        self.superseded.clear();
        self.sessions.cut(Lsn(0));
        (self.base, self.tail) = (tail, tail);
        (self.counted_clean, self.wanted, self.checkpointed) = (tail.lsn, tail.lsn, tail.lsn);
        (self.cut_to_log, self.checkpoint_at, self.closed) = (None, None, Lsn(0));
        self.epoch += 1;
        self.log_rebase();
        self.retire(files);
        Ok(())
    }

    /// A state that says nothing but the tail and the sessions' numbers.
    fn encode_rebase(&self, tail: RecordId) -> Vec<u8> {
        let mut sessions = self.sessions.clone();
        sessions.cut(Lsn(0)); // of a process that is listed with a record there is no newer one
        let mut w = Writer::default();
        for id in [tail, tail] {
            w.u64(id.generation.0).u64(id.lsn.0).u64(id.hash);
        }
        w.u32(0).u32(sessions.len() as u32);
        sessions.encode(&mut w, 0);
        w.bytes
    }

    /// The slot follows the ring's rebase entry; nothing before it counts.
    pub(crate) fn enter_rebased(&mut self, position: u64, id: RecordId) {
        let s = &mut self.slot;
        (s.committed, s.flushed, s.horizon, s.head) = (id.lsn, id.lsn, id.lsn, position);
        s.rebased = Rebased::Lacks(id);
        self.place.write(&self.arena, &mut self.slot);
        step("rebased");
        self.ring.drop_before(position);
    }

    /// True when every page of before the records is here: always, unless the group was rebased and its base has not come.
    #[inline]
    pub fn is_whole(&self) -> bool {
        !matches!(self.slot.rebased, Rebased::Lacks(_))
    }

    /// Behind which record the group begins while its base is missing.
    pub(crate) fn rebased_to(&self) -> Option<RecordId> {
        if let Rebased::Lacks(id) = self.slot.rebased { Some(id) } else { None }
    }

    /// The log has to hear of the rebase (again), and of all records behind it.
    pub(crate) fn log_rebase(&mut self) {
        let Some(id) = self.rebased_to() else { return };
        self.lives += 1;
        (self.rebase_to_log, self.clearing, self.cut_to_log) = (true, true, None);
        if self.slot.flushed > id.lsn {
            self.slot.flushed = id.lsn;
            self.place.write(&self.arena, &mut self.slot);
        }
        self.owe();
    }

    /// Files that have to be gone before others of their names are begun.
    pub(crate) fn retire(&mut self, files: impl IntoIterator<Item = Arc<BaseFile>>) {
        self.retired.extend(files);
        self.clearing = true;
        self.owe();
    }

    /// True while the log does not know yet that records which it has are void.
    pub fn owes_log(&self) -> bool {
        self.rebase_to_log || self.cut_to_log.is_some()
    }

    /// Notes whether log or disk have to hear of something besides records.
    pub(crate) fn owe(&self) {
        let owes = self.rebase_to_log || self.clearing || self.arrived.is_some() || self.cut_to_log.is_some();
        let mut owed = lock(&self.arena.owed);
        if owes {
            owed.insert(self.id());
        } else {
            owed.remove(&self.id());
        }
    }
}

impl Store {
    /// Removes base files of before a rebase that the log knows, and takes bases that came while the arena was full.
    /// Maintenance runs, so no checkpoint is under way.
    pub(crate) fn finish_rebases(&self, source: &dyn FlushSource) -> Result<(), LogError> {
        let owed: Vec<_> = lock(&self.arena.owed).iter().copied().collect();
        for group in owed {
            let mut todo = None;
            source.with_group(group, &mut |g| {
                let clears = g.clearing && !g.rebase_to_log;
                todo = clears.then(|| (g.lives, std::mem::take(&mut g.retired)));
            });
            if let Some((lives, files)) = todo {
                self.remove_retired(source, group, lives, files)?;
            }
            let _ = self.take_arrived(source, group); // without room it is tried again
        }
        Ok(())
    }

    fn remove_retired(
        &self,
        source: &dyn FlushSource,
        group: GroupId,
        lives: u64,
        files: Vec<Arc<BaseFile>>,
    ) -> Result<(), LogError> {
        let removed = files.iter().try_for_each(|f| f.remove()).and_then(|()| match files.first() {
            Some(f) => f.sync_names(),
            None => Ok(()),
        });
        source.with_group(group, &mut |g| {
            if removed.is_err() {
                g.retired.extend(files.iter().cloned());
            } else if g.lives == lives && g.retired.is_empty() {
                g.clearing = false;
            }
            g.owe();
        });
        removed.map_err(base_error)
    }

    /// Writes a batch about a group's base files, unless the group was rebased since, or removed: then false.
    pub(crate) fn write_of_life(
        &self,
        source: &dyn FlushSource,
        group: GroupId,
        lives: u64,
        batch: Batch,
    ) -> Result<bool, LogError> {
        // The flusher tells the log of a rebase, so none gets there between the look and the write.
        let _no_flush = lock(&self.flushing);
        let mut same = false;
        source.with_group(group, &mut |g| same = g.lives == lives);
        if same {
            self.write_batch(batch)?;
        }
        Ok(same)
    }
}
