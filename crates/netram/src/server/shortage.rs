//! Groups whose records found no room here: since when, with none taken in between.
//!
//! Invariant: a group is listed from a refusal for want of room until it takes a record, or nobody comes with one any
//! more; so the list is empty wherever there is room.

use crate::clock;
use dspm_proto::{GroupId, Instant};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whoever is refused comes again much sooner; without a repeat nobody waits for the room.
const FRESH: Duration = Duration::from_secs(1);

/// By group.
#[derive(Default)]
pub(crate) struct Shortages {
    any: AtomicBool,
    groups: Mutex<BTreeMap<GroupId, Shortage>>,
}

struct Shortage {
    since: Instant,
    last: Instant,
}

impl Shortages {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Shortage>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record, or a state to begin anew from, was refused for want of room.
    pub(crate) fn refused(&self, group: GroupId) {
        self.refused_at(group, clock::now());
    }

    fn refused_at(&self, group: GroupId, now: Instant) {
        let mut groups = self.lock();
        let known = groups.entry(group).or_insert(Shortage { since: now, last: now });
        if now.since(known.last) > FRESH {
            known.since = now;
        }
        known.last = now;
        self.any.store(true, Ordering::Relaxed);
    }

    /// There was room. Costs next to nothing where there always is.
    #[inline]
    pub(crate) fn served(&self, group: GroupId) {
        if self.any.load(Ordering::Relaxed) {
            self.lock().remove(&group);
        }
    }

    /// For how long some group has found no room.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        if !self.any.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let groups = self.lock();
        let fresh = groups.values().filter(|s| now.since(s.last) <= FRESH);
        fresh.map(|s| now.since(s.since)).max().unwrap_or_default()
    }

    /// Groups that have found no room for so long.
    pub(crate) fn lasting(&self, length: Duration, now: Instant) -> Vec<GroupId> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut groups = self.lock();
        groups.retain(|_, s| now.since(s.last) <= FRESH);
        self.any.store(!groups.is_empty(), Ordering::Relaxed);
        groups.iter().filter(|(_, s)| now.since(s.since) >= length).map(|(g, _)| *g).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);
    const LENGTH: Duration = Duration::from_millis(600);

    fn at(ms: u64) -> Instant {
        Instant(0).after(Duration::from_millis(ms))
    }

    #[test]
    fn only_refusals_without_a_record_in_between_last() {
        let s = Shortages::default();
        (0..=6).for_each(|i| s.refused_at(GROUP, at(i * 100)));
        assert!(s.lasting(LENGTH, at(599)).is_empty());
        assert_eq!(s.lasting(LENGTH, at(600)), [GROUP]);
        s.refused_at(GroupId(8), at(600));
        assert_eq!(s.longest(at(650)), Duration::from_millis(650));
        s.served(GROUP);
        assert_eq!(s.longest(at(650)), Duration::from_millis(50));
        s.served(GroupId(8));
        assert_eq!(s.longest(at(650)), Duration::ZERO);
        assert!(s.lasting(LENGTH, at(650)).is_empty());
        s.refused_at(GROUP, at(700));
        assert!(s.lasting(LENGTH, at(1299)).is_empty(), "it counts from the first refusal after that");
        assert_eq!(s.lasting(LENGTH, at(1300)), [GROUP]);
    }

    #[test]
    fn what_nobody_repeats_is_over() {
        let s = Shortages::default();
        s.refused_at(GROUP, at(0));
        assert!(s.lasting(LENGTH, at(1001)).is_empty());
        s.refused_at(GROUP, at(5000));
        assert!(s.lasting(LENGTH, at(5500)).is_empty());
        assert_eq!(s.lasting(LENGTH, at(5600)), [GROUP]);
    }
}
