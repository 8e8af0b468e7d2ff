//! One group at this node: its replica behind one mutex, opened when first needed.

use super::node::Node;
use super::records::StoreRecords;
use crate::clock;
use dspm_proto::control::{DatasetEntry, MemberEntry, SetEntry, SetState};
use dspm_proto::{Error, GroupId, Instant};
use dspm_store::GroupStore;
use dspm_txn::{Member, Records, Replica, Setup};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A group and what its node needs to serve it.
pub(crate) struct Group {
    pub(crate) entry: DatasetEntry,
    pub(crate) replica: Replica<StoreRecords>,
    /// When the timer is set to, so that it is set again only for something earlier.
    pub(crate) armed: Option<Instant>,
}

impl Group {
    /// True when this node is a member that holds every page: it may be read from.
    pub(crate) fn is_complete(&self) -> bool {
        let setup = self.replica.setup();
        setup.members.contains(&setup.me) && self.replica.records.is_whole()
    }

    /// True when this node joins the group's set.
    pub(crate) fn is_joining(&self) -> bool {
        let setup = self.replica.setup();
        setup.joining.contains(&setup.me)
    }
}

/// Shared by the workers, the timer and the flusher.
#[derive(Clone)]
pub(crate) struct SharedGroup(Arc<Mutex<Group>>);

impl SharedGroup {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Group> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of a group that nobody finds any more. Others may still hold it for the moment of a message; the
    /// group comes back when they do for longer.
    pub(crate) fn take(self) -> Result<GroupStore, SharedGroup> {
        let mut shared = self.0;
        for _ in 0..1000 {
            match Arc::try_unwrap(shared) {
                Ok(g) => return Ok(g.into_inner().unwrap_or_else(PoisonError::into_inner).replica.records.group),
                Err(still) => shared = still,
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(SharedGroup(shared))
    }
}

impl Node {
    /// The group, opened if this node is a member of its set or joins it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a group that no dataset of the catalog has; [`Error::Unavailable`] when this node is
    /// no member, or lost what it remembered as one.
    pub(crate) fn group(&self, id: GroupId) -> Result<SharedGroup, Error> {
        if let Some(g) = self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(g.clone());
        }
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(g) = groups.get(&id) {
            return Ok(g.clone());
        }
        if self.leaving().contains(&id) {
            return Err(Error::Unavailable(format!(
                "what node {} held of group {id} is being freed",
                self.options.name
            )));
        }
        let (entry, set) = self.catalog().group(id)?;
        let setup = self.setup(&entry, &set)?;
        let records = StoreRecords::new(self.store.open_group(id)?, self.store.clone(), self.shortages.clone());
        let replica = Replica::new(records, setup, clock::now());
        let group = SharedGroup(Arc::new(Mutex::new(Group { entry, replica, armed: None })));
        groups.insert(id, group.clone());
        Ok(group)
    }

    /// A group that this node remembers without a part in its set, opened to be asked about: it obeys and serves nobody.
    pub(crate) fn held_group(&self, id: GroupId) -> Option<SharedGroup> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let known = self.store.recovered_groups().contains(&id) && !self.leaving().contains(&id);
        if !known || groups.contains_key(&id) {
            return groups.get(&id).cloned();
        }
        let (entry, set) = self.catalog().group(id).ok()?;
        let records = self.store.open_group(id).ok()?;
        let records = StoreRecords::new(records, self.store.clone(), self.shortages.clone());
        let replica = Replica::new(records, self.setup_of(&entry, &set), clock::now());
        let group = SharedGroup(Arc::new(Mutex::new(Group { entry, replica, armed: None })));
        groups.insert(id, group.clone());
        Some(group)
    }

    /// All groups that are open here.
    pub(crate) fn open_groups(&self) -> Vec<SharedGroup> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many groups are open here.
    pub(crate) fn open_group_count(&self) -> usize {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Members by this process's numbers.
    fn members(&self, entries: &[MemberEntry]) -> Vec<Member> {
        let mut catalog = self.catalog();
        entries.iter().map(|m| Member { node: catalog.number(&m.node), store: m.store }).collect()
    }

    /// The group's configuration for a replica here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this node has no part in the set, or lost what it remembered as a member.
    fn setup(&self, entry: &DatasetEntry, set: &SetEntry) -> Result<Setup, Error> {
        let me = set.members.iter().chain(&set.joining).find(|m| m.node == self.options.name).ok_or_else(|| {
            Error::Unavailable(format!("node {} is no member of the set of {}", self.options.name, entry.name))
        })?;
        if me.store != self.store_id {
            return Err(Error::Unavailable(format!(
                "node {} lost its memory of {} and cannot serve it until it has joined again",
                self.options.name, entry.name
            )));
        }
        Ok(self.setup_of(entry, set))
    }

    /// The same for a group that is open here, also where this node has no part in its set any more: then it obeys
    /// nobody of an older generation, and does nothing else.
    pub(crate) fn setup_of(&self, entry: &DatasetEntry, set: &SetEntry) -> Setup {
        let (members, joining) = (self.members(&set.members), self.members(&set.joining));
        let term = self.sets.term(set.id);
        let mut catalog = self.catalog();
        Setup {
            group: entry.group,
            generation: set.generation,
            primary: catalog.number(&set.primary),
            members,
            joining,
            active: set.state == SetState::Active,
            min_copies: entry.min_copies as usize,
            term,
            me: Member { node: catalog.number(&self.options.name), store: self.store_id },
            boot: self.boot,
            started: self.started,
            lease: self.options.lease,
            history: std::time::Duration::from_millis(entry.history_ms),
            disk: entry.durability == dspm_proto::control::Durability::Disk,
            removing: entry.removing != 0,
        }
    }
}
