//! The thread that brings records to disk.
//!
//! Invariants: no group is locked while the disk works; a log write that failed is never tried again: the store is
//! suspect from then on, says so, and gets a new name at the next start. A full disk shows before anything is
//! written, as a rule before a commit is taken in that needs the room: the store is stalled, nothing is lost, and both
//! threads try again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dspm_proto::{Error, GroupId, Lsn, PAGE_SIZE};

use crate::arena::lock;
use crate::flush::Ticket;
use crate::group::GroupStore;
use crate::log::{Batch, Log, LogError};
use crate::room::Stalls;
use crate::store::Store;

/// Pause of a stalled flusher, and between looks at log and arena.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

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
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.store.arena.kick.now();
        self.store.arena.short.now();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join(); // a panic in it was printed there
        }
    }
}

impl Store {
    /// Starts the threads that flush, and that keep log and arena short. From now on "clean" means "in the synced
    /// log".
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no thread can be made.
    pub fn start_flusher(self: &Arc<Self>, groups: Arc<dyn FlushSource>) -> Result<Flusher, Error> {
        self.arena.disk.store(true, Ordering::Release);
        self.arena.flush_at.store(self.options.dirty_max / 2 / PAGE_SIZE as u64, Ordering::Release);
        let retention_ms = self.options.outcome_retention.as_millis() as u64;
        self.arena.outcome_retention_ms.store(retention_ms, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let mut flusher = Flusher { store: self.clone(), stop: stop.clone(), threads: Vec::new() };
        let (store, stopped, source) = (self.clone(), stop.clone(), groups.clone());
        let flush = move || {
            while !stopped.load(Ordering::Acquire) && !store.is_suspect() {
                store.arena.kick.wait(store.options.flush_interval.max(Duration::from_millis(1)));
                store.flush_only(&*source);
                if store.is_stalled() {
                    std::thread::park_timeout(store.options.flush_interval.clamp(PAUSE_MIN, PAUSE_MAX));
                }
            }
            store.flush_only(&*source);
        };
        flusher.threads.push(std::thread::Builder::new().name("dspm-flush".into()).spawn(flush)?);
        let store = self.clone();
        let maintain = move || {
            while !stop.load(Ordering::Acquire) && !store.is_suspect() {
                std::thread::sleep(PAUSE_MIN); // one round for all that find no room at the same time
                store.arena.short.wait(store.options.flush_interval.clamp(PAUSE_MIN, PAUSE_MAX) - PAUSE_MIN);
                store.settle_round(store.maintain(&*groups), &*groups);
            }
        };
        flusher.threads.push(std::thread::Builder::new().name("dspm-checkpoint".into()).spawn(maintain)?);
        Ok(flusher)
    }

    /// Asks for the group's records to be flushed now; [`FlushSource::flushed`] tells when. What is appended while a
    /// batch is written goes with the next one.
    pub fn request_flush(&self, _group: GroupId, _lsn: Lsn) {
        self.arena.kick.now();
    }

    /// True while the disk has no room for what the log has to take.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    pub(crate) fn note_log(&self, log: &Log) {
        self.log_bytes.store(log.bytes(), Ordering::Relaxed);
        for (shown, bytes) in self.log_room.iter().zip(<[u64; 2]>::from(log.room())) {
            shown.store(bytes, Ordering::Relaxed);
        }
    }

    /// True once a write or sync of the log failed.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// One round by hand: everything that is dirty now, then what maintenance asks for.
    pub fn flush_round(&self, source: &dyn FlushSource) {
        self.flush_only(source);
        if !self.is_suspect() && !self.is_stalled() {
            self.settle_round(self.maintain(source), source);
        }
    }

    fn flush_only(&self, source: &dyn FlushSource) {
        let _one_at_a_time = lock(&self.flushing);
        if self.is_suspect() {
            return;
        }
        self.arena.backlog.flush_begins();
        let result = self.flush_all(source);
        if result.is_ok() {
            self.arena.backlog.flush_ended();
        }
        Stalls::note(&self.stalls.now, &self.stalled, &result);
        self.settle_round(result, source);
    }

    /// A stall ends by itself; a failure does not.
    fn settle_round(&self, result: Result<(), LogError>, source: &dyn FlushSource) {
        if let Err(LogError::Failed(reason)) = result {
            self.become_suspect(&reason);
            source.suspect(&reason);
        }
    }

    fn flush_all(&self, source: &dyn FlushSource) -> Result<(), LogError> {
        self.log_drops()?;
        let _ = self.remove_dropped(); // tried again in the next round; who waits for it is told by `sync_drops`
        let mut todo: VecDeque<GroupId> = source.dirty_groups().into();
        let owed: Vec<_> = lock(&self.arena.owed).iter().copied().filter(|g| !todo.contains(g)).collect();
        todo.extend(owed);
        while !todo.is_empty() {
            let (batch, tickets) = self.collect(source, &mut todo);
            if batch.is_empty() {
                continue;
            }
            self.write_batch(batch)?;
            for t in &tickets {
                let mut done = None;
                source.with_group(t.group, &mut |g| {
                    done = g.ticket_done(t);
                    if t.rebase.is_some() {
                        lock(&self.covered).insert(t.group, g.checkpointed());
                        self.arena.short.now(); // base files of before may go now
                    }
                });
                if let Some(lsn) = done {
                    source.flushed(t.group, lsn);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn write_batch(&self, batch: Batch) -> Result<(), LogError> {
        let mut log = lock(&self.log);
        let done = log.write(batch);
        self.note_log(&log);
        done
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
            let Some(mut ticket) = ticket else { continue };
            if let Some(id) = ticket.rebase {
                batch.rebase(group, id);
            }
            if let Some(to) = ticket.cut {
                batch.cut(group, to);
            }
            ticket.records.drain(..).for_each(|r| batch.record(r));
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

    /// Brings removals into the log and removes their base files, so that no later start finds their groups again.
    ///
    /// # Errors
    /// [`Error::Full`] without room on the disk: they stay to be told to it; [`Error::Failed`] when it fails: the store
    /// is suspect then; those of the file system for a base file that cannot be removed: it is tried again.
    pub fn sync_drops(&self, source: &dyn FlushSource) -> Result<(), Error> {
        // A checkpoint that was under way when its group was removed names the group in the log once more, behind the
        // removal, and leaves that to be removed again: it is over when this goes on.
        let _no_checkpoint = lock(&self.maintaining);
        let _one_at_a_time = lock(&self.flushing);
        if self.is_suspect() {
            return Err(Error::Failed("the log failed".into()));
        }
        self.log_drops().map_err(|e| self.told(e, source))?;
        self.remove_dropped()
    }

    /// A failed log as an error, after everybody was told.
    pub(crate) fn told(&self, e: LogError, source: &dyn FlushSource) -> Error {
        match e {
            LogError::Stalled(t) => Error::Full(t),
            LogError::Failed(t) => {
                self.become_suspect(&t);
                source.suspect(&t);
                Error::Failed(t)
            }
        }
    }

    fn log_drops(&self) -> Result<(), LogError> {
        let drops = std::mem::take(&mut *lock(&self.drops));
        if drops.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        drops.iter().for_each(|(group, _)| batch.drop_group(*group));
        if let Err(e) = self.write_batch(batch) {
            lock(&self.drops).extend(drops);
            return Err(e);
        }
        for (group, files) in drops {
            lock(&self.covered).remove(&group);
            lock(&self.dropped).extend(files.into_iter().map(|f| (group, f)));
        }
        Ok(())
    }

    /// Removes the base files of groups that the log says are gone. The log forgets them one day: a file that stayed
    /// until then would be found as a group again.
    pub(crate) fn remove_dropped(&self) -> Result<(), Error> {
        let mut dropped = lock(&self.dropped);
        if dropped.is_empty() {
            return Ok(());
        }
        let (mut failed, mut stay) = (Ok(()), Vec::new());
        for (group, file) in std::mem::take(&mut *dropped) {
            // One that is held again has files of the same names, and nobody begins to hold one meanwhile. Nor may they go
            // before the log says that it is gone once more, which who gives it up asks for before it is unknown.
            let known = lock(&self.known);
            let stays = known.contains(&group) || lock(&self.drops).iter().any(|d| d.0 == group);
            let removed = if stays { Ok(false) } else { file.remove().map(|()| true) };
            if let Err(e) = &removed {
                failed = Err(Error::Unavailable(format!("{} cannot be removed: {e}", file.path().display())));
            }
            if !matches!(removed, Ok(true)) {
                stay.push((group, file));
            }
        }
        *dropped = stay;
        drop(dropped);
        failed.and_then(|()| Ok(self.disk.sync_dir(&self.base_dir())?))
    }
}
