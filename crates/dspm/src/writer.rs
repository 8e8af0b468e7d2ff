//! A write transaction: the process's and the group's one writer, from the reservation to its release.
//!
//! Two ways in: [`Writer::reserve`] waits and takes the newest state, for programs; [`Writer::reserve_at`] answers at
//! once and insists on the caller's snapshot, for engines whose callers have read already (SQLite: SHARED → RESERVED).
//!
//! Invariants: the snapshot is taken while the lease is here or before it was, never older than the reservation; a
//! place in the queue is kept between calls of [`Writer::reserve`] and given back in the end; whatever happens, drop
//! releases what was taken.

use crate::datasets::{OpenDataset, OpenSnapshot, page, read_pages};
use dspm_netram::client::ClusterDataset;
use dspm_proto::{Error, Lsn, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Change, Dataset, Intent, Other, PageBuf, Reserved, Snapshot, Ticket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a place's turn before the primary is asked again; it bounds how long its queue keeps a dead waiter.
const TURN: Duration = Duration::from_millis(250);
/// How often a snapshot that became stale before the lease came is taken again, whatever the time.
const STALE_MAX: u32 = 8;

/// A write transaction.
pub(crate) struct Writer {
    dataset: Arc<OpenDataset>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ticket: Option<Ticket>,
    reserved: Option<Snapshot>,
    /// It committed under this reservation.
    committed: bool,
}

impl Writer {
    pub(crate) fn new(dataset: Arc<OpenDataset>) -> Result<Writer, Error> {
        dataset.writable()?;
        Ok(Writer { dataset, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes the only writer, waiting at most `wait` while others are. With `expected` only at that LSN. Answers LSN
    /// and size of the newest state.
    pub(crate) fn reserve(&self, expected: Option<Lsn>, wait: Duration) -> Result<(u64, u64), Error> {
        let store = self.dataset.store()?;
        let mut state = self.state();
        if state.reserved.is_some() {
            return Err(Error::Usage("the transaction is reserved already".into()));
        }
        let snapshot = self.take(store, &mut state, wait)?;
        let found = snapshot.lsn;
        let shows = (found.0, snapshot.size);
        (state.reserved, state.committed) = (Some(snapshot), false);
        if let Some(wanted) = expected.filter(|e| *e != found) {
            self.end(store, &mut state);
            let name = self.dataset.name();
            return Err(Error::Conflict(format!(
                "dataset {name} is at LSN {found}; the transaction was based on {wanted}"
            )));
        }
        Ok(shows)
    }

    /// Begins a read. A transaction that has a place in the queue first waits, at most `wait`, for its turn: a snapshot
    /// taken before the lease comes would be stale when it does.
    pub(crate) fn snapshot(&self, wait: Duration) -> Result<OpenSnapshot, Error> {
        let ticket = self.state().ticket;
        let intent = ticket.map_or(Intent::Read, |t| Intent::Write { ticket: Some(t), wait });
        let snapshot = self.dataset.store()?.snapshot(intent)?;
        self.state().ticket = snapshot.ticket.or(ticket);
        Ok(OpenSnapshot::of(self.dataset.clone(), snapshot))
    }

    /// Becomes the only writer on top of that snapshot, without waiting for open transactions. A conflict when there
    /// were commits after it; busy, with a place in the queue, while another transaction writes.
    pub(crate) fn reserve_at(&self, base: &OpenSnapshot) -> Result<(), Error> {
        let store = self.dataset.store()?;
        let mut state = self.state();
        if state.reserved.is_some() {
            return Err(Error::Usage("the transaction is reserved already".into()));
        }
        if !base.is_of(&self.dataset) {
            return Err(Error::Usage("the snapshot is one of another dataset".into()));
        }
        let base = base.store()?;
        match store.reserve(base, state.ticket)? {
            Reserved::Granted => state.ticket = None,
            Reserved::Stale => {
                state.ticket = None;
                return Err(self.outdated(base.lsn));
            }
            Reserved::Busy(ticket) => {
                state.ticket = Some(ticket);
                return Err(self.busy());
            }
        }
        // A pin of its own; under the lease that was just granted it is the same state, and no round trip.
        match store.snapshot(Intent::Read) {
            Ok(own) if own.lsn == base.lsn => {
                (state.reserved, state.committed) = (Some(own), false);
                Ok(())
            }
            other => {
                store.release_write();
                let newer = other?;
                store.release(newer);
                Err(self.outdated(base.lsn))
            }
        }
    }

    /// Ends the reservation; what it showed last stays readable in the answer.
    pub(crate) fn finish(&self) -> Result<OpenSnapshot, Error> {
        let store = self.dataset.store()?;
        let shown = self.state().reserved.take().ok_or_else(not_reserved)?;
        store.release_write();
        Ok(OpenSnapshot::of(self.dataset.clone(), shown))
    }

    /// Asks, with one round trip, whether this is still the group's writer.
    pub(crate) fn confirm(&self) -> Result<(), Error> {
        let store = self.dataset.store()?;
        store.confirm(self.state().reserved.as_ref().ok_or_else(not_reserved)?)
    }

    fn take(&self, store: &ClusterDataset, state: &mut State, wait: Duration) -> Result<Snapshot, Error> {
        let until = Instant::now() + wait;
        let mut stale = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let intent = Intent::Write { ticket: state.ticket, wait: left.min(TURN) };
            let snapshot = store.snapshot(intent)?;
            state.ticket = snapshot.ticket.or(state.ticket);
            match store.reserve(&snapshot, state.ticket) {
                Ok(Reserved::Granted) => {
                    state.ticket = None;
                    return Ok(snapshot);
                }
                Ok(Reserved::Stale) => {
                    (state.ticket, stale) = (None, stale + 1);
                    store.release(snapshot);
                    if stale > STALE_MAX && Instant::now() >= until {
                        return Err(self.busy());
                    }
                }
                Ok(Reserved::Busy(ticket)) => {
                    state.ticket = Some(ticket);
                    store.release(snapshot);
                    if Instant::now() >= until {
                        return Err(self.busy());
                    }
                }
                Err(e) => {
                    store.release(snapshot);
                    return Err(e);
                }
            }
        }
    }

    fn outdated(&self, base: Lsn) -> Error {
        Error::Conflict(format!("dataset {}: there are commits after LSN {base}", self.dataset.name()))
    }

    fn busy(&self) -> Error {
        Error::Busy(format!("dataset {}: another transaction writes", self.dataset.name()))
    }

    /// Reads the state that the transaction is based on, or its own last commit.
    pub(crate) fn read(&self, pages: impl Iterator<Item = u64>, out: &mut [u8]) -> Result<(), Error> {
        let store = self.dataset.store()?;
        match &self.state().reserved {
            Some(snapshot) => read_pages(store, snapshot, pages, out),
            None => Err(not_reserved()),
        }
    }

    /// Commits and stays reserved. Nothing to commit makes no LSN; the first time it is asked whether this is the writer.
    pub(crate) fn commit(&self, numbers: &[u64], content: &[u8], size: u64) -> Result<u64, Error> {
        let store = self.dataset.store()?;
        let mut state = self.state();
        let State { reserved, committed, .. } = &mut *state;
        let snapshot = reserved.as_mut().ok_or_else(not_reserved)?;
        let pages = change(numbers, content, size)?;
        if !pages.is_empty() || size != snapshot.size {
            let lsn = store.commit(snapshot, &Change { pages: &pages, size })?;
            *committed = true;
            return Ok(lsn.0);
        }
        if !*committed {
            store.confirm(snapshot)?;
        }
        Ok(snapshot.lsn.0)
    }

    /// Ends the reservation and gives a place in the queue back. The transaction can be reserved anew.
    pub(crate) fn release(&self) {
        if let Ok(store) = self.dataset.store() {
            self.end(store, &mut self.state());
        }
    }

    fn end(&self, store: &ClusterDataset, state: &mut State) {
        if let Some(ticket) = state.ticket.take() {
            store.forget(ticket);
        }
        if let Some(snapshot) = state.reserved.take() {
            store.release_write();
            store.release(snapshot);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.release();
    }
}

/// What one of several transactions changes.
pub(crate) struct Part<'a> {
    pub(crate) writer: &'a Writer,
    pub(crate) numbers: &'a [u64],
    pub(crate) content: &'a [u8],
    pub(crate) size: u64,
}

/// Commits all of them or none, and all stay reserved. Answers their LSNs. One that changes nothing makes no LSN; the
/// first time it is asked whether it is the writer.
pub(crate) fn commit_together(parts: &[Part<'_>]) -> Result<Vec<u64>, Error> {
    // Locked in one order, whatever order each caller lists them in.
    let mut order: Vec<&Writer> = parts.iter().map(|p| p.writer).collect();
    order.sort_by_key(|w| std::ptr::from_ref(*w));
    if order.windows(2).any(|two| std::ptr::eq(two[0], two[1])) {
        return Err(Error::Usage("a transaction twice in one commit".into()));
    }
    let mut states: Vec<(*const Writer, MutexGuard<'_, State>)> =
        order.into_iter().map(|w| (std::ptr::from_ref(w), w.state())).collect();
    states.sort_by_key(|(w, _)| parts.iter().position(|p| std::ptr::eq(p.writer, *w)));
    let (mut stores, mut changes) = (Vec::new(), Vec::new());
    for (part, (_, state)) in parts.iter().zip(&states) {
        let snapshot = state.reserved.as_ref().ok_or_else(not_reserved)?;
        let pages = change(part.numbers, part.content, part.size)?;
        let store = part.writer.dataset.store()?;
        if pages.is_empty() && part.size == snapshot.size && !state.committed {
            store.confirm(snapshot)?;
        }
        stores.push(store);
        changes.push((pages, part.size));
    }
    let changes: Vec<_> = changes.iter().map(|(pages, size)| Change { pages, size: *size }).collect();
    let mut written: Vec<Other<'_>> = Vec::new();
    for (((_, state), change), store) in states.iter_mut().zip(&changes).zip(&stores) {
        let State { reserved, committed, .. } = &mut **state;
        let snapshot = reserved.as_mut().ok_or_else(not_reserved)?;
        if !change.pages.is_empty() || change.size != snapshot.size {
            *committed = true; // only who holds the reservation looks at it, and an error ends that
            written.push(Other { dataset: *store, snapshot, change });
        }
    }
    if let Some((first, others)) = written.split_first_mut() {
        first.dataset.commit_with(first.snapshot, first.change, others)?;
    }
    Ok(states.iter().filter_map(|(_, state)| state.reserved.as_ref()).map(|s| s.lsn.0).collect())
}

fn not_reserved() -> Error {
    Error::Usage("the transaction is not reserved".into())
}

/// Pages with their content: ascending, none twice, all inside the size.
fn change<'a>(numbers: &[u64], content: &'a [u8], size: u64) -> Result<Vec<(PageNo, &'a PageBuf)>, Error> {
    let end = PageNo::count(size);
    page(end.saturating_sub(1))?;
    let mut pages = Vec::with_capacity(numbers.len());
    for (no, bytes) in numbers.iter().zip(content.chunks_exact(PAGE_SIZE)) {
        if pages.last().is_some_and(|(last, _): &(PageNo, _)| last.0 >= *no) {
            return Err(Error::Usage(format!("page {no} is out of order: numbers ascend and none comes twice")));
        }
        if *no >= end {
            return Err(Error::Usage(format!("page {no} lies beyond the size of {size} bytes")));
        }
        let bytes: &PageBuf = bytes.try_into().map_err(|_| Error::Usage("a page has 4096 bytes".into()))?;
        pages.push((PageNo(*no), bytes));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_ascending_and_inside_the_size() {
        let content = vec![7u8; 3 * PAGE_SIZE];
        assert_eq!(change(&[0, 4, 5], &content, 5 * 4096 + 1).unwrap().len(), 3);
        assert!(change(&[0, 4, 5], &content, 5 * 4096).is_err(), "beyond");
        assert!(change(&[0, 5, 5], &content, 1 << 30).is_err(), "twice");
        assert!(change(&[5, 4, 6], &content, 1 << 30).is_err(), "not ascending");
        assert!(change(&[], &[], u64::MAX).is_err(), "a size beyond all pages");
        assert!(change(&[], &[], 0).unwrap().is_empty());
    }
}
