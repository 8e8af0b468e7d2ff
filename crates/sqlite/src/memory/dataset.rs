//! A dataset as one process has it.

use super::faults::Call;
use super::group::Group;
use dspm_proto::{Error, Lsn, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{AsOf, Change, Dataset, DatasetStatus, Intent, Reserved, Snapshot, Ticket};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// One process's view of a [`Group`].
pub struct MemoryDataset {
    group: Arc<Group>,
    process: u64,
}

impl MemoryDataset {
    pub(super) fn new(group: Arc<Group>, process: u64) -> MemoryDataset {
        MemoryDataset { group, process }
    }

    /// Waits at most `wait` until the ticket's turn has come.
    fn wait_for_turn(&self, ticket: Ticket, wait: Duration) {
        let end = Instant::now() + wait;
        let mut state = self.group.locked();
        while !state.lease.is_free_for(self.process, Some(ticket.0)) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.group.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.lease.owner = Some(self.process);
    }
}

impl Dataset for MemoryDataset {
    fn snapshot(&self, intent: Intent) -> Result<Snapshot, Error> {
        if let Intent::Write { ticket: Some(ticket), wait } = intent {
            self.wait_for_turn(ticket, wait);
        }
        let mut state = self.group.locked();
        state.faults.check(Call::Snapshot)?;
        Ok(state.snapshot())
    }

    fn snapshot_as_of(&self, at: AsOf) -> Result<Snapshot, Error> {
        let mut state = self.group.locked();
        state.faults.check(Call::Snapshot)?;
        match at {
            AsOf::Lsn(lsn) => state.snapshot_at(lsn),
            AsOf::Ago(_) => Err(Error::TooOld("when a commit was made is not kept here".into())),
        }
    }

    fn release(&self, snapshot: Snapshot) {
        let mut state = self.group.locked();
        let known = snapshot.lsn <= state.lsn() || snapshot.epoch < state.epoch;
        assert!(state.pins > 0 && known, "released once");
        state.pins -= 1;
    }

    fn read(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error> {
        assert!(at + buf.len() <= PAGE_SIZE, "inside one page");
        let mut state = self.group.locked();
        state.reads += 1;
        state.faults.check(Call::Read)?;
        state.check_epoch(snapshot)?;
        match state.page_at(page, snapshot.lsn) {
            Some(content) => buf.copy_from_slice(&content[at..at + buf.len()]),
            None => buf.fill(0),
        }
        let offset = page.0 * PAGE_SIZE as u64 + at as u64;
        let there = snapshot.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[there..].fill(0);
        Ok(())
    }

    fn reserve(&self, snapshot: &Snapshot, ticket: Option<Ticket>) -> Result<Reserved, Error> {
        let mut state = self.group.locked();
        state.faults.check(Call::Reserve)?;
        state.check_epoch(snapshot)?;
        let ticket = ticket.map(|t| t.0);
        if !state.lease.is_free_for(self.process, ticket) {
            return Ok(Reserved::Busy(Ticket(state.lease.queue(ticket))));
        }
        state.lease.owner = Some(self.process);
        if state.lsn() != snapshot.lsn {
            return Ok(Reserved::Stale);
        }
        state.lease.reserved = true;
        if let Some(ticket) = ticket {
            state.lease.forget(ticket);
        }
        Ok(Reserved::Granted)
    }

    fn forget(&self, ticket: Ticket) {
        self.group.locked().lease.forget(ticket.0);
        self.group.changed.notify_all();
    }

    fn commit(&self, snapshot: &mut Snapshot, change: &Change<'_>) -> Result<Lsn, Error> {
        let mut state = self.group.locked();
        state.faults.check(Call::Commit)?;
        state.check_epoch(snapshot)?;
        if !state.lease.reserved || state.lease.owner != Some(self.process) || state.lsn() != snapshot.lsn {
            return Err(Error::Conflict("another commit came first".into()));
        }
        let lsn = state.apply(change);
        state.faults.check(Call::Committed)?;
        (snapshot.lsn, snapshot.size, snapshot.pin) = (lsn, change.size, lsn.0);
        snapshot.epoch = state.epoch;
        Ok(lsn)
    }

    fn confirm(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let mut state = self.group.locked();
        state.faults.check(Call::Confirm)?;
        match state.lease.reserved && state.lease.owner == Some(self.process) && state.lsn() == snapshot.lsn {
            true => Ok(()),
            false => Err(Error::Conflict("another commit came first".into())),
        }
    }

    fn release_write(&self) {
        let mut state = self.group.locked();
        assert!(state.lease.reserved && state.lease.owner == Some(self.process), "ended by who has it");
        state.lease.reserved = false;
        self.group.changed.notify_all();
    }

    fn is_reserved(&self) -> bool {
        let state = self.group.locked();
        state.lease.reserved && state.lease.owner == Some(self.process)
    }

    fn hold(&self, keep: bool) {
        let mut state = self.group.locked();
        if keep {
            state.lease.kept.insert(self.process);
        } else {
            state.lease.kept.remove(&self.process);
            self.group.changed.notify_all();
        }
    }

    fn status(&self) -> DatasetStatus {
        let state = self.group.locked();
        DatasetStatus {
            mode: "memory".into(),
            dataset: self.group.name().into(),
            lsn: state.lsn(),
            durability: "memory".into(),
            copies: 1,
            copies_now: 1,
            lease: if state.lease.owner == Some(self.process) { "held" } else { "none" }.into(),
            transport: "shm".into(),
            cache_hits: state.reads,
            ..DatasetStatus::default()
        }
    }
}
