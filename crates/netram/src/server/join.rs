//! Joining: a node that a set took up brings the base of every group here, then says that it is whole.

use super::base::Source;
use super::group::SharedGroup;
use super::node::Node;
use dspm_proto::control::SetEntry;
use dspm_proto::{Error, GroupId};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Pause between two looks at what is missing, and after a try that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts the thread that joins.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>) -> Result<(), Error> {
    let weak = Arc::downgrade(node);
    let run = move |node: Weak<Node>| {
        let mut said = String::new();
        while let Some(node) = node.upgrade() {
            for set in node.sets.joining(&node.options.name, node.store_id) {
                node.join_set(&set, &mut said);
            }
            drop(node);
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::Builder::new().name("join".into()).spawn(move || run(weak))?;
    Ok(())
}

impl Node {
    /// One look at the groups of a set: what lacks its base gets it; if nothing does, the registry is told.
    fn join_set(self: &Arc<Self>, set: &SetEntry, said: &mut String) {
        let groups: Vec<GroupId> = self.catalog().groups_of(set.id).collect();
        let mut whole = true;
        for id in groups {
            match self.join_group(id, set) {
                Ok(here) => whole &= here,
                Err(e) => {
                    whole = false;
                    let text = e.to_string();
                    if *said != text {
                        eprintln!("dspm-node: joining: group {id}: {text}");
                        *said = text;
                    }
                }
            }
        }
        if whole {
            said.clear();
            self.tell_whole(set);
        }
    }

    /// True when the group is whole here.
    fn join_group(self: &Arc<Self>, id: GroupId, set: &SetEntry) -> Result<bool, Error> {
        let group = self.group(id)?;
        if is_settled(&group, set) {
            if group.lock().replica.is_whole() {
                return Ok(true);
            }
            self.copy_base(id, &group, self.source(set)?)?;
        }
        Ok(group.lock().replica.is_whole())
    }

    fn source(&self, set: &SetEntry) -> Result<Source, Error> {
        let catalog = self.catalog();
        let node = catalog.view.nodes.iter().find(|n| n.name == set.primary);
        let node = node.ok_or_else(|| Error::Unavailable(format!("no address of the primary {}", set.primary)))?;
        let member = set.members.iter().find(|m| m.node == set.primary);
        let store = member.ok_or_else(|| Error::Unavailable("the primary is no member".into()))?.store;
        Ok(Source { address: node.address.clone(), store, generation: set.generation })
    }
}

/// True when the group takes commits in the set's generation: what it lacks is older.
fn is_settled(group: &SharedGroup, set: &SetEntry) -> bool {
    let g = group.lock();
    g.replica.setup().generation == set.generation && !g.replica.situation().unsettled
}
