//! Checkpoints, freeing of log segments, and eviction: the second thread behind a store.
//!
//! It works beside the flusher, so that a long checkpoint never delays a flush. A group's lock is held for a few
//! hundred pages at a time.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use dspm_proto::{Error, GroupId};

use crate::arena::lock;
use crate::base::BaseFile;
use crate::checkpoint::{name_checkpoint, write_base};
use crate::flush::GroupWork;
use crate::flusher::FlushSource;
use crate::layout::FrameNo;
use crate::log::{Batch, LogError, Segment};
use crate::meta::Use;
use crate::room::Stalls;
use crate::store::Store;

/// Frames that eviction looks at before it takes locks.
const SPAN: usize = 4096;

impl Store {
    /// Checkpoints where the log is long, frames are short, or the log has a gap; then gives frames back.
    pub(crate) fn maintain(&self, source: &dyn FlushSource) -> Result<(), LogError> {
        let _one_at_a_time = lock(&self.maintaining);
        self.finish_rebases(source)?;
        let gaps: Vec<_> = std::mem::take(&mut *lock(&self.gaps)).into_iter().collect();
        for group in gaps {
            self.checkpoint(source, group, true)?;
        }
        self.arena.reserve.drop_old_claim();
        self.shorten_log(source)?;
        self.lay_segments_by();
        let wanted = (self.arena.layout.frames as usize / 8).max(self.arena.wanted.swap(0, Ordering::Relaxed));
        if self.arena.free_pages() < wanted {
            self.make_room(source, wanted)?;
        }
        Ok(())
    }

    fn shorten_log(&self, source: &dyn FlushSource) -> Result<(), LogError> {
        let holders = {
            let log = lock(&self.log);
            let short = log.bytes() > self.options.memory / 2 && log.segments() > 2;
            let stalled = self.is_stalled() || self.stalled_next.load(Ordering::Acquire);
            if !(short || stalled && log.segments() > 1) {
                return Ok(());
            }
            log.holders()
        };
        for (group, lsn) in holders {
            let behind = lock(&self.covered).get(&group).is_some_and(|c| *c < lsn);
            if behind {
                self.checkpoint(source, group, false)?;
            }
        }
        self.free_segments()
    }

    /// Makes segments before they are needed: commits are taken in as far as there is room for them, so a full disk shows
    /// before one depends on it. The log is not held meanwhile.
    fn lay_segments_by(&self) {
        let one = self.log_wanted.swap(0, Ordering::Relaxed);
        let more = one + self.log_need(0) * 2;
        loop {
            let Some((dir, path, len)) = lock(&self.log).lacks_segment(more, one) else {
                return Stalls::note(&self.stalls.next, &self.stalled_next, &Ok(()));
            };
            match Segment::blank(&*self.disk, &dir, path, len) {
                Ok(s) => {
                    let mut log = lock(&self.log);
                    log.lay_by(s);
                    self.note_log(&log);
                }
                Err(e) => {
                    let stalled = LogError::Stalled(format!("its disk has no room for the next log segment: {e}"));
                    return Stalls::note(&self.stalls.next, &self.stalled_next, &Err(stalled));
                }
            }
        }
    }

    pub(crate) fn free_segments(&self) -> Result<(), LogError> {
        let covered = lock(&self.covered).clone();
        let mut log = lock(&self.log);
        let freed = log.free_covered(&covered);
        self.note_log(&log);
        freed
    }

    fn make_room(&self, source: &dyn FlushSource, wanted: usize) -> Result<(), LogError> {
        self.evict(source, wanted);
        if self.arena.free_pages() >= wanted {
            return Ok(());
        }
        let groups: Vec<_> = lock(&self.covered).keys().copied().collect();
        for group in groups {
            self.checkpoint(source, group, false)?;
            source.with_group(group, &mut |g| g.shrink());
        }
        self.evict(source, wanted);
        Ok(())
    }

    /// Gives frames back whose content is on disk, in the order of the frame table, at most one time around.
    pub(crate) fn evict(&self, source: &dyn FlushSource, wanted: usize) -> usize {
        let frames = self.arena.layout.frames as usize;
        let (mut freed, mut looked) = (0, 0);
        while looked < frames && self.arena.free_pages() < wanted {
            let from = self.arena.hand.fetch_add(SPAN, Ordering::Relaxed);
            let mut by_group: HashMap<GroupId, Vec<FrameNo>> = HashMap::new();
            for i in from..from + SPAN.min(frames - looked) {
                let frame = self.arena.layout.frame(i % frames);
                if let Ok(Some(m)) = self.arena.meta(frame) {
                    if m.used == Use::Page {
                        by_group.entry(m.group).or_default().push(frame);
                    }
                }
            }
            looked += SPAN;
            for (group, frames) in by_group {
                let still = wanted.saturating_sub(self.arena.free_pages());
                let some = &frames[..frames.len().min(still)];
                source.with_group(group, &mut |g| freed += g.evict(some));
            }
        }
        freed
    }

    /// Brings a group's base files up to date, in the order that `checkpoint` describes. True when they moved.
    pub(crate) fn checkpoint(&self, source: &dyn FlushSource, group: GroupId, bridge: bool) -> Result<bool, LogError> {
        let dir = self.base_dir();
        let new_file = |dataset| BaseFile::new(self.disk.clone(), &dir, dataset);
        let mut work = None;
        source.with_group(group, &mut |g| work = g.checkpoint_work(&new_file, bridge));
        let Some(mut work) = work else { return Ok(false) };
        let written = self.write_checkpoint(source, &mut work);
        let (mut told, mut done) = (false, false);
        source.with_group(group, &mut |g| {
            (told, done) = (true, matches!(written, Ok(true)) && g.lives == work.lives);
            if done {
                g.checkpoint_done(&work);
            } else if g.lives == work.lives {
                g.checkpoint_given_up();
            } else {
                g.retire(work.datasets.iter().map(|d| d.file.clone()));
            }
        });
        if !told {
            // The group was removed meanwhile; the log may name it again, and new files are nobody's.
            let files = work.datasets.into_iter().map(|d| d.file).collect();
            lock(&self.drops).push((group, files));
            return Ok(false);
        }
        written?;
        if done {
            lock(&self.covered).insert(group, work.at.lsn);
        }
        Ok(done)
    }

    /// False when the group was told to forget all that, or removed, before the log heard of it.
    fn write_checkpoint(&self, source: &dyn FlushSource, work: &mut GroupWork) -> Result<bool, LogError> {
        let group = work.group;
        let mut take = |w: &_, leaves: &[u64]| {
            let mut pages = Vec::new();
            source.with_group(group, &mut |g| pages = g.checkpoint_pages(w, leaves));
            pages
        };
        write_base(work, &mut take).map_err(base_error)?;
        let mut batch = Batch::default();
        let datasets: Vec<_> = work.datasets.iter().map(|d| d.checkpoint).collect();
        batch.checkpoint(group, work.at, &datasets);
        if !self.write_of_life(source, group, work.lives, batch)? {
            return Ok(false);
        }
        // From here on the log stands for what the base files hold: there is no way back.
        name_checkpoint(work).map_err(|e| LogError::Failed(format!("base file: {e}")))?;
        Ok(true)
    }

    /// Checkpoints every group now and frees what the log no longer needs: before an export, or a long rest.
    ///
    /// # Errors
    /// [`Error::Full`] without room on the disk; [`Error::Failed`] when it fails: the store is suspect then.
    pub fn checkpoint_all(&self, source: &dyn FlushSource) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.maintaining);
        let groups: Vec<_> = lock(&self.covered).keys().copied().collect();
        let all = groups.into_iter().try_for_each(|g| self.checkpoint(source, g, false).map(|_| ()));
        all.and_then(|()| self.free_segments()).map_err(|e| self.told(e, source))
    }
}

pub(crate) fn base_error(e: Error) -> LogError {
    match e {
        Error::Full(t) => LogError::Stalled(format!("base file: {t}")),
        other => LogError::Failed(format!("base file: {other}")),
    }
}
