//! What the checkers cannot see from outside, asked after every event: that what was acknowledged, shown or called
//! committed is held by every member whose memory is intact, synced where durability is disk; that no horizon passes a
//! live reader; that a client's floor never falls.

use crate::begin::PAGES;
use crate::wire::Who;
use crate::world::World;
use dspm_proto::{Lsn, PageNo, RecordId};
use dspm_txn::{Member, Records};
use std::collections::BTreeMap;
use std::rc::Rc;

impl World {
    pub(crate) fn audit(&mut self, who: Who) {
        for (g, id, why) in std::mem::take(&mut self.check.audits) {
            self.held_by_all(g, id, why);
        }
        let n = match who {
            Who::Node(n) => n,
            Who::Client(c) => return self.floors_stay(c),
            Who::Registry => return self.sets_changed(),
        };
        for g in 0..self.groups() {
            let Some(records) = self.nodes[n as usize].records(g) else { continue };
            if let Some(resolution) = records.record(records.last()).filter(|r| r.is_empty()).cloned() {
                self.check.made(g, &resolution);
            }
            let Some(records) = self.nodes[n as usize].records(g) else { continue };
            let (committed, horizon, synced) = (records.committed(), records.horizon(), records.synced());
            let by_base = horizon == records.base_at() && records.has_base();
            let id = records.record(committed).map(|r| r.id);
            if let Some(id) = id.filter(|_| committed > self.committed[g][n as usize]) {
                self.held_by_all(g, id, "called committed");
                let node = &self.nodes[n as usize];
                let complete = self.set_of(g).last_active.iter().any(|m| m.node == n && m.store == node.store);
                let healing = node.is_healing(g); // it had synced what its disk lost
                if self.set_of(g).disk && synced < committed && complete && !healing {
                    self.check.fail(|| format!("node{n} calls {committed} committed, its log is synced to {synced}"));
                }
            }
            self.committed[g][n as usize] = committed;
            if horizon > self.horizons[g][n as usize] && !by_base {
                self.readers_below(g, n, horizon);
            }
            self.horizons[g][n as usize] = horizon;
        }
    }

    /// What was seen is held by every intact member of the last active set, whatever the registry wrote.
    fn sets_changed(&mut self) {
        let Some(registry) = &self.registry else { return };
        for s in 0..self.sets.len() {
            let new = &registry.backups.newest()[s];
            if Rc::ptr_eq(new, &self.sets[s]) {
                continue;
            }
            let whole = |m: &Member| self.nodes[m.node as usize].has_all_of(m.store);
            if !new.last_active.iter().any(whole) {
                self.check.fail(|| format!("set {s} becomes active with nobody who has all of it"));
            }
            for g in &new.groups {
                self.check.copies(*g, new.generation, new.members.len(), new.min_copies);
            }
            self.sets[s] = new.clone();
        }
        self.audit_all();
    }

    fn floors_stay(&mut self, c: u32) {
        let client = &self.clients[c as usize];
        for g in 0..self.groups() {
            let floor = client.floor(g);
            let before = self.floors.insert((client.session.client, g), floor).unwrap_or(Lsn(0));
            if floor < before {
                self.check.fail(|| format!("client{c} may need {floor} of group {g}, but gave up all below {before}"));
            }
        }
    }

    /// Every member with intact memory holds the record, at the durability asked for.
    fn held_by_all(&mut self, g: usize, id: RecordId, why: &str) {
        for m in &self.set_of(g).clone().last_active {
            let node = &self.nodes[m.node as usize];
            let whole = node.has_all_of(m.store) && !node.is_healing(g);
            let Some(records) = node.records(g).filter(|_| whole) else { continue };
            let synced = !self.set_of(g).disk || records.synced() >= id.lsn;
            if !records.holds(id) || !synced {
                let (n, last) = (m.node, records.last());
                let what = if synced { "lacks it" } else { "did not sync it" };
                return self.check.fail(|| format!("{why}: {id} of group {g}, but node{n} (at {last}) {what}"));
            }
        }
    }

    fn readers_below(&mut self, g: usize, n: u32, horizon: Lsn) {
        for c in self.clients.iter().filter(|c| !self.dead.contains(&Who::Client(c.no))) {
            let now = self.clocks[&Who::Client(c.no)].local(self.time);
            let live = c
                .threads
                .iter()
                .filter(|t| t.group == g && t.past.is_none() && now < c.desks[g].confirmed)
                .filter_map(|t| t.view);
            // What is granted of the past is the primary's business.
            let past = c.threads.iter().filter(|t| t.group == g && n == self.set_of(g).primary);
            let past = past.filter(|t| t.past.is_some_and(|p| now < p.until)).filter_map(|t| t.view);
            if let Some(v) = live.chain(past).find(|v| v.protected && v.id.lsn < horizon) {
                let no = c.no;
                self.check.fail(|| format!("node{n} raises the horizon to {horizon}; client{no} reads {}", v.id));
            }
        }
    }

    /// The history of transactions, with the lists that are there now.
    pub fn check_transactions(&mut self) {
        let mut last = BTreeMap::new();
        for g in self.live_groups() {
            let config = self.set_of(g);
            let whole = |m: &&Member| self.nodes[m.node as usize].has_all_of(m.store);
            let member = config.last_active.iter().filter(whole).max_by_key(|m| self.committed[g][m.node as usize]);
            let Some(records) = member.and_then(|m| self.nodes[m.node as usize].records(g)) else { continue };
            let at = records.committed().max(self.check.top(g));
            let pages = (0..PAGES).map(|p| records.version(PageNo(p), at));
            last.extend(pages.map(|(page, _, value)| ((g, page), value)));
        }
        self.check.check_transactions(&last);
    }

    /// Everything that was seen is still there. That is asked of every change of a set too.
    pub fn audit_all(&mut self) {
        for g in 0..self.groups() {
            if let Some(id) = self.check.top_id(g) {
                self.held_by_all(g, id, "in the last active set");
            }
        }
    }
}
