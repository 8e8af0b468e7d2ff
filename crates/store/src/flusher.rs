//! The thread that brings records to disk, and base files up to date.
//!
//! Invariants: no group is locked while the disk works; a log write that failed is never tried again: the store is
//! suspect from then on, says so, and gets a new name at the next start. A full disk shows before anything is
//! written: the store is stalled, nothing is lost, and the flusher tries again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dspm_proto::{Error, GroupId, Lsn, PAGE_SIZE};

use crate::arena::lock;
use crate::base::BaseFile;
use crate::checkpoint::{name_checkpoint, write_base};
use crate::flush::{GroupWork, Ticket};
use crate::group::GroupStore;
use crate::log::{Batch, LogError};
use crate::store::Store;

/// Pause of a stalled flusher.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The node's side of flushing: it owns the groups and their locks.
pub trait FlushSource: Send + Sync {
    /// Groups that may have unflushed records.
    fn dirty_groups(&self) -> Vec<GroupId>;
    /// Runs `f` with the group locked; not at all when it is gone.
    fn with_group(&self, group: GroupId, f: &mut dyn FnMut(&mut GroupStore));
    /// Everything up to `lsn` is in the synced log. No lock is held.
    fn flushed(&self, group: GroupId, lsn: Lsn);
    /// The log failed: acknowledge nothing more under this store id. No lock is held.
    fn suspect(&self, reason: &str);
}

/// The running flusher; stops, after a last round, when dropped.
#[must_use = "the flusher stops when this is dropped"]
pub struct Flusher {
    store: Arc<Store>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.store.arena.kick.now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in it was printed there
        }
    }
}

impl Store {
    /// Starts the thread that flushes. From now on "clean" means "in the synced log".
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no thread can be made.
    pub fn start_flusher(self: &Arc<Self>, groups: Arc<dyn FlushSource>) -> Result<Flusher, Error> {
        self.arena.disk.store(true, Ordering::Release);
        self.arena.flush_at.store(self.options.dirty_max / 2 / PAGE_SIZE as u64, Ordering::Release);
        let stop = Arc::new(AtomicBool::new(false));
        let (store, stopped) = (self.clone(), stop.clone());
        let run = move || {
            while !stopped.load(Ordering::Acquire) && !store.is_suspect() {
                store.arena.kick.wait(store.options.flush_interval.max(Duration::from_millis(1)));
                store.flush_round(&*groups);
                if store.is_stalled() {
                    std::thread::sleep(store.options.flush_interval.clamp(RETRY_MIN, RETRY_MAX));
                }
            }
            store.flush_round(&*groups);
        };
        let thread = std::thread::Builder::new().name("dspm-flush".into()).spawn(run)?;
        Ok(Flusher { store: self.clone(), stop, thread: Some(thread) })
    }

    /// Asks for the group's records to be flushed now; [`FlushSource::flushed`] tells when. What is appended while a
    /// batch is written goes with the next one.
    pub fn request_flush(&self, _group: GroupId, _lsn: Lsn) {
        self.arena.kick.now();
    }

    /// True while the disk has no room for the log: commits should wait.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// True once a write or sync of the log failed.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// One round: everything that is dirty now, then what maintenance asks for. The flusher's thread calls it; tests
    /// and a closing node may, too.
    pub fn flush_round(&self, source: &dyn FlushSource) {
        let _one_at_a_time = lock(&self.rounds);
        if self.is_suspect() {
            return;
        }
        let result = self.flush_all(source).and_then(|()| self.maintain(source));
        self.stalled.store(matches!(result, Err(LogError::Stalled(_))), Ordering::Release);
        if let Err(LogError::Failed(reason)) = result {
            self.become_suspect(&reason);
            source.suspect(&reason);
        }
    }

    fn flush_all(&self, source: &dyn FlushSource) -> Result<(), LogError> {
        self.log_drops()?;
        let mut todo: VecDeque<GroupId> = source.dirty_groups().into();
        while !todo.is_empty() {
            let (batch, tickets) = self.collect(source, &mut todo);
            if batch.is_empty() {
                continue;
            }
            lock(&self.log).write(batch)?;
            for t in &tickets {
                let mut done = None;
                source.with_group(t.group, &mut |g| done = g.ticket_done(t));
                if let Some(lsn) = done {
                    source.flushed(t.group, lsn);
                }
            }
        }
        Ok(())
    }

    fn collect(&self, source: &dyn FlushSource, todo: &mut VecDeque<GroupId>) -> (Batch, Vec<Ticket>) {
        let most = lock(&self.log).batch_max();
        let (mut batch, mut tickets) = (Batch::default(), Vec::new());
        while let Some(group) = todo.pop_front() {
            let (mut ticket, mut gap) = (None, false);
            source.with_group(group, &mut |g| {
                ticket = g.ticket(most.saturating_sub(batch.len()));
                gap = ticket.is_none() && g.has_log_gap();
            });
            if gap {
                lock(&self.gaps).insert(group);
            }
            let Some(ticket) = ticket else { continue };
            if let Some(to) = ticket.cut {
                batch.cut(group, to);
            }
            ticket.records.iter().for_each(|r| batch.record(r));
            if ticket.more {
                todo.push_back(group);
            }
            tickets.push(ticket);
            if batch.len() >= most / 2 {
                break;
            }
        }
        (batch, tickets)
    }

    fn log_drops(&self) -> Result<(), LogError> {
        let drops = std::mem::take(&mut *lock(&self.drops));
        if drops.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        drops.iter().for_each(|(group, _)| batch.drop_group(*group));
        if let Err(e) = lock(&self.log).write(batch) {
            lock(&self.drops).extend(drops);
            return Err(e);
        }
        for (group, files) in drops {
            lock(&self.covered).remove(&group);
            for f in files {
                let _ = f.remove(); // a file that stays names a group that the log says is gone
            }
        }
        Ok(())
    }

    /// Checkpoints where the log is long, frames are short, or the log has a gap; then gives frames back.
    fn maintain(&self, source: &dyn FlushSource) -> Result<(), LogError> {
        let gaps: Vec<_> = std::mem::take(&mut *lock(&self.gaps)).into_iter().collect();
        for group in gaps {
            self.checkpoint(source, group, true)?;
        }
        let (long, holders) = {
            let log = lock(&self.log);
            (log.bytes() > self.options.memory / 2 && log.segments() > 2, log.holders())
        };
        if long {
            for (group, lsn) in holders {
                if lock(&self.covered).get(&group).is_some_and(|c| *c < lsn) {
                    self.checkpoint(source, group, false)?;
                }
            }
            lock(&self.log).free_covered(&lock(&self.covered));
        }
        let frames = self.arena.layout.frames as usize;
        if self.arena.free_pages() < frames / 8 {
            self.make_room(source, frames / 8)?;
        }
        Ok(())
    }

    fn make_room(&self, source: &dyn FlushSource, wanted: usize) -> Result<(), LogError> {
        let groups: Vec<_> = lock(&self.covered).keys().copied().collect();
        for checkpoint in [false, true] {
            for group in &groups {
                if self.arena.free_pages() >= wanted {
                    return Ok(());
                }
                if checkpoint {
                    self.checkpoint(source, *group, false)?;
                }
                source.with_group(*group, &mut |g| {
                    g.shrink();
                    g.evict(wanted.saturating_sub(self.arena.free_pages()));
                });
            }
        }
        Ok(())
    }

    /// Brings a group's base files up to date, in the order that `checkpoint` describes. True when they moved.
    pub(crate) fn checkpoint(&self, source: &dyn FlushSource, group: GroupId, bridge: bool) -> Result<bool, LogError> {
        let dir = self.base_dir();
        let new_file = |dataset| BaseFile::new(self.disk.clone(), &dir, dataset);
        let mut work = None;
        source.with_group(group, &mut |g| work = g.checkpoint_work(&new_file, bridge));
        let Some(work) = work else { return Ok(false) };
        write_base(&work).map_err(base_error)?;
        lock(&self.log).write(checkpoint_batch(&work))?;
        name_checkpoint(&work).map_err(base_error)?;
        source.with_group(group, &mut |g| g.checkpoint_done(&work));
        lock(&self.covered).insert(group, work.at.lsn);
        Ok(true)
    }

    /// Checkpoints every group now and frees what the log no longer needs: before an export, or a long rest.
    ///
    /// # Errors
    /// [`Error::Full`] without room on the disk; [`Error::Failed`] when it fails: the store is suspect then.
    pub fn checkpoint_all(&self, source: &dyn FlushSource) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.rounds);
        let groups: Vec<_> = lock(&self.covered).keys().copied().collect();
        let all = groups.into_iter().try_for_each(|g| self.checkpoint(source, g, false).map(|_| ()));
        let freed = all.map(|()| lock(&self.log).free_covered(&lock(&self.covered)));
        freed.map_err(|e| match e {
            LogError::Stalled(t) => Error::Full(t),
            LogError::Failed(t) => {
                self.become_suspect(&t);
                source.suspect(&t);
                Error::Failed(t)
            }
        })
    }
}

fn checkpoint_batch(work: &GroupWork) -> Batch {
    let mut batch = Batch::default();
    let datasets: Vec<_> = work.datasets.iter().map(|d| d.checkpoint).collect();
    batch.checkpoint(work.group, work.at, &datasets);
    batch
}

fn base_error(e: Error) -> LogError {
    match e {
        Error::Full(t) => LogError::Stalled(format!("base file: {t}")),
        other => LogError::Failed(format!("base file: {other}")),
    }
}
