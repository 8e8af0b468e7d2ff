//! Giving memory back: versions below the horizon, records that nobody asks for any more, pages that are on disk.
//!
//! Invariants: the horizon is in the slot before the first version below it is freed; a state entry with everything
//! that dropped records said is in the ring before the head passes them. Neither passes `committed` or `clean`.

use dspm_proto::codec::{Reader, Writer};
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::{DatasetId, Error, Generation, Header, Kind, Lsn, PAGE_SIZE, Part, RecordId, limits};
use std::sync::atomic::Ordering;

use crate::group::{GroupStore, Hidden};
use crate::index::Dataset;
use crate::layout::FrameNo;
use crate::ring::padded;
use crate::room::Draw;
use crate::sessions::Sessions;
use crate::step::step;

impl GroupStore {
    /// Says that no snapshot below `lsn` is read any more; frees what only those saw. What is not yet committed, or
    /// not yet in the log, stays and goes later.
    pub fn set_horizon(&mut self, lsn: Lsn) {
        self.wanted = self.wanted.max(lsn);
        let held = self.checkpoint_at.unwrap_or(Lsn(u64::MAX));
        let horizon = self.wanted.min(self.slot.committed).min(self.clean()).min(held);
        if horizon <= self.slot.horizon {
            return;
        }
        self.slot.horizon = horizon;
        self.place.write(&self.arena, &mut self.slot);
        self.prune_superseded();
        self.datasets.values_mut().for_each(|d| d.prune_sizes(horizon));
    }

    /// Frees what is out of sight at the horizon. What is not known to be committed stays: a group rebuilt from disk
    /// may have to send such records to a member whose log ends earlier.
    pub(crate) fn prune_superseded(&mut self) {
        self.prune_superseded_at(self.slot.horizon.min(self.slot.committed));
    }

    /// Frees what is out of sight at an LSN.
    pub(crate) fn prune_superseded_at(&mut self, horizon: Lsn) {
        while let Some((at, id, hidden)) = self.superseded.front().copied().filter(|s| s.0 <= horizon) {
            self.superseded.pop_front();
            self.prune_hidden(at, id, hidden, horizon);
        }
    }

    fn prune_hidden(&mut self, at: Lsn, id: DatasetId, hidden: Hidden, horizon: Lsn) {
        let Some(d) = self.datasets.get_mut(&id) else { return };
        match hidden {
            Hidden::Page(page) => d.prune(&self.arena, page, horizon),
            Hidden::From(first) => d.prune_from(&self.arena, at, first, horizon),
        };
    }

    /// Bytes of versions that would be freed if nobody read below the tail: what a stuck reader costs
    /// (`history_max`). What waits for the disk or a checkpoint is not the reader's.
    pub fn history_bytes(&self) -> u64 {
        let held = self.checkpoint_at.unwrap_or(Lsn(u64::MAX));
        let free_otherwise = self.slot.committed.min(self.clean()).min(held);
        (self.superseded.partition_point(|s| s.0 <= free_otherwise) * PAGE_SIZE) as u64
    }

    /// True when half of the ring's share holds records that are not in the log: nothing can be folded soon.
    pub(crate) fn wants_flush(&self) -> bool {
        let share = (self.arena.ring_budget().max(16) * PAGE_SIZE) as u64;
        let first = self.kept(self.slot.flushed.next()).map_or(self.ring.end(), |k| k.position);
        (self.ring.end() - first) * 2 >= share
    }

    /// The lowest snapshot that is kept.
    pub fn horizon(&self) -> Lsn {
        self.slot.horizon
    }

    /// Makes room in the ring; drops old records first when the group has more than its share.
    pub(crate) fn reserve(&mut self, meta_len: usize, draw: Draw) -> Result<(), Error> {
        let budget = self.arena.ring_budget();
        if self.ring.parts() > budget {
            self.fold(budget / 2, self.records.len() / 4 + 1)?;
        }
        match self.ring.reserve(meta_len, draw) {
            Err(_) if self.base.lsn < self.droppable() => {
                self.fold(0, 1)?;
                self.ring.reserve(meta_len, draw)
            }
            other => other,
        }
    }

    fn droppable(&self) -> Lsn {
        self.slot.committed.min(self.clean()).min(self.forgettable())
    }

    /// Drops the oldest records until `parts` parts of the ring are left, as far as they are committed and flushed.
    /// Their content stays; what goes is that they can be sent again, and named as changes. Nothing is done for fewer
    /// than `least` records.
    pub(crate) fn fold(&mut self, parts: usize, least: usize) -> Result<(), Error> {
        let wanted = self.ring.end().saturating_sub((parts * PAGE_SIZE) as u64);
        let may = (self.droppable().0.saturating_sub(self.base.lsn.0) as usize).min(self.records.len());
        let drop = self.records.partition_point(|k| k.position < wanted).min(may);
        // A prepared record goes together with the one that says what became of it.
        let split = drop > 0 && self.records[drop - 1].part == Part::Prepared;
        let drop = drop - usize::from(split);
        if drop < least {
            return Ok(());
        }
        let base = self.record_id(Lsn(self.base.lsn.0 + drop as u64));
        let base = base.ok_or_else(|| Error::Corrupt("a record of the ring cannot be read".into()))?;
        let Some(state_at) = self.push_state(base)? else { return Ok(()) };
        step("state entry");
        self.records.drain(..drop);
        self.base = base;
        self.slot.head = self.records.front().map_or(state_at, |k| k.position);
        self.place.write(&self.arena, &mut self.slot);
        self.ring.drop_before(self.slot.head);
        Ok(())
    }

    /// Drops all records that may be dropped; for a group that rests while memory is short.
    pub fn shrink(&mut self) {
        if (self.ring.parts() > 1 || self.records.len() > 4) && self.base.lsn < self.droppable() {
            let _ = self.fold(0, 1); // without room for the state entry it keeps its records
        }
    }

    /// Writes a state entry; None when it would be too long.
    pub(crate) fn push_state(&mut self, base: RecordId) -> Result<Option<u64>, Error> {
        let meta = self.encode_state(base);
        if meta.len() as u32 > limits::RECORD_META_MAX {
            return Ok(None);
        }
        self.ring.reserve(meta.len(), Draw::Keep)?;
        let mut header = Header::new(Kind::Checkpoint).for_meta(&meta);
        (header.group, header.lsn, header.generation) = (self.id(), base.lsn, base.generation);
        Ok(Some(self.ring.push(header, &meta)))
    }

    fn encode_state(&self, base: RecordId) -> Vec<u8> {
        let mut w = Writer::default();
        for id in [base, self.tail] {
            w.u64(id.generation.0).u64(id.lsn.0).u64(id.hash);
        }
        w.u32(self.datasets.len() as u32).u32(self.sessions.len() as u32);
        for d in self.datasets.values() {
            w.u64(d.id.0).u64(d.forgotten.0);
            w.u32(d.sizes.len() as u32).u32(d.truncations.len() as u32).u32(d.zeros.len() as u32).u32(0);
            d.sizes.iter().for_each(|(l, size)| {
                w.u64(l.0).u64(*size);
            });
            d.truncations.iter().for_each(|(l, first)| {
                w.u64(l.0).u64(*first);
            });
            d.zeros.iter().for_each(|(page, l)| {
                w.u64(l.0).u64(*page);
            });
        }
        self.sessions.encode(&mut w, self.arena.outcome_retention_ms.load(Ordering::Relaxed));
        w.bytes
    }

    /// Takes a state entry's content for what was known so far.
    pub(crate) fn load_state(&mut self, meta: &[u8]) -> Result<(RecordId, RecordId), Error> {
        let mut r = Reader::new(meta);
        let mut id = || -> Result<RecordId, Error> {
            Ok(RecordId { generation: Generation(r.u64()?), lsn: Lsn(r.u64()?), hash: r.u64()? })
        };
        let (base, tail) = (id()?, id()?);
        let (datasets, sessions) = (r.u32()?, r.u32()?);
        self.datasets.clear();
        for _ in 0..datasets {
            let d = read_dataset(&mut r)?;
            self.datasets.insert(d.id, d);
        }
        self.sessions = Sessions::decode(&mut r, sessions)?;
        r.end()?;
        Ok((base, tail))
    }

    /// Gives those of the frames back whose content is in the base file, and that have no other version.
    pub(crate) fn evict(&mut self, frames: &[FrameNo]) -> usize {
        let mut freed = 0;
        for f in frames {
            let Ok(Some(m)) = self.arena.meta(*f) else { continue };
            let Some(d) = self.datasets.get_mut(&m.dataset).filter(|_| m.group == self.slot.group) else { continue };
            let on_disk = d.base.as_ref().is_some_and(|b| m.lsn <= b.lsn);
            if on_disk && d.newest(m.page.0) == *f && self.arena.older(*f) == FrameNo::NONE {
                d.pop_newest(&self.arena, m.page.0);
                self.arena.free(*f);
                freed += 1;
            }
        }
        freed
    }

    /// Bytes of the ring that a record of this much metadata takes.
    pub fn ring_bytes(meta_len: usize) -> usize {
        HEADER_SIZE + padded(meta_len)
    }
}

fn read_dataset(r: &mut Reader<'_>) -> Result<Dataset, Error> {
    let mut d = Dataset::new(DatasetId(r.u64()?));
    d.forgotten = Lsn(r.u64()?);
    let (sizes, cuts, zeros, _) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    for _ in 0..sizes {
        d.sizes.push((Lsn(r.u64()?), r.u64()?));
    }
    for _ in 0..cuts {
        d.truncations.push((Lsn(r.u64()?), r.u64()?));
    }
    for _ in 0..zeros {
        let lsn = Lsn(r.u64()?);
        d.zeros.insert((r.u64()?, lsn));
    }
    Ok(d)
}
