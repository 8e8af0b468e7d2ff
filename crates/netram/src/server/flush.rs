//! Connects the store's flusher with the groups: it asks for dirty groups and tells what is in the synced log.

use super::group::SharedGroup;
use super::node::Node;
use dspm_proto::{Error, GroupId, Lsn};
use dspm_store::{FlushSource, Flusher, GroupStore};
use std::sync::{Arc, PoisonError};

pub(crate) struct Source(pub(crate) Arc<Node>);

impl Source {
    fn group(&self, id: GroupId) -> Option<SharedGroup> {
        self.0.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

impl FlushSource for Source {
    fn dirty_groups(&self) -> Vec<GroupId> {
        let dirty = |g: &SharedGroup| {
            let g = g.lock();
            let records = &g.replica.records.group;
            (records.flushed() < records.tail().lsn).then(|| records.id())
        };
        self.0.open_groups().iter().filter_map(dirty).collect()
    }

    fn with_group(&self, id: GroupId, f: &mut dyn FnMut(&mut GroupStore)) {
        if let Some(group) = self.group(id) {
            f(&mut group.lock().replica.records.group);
        }
    }

    fn flushed(&self, id: GroupId, _upto: Lsn) {
        if let Some(group) = self.group(id) {
            let mut g = group.lock();
            g.replica.flushed(crate::clock::now());
            self.0.run_effects(&mut g);
        }
    }

    fn suspect(&self, reason: &str) {
        // Nothing may be acknowledged under this store id any more, and the next start takes another: a dead member is
        // what its peers know how to survive.
        eprintln!("dspm: error: the log of node {} failed: {reason}", self.0.options.name);
        eprintln!("hint: check the disk; the node starts again as one that lost its memory");
        std::process::exit(1);
    }
}

/// Starts the flusher; it makes a last round when it is dropped.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>) -> Result<Flusher, Error> {
    node.store.start_flusher(Arc::new(Source(node.clone())))
}
