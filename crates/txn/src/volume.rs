//! The contract between engines with many files and the store: all datasets of one group, under one owner.
//!
//! A file is a dataset. One record may change several of them, and what it changes is there after a crash together or
//! not at all. The owner has the group's write lease until it gives it back or dies; so nobody else changes anything,
//! and the newest state is the owner's own.
//!
//! Fault model: every call may fail with [`Error::Unavailable`] after `commit_timeout`; none hangs longer. Who was
//! replaced as owner (it stood still for longer than its lease) gets [`Error::Conflict`] from every call, reads
//! included, once somebody else committed.

use crate::dataset::{Change, DatasetStatus};
use dspm_proto::{DatasetId, Error, Lsn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Reads of one file, as far as reading ahead needs to know: where the last one ended, and how far it went ahead.
#[derive(Debug, Default)]
pub struct ReadAhead {
    next: AtomicU64,
    length: AtomicU64,
}

/// Pages of the first batch of a sequential run, and of the largest.
const AHEAD_LEAST: u64 = 8;
const AHEAD_MOST: u64 = 256;

impl ReadAhead {
    /// How many pages to fetch behind the missing page `first`, given that the read itself wants `wanted` from there on.
    /// A run in order doubles it each time; anything else begins anew with none.
    pub fn behind(&self, first: u64, wanted: u64) -> u64 {
        let sequential = self.next.load(Ordering::Relaxed) == first;
        let length = if sequential { self.length.load(Ordering::Relaxed) * 2 } else { 0 };
        let length = if sequential { length.clamp(AHEAD_LEAST, AHEAD_MOST) } else { 0 };
        self.length.store(length, Ordering::Relaxed);
        length.max(wanted.saturating_sub(1))
    }

    /// The pages up to that one, exclusive, are here.
    pub fn reached(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }
}

/// One group's datasets. Methods other than [`Volume::claim`] and [`Volume::status`] are for the owner.
pub trait Volume: Send + Sync {
    /// The dataset that the group was created with.
    fn main(&self) -> DatasetId;

    /// Becomes the owner; waits at most `wait` for one that is there. Nothing happens if this object is it.
    ///
    /// # Errors
    /// [`Error::Busy`]: somebody else is, and goes on.
    fn claim(&self, wait: Duration) -> Result<(), Error>;

    /// Fails where this process is not the owner any more. No message while its lease lasts.
    fn check(&self) -> Result<(), Error>;

    /// Sizes in bytes of all datasets that were ever written, in the newest state.
    fn sizes(&self) -> Result<Vec<(DatasetId, u64)>, Error>;

    /// Fills the buffer from that byte on, in the newest state, of a dataset of that size. What lies beyond the size is
    /// zeros.
    fn read(&self, dataset: DatasetId, size: u64, at: u64, buf: &mut [u8], ahead: &ReadAhead) -> Result<(), Error>;

    /// Commits the changes of several datasets, none twice, in one record; all members hold it when this returns. A
    /// dataset that was not there is there then.
    ///
    /// # Errors
    /// [`Error::Conflict`] (replaced as owner), [`Error::Full`] (nothing happened), [`Error::OutcomeUnknown`].
    fn commit(&self, changes: &[(DatasetId, Change<'_>)]) -> Result<Lsn, Error>;

    /// Most pages that every member takes in one record.
    fn pages_max(&self) -> usize;

    /// Gives the group back. Never fails, never waits.
    fn disown(&self);

    /// Figures, from memory.
    fn status(&self) -> DatasetStatus;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_ahead_further_and_further_and_a_jump_does_not() {
        let ahead = ReadAhead::default();
        assert_eq!(ahead.behind(100, 1), 0, "a first read is no run");
        let mut next = 101;
        for length in [8, 16, 32, 64, 128, 256, 256] {
            ahead.reached(next);
            assert_eq!(ahead.behind(next, 1), length);
            next += length + 1;
        }
        ahead.reached(next);
        assert_eq!(ahead.behind(7, 8), 7, "what is wanted comes at once");
        ahead.reached(15);
        assert_eq!(ahead.behind(15, 8), 8);
    }
}
