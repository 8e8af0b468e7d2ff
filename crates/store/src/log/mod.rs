//! The disk log: one sequence of flush batches in preallocated segments. Drawn in docs/formats/disk-log.md.
//!
//! Invariants: batch b + 1 is written only after b's sync returned; nothing is written that needs new space, because a
//! segment is filled with zeros, synced and has its header before it is used; segments are freed from the oldest on.
//! Fault model: [`crate::disk`]. A failed write or sync is final: the caller makes the store suspect.

mod batch;
mod check;
mod marks;
mod scan;
mod segment;
mod window;

pub(crate) use batch::{Batch, FLAG_DROP, entry_len};
pub(crate) use scan::{LogEntry, Scan};
pub(crate) use segment::Segment;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use dspm_proto::{Error, GroupId, Lsn};

use crate::disk::Disk;
use segment::FIRST;

/// Batches start at multiples of this, so that a torn write never touches a synced batch.
pub(crate) const ALIGN: u64 = crate::disk::ALIGN as u64;
/// Free segments that are kept for reuse.
const POOL_MAX: usize = 4;

/// The log, open for writing.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// Oldest first; the last one is written to.
    live: VecDeque<Segment>,
    /// Prepared: the next one to write to.
    spare: Option<Segment>,
    pool: Vec<Segment>,
    at: u64,
    batch: u64,
    next_id: u64,
    next_name: u64,
}

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) enum LogError {
    /// The disk is full, which showed before anything was written. Try again later.
    Stalled(String),
    /// A write or sync failed: nothing is known about what the disk holds.
    Failed(String),
}

impl Log {
    /// Opens what is in the directory. The scan tells what was found, and whether it is whole.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64) -> Result<(Log, Scan), Error> {
        let mut scan = Scan::default();
        let found = scan::find(&*disk, &dir, &mut scan)?;
        let mut log = Log {
            disk,
            dir,
            segment_bytes,
            live: VecDeque::new(),
            spare: None,
            pool: found.unused,
            at: FIRST,
            batch: 1,
            next_id: found.live.last().map_or(1, |s| s.id + 1),
            next_name: found.next_name,
        };
        log.live = scan::read_all(found.live, &mut scan)?.into();
        (log.at, log.batch) = (scan.end, scan.next_batch);
        // The last process may have ended between the last batch's write and its sync; it counts from here on.
        if let Some(last) = log.live.get(scan.last_segment) {
            last.file.sync()?;
        }
        // The one behind the last batch was prepared; what a torn batch left in it goes with its salt.
        let behind = log.live.len().min(scan.last_segment + 1);
        for segment in log.live.split_off(behind) {
            if log.spare.is_none() && scan.damage.is_none() {
                log.next_id = segment.id + 1;
                log.spare = Some(segment.reuse(log.next_id - 1)?);
            } else {
                log.pool.push(segment);
            }
        }
        Ok((log, scan))
    }

    /// Forgets everything: the log was damaged, and what it held is about to be written again.
    pub(crate) fn reset(&mut self) -> Result<(), Error> {
        self.pool.extend(self.live.drain(..));
        self.pool.extend(self.spare.take());
        for segment in &self.pool {
            segment.file.write_at(&[0; 64], 0)?;
            segment.file.sync()?;
        }
        (self.at, self.batch, self.next_id) = (FIRST, 1, 1);
        Ok(())
    }

    /// Bytes of segments that hold something.
    pub(crate) fn bytes(&self) -> u64 {
        self.live.iter().map(|s| s.len).sum()
    }

    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        self.at
    }

    /// Bytes that a batch may have: several fit into a segment.
    pub(crate) fn batch_max(&self) -> u64 {
        self.segment_bytes / 4
    }

    /// Writes a batch and syncs it.
    pub(crate) fn write(&mut self, batch: Batch) -> Result<(), LogError> {
        let need = batch.len_max();
        let fits = self.live.back().is_some_and(|s| self.at + need <= s.len);
        if !fits {
            self.next_segment(need)?;
        }
        let oldest = self.live.front().map_or(0, |s| s.id);
        let number = self.batch;
        let at = self.at;
        marks::note(self.live.make_contiguous(), batch.marks());
        let Some(segment) = self.live.back_mut() else { return Err(LogError::Failed("no segment".into())) };
        let failed = |e: std::io::Error| LogError::Failed(format!("log segment {}: {e}", segment.id));
        let file = &segment.file;
        let written = batch.write([segment.salt, number, oldest], |bytes, behind| file.write_at(bytes, at + behind));
        self.at = at + written.map_err(failed)?;
        file.sync().map_err(failed)?;
        self.batch += 1;
        Ok(())
    }

    fn next_segment(&mut self, need: u64) -> Result<(), LogError> {
        self.prepare(need)?;
        self.live.extend(self.spare.take());
        self.at = FIRST;
        Ok(())
    }

    /// Makes the next segment ready: space, zeros, header, all synced.
    pub(crate) fn prepare(&mut self, need: u64) -> Result<(), LogError> {
        let len = self.segment_bytes.max((FIRST + need).next_multiple_of(ALIGN));
        if self.spare.as_ref().is_some_and(|s| s.len >= len) {
            return Ok(());
        }
        if let Some(small) = self.spare.take() {
            // Its number goes to another file, so it must not be found under it.
            let erased = small.file.write_at(&[0; 64], 0).and_then(|()| small.file.sync());
            erased.map_err(|e| LogError::Failed(format!("log segment {}: {e}", small.id)))?;
            self.next_id -= 1;
            self.retire(small);
        }
        let reusable = self.pool.iter().position(|s| s.len >= len);
        let result = match reusable {
            Some(i) => self.pool.swap_remove(i).reuse(self.next_id),
            None => {
                let path = self.dir.join(format!("{:08}.seg", self.next_name));
                self.next_name += 1;
                Segment::blank(&*self.disk, &self.dir, path, len).and_then(|s| s.reuse(self.next_id))
            }
        };
        let segment = result.map_err(|e| LogError::Stalled(format!("no room for a log segment: {e}")))?;
        self.next_id += 1;
        self.spare = Some(segment);
        Ok(())
    }

    /// Bytes that batches can certainly take before a segment has to be made, in all and in one piece.
    pub(crate) fn room(&self) -> (u64, u64) {
        let most = self.batch_max();
        let usable = |len: u64, from: u64| len.saturating_sub(from + most);
        let ready = self.spare.iter().chain(&self.pool).filter(|s| s.len >= self.segment_bytes);
        let pieces = ready.map(|s| usable(s.len, FIRST)).chain(self.live.back().map(|s| usable(s.len, self.at)));
        pieces.fold((0, 0), |(sum, largest), piece| (sum + piece, largest.max(piece)))
    }

    /// What to make so that there is room for `more` and half a segment, and for a batch of `one`: directory, path, length.
    pub(crate) fn lacks_segment(&mut self, more: u64, one: u64) -> Option<(PathBuf, PathBuf, u64)> {
        let (room, piece) = self.room();
        if room >= self.segment_bytes / 2 + more && piece >= one {
            return None;
        }
        self.next_name += 1;
        let path = self.dir.join(format!("{:08}.seg", self.next_name - 1));
        let one = if piece >= one { 0 } else { one }; // one segment for the large record is enough
        let len = self.segment_bytes.max((FIRST + one + self.batch_max()).next_multiple_of(ALIGN));
        Some((self.dir.clone(), path, len))
    }

    /// A segment for the time when the last one is full.
    pub(crate) fn lay_by(&mut self, segment: Segment) {
        self.pool.push(segment);
    }

    /// Frees the oldest segments whose records are all in base files. `covered` has each group's checkpoint; a group
    /// that it lacks was removed.
    pub(crate) fn free_covered(&mut self, covered: &HashMap<GroupId, Lsn>) -> Result<(), LogError> {
        let needed = |s: &Segment| {
            let rebase = s.rebases.iter().any(|g| covered.contains_key(g));
            rebase || s.groups.iter().any(|(g, l)| covered.get(g).is_some_and(|c| c < l))
        };
        let free = self.live.iter().take(self.live.len().saturating_sub(1)).take_while(|s| !needed(s)).count();
        if free == 0 {
            return Ok(());
        }
        let kept = self.live.split_off(free);
        let freed = std::mem::replace(&mut self.live, kept);
        // An empty batch says that they are not needed any more, before they are gone.
        if let Err(e) = self.write(Batch::default()) {
            let kept = std::mem::replace(&mut self.live, freed);
            self.live.extend(kept);
            return Err(e);
        }
        freed.into_iter().for_each(|s| self.retire(s));
        Ok(())
    }

    fn retire(&mut self, mut segment: Segment) {
        let usual = (self.segment_bytes..=self.segment_bytes * POOL_MAX as u64).contains(&segment.len);
        if self.pool.len() >= POOL_MAX || !usual {
            let _ = self.disk.remove(&segment.path); // a file that stays is found and reused at the next start
            return;
        }
        segment.groups.clear();
        segment.rebases.clear();
        self.pool.push(segment);
    }

    /// Groups whose records keep the oldest segment, and how far.
    pub(crate) fn holders(&self) -> Vec<(GroupId, Lsn)> {
        self.live.front().map(|s| s.groups.iter().map(|(g, l)| (*g, *l)).collect()).unwrap_or_default()
    }

    /// Number of segments in use.
    pub(crate) fn segments(&self) -> usize {
        self.live.len()
    }
}
