//! Joining: a node that a set took up brings the base of every group here, then says that it is whole.

use super::group::SharedGroup;
use super::node::Node;
use super::pages::{Door, Source};
use crate::clock;
use dspm_proto::control::{MemberEntry, SetEntry};
use dspm_proto::{Error, Generation, GroupId, Instant, SetId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Pause between two looks at what is missing, and after a try that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Since when the copies of a set's bases have found no room on the disk, in its generation.
type Failing = HashMap<SetId, (Generation, Instant)>;

/// Starts the thread that joins.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>) -> Result<(), Error> {
    let weak = Arc::downgrade(node);
    let run = move |node: Weak<Node>| {
        let (mut said, mut failing) = (String::new(), Failing::new());
        while let Some(node) = node.upgrade() {
            let joining = node.sets.joining(&node.options.name, node.store_id);
            failing.retain(|id, (generation, _)| joining.iter().any(|s| (s.id, s.generation) == (*id, *generation)));
            for set in joining {
                node.join_set(&set, &mut said, &mut failing);
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
    fn join_set(self: &Arc<Self>, set: &SetEntry, said: &mut String, failing: &mut Failing) {
        let groups: Vec<GroupId> = self.catalog().groups_of(set.id).collect();
        let (mut whole, began) = (true, clock::now());
        for id in &groups {
            match self.join_group(*id, set) {
                Ok(here) => whole &= here,
                Err(e) => {
                    whole = false;
                    let text = e.to_string();
                    if matches!(e, Error::Full(_)) {
                        self.has_no_room(set, &text, began, failing);
                    }
                    if *said != text {
                        eprintln!("dspm-node: joining: group {id}: {text}");
                        *said = text;
                    }
                }
            }
        }
        if whole && groups.iter().all(|id| self.group(*id).is_ok_and(|g| vouches(&g, set))) {
            said.clear();
            self.tell_whole(set);
        }
    }

    /// A base could not be written, by a look that began then.
    fn has_no_room(&self, set: &SetEntry, why: &str, began: Instant, failing: &mut Failing) {
        let (_, since) = failing.entry(set.id).or_insert((set.generation, began));
        if clock::now().since(*since) >= self.patience() {
            self.tell_cannot_join(set.id, why);
        }
    }

    /// True when the group is whole here.
    fn join_group(self: &Arc<Self>, id: GroupId, set: &SetEntry) -> Result<bool, Error> {
        let group = self.group(id)?;
        if is_settled(&group, set) {
            if group.lock().replica.is_whole() {
                return Ok(true);
            }
            let source = self.source(set)?;
            if !self.joins.is_begun(set.id, set.generation) {
                let mut lacking: Vec<GroupId> = self.catalog().groups_of(set.id).collect();
                lacking.retain(|id| !self.group(*id).is_ok_and(|g| is_settled(&g, set) && g.lock().replica.is_whole()));
                self.joins.begin(set.id, set.generation, self.bytes_of(&lacking, &source)?);
            }
            self.copy_base(id, &group, &source, set.id)?;
        }
        Ok(group.lock().replica.is_whole())
    }

    fn source(&self, set: &SetEntry) -> Result<Source, Error> {
        let catalog = self.catalog();
        let door = |m: &MemberEntry| {
            let node = catalog.view.nodes.iter().find(|n| n.name == m.node)?;
            Some(Door { name: m.node.clone(), address: node.address.clone(), store: m.store })
        };
        let (primary, others): (Vec<_>, Vec<_>) = set.members.iter().partition(|m| m.node == set.primary);
        let primary = primary.into_iter().find_map(door);
        let primary =
            primary.ok_or_else(|| Error::Unavailable(format!("no address of the primary {}", set.primary)))?;
        Ok(Source { primary, others: others.into_iter().filter_map(door).collect(), generation: set.generation })
    }
}

/// True when the group is whole in the set's generation, and stays so.
fn vouches(group: &SharedGroup, set: &SetEntry) -> bool {
    let mut g = group.lock();
    g.replica.setup().generation == set.generation && g.replica.vouch()
}

/// True when the group takes commits in the set's generation: what it lacks is older.
fn is_settled(group: &SharedGroup, set: &SetEntry) -> bool {
    let g = group.lock();
    g.replica.setup().generation == set.generation && !g.replica.situation().unsettled
}
