//! Connects the store's flusher with the groups: it asks for dirty groups and tells what is in the synced log.

use super::node::Node;
use dspm_proto::{Error, GroupId, Lsn};
use dspm_store::{FlushSource, GroupStore};
use std::sync::{Arc, PoisonError};

struct Source(Arc<Node>);

impl FlushSource for Source {
    fn dirty_groups(&self) -> Vec<GroupId> {
        let groups = self.0.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.iter().filter(|(_, g)| { let g = g.lock(); let r = &g.replica.records.group; r.flushed() < r.tail().lsn }).map(|(id, _)| *id).collect()
    }

    fn with_group(&self, id: GroupId, f: &mut dyn FnMut(&mut GroupStore)) {
        let group = self.0.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(group) = group {
            f(&mut group.lock().replica.records.group);
        }
    }

    fn flushed(&self, id: GroupId, _upto: Lsn) {
        let group = self.0.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(group) = group {
            let mut g = group.lock();
            g.replica.flushed(crate::clock::now());
            self.0.run_effects(&mut g);
        }
    }
}

/// Starts the flusher.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>) -> Result<(), Error> {
    node.store.start_flusher(Arc::new(Source(node.clone())))
}
