//! Deadlines of groups, served by the first worker.

use dspm_proto::{GroupId, Instant};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// When each group wants to be looked at.
#[derive(Default)]
pub(crate) struct Timers(Mutex<BTreeSet<(Instant, GroupId)>>);

impl Timers {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Instant, GroupId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a group's deadline. True when it is now the earliest of all: the worker must be woken.
    pub(crate) fn set(&self, group: GroupId, old: Option<Instant>, new: Instant) -> bool {
        let mut all = self.lock();
        if let Some(old) = old {
            all.remove(&(old, group));
        }
        all.insert((new, group));
        all.first() == Some(&(new, group))
    }

    /// Takes the groups that are due.
    pub(crate) fn due(&self, now: Instant) -> Vec<GroupId> {
        let mut all = self.lock();
        let mut out = Vec::new();
        while let Some(&(at, group)) = all.first().filter(|(at, _)| *at <= now) {
            all.remove(&(at, group));
            out.push(group);
        }
        out
    }

    /// The earliest deadline.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.lock().first().map(|x| x.0)
    }
}
