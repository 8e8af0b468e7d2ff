//! The registry's record of a set: the nodes that hold the commits of its groups.

use dspm_proto::{Generation, GroupId, StoreId};
use dspm_txn::{GrantSetup, Member, Setup, Term};
use std::sync::Arc;
use std::time::Duration;

/// The id of a group.
pub fn group_id(group: usize) -> GroupId {
    GroupId(group as u64 + 1)
}

/// A set.
#[derive(Clone, Debug)]
pub struct SetConfig {
    /// Its number.
    pub no: usize,
    /// Its groups.
    pub groups: Vec<usize>,
    /// Counts the changes of this record.
    pub version: u64,
    /// Counts its configurations.
    pub generation: Generation,
    /// All groups are settled in this generation.
    pub active: bool,
    /// Who serves it.
    pub primary: u32,
    /// Its members.
    pub members: Vec<Member>,
    /// Those who hold every commit too and do not count yet.
    pub joining: Vec<Member>,
    /// Members of the configuration that was active last.
    pub last_active: Vec<Member>,
    /// Members asked for.
    pub copies: usize,
    /// With fewer, writes wait.
    pub min_copies: usize,
    /// There is a registry in this run. Without one nobody is asked for grants.
    pub changes: bool,
    /// Durability disk.
    pub disk: bool,
    /// L.
    pub lease: Duration,
    /// How long old versions are kept.
    pub history: Duration,
}

impl SetConfig {
    /// Members and joining ones.
    pub fn everyone(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().chain(&self.joining).copied()
    }

    /// The store id that a node had when it became a member, or began to join; 0 when it is none.
    pub fn store_of(&self, node: u32) -> StoreId {
        self.everyone().find(|m| m.node == node).map_or(StoreId(0), |m| m.store)
    }

    /// True for a complete member with that store.
    pub fn has_member(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    /// What the machine of a node is told.
    pub(crate) fn setup(
        &self,
        group: usize,
        me: Member,
        boot: u32,
        started: dspm_proto::Instant,
        term: Arc<Term>,
    ) -> Setup {
        Setup {
            group: group_id(group),
            generation: self.generation,
            primary: self.primary,
            members: self.members.clone(),
            joining: self.joining.clone(),
            active: self.active,
            min_copies: self.min_copies,
            term,
            me,
            boot,
            started,
            lease: self.lease,
            history: self.history,
            disk: self.disk,
            removing: false,
        }
    }

    /// What the grants of a node are told.
    pub(crate) fn grants(&self, me: u32, complete_only: bool) -> GrantSetup {
        let asked = |m: &Member| m.node != me && (!complete_only || self.has_member(*m));
        GrantSetup {
            generation: self.generation,
            primary: self.primary,
            me,
            others: self.everyone().filter(asked).collect(),
            lease: self.lease,
        }
    }
}
