//! When one view may follow another, and the checksum by which two sides see that they have the same one.
//!
//! Invariants: a generation of a set has one primary, and the same nodes from its begin to its end: who joins becomes a
//! member, nobody comes or goes. So two registries that went apart (one of them from a backup) are told apart by the
//! node that heard both.

use crate::checksum;
use crate::codec::Writer;
use crate::control::{MemberEntry, SetEntry, SetState, View};
use std::collections::{BTreeSet, HashMap};

impl View {
    /// XXH3 of the version, the nodes and the sets in the order of the view (docs/formats/wire.md). The registry's address is left
    /// out: it may change without a decision.
    pub fn checksum(&self) -> u64 {
        let mut w = Writer::default();
        w.u64(self.version).u32(self.nodes.len() as u32);
        for n in &self.nodes {
            [&n.name, &n.address, &n.machine].into_iter().for_each(|s| text(&mut w, s));
        }
        w.u32(self.sets.len() as u32);
        self.sets.iter().for_each(|s| set(&mut w, s));
        checksum(&w.bytes)
    }

    /// Why whoever has this view must not take `next` over, which is not older; None when it may.
    pub fn contradiction(&self, next: &View) -> Option<String> {
        if next.version == self.version {
            let same = next.checksum() == self.checksum();
            return (!same).then(|| format!("version {} of the view is known with other content", self.version));
        }
        let known: HashMap<_, _> = self.sets.iter().map(|s| (s.id, s)).collect();
        next.sets.iter().find_map(|s| known.get(&s.id).and_then(|before| before.contradiction(s)))
    }
}

impl SetEntry {
    fn contradiction(&self, next: &SetEntry) -> Option<String> {
        let (id, generation) = (self.id, self.generation);
        if next.generation != generation {
            let back = next.generation < generation;
            return back.then(|| format!("set {id} is known in generation {generation}, not {}", next.generation));
        }
        let stepped_back = self.state == SetState::Active && next.state == SetState::Activating
            || !names(&self.members).is_subset(&names(&next.members));
        let same = self.primary == next.primary && self.named() == next.named() && !stepped_back;
        (!same).then(|| format!("generation {generation} of set {id} is known with other members or another primary"))
    }

    fn named(&self) -> BTreeSet<&str> {
        names(&self.members).union(&names(&self.joining)).copied().collect()
    }
}

fn names(members: &[MemberEntry]) -> BTreeSet<&str> {
    members.iter().map(|m| m.node.as_str()).collect()
}

fn text(w: &mut Writer, s: &str) {
    w.u32(s.len() as u32).raw(s.as_bytes());
}

fn set(w: &mut Writer, s: &SetEntry) {
    w.u64(s.id.0).u64(s.generation.0).u8((s.state == SetState::Active).into());
    text(w, &s.primary);
    for list in [&s.members, &s.joining, &s.last_active, &s.dropped] {
        w.u32(list.len() as u32);
        for m in list {
            text(w, &m.node);
            w.u64(m.store.0);
        }
    }
    w.u64(s.history);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::NodeEntry;
    use crate::{Generation, SetId, StoreId};

    fn members(names: &str) -> Vec<MemberEntry> {
        let entry = |c: char| MemberEntry { node: c.to_string(), store: StoreId(u64::from(u32::from(c))) };
        names.chars().map(entry).collect()
    }

    fn entry(generation: u64, state: SetState, all: &str, joining: &str) -> SetEntry {
        SetEntry {
            id: SetId(7),
            generation: Generation(generation),
            state,
            primary: all[..1].into(),
            members: members(all),
            joining: members(joining),
            last_active: members(all),
            dropped: Vec::new(),
            history: 0,
        }
    }

    fn view(version: u64, sets: Vec<SetEntry>) -> View {
        let node = NodeEntry { name: "a".into(), address: "h:1".into(), machine: "mü\"".into() };
        View { version, cluster: "c".into(), registry: "http://r".into(), nodes: vec![node], sets }
    }

    #[test]
    fn the_checksum_is_the_one_that_python_makes() {
        let mut v = view(3, vec![entry(2, SetState::Active, "ab", "c")]);
        assert_eq!(v.checksum(), 0xaddd_6958_2a9e_ab1c);
        v.registry = "http://elsewhere".into();
        assert_eq!(v.checksum(), 0xaddd_6958_2a9e_ab1c, "it serves elsewhere");
        v.sets[0].history = 1;
        assert_ne!(v.checksum(), 0xaddd_6958_2a9e_ab1c);
    }

    #[test]
    fn what_may_differ_in_one_generation() {
        use SetState::{Activating, Active};
        let before = view(3, vec![entry(2, Activating, "ab", "c")]);
        let follows = |e: SetEntry| before.contradiction(&view(4, vec![e])).is_none();
        let mut other_store = entry(2, Active, "ab", "c");
        other_store.members[1].store = StoreId(99);
        other_store.last_active = members("b");
        other_store.dropped = members("x");
        other_store.history = 5;
        assert!(follows(entry(2, Active, "ab", "c")) && follows(entry(2, Active, "abc", "")) && follows(other_store));
        assert!(follows(entry(3, Activating, "c", "xy")), "another generation is another matter");
        for wrong in [
            entry(2, Active, "ba", "c"),
            entry(2, Active, "ab", ""),
            entry(2, Active, "ab", "d"),
            entry(2, Active, "a", "bc"),
            entry(2, Active, "abd", "c"),
            entry(1, Active, "ab", "c"),
        ] {
            assert!(!follows(wrong.clone()), "{wrong:?}");
        }
        let active = view(3, vec![entry(2, Active, "ab", "c")]);
        assert!(active.contradiction(&view(4, before.sets.clone())).is_some(), "active is not taken back");
        assert!(active.contradiction(&active).is_none() && active.contradiction(&view(3, vec![])).is_some());
    }
}
