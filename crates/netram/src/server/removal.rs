//! Datasets that are about to be removed come to rest first: no writer is let in, and what their last commit decided about
//! other databases is resolved there. Then the registry hears of it, and removes them.
//!
//! Invariants: what is said of a group holds for as long as the catalog's entry carries that mark, over restarts too: it is
//! said only when the mark is in the catalog's file, and who opens the group goes by it. Another generation says it anew.
//!
//! Fault model: words are lost, with the registry's connection: they are said again while the mark is there. The registry
//! gives the removal up: the mark goes, and writers are let in again.

use super::node::Node;
use crate::clock;
use dspm_proto::control::Control;
use dspm_proto::{GroupId, Instant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The registry is told again after this, until the entry is gone.
const REPEAT: Duration = Duration::from_millis(100);

/// Groups that no writer is let into, and when the registry was told so last.
#[derive(Default)]
pub(crate) struct Removals(Mutex<HashMap<GroupId, Instant>>);

impl Node {
    /// Brings the groups with a mark to rest of which this node is the primary, and tells of those that are.
    pub(crate) fn quieten(self: &Arc<Self>) {
        let mut told = self.removals.0.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = self.catalog();
        let mut marked = catalog.removing();
        marked.retain(|group, _| catalog.set_of(*group).is_some_and(|s| s.primary == self.options.name));
        drop(catalog);
        let given_up: Vec<GroupId> = told.keys().copied().filter(|group| !marked.contains_key(group)).collect();
        for group in given_up {
            told.remove(&group);
            self.follow_mark(group);
        }
        for (group, removing) in marked {
            let last = *told.entry(group).or_insert(Instant(0));
            if let Some(word) = self.follow_mark(group).filter(|_| clock::now().since(last) >= REPEAT) {
                told.insert(group, clock::now());
                self.forwarded.tell(&word(removing));
            }
        }
    }

    /// The group goes by its entry. When it is at rest: what to tell the registry.
    fn follow_mark(self: &Arc<Self>, id: GroupId) -> Option<impl Fn(u64) -> Control + use<>> {
        let group = self.group(id).ok()?;
        let mut g = group.lock();
        let found = self.catalog().group(id);
        let (entry, set) = found.ok()?;
        g.replica.configure(self.setup_of(&entry, &set), clock::now());
        let quiet = g.replica.is_quiet(clock::now());
        let generation = g.replica.setup().generation;
        self.run_effects(&mut g);
        quiet.then_some(move |removing| Control::Quiet { set: set.id, generation, group: id, removing })
    }
}
