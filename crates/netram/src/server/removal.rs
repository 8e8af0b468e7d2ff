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
    /// Brings the groups with a mark to rest of which this node is the primary, and tells of those that are. A mark that the
    /// file does not have is followed, too: whoever opened the group went by it, and has to hear when it goes.
    pub(crate) fn quieten(self: &Arc<Self>) {
        let mut told = self.removals.0.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = self.catalog();
        let (mut marked, saved) = catalog.removing();
        marked.retain(|group, _| catalog.set_of(*group).is_some_and(|s| s.primary == self.options.name));
        drop(catalog);
        let given_up: Vec<GroupId> = told.keys().copied().filter(|group| !marked.contains_key(group)).collect();
        for group in given_up {
            told.remove(&group);
            self.follow_mark(group);
        }
        for (group, removing) in marked {
            let last = *told.entry(group).or_insert(Instant(0));
            let due = saved && clock::now().since(last) >= REPEAT;
            if let Some(word) = self.follow_mark(group).filter(|_| due) {
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

#[cfg(test)]
mod tests {
    use super::super::free::tests::start;
    use super::*;
    use dspm_proto::control::{DatasetEntry, Durability, MemberEntry, SetEntry, SetState, View};
    use dspm_proto::{DatasetId, Generation, SetId};

    const GROUP: GroupId = GroupId(1);

    fn put(node: &Arc<Node>, removing: u64) -> bool {
        let (name, dataset, set, durability) = ("d".into(), DatasetId(1), SetId(1), Durability::Memory);
        let entry = DatasetEntry {
            name,
            dataset,
            group: GROUP,
            set,
            durability,
            copies: 1,
            min_copies: 1,
            history_ms: 0,
            removing,
        };
        node.take_part(&node.turn(), false, false, vec![entry], Vec::new()).is_ok()
    }

    /// Guards writers of a dataset that stays: its disk is full for a while, and the catalog's file lacks a change.
    #[test]
    fn a_mark_that_goes_is_followed_although_the_file_lacked_a_change_meanwhile() {
        let dir = std::env::temp_dir().join(format!("dspm-removal-{}", std::process::id()));
        let node = start(&dir);
        let members = vec![MemberEntry { node: "n".into(), store: node.store_id }];
        let set = SetEntry {
            id: SetId(1),
            generation: Generation(1),
            state: SetState::Active,
            primary: "n".into(),
            joining: Vec::new(),
            last_active: members.clone(),
            members,
            dropped: Vec::new(),
            history: 0,
        };
        let (cluster, registry) = ("c".into(), String::new());
        node.take_view(&node.turn(), View { version: 1, cluster, registry, nodes: Vec::new(), sets: vec![set] })
            .unwrap();
        node.take_sets();
        assert!(put(&node, 0));
        let group = node.group(GROUP).unwrap();
        let keeps_writers_out = || {
            node.quieten();
            group.lock().replica.setup().removing
        };
        assert!(!keeps_writers_out());
        assert!(put(&node, 7) && keeps_writers_out());
        let blocker = dir.join("data/catalog.next");
        std::fs::create_dir_all(blocker.join("x")).unwrap(); // the file can be written no more
        assert!(!put(&node, 7) && keeps_writers_out(), "the registry may have heard that it is at rest");
        assert!(!put(&node, 0));
        assert!(!keeps_writers_out(), "for ever");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
