//! Frees what removed datasets hold here: memory, log, base files.
//!
//! Invariants: only groups that the registry names as removed are freed, never those that it does not name (its state
//! may be older than the data); none that a dataset of the catalog still has, whatever the registry says. "Done" is said
//! when memory is free and the log says so too: a later start, with its memory or from its log, does not find them. So
//! it may be asked again after any failure.
//!
//! It has a thread of its own, since it waits for the disk, and for who still holds a group.

use super::flush::Source;
use super::node::Node;
use super::sender::Sender;
use crate::wire::{error_reply, frame, json, reply_to};
use dspm_proto::control::Done;
use dspm_proto::{Error, GroupId, Header};
use std::sync::{Arc, PoisonError, TryLockError};

impl Node {
    /// Frees the groups, then answers the registry.
    ///
    /// # Errors
    /// [`Error::Failed`] for a group that has a dataset; those of the operating system.
    pub(crate) fn free(self: &Arc<Self>, ids: Vec<GroupId>, out: &Arc<Sender>, asked: Header) -> Result<(), Error> {
        self.check_free(&ids)?;
        let (node, out) = (self.clone(), out.clone());
        let work = move || match node.free_now(&ids) {
            Ok(()) => out.send(&frame(reply_to(&asked), &json(&Done { done: true }), 0), &[]),
            Err(e) => out.send(&error_reply(asked.kind, asked.request, &e), &[]),
        };
        std::thread::Builder::new().name("free".into()).spawn(work)?;
        Ok(())
    }

    /// None of them is of a dataset that this node holds, or is to hold.
    fn check_free(&self, ids: &[GroupId]) -> Result<(), Error> {
        let catalog = self.catalog();
        let me = &self.options.name;
        let is_ours = |id: &&GroupId| match catalog.set_of(**id) {
            Some(set) => set.members.iter().chain(&set.joining).any(|m| m.node == *me),
            None => catalog.has_group(**id),
        };
        match ids.iter().find(is_ours) {
            Some(id) => Err(Error::Failed(format!("group {id} is to be freed, and this node holds it for a dataset"))),
            None => Ok(()),
        }
    }

    fn free_now(self: &Arc<Self>, ids: &[GroupId]) -> Result<(), Error> {
        // Asked again meanwhile, a second one would find the groups gone and say so, before the first was done, or gave up.
        let _one_at_a_time = match self.freeing.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy("removed datasets are being freed already; ask again later".into()));
            }
        };
        // From here on none of them is opened: this node may be taken back into their set meanwhile, and is then to find
        // nothing of what it held, or all of it.
        let groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        self.check_free(ids)?;
        self.leaving().extend(ids);
        drop(groups);
        let done = self.free_closed(ids);
        self.leaving().clear();
        done
    }

    fn free_closed(self: &Arc<Self>, ids: &[GroupId]) -> Result<(), Error> {
        for id in ids {
            let open = self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            let records = match open.map(super::group::SharedGroup::take) {
                Some(Ok(records)) => Some(records),
                Some(Err(held)) => {
                    self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(*id, held);
                    return Err(Error::Busy(format!("group {id} is in use; it is freed later")));
                }
                None => self.store.take_recovered(*id),
            };
            records.into_iter().for_each(|r| self.store.drop_group(r));
        }
        self.store.sync_drops(&Source(self.clone()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::node::NodeOptions;
    use super::*;
    use dspm_proto::auth::ClusterKey;
    use dspm_proto::control::{DatasetEntry, Durability, MemberEntry, SetEntry, SetState, View};
    use dspm_proto::{DatasetId, Generation, SetId};
    use std::path::Path;
    use std::time::Duration;

    const GROUP: GroupId = GroupId(1);

    pub(crate) fn start(dir: &Path) -> Arc<Node> {
        let options = NodeOptions {
            name: "n".into(),
            cluster: "c".into(),
            machine: "m".into(),
            listen: "127.0.0.1:0".into(),
            metrics: None,
            data_dir: dir.join("data"),
            arena: dir.join("arena"),
            memory: 4 << 20,
            key: ClusterKey::new("a secret"),
            lease: Duration::from_millis(300),
            flush_interval: Duration::from_secs(3600),
            dirty_max: 2 << 20,
            history_max: 1 << 20,
            outcome_retention: Duration::from_secs(60),
            join_rate: 0,
            scrub_rate: 0,
            scrub_interval: Duration::from_secs(3600),
            workers: 1,
        };
        Node::start(options).unwrap().0
    }

    fn entry() -> DatasetEntry {
        DatasetEntry {
            name: "d".into(),
            dataset: DatasetId(1),
            group: GROUP,
            set: SetId(1),
            durability: Durability::Memory,
            copies: 1,
            min_copies: 1,
            history_ms: 0,
            removing: 0,
        }
    }

    /// Opens a group, whose dataset is removed then.
    fn removed(node: &Arc<Node>) -> super::super::group::SharedGroup {
        let set = SetEntry {
            id: SetId(1),
            generation: Generation(1),
            state: SetState::Active,
            primary: "n".into(),
            members: vec![MemberEntry { node: "n".into(), store: node.store_id }],
            joining: Vec::new(),
            last_active: Vec::new(),
            dropped: Vec::new(),
            history: 0,
        };
        let (cluster, registry) = ("c".into(), String::new());
        let view = View { version: 1, cluster, registry, nodes: Vec::new(), sets: vec![set] };
        node.take_view(&node.turn(), view).unwrap();
        node.catalog().take_part(true, false, vec![entry()], Vec::new());
        let group = node.group(GROUP).unwrap();
        node.catalog().take_part(true, false, Vec::new(), Vec::new());
        group
    }

    /// Frees the group in a thread, which waits for who holds it: it is closed already.
    fn freeing(node: &Arc<Node>) -> std::thread::JoinHandle<Result<(), Error>> {
        let freeing = {
            let node = node.clone();
            std::thread::spawn(move || node.free_now(&[GROUP]))
        };
        while node.open_group_count() > 0 {
            std::thread::yield_now();
        }
        freeing
    }

    #[test]
    fn who_asks_again_is_not_told_that_it_is_done_before_it_is() {
        let dir = std::env::temp_dir().join(format!("dspm-free-{}", std::process::id()));
        let node = start(&dir);
        let held = removed(&node);
        let first = freeing(&node);
        assert!(matches!(node.free_now(&[GROUP]), Err(Error::Busy(_))), "the first one waits for who holds the group");
        assert!(matches!(first.join().unwrap(), Err(Error::Busy(_))));
        drop(held);
        assert_eq!(node.free_now(&[GROUP]), Ok(()));
        assert_eq!(node.open_group_count(), 0);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_being_freed_is_not_opened_and_what_is_held_again_is_not_freed() {
        let dir = std::env::temp_dir().join(format!("dspm-free-again-{}", std::process::id()));
        let node = start(&dir);
        let held = removed(&node);
        let freeing = freeing(&node);
        // The set takes this node back while the group is waited for.
        node.catalog().take_part(false, false, vec![entry()], Vec::new());
        assert!(matches!(node.group(GROUP), Err(Error::Unavailable(_))), "it would be opened, and then freed");
        assert!(matches!(freeing.join().unwrap(), Err(Error::Busy(_))));
        drop(held);
        assert!(matches!(node.free_now(&[GROUP]), Err(Error::Failed(_))));
        assert!(node.group(GROUP).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
