//! A dataset as one process has it.

use super::faults::Call;
use super::group::{Group, State};
use dspm_proto::{Error, Lsn, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{AsOf, Change, Dataset, DatasetStatus, Intent, Other, Reserved, Snapshot, Ticket};
use std::any::Any;
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

    /// Whether a commit on top of that snapshot can take place now.
    fn may_commit(&self, state: &mut State, snapshot: &Snapshot) -> Result<(), Error> {
        state.faults.check(Call::Commit)?;
        state.check_epoch(snapshot)?;
        let writes = state.lease.reserved && state.lease.owner == Some(self.process);
        match writes && state.lsn() == snapshot.lsn {
            true => Ok(()),
            false => Err(Error::Conflict("another commit came first".into())),
        }
    }
}

/// The snapshot becomes the state that a commit of that size made.
fn show(state: &State, snapshot: &mut Snapshot, lsn: Lsn, size: u64) {
    (snapshot.lsn, snapshot.size, snapshot.pin, snapshot.epoch) = (lsn, size, lsn.0, state.epoch);
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
        self.commit_with(snapshot, change, &mut [])
    }

    /// All groups are locked at once, in the order of their addresses: nobody sees a part of it.
    fn commit_with(
        &self,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
        others: &mut [Other<'_>],
    ) -> Result<Lsn, Error> {
        let own =
            |o: &Other<'_>| o.dataset.as_any().downcast_ref::<MemoryDataset>().map(|d| (d.group.clone(), d.process));
        let parts: Option<Vec<_>> = others.iter().map(own).collect();
        let parts = parts.ok_or_else(|| Error::Usage("datasets of two clusters cannot commit together".into()))?;
        let mut datasets = vec![MemoryDataset::new(self.group.clone(), self.process)];
        datasets.extend(parts.into_iter().map(|(group, process)| MemoryDataset::new(group, process)));
        let mut order: Vec<usize> = (0..datasets.len()).collect();
        order.sort_by_key(|i| Arc::as_ptr(&datasets[*i].group));
        if order.windows(2).any(|two| Arc::ptr_eq(&datasets[two[0]].group, &datasets[two[1]].group)) {
            return Err(Error::Usage("one dataset twice in one commit".into()));
        }
        let mut states: Vec<_> = order.iter().map(|i| (*i, datasets[*i].group.locked())).collect();
        states.sort_by_key(|(i, _)| *i);
        let mut parts = vec![(snapshot, change)];
        parts.extend(others.iter_mut().map(|o| (&mut *o.snapshot, o.change)));
        for ((i, state), (snapshot, _)) in states.iter_mut().zip(&parts) {
            datasets[*i].may_commit(state, snapshot)?;
        }
        let lsns: Vec<Lsn> = states.iter_mut().zip(&parts).map(|((_, s), (_, change))| s.apply(change)).collect();
        states.iter_mut().try_for_each(|(_, state)| state.faults.check(Call::Committed))?;
        for (((_, state), (snapshot, change)), lsn) in states.iter().zip(parts).zip(&lsns) {
            show(state, snapshot, *lsn, change.size);
        }
        Ok(lsns[0])
    }

    fn as_any(&self) -> &dyn Any {
        self
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
