//! An old record in the registry's place: a backup that somebody put back.
//!
//! Rules: who beats says which record of each set it knows; while one node knows a record that this one did not make nothing
//! is decided, until the registry takes over what nodes know ([`crate::takeover`]), or the newest record is back. A node takes no
//! record over that contradicts one that it knows.
//!
//! Fault model: any record of before, at any time, for up to 1.5 s. What the registry said before on its connections does not
//! arrive any more. Every node is heard once before anything is decided on
//! a record that was put back: one that was dropped long ago, and is the only one to answer, knows no better than the backup.

use crate::set::SetConfig;
use crate::takeover::Known;
use crate::wire::Who;
use crate::world::{Event, World};
use dspm_proto::StoreId;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A version of a set's record, and its checksum.
pub type Version = (u64, u64);

/// The registry's record as it was.
#[derive(Debug)]
pub(crate) struct Backups {
    all: Vec<Vec<Rc<SetConfig>>>,
    /// Nodes that were not heard since an old one was put back.
    unheard: BTreeSet<u32>,
    /// Nodes that know a record which this one did not make.
    ahead: BTreeSet<u32>,
    /// What was heard since an old one was put back.
    pub(crate) known: Known,
    /// How often a record was put in place of another: connections of before are closed.
    pub(crate) line: u64,
}

impl Backups {
    pub(crate) fn new(sets: &[Rc<SetConfig>]) -> Backups {
        Backups {
            all: vec![sets.to_vec()],
            unheard: BTreeSet::new(),
            ahead: BTreeSet::new(),
            known: Known::new(),
            line: 0,
        }
    }

    pub(crate) fn wrote(&mut self, sets: &[Rc<SetConfig>]) {
        self.all.push(sets.to_vec());
    }

    /// What was decided last.
    pub(crate) fn newest(&self) -> &[Rc<SetConfig>] {
        self.all.last().map_or(&[], |sets| sets)
    }

    /// A node says what it knows.
    pub(crate) fn heard(
        &mut self,
        node: u32,
        store: StoreId,
        line: u64,
        known: Vec<Rc<SetConfig>>,
        sets: &[Rc<SetConfig>],
    ) {
        if line != self.line {
            return; // said before
        }
        let newer = |(theirs, ours): (&Rc<SetConfig>, &Rc<SetConfig>)| {
            let (theirs, ours) = (theirs.version(), ours.version());
            theirs.0 > ours.0 || theirs.0 == ours.0 && theirs.1 != ours.1
        };
        self.unheard.remove(&node);
        match known.iter().zip(sets).any(newer) {
            true => self.ahead.insert(node),
            false => self.ahead.remove(&node),
        };
        self.known.insert(node, (store, known));
        let same = self.newest().iter().zip(sets).all(|(a, b)| Rc::ptr_eq(a, b));
        if !same && !self.may_be_old() {
            self.all.push(sets.to_vec()); // nobody had heard of what came later
        }
    }

    /// A node knows what this record did not make.
    pub(crate) fn is_outdated(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// What is decided from here on is decided on the newest record.
    pub(crate) fn is_current(&mut self) {
        self.unheard.clear();
        self.ahead.clear();
    }

    /// Nothing may be decided.
    pub(crate) fn may_be_old(&self) -> bool {
        !self.unheard.is_empty() || !self.ahead.is_empty()
    }
}

impl SetConfig {
    /// The record's version.
    pub fn version(&self) -> Version {
        let members = self.members.iter().chain(&self.joining).chain(&self.last_active);
        let sum = members
            .fold(self.generation.0 << 8 | u64::from(self.primary) << 1 | u64::from(self.active), |h, m| {
                h.rotate_left(9) ^ m.store.0.wrapping_mul(u64::from(m.node) + 3)
            });
        (self.version, sum.rotate_left(self.members.len() as u32))
    }

    /// True when a newer record cannot follow from this one.
    pub fn contradicts(&self, new: &SetConfig) -> bool {
        if new.generation != self.generation {
            return new.generation < self.generation;
        }
        let nodes = |c: &SetConfig| c.everyone().map(|m| m.node).collect::<BTreeSet<_>>();
        let stepped_back = self.active && !new.active || !self.members.iter().all(|m| new.has_node(m.node));
        stepped_back || self.primary != new.primary || nodes(self) != nodes(new)
    }

    fn has_node(&self, node: u32) -> bool {
        self.members.iter().any(|m| m.node == node)
    }
}

impl World {
    /// Somebody puts an old record of the registry back.
    pub(crate) fn restore_backup(&mut self) {
        let Some(registry) = &mut self.registry else { return };
        let all = registry.backups.all.len();
        let which = all - 1 - self.rng.below(all.min(8) as u64) as usize;
        self.put_back(which);
        let end = self.time + self.rng.below(1_500_000_000);
        self.push(end, Event::PutBack);
    }

    /// Puts that one of all records in the registry's place.
    pub(crate) fn put_back(&mut self, which: usize) {
        let Some(registry) = &mut self.registry else { return };
        let old = registry.backups.all[which].clone();
        self.trace
            .say(|| format!("an old record is put back: {:?}", old.iter().map(|c| c.version).collect::<Vec<_>>()));
        registry.replace(old);
        registry.backups.line += 1;
        registry.backups.unheard = (0..self.nodes.len() as u32).collect();
        registry.backups.known.clear();
    }

    /// The registry decides nothing.
    pub(crate) fn has_old_record(&self) -> bool {
        self.registry.as_ref().is_some_and(|r| r.backups.may_be_old())
    }

    /// The newest record is back, whatever was put in its place.
    pub(crate) fn put_newest_back(&mut self) {
        let Some(registry) = self.registry.as_mut().filter(|r| r.backups.may_be_old()) else { return };
        self.trace.say(|| "the newest record is back".into());
        let newest = registry.backups.newest().to_vec();
        // Who heard of another one that was put back in between would be ahead of it: an operator says which it is.
        registry.go_on_from(&newest, false);
        registry.backups.line += 1;
        if !self.dead.contains(&Who::Registry) {
            self.crash(Who::Registry, crate::node::Loss::Nothing);
            self.restart(Who::Registry);
        }
    }
}
