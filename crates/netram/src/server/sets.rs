//! The replica sets that this node has a part in: their grants, their activation, and joining them.
//!
//! Invariants: a set's grants follow its generation before its groups do; the registry is told that a set is activated
//! when every group of it that the catalog knows is settled in that generation, and that this node is whole when every
//! group is here; or that it cannot join, when a group has found no room for two leases. Each word is repeated until a
//! view shows that it was heard.
//!
//! Fault model: views come late, or repeat; words and grants are lost.

use super::catalog::Catalog;
use super::node::Node;
use crate::clock;
use crate::wire::frame;
use dspm_proto::control::{Control, MemberEntry, SetEntry, SetState};
use dspm_proto::header::FLAG_REPLY;
use dspm_proto::message::{self, Grant};
use dspm_proto::{Error, Generation, GroupId, Header, Instant, Kind, SetId, StoreId};
use dspm_txn::{GrantSetup, Grants, Member, Term};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Pause before the registry is told again.
const REPEAT: Duration = Duration::from_millis(100);

/// Pause before the registry is told again who gives no grants.
const SUSPECT_REPEAT: Duration = Duration::from_millis(250);

/// By their ids.
#[derive(Default)]
pub(crate) struct Sets(Mutex<BTreeMap<SetId, OwnSet>>);

struct OwnSet {
    entry: SetEntry,
    grants: Grants,
    /// Groups that are not settled in this generation yet, while this node activates it.
    unsettled: HashSet<GroupId>,
    /// When the registry was told last.
    told: Instant,
    /// When the registry was told last who gives no grants.
    suspected: Instant,
}

/// A member and the grant that it is asked for.
struct Question {
    to: String,
    store: StoreId,
    generation: Generation,
    grant: Grant,
}

impl Sets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SetId, OwnSet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the primary of a set serves; never, where this node has no part in it.
    pub(crate) fn term(&self, id: SetId) -> Arc<Term> {
        self.lock().get(&id).map_or_else(|| Term::new(Instant(0), Instant(0)), |s| s.grants.term())
    }

    /// The sets that this node, of that store id, joins.
    pub(crate) fn joining(&self, node: &str, store: StoreId) -> Vec<SetEntry> {
        let me = |m: &MemberEntry| m.node == node && m.store == store;
        let joins = |s: &&OwnSet| s.entry.state == SetState::Active && s.entry.joining.iter().any(me);
        self.lock().values().filter(joins).map(|s| s.entry.clone()).collect()
    }
}

impl Node {
    /// Takes the sets of a view over. Answers the groups that this node has to activate: they are settled, clients or no
    /// clients.
    pub(crate) fn take_sets(&self) -> Vec<GroupId> {
        let mut catalog = self.catalog();
        let mine = |m: &MemberEntry| m.node == self.options.name && m.store == self.store_id;
        let has_part = |s: &SetEntry| s.members.iter().chain(&s.joining).any(mine);
        let mut activate = Vec::new();
        let mut sets = self.sets.lock();
        // One that this node has no part in any more may be led by whom it granted something a moment ago.
        let followed = |s: &&SetEntry| has_part(s) || sets.contains_key(&s.id);
        let entries: Vec<SetEntry> = catalog.view.sets.iter().filter(followed).cloned().collect();
        sets.retain(|id, _| entries.iter().any(|e| e.id == *id));
        for entry in entries {
            if sets.get(&entry.id).is_some_and(|s| s.entry == entry) {
                continue;
            }
            let number = |m: &MemberEntry| Member { node: catalog.number(&m.node), store: m.store };
            let all: Vec<Member> = entry.members.iter().chain(&entry.joining).map(number).collect();
            let me = catalog.number(&self.options.name);
            let setup = GrantSetup {
                generation: entry.generation,
                primary: catalog.number(&entry.primary),
                me,
                others: all.into_iter().filter(|m| m.node != me).collect(),
                lease: self.options.lease,
            };
            // The catalog is saved before any group obeys what it says, so no fence is ahead of it.
            let given = if self.boot > 1 { self.started.after(self.options.lease) } else { Instant(0) };
            let set = sets.entry(entry.id).or_insert_with(|| OwnSet {
                entry: entry.clone(),
                grants: Grants::new(setup.clone(), Generation(0), given),
                unsettled: HashSet::new(),
                told: Instant(0),
                suspected: Instant(0),
            });
            set.grants.configure(setup);
            let activates = entry.state == SetState::Activating && entry.primary == self.options.name;
            set.unsettled = if activates { catalog.groups_of(entry.id).collect() } else { HashSet::new() };
            activate.extend(&set.unsettled);
            set.entry = entry;
        }
        activate
    }

    /// A group of a set that this node activates is settled.
    pub(crate) fn group_activated(&self, id: SetId, generation: Generation, group: GroupId) {
        let mut sets = self.sets.lock();
        if let Some(set) = sets.get_mut(&id).filter(|s| s.entry.generation == generation) {
            if set.unsettled.remove(&group) && set.unsettled.is_empty() {
                set.told = Instant(0);
                self.tell_activated(set, clock::now());
            }
        }
    }

    fn tell_activated(&self, set: &mut OwnSet, now: Instant) {
        let activates = set.entry.state == SetState::Activating && set.entry.primary == self.options.name;
        if activates && set.unsettled.is_empty() && now.since(set.told) >= REPEAT {
            set.told = now;
            self.forwarded.tell(&Control::Activated { set: set.entry.id, generation: set.entry.generation });
        }
    }

    /// This node holds every group of a set that it joins.
    pub(crate) fn tell_whole(&self, entry: &SetEntry) {
        let mut sets = self.sets.lock();
        let now = clock::now();
        let set = sets.get_mut(&entry.id).filter(|s| s.entry.generation == entry.generation);
        if let Some(set) = set.filter(|s| now.since(s.told) >= REPEAT) {
            set.told = now;
            let (set, generation) = (entry.id, entry.generation);
            self.joins.whole(entry.id);
            self.forwarded.tell(&Control::Whole { set, generation, store: self.store_id });
        }
    }

    /// This node has no room for what a set that it joins needs: it holds up the set's commits until it is let go.
    pub(crate) fn tell_cannot_join(&self, id: SetId, why: &str) {
        let mut sets = self.sets.lock();
        let now = clock::now();
        let joins =
            |s: &OwnSet| s.entry.joining.iter().any(|m| m.node == self.options.name && m.store == self.store_id);
        let Some(set) = sets.get_mut(&id).filter(|s| joins(s) && now.since(s.told) >= REPEAT) else { return };
        set.told = now;
        let (generation, store, why) = (set.entry.generation, self.store_id, why.to_owned());
        if self.joins.cannot(id, generation, &why) {
            eprintln!("dspm-node: cannot join set {:016x}: {why}", id.0);
        }
        self.forwarded.tell(&Control::CannotJoin { set: id, generation, store, why });
    }

    /// For how long a joining node may find no room before it says that it cannot join.
    pub(crate) fn patience(&self) -> Duration {
        2 * self.options.lease
    }

    /// Says of the sets that it joins which records find no room here.
    fn tell_shortages(&self, now: Instant) {
        for group in self.shortages.lasting(self.patience(), now) {
            let set = self.catalog().set_of(group).map(|s| s.id);
            if let Some(set) = set {
                self.tell_cannot_join(set, &self.store.shortage_text());
            }
        }
    }

    /// Names those to the registry that this primary has no grants of. What that means is the registry's decision.
    fn tell_suspects(&self, set: &mut OwnSet, now: Instant, catalog: &Catalog) {
        if now.since(set.suspected) < SUSPECT_REPEAT {
            return;
        }
        for (member, lapsed) in set.grants.lapsed(now) {
            let Some(node) = catalog.name(member.node) else { continue };
            set.suspected = now;
            let (node, store, lapsed_ms) = (node.to_owned(), member.store, lapsed.as_millis() as u64);
            let (set, generation) = (set.entry.id, set.entry.generation);
            self.forwarded.tell(&Control::Suspect { set, generation, node, store, lapsed_ms });
        }
    }

    /// Asks for the grants that are due, tells the registry again what it did not hear, and opens groups that could not be
    /// opened when their set began to wait for them.
    fn tick_sets(self: &Arc<Self>) {
        let catalog = self.catalog();
        let (mut questions, mut again) = (Vec::new(), Vec::new());
        let mut sets = self.sets.lock();
        let now = clock::now();
        for (id, set) in sets.iter_mut() {
            set.unsettled.retain(|group| catalog.has_group(*group)); // a dataset that was removed is nobody's to settle
            self.tell_activated(set, now);
            if !set.unsettled.is_empty() && now.since(set.told) >= REPEAT {
                set.told = now;
                again.extend(&set.unsettled);
            }
            self.tell_suspects(set, now, &catalog);
            for to in set.grants.tick(now) {
                let Some(name) = catalog.name(to) else { continue };
                let all = set.entry.members.iter().chain(&set.entry.joining);
                let Some(member) = all.into_iter().find(|m| m.node == name) else { continue };
                questions.push(Question {
                    to: name.to_owned(),
                    store: member.store,
                    generation: set.entry.generation,
                    grant: Grant { set: *id, sent_ns: now.0 },
                });
            }
        }
        drop((sets, catalog));
        let open = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        again.retain(|group| !open.contains_key(group));
        drop(open);
        self.activate(again);
        self.quieten();
        self.tell_shortages(now);
        for q in questions {
            if let Some(sender) = self.links.to(&q.to) {
                let mut h = Header::new(Kind::Grant);
                (h.generation, h.store) = (q.generation, q.store);
                sender.send(&frame(h, &message::encode(&q.grant), 0), &[]);
            }
        }
    }

    /// Another member asks for a grant, or gives one.
    pub(crate) fn grant(self: &Arc<Self>, from: &str, store: StoreId, h: &Header, meta: &[u8]) -> Result<(), Error> {
        let grant: Grant = message::decode(meta)?;
        if h.store != self.store_id {
            return Ok(());
        }
        let Some(number) = self.catalog().known_number(from) else { return Ok(()) };
        let mut sets = self.sets.lock();
        let Some(set) = sets.get_mut(&grant.set) else { return Ok(()) };
        let now = clock::now();
        if !h.is_reply() {
            if set.grants.asked(number, h.generation, now) {
                drop(sets);
                let mut answer = Header::new(Kind::Grant);
                (answer.flags, answer.generation, answer.store) = (FLAG_REPLY, h.generation, store);
                if let Some(sender) = self.links.to(from) {
                    sender.send(&frame(answer, &message::encode(&grant), 0), &[]);
                }
            }
            return Ok(());
        }
        let served = set.grants.term().serves(now);
        set.grants.granted(number, store, h.generation, Instant(grant.sent_ns));
        let begins = !served && set.grants.term().serves(now);
        drop(sets);
        if begins {
            self.look_at(grant.set);
        }
        Ok(())
    }

    /// Looks at the open groups of a set: what waited for its term goes on.
    fn look_at(self: &Arc<Self>, set: SetId) {
        for group in self.open_groups() {
            let mut g = group.lock();
            if g.entry.set == set {
                g.replica.tick(clock::now());
                self.run_effects(&mut g);
            }
        }
    }
}

/// Starts the thread that looks after the sets' grants.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>) -> Result<(), Error> {
    let (weak, pause) = (Arc::downgrade(node), node.options.lease / 12);
    let run = move |node: Weak<Node>| {
        while let Some(node) = node.upgrade() {
            node.tick_sets();
            drop(node);
            std::thread::sleep(pause);
        }
    };
    std::thread::Builder::new().name("sets".into()).spawn(move || run(weak))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::free::tests::start;
    use super::*;
    use dspm_proto::DatasetId;
    use dspm_proto::control::{DatasetEntry, Durability, View};

    const SET: SetId = SetId(1);

    fn dataset(group: u64) -> DatasetEntry {
        DatasetEntry {
            name: format!("d{group}"),
            dataset: DatasetId(group),
            group: GroupId(group),
            set: SET,
            durability: Durability::Memory,
            copies: 2,
            min_copies: 1,
            history_ms: 0,
            removing: 0,
        }
    }

    /// A set that this node activates with one that it cannot reach, so that nothing is settled.
    fn activating(node: &Arc<Node>) -> SetEntry {
        let member = |name: &str, store| MemberEntry { node: name.into(), store };
        let members = vec![member("n", node.store_id), member("away", StoreId(9))];
        SetEntry {
            id: SET,
            generation: Generation(2),
            state: SetState::Activating,
            primary: "n".into(),
            joining: Vec::new(),
            last_active: members.clone(),
            members,
            dropped: Vec::new(),
            history: 0,
        }
    }

    #[test]
    fn an_activation_does_not_wait_for_a_dataset_that_was_removed_meanwhile() {
        let dir = std::env::temp_dir().join(format!("dspm-sets-{}", std::process::id()));
        let node = start(&dir);
        node.catalog().take_part(true, false, vec![dataset(1), dataset(2)], Vec::new());
        let (cluster, registry, sets) = ("c".into(), String::new(), vec![activating(&node)]);
        node.take_view(&node.turn(), View { version: 1, cluster, registry, nodes: Vec::new(), sets }).unwrap();
        assert_eq!(node.take_sets().len(), 2);
        let waits_for = || node.sets.lock()[&SET].unsettled.clone();
        assert_eq!(waits_for(), HashSet::from([GroupId(1), GroupId(2)]));
        node.catalog().take_part(false, false, Vec::new(), vec!["d2".into()]);
        node.tick_sets();
        assert_eq!(waits_for(), HashSet::from([GroupId(1)]));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_group_that_could_not_be_opened_is_tried_again() {
        let dir = std::env::temp_dir().join(format!("dspm-sets-again-{}", std::process::id()));
        let node = start(&dir);
        node.catalog().take_part(true, false, vec![dataset(1)], Vec::new());
        let (cluster, registry, sets) = ("c".into(), String::new(), vec![activating(&node)]);
        node.take_view(&node.turn(), View { version: 1, cluster, registry, nodes: Vec::new(), sets }).unwrap();
        node.leaving().insert(GroupId(1));
        let groups = node.take_sets();
        node.activate(groups);
        let is_open = || node.open_group_count() == 1;
        assert!(!is_open());
        node.leaving().clear();
        node.sets.lock().get_mut(&SET).unwrap().told = Instant(0);
        node.tick_sets();
        assert!(is_open());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_grant_outlives_the_part_in_the_set() {
        let dir = std::env::temp_dir().join(format!("dspm-sets-given-{}", std::process::id()));
        let node = start(&dir);
        let take = |version, generation, primary: &str, names: &[&str]| {
            let store = |n: &str| if n == "n" { node.store_id } else { StoreId(9) };
            let members = names.iter().map(|n| MemberEntry { node: (*n).into(), store: store(n) }).collect();
            let entry = SetEntry { primary: primary.into(), members, ..activating(&node) };
            let entry = SetEntry { generation: Generation(generation), state: SetState::Active, ..entry };
            let (cluster, registry) = ("c".into(), String::new());
            node.take_view(&node.turn(), View { version, cluster, registry, nodes: Vec::new(), sets: vec![entry] })
                .unwrap();
            node.take_sets();
        };
        take(1, 1, "away", &["away", "n"]);
        let (away, now) = (node.catalog().number("away"), clock::now());
        assert!(node.sets.lock().get_mut(&SET).unwrap().grants.asked(away, Generation(1), now));
        take(2, 2, "away", &["away"]);
        take(3, 3, "n", &["n"]);
        assert!(node.sets.term(SET).from() >= now.after(node.options.lease), "the other one may serve until then");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
