//! Grants: the word of every other member of a set that it obeys nobody but this primary for a while.
//!
//! Invariants kept here: a primary's term ends before the first of the grants that it counts; a grant is counted from when it
//! was asked for, by its giver from when it was given; who gave one is not served by itself, nor gives one to another
//! primary of an older generation; a grant of another generation, of a replaced store or of a question that was not
//! asked in this run counts for nothing. One [`Term`] is of one generation: a replica that has not heard of the next one yet
//! does not live on its grants.
//!
//! Fault model: words are lost, repeated and late; clocks differ in rate by at most 1 %; a restarted node may have given
//! a grant a moment before.

use crate::config::Member;
use crate::lease::promised;
use crate::replica::NodeNo;
use dspm_proto::{Generation, Instant, StoreId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When the primary of a set may serve, as its replicas see it. Of one generation.
#[derive(Debug)]
pub struct Term {
    from: AtomicU64,
    until: AtomicU64,
}

impl Term {
    /// From then until before then.
    pub fn new(from: Instant, until: Instant) -> Arc<Term> {
        Arc::new(Term { from: AtomicU64::new(from.0), until: AtomicU64::new(until.0) })
    }

    /// Of a set of one, which asks nobody.
    pub fn always() -> Arc<Term> {
        Term::new(Instant(0), Instant(u64::MAX))
    }

    /// Leases of whoever was obeyed before are over from then on.
    pub fn from(&self) -> Instant {
        Instant(self.from.load(Ordering::Acquire))
    }

    /// The first grant ends then.
    pub fn until(&self) -> Instant {
        Instant(self.until.load(Ordering::Acquire))
    }

    /// True while the primary may serve.
    pub fn serves(&self, now: Instant) -> bool {
        self.from() <= now && now < self.until()
    }
}

/// A set as its grants see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSetup {
    /// Of the set.
    pub generation: Generation,
    /// Who asks.
    pub primary: NodeNo,
    /// This node.
    pub me: NodeNo,
    /// The other members and joining ones.
    pub others: Vec<Member>,
    /// L.
    pub lease: Duration,
}

/// One node's part in the grants of one set. It is kept while the process runs, also when the node is not in the set any
/// more: it may be named again within a lease of what it gave.
#[derive(Debug)]
pub struct Grants {
    setup: GrantSetup,
    /// Highest generation that a group of the set obeys here: an older one is granted nothing.
    fenced: Generation,
    /// What this node gave lasts until then.
    given: Instant,
    term: Arc<Term>,
    /// When this node asked, newest last.
    asked: VecDeque<Instant>,
    /// Until when each of the others obeys.
    had: BTreeMap<NodeNo, Instant>,
    /// When those that never gave one were asked first.
    waited: BTreeMap<NodeNo, Instant>,
    /// Since when this node asks without a gap: it may have been stopped before, and says nothing of that time.
    asking: Instant,
}

impl Grants {
    /// The part of a node that obeys `fenced` already (the highest fence among the set's groups) and may have given
    /// grants before it started that last until `given`: its start plus L, or zero where it never ran before.
    pub fn new(setup: GrantSetup, fenced: Generation, given: Instant) -> Grants {
        let mut grants = Grants {
            fenced: fenced.max(setup.generation),
            setup,
            given,
            term: Term::new(Instant(0), Instant(0)),
            asked: VecDeque::new(),
            had: BTreeMap::new(),
            waited: BTreeMap::new(),
            asking: Instant(0),
        };
        grants.begin();
        grants
    }

    /// What the replicas of the set go by: a new one after every change of generation.
    pub fn term(&self) -> Arc<Term> {
        self.term.clone()
    }

    /// The set changed. An older generation is ignored.
    pub fn configure(&mut self, setup: GrantSetup) {
        if setup.generation < self.setup.generation {
            return;
        }
        let same = setup.generation == self.setup.generation;
        self.fenced = self.fenced.max(setup.generation);
        let replaced = |m: &Member| same && self.setup.others.contains(m);
        let kept: BTreeMap<_, _> = setup
            .others
            .iter()
            .filter(|m| replaced(m))
            .filter_map(|m| Some((m.node, *self.had.get(&m.node)?)))
            .collect();
        let kept_as_it_was: BTreeSet<_> = setup.others.iter().filter(|m| replaced(m)).map(|m| m.node).collect();
        self.setup = setup;
        if same {
            self.waited.retain(|node, _| kept_as_it_was.contains(node));
            self.had = kept;
            self.extend();
        } else {
            self.begin();
        }
    }

    fn is_primary(&self) -> bool {
        self.setup.primary == self.setup.me && self.setup.generation >= self.fenced
    }

    fn begin(&mut self) {
        (self.had, self.asked) = (BTreeMap::new(), VecDeque::new());
        self.waited.clear();
        self.term = Term::new(self.given, Instant(0));
        self.extend();
    }

    fn extend(&mut self) {
        let first = self.setup.others.iter().map(|m| self.had.get(&m.node).copied().unwrap_or_default()).min();
        let until = if self.is_primary() { first.unwrap_or(Instant(u64::MAX)) } else { Instant(0) };
        self.term.until.store(until.0, Ordering::Release);
    }

    /// Whom to ask now, at the primary: every L/3. The question says `now`.
    pub fn tick(&mut self, now: Instant) -> Vec<NodeNo> {
        if self.wake().is_none_or(|due| now < due) {
            return Vec::new();
        }
        if self.asked.back().is_none_or(|at| now.since(*at) >= self.setup.lease) {
            self.asking = now;
        }
        self.asked.push_back(now);
        for m in self.setup.others.iter().filter(|m| !self.had.contains_key(&m.node)) {
            self.waited.entry(m.node).or_insert(now);
        }
        self.asked.retain(|at| now.since(*at) < self.setup.lease);
        self.setup.others.iter().map(|m| m.node).collect()
    }

    /// The others whose grant is over, at the primary, and for how long.
    pub fn lapsed(&self, now: Instant) -> Vec<(Member, Duration)> {
        let since = |m: &Member| self.had.get(&m.node).or_else(|| self.waited.get(&m.node)).copied();
        let over =
            |m: &Member| Some((*m, now.since(since(m)?.max(self.asking)))).filter(|(_, lapsed)| !lapsed.is_zero());
        let asks = self.is_primary();
        self.setup.others.iter().filter(|_| asks).filter_map(over).collect()
    }

    /// When [`Grants::tick`] is due.
    pub fn wake(&self) -> Option<Instant> {
        let asks = self.is_primary() && !self.setup.others.is_empty();
        asks.then(|| self.asked.back().map_or(Instant(0), |at| at.after(self.setup.lease / 3)))
    }

    /// A node asks for a grant, in that generation: whether to answer, with what it asked.
    pub fn asked(&mut self, from: NodeNo, generation: Generation, now: Instant) -> bool {
        let obeyed = generation == self.setup.generation && generation >= self.fenced && from == self.setup.primary;
        if !obeyed || from == self.setup.me {
            return false;
        }
        self.given = self.given.max(now.after(self.setup.lease));
        true
    }

    /// The answer to what was asked at `sent`. `store` is the sender's own store id.
    pub fn granted(&mut self, from: NodeNo, store: StoreId, generation: Generation, sent: Instant) {
        let member = Member { node: from, store };
        let counts = generation == self.setup.generation && self.setup.others.contains(&member);
        if !counts || !self.asked.contains(&sent) {
            return;
        }
        let until = self.had.entry(from).or_default();
        *until = sent.after(promised(self.setup.lease)).max(*until);
        self.extend();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Duration = Duration::from_millis(300);
    const MS: u64 = 1_000_000;

    fn member(node: NodeNo) -> Member {
        Member { node, store: StoreId(u64::from(node) + 10) }
    }

    fn setup(generation: u64, primary: NodeNo, me: NodeNo, others: &[NodeNo]) -> GrantSetup {
        let others = others.iter().copied().map(member).collect();
        GrantSetup { generation: Generation(generation), primary, me, others, lease: L }
    }

    fn granted(g: &mut Grants, from: NodeNo, generation: u64, sent: u64) {
        g.granted(from, member(from).store, Generation(generation), Instant(sent));
    }

    #[test]
    fn the_term_lasts_as_long_as_the_first_grant() {
        let mut g = Grants::new(setup(1, 0, 0, &[1, 2]), Generation(1), Instant(0));
        assert_eq!(g.tick(Instant(5 * MS)), [1, 2]);
        assert_eq!(g.tick(Instant(6 * MS)), [], "every L/3");
        granted(&mut g, 1, 1, 5 * MS);
        assert!(!g.term().serves(Instant(7 * MS)), "node 2 did not answer");
        granted(&mut g, 2, 1, 5 * MS);
        let end = Instant(5 * MS).after(promised(L));
        assert!(g.term().serves(Instant(7 * MS)) && g.term().until() == end && end < Instant(305 * MS));
        assert_eq!(g.tick(Instant(110 * MS)), [1, 2]);
        granted(&mut g, 1, 1, 110 * MS);
        assert_eq!(g.term().until(), end);
    }

    #[test]
    fn an_answer_to_nothing_that_was_asked_counts_for_nothing() {
        let mut g = Grants::new(setup(2, 0, 0, &[1]), Generation(2), Instant(0));
        g.tick(Instant(5 * MS));
        granted(&mut g, 1, 2, 4 * MS); // of the clock before the machine started again
        granted(&mut g, 1, 1, 5 * MS);
        g.granted(1, StoreId(99), Generation(2), Instant(5 * MS));
        granted(&mut g, 3, 2, 5 * MS);
        assert_eq!(g.term().until(), Instant(0));
    }

    #[test]
    fn whoever_gave_a_grant_waits_for_its_end() {
        let mut g = Grants::new(setup(1, 0, 1, &[0]), Generation(1), Instant(0));
        assert!(g.asked(0, Generation(1), Instant(50 * MS)));
        assert!(!g.asked(0, Generation(2), Instant(60 * MS)) && !g.asked(2, Generation(1), Instant(60 * MS)));
        let old = g.term();
        g.configure(setup(2, 1, 1, &[]));
        assert_eq!((g.term().from(), g.term().until()), (Instant(350 * MS), Instant(u64::MAX)));
        assert!(!g.term().serves(Instant(349 * MS)) && g.term().serves(Instant(350 * MS)));
        assert_eq!(old.until(), Instant(0), "a replica of the old generation does not live on the new one's grants");
        g.configure(setup(1, 0, 1, &[0]));
        assert!(!g.asked(0, Generation(1), Instant(400 * MS)), "that generation is over");
    }

    #[test]
    fn a_node_that_obeys_a_higher_generation_neither_gives_nor_asks() {
        let mut backup = Grants::new(setup(1, 0, 1, &[0]), Generation(2), Instant(0));
        assert!(!backup.asked(0, Generation(1), Instant(MS)));
        let mut primary = Grants::new(setup(1, 0, 0, &[]), Generation(2), Instant(0));
        assert_eq!((primary.tick(Instant(MS)), primary.term().until()), (vec![], Instant(0)));
    }

    #[test]
    fn who_does_not_answer_is_told_with_the_time_since_when() {
        let mut g = Grants::new(setup(1, 0, 0, &[1, 2]), Generation(1), Instant(0));
        assert_eq!(g.lapsed(Instant(MS)), [], "nobody was asked");
        g.tick(Instant(5 * MS));
        granted(&mut g, 1, 1, 5 * MS);
        let end = Instant(5 * MS).after(promised(L));
        for asked in [105, 205, 305, 405, 505] {
            g.tick(Instant(asked * MS));
        }
        assert_eq!(g.lapsed(end), [(member(2), end.since(Instant(5 * MS)))]);
        let later = end.after(L);
        assert_eq!(g.lapsed(later)[0], (member(1), L));
        let mut replaced = setup(1, 0, 0, &[1, 2]);
        replaced.others[1].store = StoreId(77);
        g.configure(replaced.clone());
        assert_eq!(g.lapsed(later), [(member(1), L)], "the other is new");
        let asked = Instant(605 * MS);
        g.tick(asked);
        assert_eq!(g.lapsed(asked.after(L / 2))[1], (replaced.others[1], L / 2));
        granted(&mut g, 1, 1, asked.0);
        assert_eq!(g.lapsed(asked.after(L / 2)), [(replaced.others[1], L / 2)]);
        g.configure(setup(2, 0, 0, &[1, 2]));
        assert_eq!(g.lapsed(later.after(L)), [], "another generation");
        let backup = Grants::new(setup(1, 0, 1, &[0]), Generation(1), Instant(0));
        assert_eq!(backup.lapsed(later), []);
    }

    #[test]
    fn who_was_stopped_itself_suspects_nobody_of_that_time() {
        let mut g = Grants::new(setup(1, 0, 0, &[1]), Generation(1), Instant(0));
        g.tick(Instant(5 * MS));
        granted(&mut g, 1, 1, 5 * MS);
        g.tick(Instant(9000 * MS));
        assert_eq!(g.lapsed(Instant(9000 * MS)), []);
        assert_eq!(g.lapsed(Instant(9100 * MS)), [(member(1), L / 3)]);
    }

    #[test]
    fn a_joining_member_that_becomes_one_keeps_its_grant_and_a_replaced_store_does_not() {
        let mut g = Grants::new(setup(1, 0, 0, &[1, 2]), Generation(1), Instant(0));
        g.tick(Instant(5 * MS));
        granted(&mut g, 1, 1, 5 * MS);
        granted(&mut g, 2, 1, 5 * MS);
        let term = g.term();
        g.configure(setup(1, 0, 0, &[2, 1]));
        assert!(term.serves(Instant(9 * MS)) && Arc::ptr_eq(&term, &g.term()));
        let mut replaced = setup(1, 0, 0, &[1, 2]);
        replaced.others[1].store = StoreId(77);
        g.configure(replaced);
        assert!(!term.serves(Instant(9 * MS)));
    }
}
