//! What transactions read and wrote, checked as a whole: a list-append history after K. Kingsbury and P. Alvaro, "Elle:
//! Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020).
//!
//! A page is a list. Whoever writes it has read it and appends values that are used once, so every list that anybody
//! reads tells the order of all writes in it, and a wrong order shows in the lists and not in what this simulator knows
//! of LSNs: nothing in here looks at one. A list is named by its last value.
//!
//! Looked for: lists that do not continue each other, aborted (G1a) and intermediate (G1b) reads, acknowledged appends
//! that are lost, transactions of which a part is there, and cycles ([`crate::cycles`]): G0, G1c, G-single, G2, each also
//! with the order of time. That order counts within a group: reads of several groups are not one snapshot.

use crate::cycles::{Edge, Graph};
use dspm_proto::PageNo;
use std::collections::{BTreeMap, BTreeSet};

/// A page of a group.
pub type Key = (usize, PageNo);

/// A transaction as its caller saw it.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// When it was begun.
    invoked: u64,
    /// Lists that it read, by their last values; 0 is the empty one.
    pub reads: Vec<(Key, u64)>,
    /// Values that it appended.
    appends: Vec<(Key, u64)>,
}

impl Txn {
    /// The list that it read last there.
    pub fn list(&self, key: Key) -> Option<u64> {
        self.reads.iter().rev().find(|r| r.0 == key).map(|r| r.1)
    }

    fn groups(&self) -> BTreeSet<usize> {
        self.reads.iter().chain(&self.appends).map(|op| op.0.0).collect()
    }
}

/// What its caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing, or that nobody knows.
    Unknown,
    /// That it is committed, then.
    Committed(u64),
    /// That it is not.
    Failed,
}

/// A value in a list.
#[derive(Clone, Copy, Debug)]
struct Value {
    key: Key,
    /// The list that it was appended to.
    before: u64,
    writer: usize,
}

/// The transactions of a run.
#[derive(Debug, Default)]
pub struct Transactions {
    clock: u64,
    txns: Vec<(Txn, Fate)>,
    values: BTreeMap<u64, Value>,
}

/// The lists of a key in order: all that were seen are its prefixes.
type Order = Vec<u64>;

impl Transactions {
    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A transaction begins.
    pub fn begin(&mut self) -> Txn {
        Txn { invoked: self.now(), ..Txn::default() }
    }

    /// Its writes are about to be sent: each key with the values that it appends to what it read there.
    pub fn sent(&mut self, mut txn: Txn, appends: &[(Key, Vec<u64>)]) -> usize {
        let writer = self.txns.len();
        for (key, values) in appends {
            let mut before = txn.list(*key).unwrap_or_default();
            for value in values {
                self.values.insert(*value, Value { key: *key, before, writer });
                txn.appends.push((*key, *value));
                before = *value;
            }
        }
        self.txns.push((txn, Fate::Unknown));
        writer
    }

    /// The caller was told that it is committed.
    pub fn committed(&mut self, txn: usize) {
        let now = self.now();
        if !matches!(self.txns[txn].1, Fate::Committed(_)) {
            self.txns[txn].1 = Fate::Committed(now);
        }
    }

    /// The caller was told that it is not.
    pub fn failed(&mut self, txn: usize) {
        self.txns[txn].1 = Fate::Failed;
    }

    /// One that only read returned.
    pub fn read_only(&mut self, txn: Txn) {
        let end = self.now();
        if !txn.reads.is_empty() {
            self.txns.push((txn, Fate::Committed(end)));
        }
    }

    /// The first anomaly. `last` are the lists at the end, of the groups that are there.
    ///
    /// # Errors
    /// What it is.
    pub fn check(&self, last: &BTreeMap<Key, u64>) -> Result<(), String> {
        let orders = self.orders(last)?;
        self.inside()?;
        self.complete(&orders, last)?;
        match self.graph(&orders).cycle() {
            Some((name, cycle)) => Err(format!("{name}: {}", self.describe(&cycle))),
            None => Ok(()),
        }
    }

    /// Every list that was read, and by whom.
    fn observed(&self) -> impl Iterator<Item = (usize, Key, u64)> + '_ {
        let done = |t: &(usize, &(Txn, Fate))| matches!(t.1.1, Fate::Committed(_));
        self.txns
            .iter()
            .enumerate()
            .filter(done)
            .flat_map(|(n, (txn, _))| txn.reads.iter().map(move |(key, list)| (n, *key, *list)))
    }

    fn unroll(&self, mut list: u64) -> Order {
        let mut order = Vec::new();
        while let Some(v) = self.values.get(&list) {
            order.push(list);
            list = v.before;
        }
        order.reverse();
        order
    }

    fn orders(&self, last: &BTreeMap<Key, u64>) -> Result<BTreeMap<Key, Order>, String> {
        let mut lists: BTreeMap<Key, BTreeSet<u64>> = BTreeMap::new();
        let seen = self.observed().map(|(_, key, list)| (key, list));
        seen.chain(last.iter().map(|(key, list)| (*key, *list))).for_each(|(key, list)| {
            lists.entry(key).or_default().insert(list);
        });
        lists.into_iter().map(|(key, lists)| Ok((key, self.order(key, &lists)?))).collect()
    }

    fn order(&self, key: Key, lists: &BTreeSet<u64>) -> Result<Order, String> {
        if let Some(unknown) = lists.iter().find(|l| **l != 0 && !self.values.contains_key(l)) {
            return Err(format!("{} holds {unknown}, which nobody wrote", name(key)));
        }
        let longest = lists.iter().map(|l| self.unroll(*l)).max_by_key(Vec::len).unwrap_or_default();
        if let Some(odd) = lists.iter().find(|l| **l != 0 && !longest.contains(l)) {
            let (a, b) = (self.unroll(*odd), &longest);
            return Err(format!("two orders of {}: {a:?} was read, and {b:?}", name(key)));
        }
        for (at, value) in longest.iter().enumerate() {
            let v = &self.values[value];
            if v.key != key {
                return Err(format!("{} holds {value}, which was written to {}", name(key), name(v.key)));
            }
            if self.txns[v.writer].1 == Fate::Failed {
                return Err(format!("G1a: {} holds {value} of a transaction that failed", name(key)));
            }
            let more = longest.get(at + 1).is_some_and(|next| self.values[next].writer == v.writer);
            if more && lists.contains(value) {
                return Err(format!("G1b: {} was read with {value}, and its writer appended more", name(key)));
            }
        }
        Ok(longest)
    }

    /// A transaction reads one list of a key.
    fn inside(&self) -> Result<(), String> {
        for (n, key, list) in self.observed() {
            if self.txns[n].0.list(key) != Some(list) {
                return Err(format!("a transaction read two lists of {}, one of them {list}", name(key)));
            }
        }
        Ok(())
    }

    /// What was acknowledged is there, and of no transaction a part.
    fn complete(&self, orders: &BTreeMap<Key, Order>, last: &BTreeMap<Key, u64>) -> Result<(), String> {
        let there = |(key, value): &(Key, u64)| orders.get(key).is_some_and(|o| o.contains(value));
        for (txn, fate) in &self.txns {
            let mut known = txn.appends.iter().filter(|(key, _)| last.contains_key(key));
            let lost = known.clone().find(|a| !there(a));
            let Some((key, value)) = lost else { continue };
            if matches!(fate, Fate::Committed(_)) {
                return Err(format!("{value} of {} was acknowledged and is lost", name(*key)));
            }
            if let Some((other, kept)) = known.find(|a| there(a)) {
                let text = format!("{kept} of {} is there, {value} of {} is not", name(*other), name(*key));
                return Err(format!("half a transaction: {text}"));
            }
        }
        Ok(())
    }

    fn graph(&self, orders: &BTreeMap<Key, Order>) -> Graph {
        let mut graph = Graph::new(self.txns.len());
        let writer = |value: &u64| self.values[value].writer;
        for order in orders.values() {
            order.windows(2).for_each(|w| graph.add(writer(&w[0]), Edge::Ww, writer(&w[1])));
        }
        for (reader, key, list) in self.observed() {
            let order = &orders[&key];
            let at = order.iter().position(|v| *v == list);
            at.iter().for_each(|at| graph.add(writer(&order[*at]), Edge::Wr, reader));
            let next = order.get(at.map_or(0, |at| at + 1));
            next.iter().for_each(|next| graph.add(reader, Edge::Rw, writer(next)));
        }
        let groups: BTreeSet<usize> = orders.keys().map(|key| key.0).collect();
        groups.into_iter().for_each(|g| self.order_of_time(g, &mut graph));
        graph
    }

    /// Who had returned before another was begun. What follows from two such edges is left out.
    fn order_of_time(&self, group: usize, graph: &mut Graph) {
        let mut events: Vec<(u64, usize)> = Vec::new();
        for (n, (txn, fate)) in self.txns.iter().enumerate().filter(|(_, (txn, _))| txn.groups().contains(&group)) {
            let end = if let Fate::Committed(end) = fate { Some((*end, n)) } else { None };
            events.extend([Some((txn.invoked, n)), end].into_iter().flatten());
        }
        events.sort_unstable();
        let (mut newest, mut behind) = (BTreeSet::new(), BTreeMap::new());
        for (at, n) in events {
            if at == self.txns[n].0.invoked {
                newest.iter().for_each(|before| graph.add(*before, Edge::Time, n));
                behind.insert(n, newest.clone());
            } else {
                let passed: BTreeSet<usize> = behind.remove(&n).unwrap_or_default();
                newest.retain(|before| !passed.contains(before));
                newest.insert(n);
            }
        }
    }

    fn describe(&self, cycle: &[(usize, Edge)]) -> String {
        let one = |(n, edge): &(usize, Edge)| {
            let (txn, _) = &self.txns[*n];
            format!("T{n} (read {:?}, appended {:?}) -{edge:?}->", txn.reads, txn.appends)
        };
        let first = cycle.first().map_or(0, |c| c.0);
        cycle.iter().map(one).collect::<Vec<_>>().join(" ") + &format!(" T{first}")
    }
}

fn name((group, page): Key) -> String {
    format!("page {page} of group {group}")
}

#[cfg(test)]
mod tests;
