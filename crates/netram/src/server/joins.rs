//! What this node tells people of the sets that it joins: how far the copies of their pages are, and why it could not.
//!
//! Invariant: a set is listed from the first look at what it lacks until this node is whole, or the view no longer has
//! it; the reason of a join that failed stays until the next one begins.

use dspm_proto::control::{JoinStatus, View};
use dspm_proto::{Generation, SetId, limits};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By set.
#[derive(Default)]
pub(crate) struct Joins(Mutex<BTreeMap<SetId, Join>>);

#[derive(Default)]
struct Join {
    generation: Generation,
    done: u64,
    total: u64,
    why: String,
}

impl Joins {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SetId, Join>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True once the bytes of a join are known.
    pub(crate) fn is_begun(&self, set: SetId, generation: Generation) -> bool {
        self.lock().get(&set).is_some_and(|j| j.generation == generation)
    }

    /// So many bytes of pages have to come.
    pub(crate) fn begin(&self, set: SetId, generation: Generation, total: u64) {
        self.lock().insert(set, Join { generation, total, ..Join::default() });
    }

    /// So many came.
    pub(crate) fn add(&self, set: SetId, bytes: u64) {
        if let Some(join) = self.lock().get_mut(&set) {
            join.done += bytes;
            join.total = join.total.max(join.done);
        }
    }

    /// So many have to come again.
    pub(crate) fn take_back(&self, set: SetId, bytes: u64) {
        if let Some(join) = self.lock().get_mut(&set) {
            join.done = join.done.saturating_sub(bytes);
        }
    }

    /// It cannot be joined. True when that is news.
    pub(crate) fn cannot(&self, set: SetId, generation: Generation, why: &str) -> bool {
        let mut joins = self.lock();
        let join = joins.entry(set).or_default();
        let news = (join.generation, join.why.is_empty()) != (generation, false);
        (join.generation, join.why) = (generation, why.to_owned());
        news
    }

    /// All of it is here.
    pub(crate) fn whole(&self, set: SetId) {
        self.lock().remove(&set);
    }

    /// A new view: what is no set any more is forgotten.
    pub(crate) fn follow(&self, view: &View) {
        let mut joins = self.lock();
        if !joins.is_empty() {
            joins.retain(|id, _| view.sets.iter().any(|s| s.id == *id));
        }
    }

    /// For `status`.
    pub(crate) fn list(&self) -> Vec<JoinStatus> {
        let status =
            |(set, j): (&SetId, &Join)| JoinStatus { set: *set, done: j.done, total: j.total, why: j.why.clone() };
        self.lock().iter().take(limits::LISTED_MAX).map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_until_the_next_join_begins() {
        let (joins, set) = (Joins::default(), SetId(1));
        joins.begin(set, Generation(2), 100);
        joins.add(set, 60);
        assert!(joins.cannot(set, Generation(2), "full") && !joins.cannot(set, Generation(2), "full"));
        let known = &joins.list()[0];
        assert_eq!((known.done, known.total, known.why.as_str()), (60, 100, "full"));
        assert!(joins.is_begun(set, Generation(2)) && !joins.is_begun(set, Generation(4)));
        joins.begin(set, Generation(4), 50);
        assert_eq!(joins.list()[0], JoinStatus { set, done: 0, total: 50, why: String::new() });
        joins.add(set, 10);
        joins.take_back(set, 10);
        assert_eq!(joins.list()[0].done, 0);
        joins.whole(set);
        assert!(joins.list().is_empty());
    }
}
