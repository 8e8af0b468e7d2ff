//! Messages of the control plane: JSON in the metadata of [`Kind::Control`](crate::Kind::Control), because they are
//! rare and read by people. Requests carry `op`; replies are the named struct; errors are error replies.
//!
//! The registry dials nodes and both ask over that one connection; clients ask nodes and never speak HTTP.

use crate::ids::{DatasetId, Generation, GroupId, SetId, StoreId};
use serde::{Deserialize, Serialize};

/// A request of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Control {
    /// Registry to node, every 100 ms: answered with [`Pong`].
    Ping {
        /// Why the registry decides nothing; empty when it does.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        trouble: String,
    },
    /// Registry to node: nodes and replica sets, whole. Answered with [`Done`].
    View(View),
    /// Registry to node: entries of the catalog. Answered with [`Done`].
    Datasets {
        /// True when this and the messages up to the first without `more` are the whole catalog: when they are all
        /// there, whatever else the node knows is forgotten.
        whole: bool,
        /// The next message goes on with the same change, which counts when all of it is there.
        #[serde(default)]
        more: bool,
        /// New or changed entries.
        put: Vec<DatasetEntry>,
        /// Names that are gone; a renamed dataset's old one too.
        del: Vec<String>,
        /// Groups of datasets that were removed: only this destroys data. It is answered when no later start of the
        /// node finds them again.
        #[serde(default)]
        drop: Vec<GroupId>,
    },
    /// Client to node, node to registry: answered with [`Located`].
    Locate {
        /// The dataset's name.
        name: String,
        /// Creates it with these options if it is missing.
        create: Option<CreateOptions>,
    },
    /// Client to node, node to registry: removes a dataset. Answered with [`Done`].
    Remove {
        /// The dataset's name.
        name: String,
        /// Also while its primary cannot say that it is [`Control::Quiet`]: a transaction over several databases that it
        /// decided about may end in some of them only.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_loss: bool,
    },
    /// Client to node, node to registry: renames a dataset. Answered with [`Done`].
    Rename {
        /// The dataset's name.
        name: String,
        /// Its new name.
        to: String,
        /// The name that the dataset which has the new name now gets, in the same step. Without it the new name must
        /// be free.
        #[serde(default)]
        aside: Option<String>,
    },
    /// Primary to registry: every group of the set is settled in that generation. Answered with [`Done`] when the set is
    /// active; the view says it.
    Activated {
        /// The set.
        set: SetId,
        /// Its generation.
        generation: Generation,
    },
    /// Primary to registry, again and again until the dataset is gone: it lets no writer in, and nobody will ask what the
    /// group decided. Answered with [`Done`] when the dataset is removed.
    Quiet {
        /// The set.
        set: SetId,
        /// Its generation.
        generation: Generation,
        /// The group.
        group: GroupId,
        /// [`DatasetEntry::removing`] of its dataset.
        removing: u64,
    },
    /// Node to registry: was the dataset of that group removed? Answered with [`Done`], which is false for a group that the
    /// registry's state does not know.
    Removed {
        /// The group.
        group: GroupId,
    },
    /// Joining node to registry: it holds every group of the set wholly. Answered with [`Done`] when it is a member.
    Whole {
        /// The set.
        set: SetId,
        /// Its generation.
        generation: Generation,
        /// The node's store id.
        store: StoreId,
    },
    /// Primary to registry, every 250 ms while it lasts: a member or joining node does not give it grants. Answered with
    /// [`Done`]; the view says what comes of it.
    Suspect {
        /// The set.
        set: SetId,
        /// Its generation.
        generation: Generation,
        /// Who does not.
        node: String,
        /// That node's store id in the set.
        store: StoreId,
        /// Since when the last grant is over, or the first one was asked for; milliseconds.
        lapsed_ms: u64,
    },
    /// Joining node to registry, again and again until a view shows that it was heard: for want of room it cannot take
    /// what the set's commits need. Answered with [`Done`].
    CannotJoin {
        /// The set.
        set: SetId,
        /// Its generation.
        generation: Generation,
        /// The node's store id.
        store: StoreId,
        /// What it has no room for, in words.
        why: String,
    },
    /// Client to node: a page of the catalog as the node knows it, by name. Answered with [`Listing`].
    List {
        /// Names above this one; from the first if it is empty.
        #[serde(default)]
        after: String,
        /// Most entries of the answer, at most [`LISTED_MAX`](crate::limits::LISTED_MAX); 0 stands for that.
        #[serde(default)]
        limit: u32,
        /// Version of the view that the asker has: the answer carries another one only.
        #[serde(default)]
        view: u64,
    },
    /// Client to node: looks for damage in everything that it holds, or tells how far that is. Answered with
    /// [`ScrubReport`].
    Scrub {
        /// The pass asked about; 0 begins one.
        #[serde(default)]
        pass: u64,
        /// Only of these groups, and not of the log; of everything if there are none.
        #[serde(default)]
        groups: Vec<GroupId>,
    },
    /// Client to node: what it answered for these pages did not fit its checksum. The node looks for itself. Answered with
    /// [`Done`].
    Damaged {
        /// The group.
        group: GroupId,
        /// The dataset.
        dataset: DatasetId,
        /// Pages, at most [`READ_PAGES_MAX`](crate::limits::READ_PAGES_MAX).
        pages: Vec<u64>,
    },
    /// Client to node: answered with [`NodeStatus`].
    Status {
        /// Groups to tell about, at most [`LISTED_MAX`](crate::limits::LISTED_MAX).
        #[serde(default)]
        groups: Vec<GroupId>,
        /// Also those that it holds without a part in their set.
        #[serde(default)]
        held: bool,
    },
}

/// How a dataset is created. Missing values are the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOptions {
    /// "memory", "pm" or "disk".
    #[serde(default)]
    pub durability: Option<Durability>,
    /// Members that hold every commit, the primary included.
    #[serde(default)]
    pub copies: Option<u32>,
    /// Complete members below which writes wait.
    #[serde(default)]
    pub min_copies: Option<u32>,
    /// How long replaced versions are kept, milliseconds.
    #[serde(default)]
    pub history_ms: Option<u64>,
    /// Fails if the name exists.
    #[serde(default)]
    pub exclusive: bool,
}

/// What an acknowledged commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The loss of all copies but one; not a power cut of all members.
    #[default]
    Memory,
    /// A power cut, by persistent memory.
    Pm,
    /// A power cut, by the disk log.
    Disk,
}

impl Durability {
    /// The word of config files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Pm => "pm",
            Durability::Disk => "disk",
        }
    }
}

/// Answer of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The node's name.
    pub name: String,
    /// What it remembers.
    pub store: StoreId,
    /// Raised at each start of the node.
    pub boot: u32,
    /// Version of the view that it has, 0 if none.
    pub view: u64,
    /// [`View::checksum`] of it, 0 if none.
    #[serde(default)]
    pub sum: u64,
    /// Entries of its catalog.
    pub datasets: u64,
    /// Its store ids before, the latest first, whose synced log it holds wholly.
    #[serde(default)]
    pub former: Vec<StoreId>,
    /// Why its disk takes no more, in words; empty when it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub full: String,
    /// For how long it has refused records for want of room, in milliseconds; 0 when it takes them.
    #[serde(default)]
    pub refuses_ms: u64,
}

/// The cluster as the registry knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Raised with every change.
    pub version: u64,
    /// Name of the cluster.
    pub cluster: String,
    /// Address of the registry's HTTP API, for people.
    #[serde(default)]
    pub registry: String,
    /// All nodes.
    pub nodes: Vec<NodeEntry>,
    /// All replica sets.
    pub sets: Vec<SetEntry>,
}

/// A node in the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Unique in the cluster.
    pub name: String,
    /// host:port of the data path.
    pub address: String,
    /// What fails at once with it.
    pub machine: String,
}

/// State of a replica set's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetState {
    /// Nothing is acknowledged or served.
    Activating,
    /// In service.
    Active,
}

/// A member of a set and what it must remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// The node's name.
    pub node: String,
    /// Its store id when it became a member.
    pub store: StoreId,
}

/// The registry's record of a replica set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEntry {
    /// The set.
    pub id: SetId,
    /// Raised with every change of its members.
    pub generation: Generation,
    /// In service or not.
    pub state: SetState,
    /// Name of the member that serves.
    pub primary: String,
    /// Complete members, the primary included.
    pub members: Vec<MemberEntry>,
    /// Members that acknowledge but do not count yet.
    #[serde(default)]
    pub joining: Vec<MemberEntry>,
    /// The members of the last configuration that was active.
    #[serde(default)]
    pub last_active: Vec<MemberEntry>,
    /// Complete members that were dropped since the set last had all its copies: they keep what they hold.
    #[serde(default)]
    pub dropped: Vec<MemberEntry>,
    /// How often the set went on from a state that may lack acknowledged commits.
    #[serde(default)]
    pub history: u64,
}

/// A dataset in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetEntry {
    /// Unique in the cluster.
    pub name: String,
    /// Never used again.
    pub dataset: DatasetId,
    /// The group it commits with.
    pub group: GroupId,
    /// The set that holds the group.
    pub set: SetId,
    /// What an acknowledged commit outlives.
    pub durability: Durability,
    /// Members that hold every commit.
    pub copies: u32,
    /// Complete members below which writes wait.
    pub min_copies: u32,
    /// How long replaced versions are kept, milliseconds.
    #[serde(default)]
    pub history_ms: u64,
    /// Other than 0: this try to remove it waits for [`Control::Quiet`] of its primary.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removing: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Answer of [`Control::Locate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The dataset.
    pub entry: DatasetEntry,
    /// Its replica set.
    pub set: SetEntry,
    /// Nodes of the set, with addresses.
    pub nodes: Vec<NodeEntry>,
    /// Lease length L in milliseconds.
    pub lease_ms: u64,
    /// True when this call created it.
    pub created: bool,
}

/// Answer of [`Control::List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// A page of the catalog, by name.
    pub datasets: Vec<DatasetEntry>,
    /// There are names above the last one.
    pub more: bool,
    /// Entries of the whole catalog.
    pub count: u64,
    /// The view, when it is not the one that the asker has.
    pub view: Option<View>,
}

/// Nothing to say but that it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always true.
    pub done: bool,
}

/// A node's own account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// "serving", or why not.
    pub state: String,
    /// Why the registry decides nothing, in its own words; empty when it does, or is not connected.
    #[serde(default)]
    pub registry: String,
    /// What it remembers.
    pub store: StoreId,
    /// Frames of the arena, in all.
    pub frames: u64,
    /// Frames in use.
    pub frames_used: u64,
    /// Frames not yet on the disk.
    pub frames_dirty: u64,
    /// Bad checksums met since the start.
    pub checksum_errors: u64,
    /// Damaged copies that were put right since the start.
    #[serde(default)]
    pub repaired: u64,
    /// Bytes that were looked at for damage since the start.
    #[serde(default)]
    pub scrubbed_bytes: u64,
    /// Pages that are damaged here and of which no good copy was found.
    #[serde(default)]
    pub lost_pages: u64,
    /// Why the memory of before its last start is gone; empty when it was kept.
    #[serde(default)]
    pub lost: String,
    /// Why its disk takes no more, in words; empty when it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub full: String,
    /// The sets that it joins, and those that it could not.
    #[serde(default)]
    pub joins: Vec<JoinStatus>,
    /// Of the groups asked about, those that this node is a member of and has touched.
    pub groups: Vec<GroupStatus>,
    /// So many of those asked about, from the first, are told of here; the others have to be asked about again.
    #[serde(default)]
    pub covered: u32,
}

/// A set that a node joins: how far the copy of its pages is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinStatus {
    /// The set.
    pub set: SetId,
    /// Bytes of pages that are here.
    pub done: u64,
    /// Bytes of pages that have to come; 0: records are enough.
    pub total: u64,
    /// Why it could not join; empty while it does.
    #[serde(default)]
    pub why: String,
}

/// One group at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// True at the primary.
    pub primary: bool,
    /// Generation that the member is in.
    pub generation: Generation,
    /// Last LSN held.
    pub lsn: u64,
    /// Last LSN known to be committed.
    pub committed: u64,
    /// Last LSN in the synced log.
    pub flushed: u64,
    /// Size in bytes by dataset.
    pub sizes: Vec<(DatasetId, u64)>,
    /// Client that holds the write lease, 0 if none.
    pub writer: u64,
    /// Clients that wait for it.
    pub waiting: u32,
    /// "ok", "settling", "unsettled", "joining" or, with the decider's id, "waits for the decision of group ID"; with the
    /// name of its dataset after it, in brackets, where the node knows one.
    pub state: String,
    /// Generation in which the last record was first sent.
    #[serde(default)]
    pub written: Generation,
    /// True when the pages of before its records are all here.
    #[serde(default)]
    pub whole: bool,
    /// Pages that are damaged here and of which no good copy was found.
    #[serde(default)]
    pub lost_pages: u64,
}

/// How far one look at everything is, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Which pass.
    pub pass: u64,
    /// "waiting", "running" or "done".
    pub state: String,
    /// Bytes that were read.
    pub done_bytes: u64,
    /// Bytes that there were to read when it began, about.
    pub all_bytes: u64,
    /// Pages that were checked.
    pub pages: u64,
    /// Damaged copies of pages, entries of rings and segments of the log that it met.
    pub bad: u64,
    /// Of those, how many are put right.
    pub repaired: u64,
    /// Of those, how many will be when something else ends: a reader of an old snapshot, a node's absence.
    pub waiting: u64,
    /// How many pages are lost.
    pub lost_pages: u64,
    /// The first of them.
    pub lost: Vec<LostPage>,
    /// How long it took so far, milliseconds.
    pub ms: u64,
}

/// A page of which no good copy was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostPage {
    /// Name of the dataset.
    pub name: String,
    /// The dataset.
    pub dataset: DatasetId,
    /// The page.
    pub page: u64,
    /// The commit that wrote it, or a later one.
    pub lsn: u64,
    /// What the other members said, each with its name.
    pub asked: Vec<String>,
}

impl LostPage {
    /// What the other members said, in one line.
    pub fn said(&self) -> String {
        self.asked.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_of_the_json_is_a_contract_with_the_registry() {
        let c = Control::Locate { name: "a.db".into(), create: Some(CreateOptions::default()) };
        assert_eq!(
            serde_json::to_string(&c).unwrap(),
            r#"{"op":"locate","name":"a.db","create":{"durability":null,"copies":null,"min_copies":null,"history_ms":null,"exclusive":false}}"#
        );
        let v: Control = serde_json::from_str(
            r#"{"op":"view","version":1,"cluster":"c","nodes":[],"sets":[{"id":5,"generation":1,"state":"active","primary":"n1","members":[{"node":"n1","store":9}]}]}"#,
        )
        .unwrap();
        assert!(matches!(v, Control::View(View { version: 1, .. })));
    }
}
