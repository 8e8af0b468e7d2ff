//! The registry and its driver: the record of every set, changed by compare-and-swap only.
//!
//! The driver suspects who is silent for 2 L, changes sets for no reason now and then (a wrong suspicion, a planned
//! change), recruits who is not in the set as joining, and hears of what is settled and whole. What it decides it decides
//! on the record as it read it a moment before. After a stop of its own it forgets its timers.
//!
//! Fault model: it is stopped for any time, loses its timers in a restart, is cut off; its record stays, or an old one is
//! put in its place ([`crate::backup`]).

use crate::backup::Backups;
use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::set::SetConfig;
use crate::wire::{Body, Envelope, Who};
use dspm_proto::{Generation, Instant, StoreId};
use dspm_txn::Member;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// How often it looks at its sets.
const STEP: u64 = 20 * MS;
/// It did not run for longer than this: what it did not hear meanwhile says nothing.
const STOPPED: u64 = 80 * MS;
/// Changes of a set are so far apart at least, unless they are planned.
const APART: u64 = 250 * MS;

/// The registry.
pub struct Registry {
    /// The record.
    pub sets: Vec<Rc<SetConfig>>,
    pub(crate) backups: Backups,
    /// What the driver read last: its decisions are about this.
    seen: Vec<Rc<SetConfig>>,
    nodes: u32,
    heard: BTreeMap<u32, (Instant, StoreId)>,
    changed: Vec<Instant>,
    ran: Instant,
    /// When its timers count from.
    since: Instant,
    told: Instant,
    due: Instant,
    /// Changes for no reason, per mille of its steps.
    pub(crate) hasty: u64,
    /// It changes nothing by itself.
    pub(crate) scripted: bool,
    /// Changes so far.
    pub(crate) changes: u64,
}

impl Registry {
    /// Of sets that are active.
    pub fn new(sets: Vec<Rc<SetConfig>>, nodes: u32) -> Registry {
        let changed = vec![Instant(0); sets.len()];
        Registry {
            backups: Backups::new(&sets),
            seen: sets.clone(),
            sets,
            nodes,
            heard: BTreeMap::new(),
            changed,
            ran: Instant(0),
            since: Instant(0),
            told: Instant(0),
            due: Instant(0),
            hasty: 0,
            scripted: false,
            changes: 0,
        }
    }

    fn lease(&self) -> Duration {
        self.sets[0].lease
    }

    /// The process starts again with its record.
    pub(crate) fn start(&mut self, ctx: &Ctx<'_>) {
        (self.ran, self.since) = (ctx.now, ctx.now);
        self.heard.clear();
        self.changed.iter_mut().for_each(|at| *at = ctx.now);
    }

    /// Its record is another one: an old one, or the newest again.
    pub(crate) fn replace(&mut self, sets: Vec<Rc<SetConfig>>) {
        (self.seen, self.sets) = (sets.clone(), sets);
    }

    /// It notices that it was stopped.
    fn run(&mut self, ctx: &Ctx<'_>) {
        let stopped = ctx.now.since(self.ran) > Duration::from_nanos(STOPPED);
        if stopped {
            self.since = ctx.now;
            if !ctx.broken(Mutant::DriverStaleTimers) {
                self.heard.values_mut().for_each(|h| h.0 = ctx.now);
            }
        }
        self.ran = ctx.now;
    }

    /// A message came.
    pub fn deliver(&mut self, e: Envelope, ctx: &mut Ctx<'_>) {
        self.run(ctx);
        let Who::Node(from) = e.from else { return };
        match e.body {
            Body::Beat { store, known, line } => {
                self.backups.heard(from, store, line, known, &self.sets);
                self.heard.insert(from, (ctx.now, store));
            }
            Body::Activated { generation } => self.activated(e.group, from, generation, ctx),
            Body::Whole { generation, store } => self.whole(e.group, Member { node: from, store }, generation, ctx),
            _ => {}
        }
    }

    fn activated(&mut self, g: usize, from: u32, generation: Generation, ctx: &mut Ctx<'_>) {
        let c = &self.sets[g];
        if c.generation == generation && !c.active && c.primary == from {
            let new = SetConfig { active: true, last_active: c.members.clone(), ..(**c).clone() };
            let joining_too = ctx.broken(Mutant::JoinEarly);
            self.swap(g, c.version, if joining_too { promoted(new, |_| true) } else { new }, ctx);
        }
    }

    fn whole(&mut self, g: usize, member: Member, generation: Generation, ctx: &mut Ctx<'_>) {
        let c = &self.sets[g];
        let joins = c.generation == generation && c.active && c.joining.contains(&member);
        if joins && self.swap(g, c.version, promoted((**c).clone(), |m| *m == member), ctx) {
            ctx.check.counts.promoted += 1;
        }
    }

    /// Compare-and-swap.
    fn swap(&mut self, g: usize, version: u64, new: SetConfig, ctx: &mut Ctx<'_>) -> bool {
        let current = self.sets[g].version;
        let old = self.backups.may_be_old() && !ctx.broken(Mutant::OldStateDecides);
        if old || current != version && !ctx.broken(Mutant::DriverNoCas) {
            return false;
        }
        ctx.trace.say(|| {
            let (state, joining) = (if new.active { "active" } else { "activating" }, nodes(&new.joining));
            let (members, last, generation) = (nodes(&new.members), nodes(&new.last_active), new.generation);
            format!("registry: set {g} g{generation} {state} primary {} members {members:?} joining {joining:?} last {last:?}", new.primary)
        });
        self.sets[g] = Rc::new(SetConfig { version: current + 1, ..new });
        self.backups.wrote(&self.sets);
        self.tell(ctx);
        true
    }

    pub(crate) fn tell(&mut self, ctx: &mut Ctx<'_>) {
        self.told = ctx.now;
        for n in 0..self.nodes {
            let body = Body::View(self.sets.clone());
            let link = self.backups.line;
            ctx.out.push(Envelope { from: Who::Registry, to: Who::Node(n), link, group: 0, body });
        }
    }

    /// When [`Registry::tick`] is due.
    pub fn wake(&self) -> Instant {
        self.due
    }

    /// Timers.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.now < self.due {
            return;
        }
        self.run(ctx);
        self.due = Instant(ctx.now.0 + STEP);
        if ctx.now.since(self.told) >= self.lease() / 3 {
            self.tell(ctx);
        }
        self.take_over(ctx);
        for g in 0..self.sets.len() {
            let c = std::mem::replace(&mut self.seen[g], self.sets[g].clone());
            if !self.scripted {
                self.look(g, &c, ctx);
            }
        }
    }

    fn alive(&self, node: u32, now: Instant) -> Option<StoreId> {
        let (at, store) = self.heard.get(&node)?;
        (now.since(*at) <= self.lease() * 2).then_some(*store)
    }

    fn serves(&self, m: &Member, now: Instant) -> bool {
        self.alive(m.node, now) == Some(m.store)
    }

    fn look(&mut self, g: usize, c: &SetConfig, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let planned = ctx.rng.chance(self.hasty);
        if now.since(self.changed[g]) < Duration::from_nanos(APART) && !planned {
            return;
        }
        if now.since(self.since) <= self.lease() * 2 && !planned && !ctx.broken(Mutant::DriverStaleTimers) {
            return; // who was never heard may be about to say something
        }
        let bad = c.everyone().any(|m| !self.serves(&m, now));
        let stuck = !c.active && now.since(self.changed[g]) > self.lease() * 5;
        let spare = (0..self.nodes).any(|n| c.store_of(n) == StoreId(0) && self.alive(n, now).is_some());
        let grow = c.everyone().count() < c.copies && spare;
        if bad || stuck || grow || planned {
            self.change(g, c, planned, ctx);
        }
    }

    fn change(&mut self, g: usize, c: &SetConfig, planned: bool, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let mut base: Vec<Member> = c.last_active.iter().copied().filter(|m| self.serves(m, now)).collect();
        if ctx.broken(Mutant::JoiningPromoted) {
            base.extend(c.joining.iter().copied().filter(|m| self.serves(m, now)));
        }
        if base.is_empty() {
            return; // down
        }
        let all = base.clone();
        ctx.rng.shuffle(&mut base);
        if planned && base.len() > 1 && ctx.rng.chance(500) {
            base.pop();
        }
        let stays = base.iter().any(|m| m.node == c.primary) && !(planned && ctx.rng.chance(500));
        let primary = if stays { c.primary } else { base[0].node };
        let mut spares: Vec<u32> = (0..self.nodes).filter(|n| !all.iter().any(|m| m.node == *n)).collect();
        ctx.rng.shuffle(&mut spares);
        let wanted = c.copies.saturating_sub(base.len());
        let joining = spares.iter().filter_map(|n| Some(Member { node: *n, store: self.alive(*n, now)? }));
        let joining = joining.take(wanted).collect();
        self.check_timers(c, &all, planned, ctx);
        self.propose(g, c, primary, base, joining, ctx);
    }

    fn check_timers(&self, c: &SetConfig, alive: &[Member], planned: bool, ctx: &mut Ctx<'_>) {
        let early = ctx.now.since(self.since) < self.lease();
        let dropped =
            c.members.iter().find(|m| !alive.contains(m) && self.heard.get(&m.node).is_some_and(|h| h.1 == m.store));
        if let Some(m) = dropped.filter(|_| early && !planned) {
            let n = m.node;
            ctx.check.fail(|| format!("the registry drops node{n} on timers of before it was stopped itself"));
        }
    }

    /// A new generation, decided on `c`.
    pub(crate) fn propose(
        &mut self,
        g: usize,
        c: &SetConfig,
        primary: u32,
        members: Vec<Member>,
        joining: Vec<Member>,
        ctx: &mut Ctx<'_>,
    ) {
        let generation = Generation(c.generation.0 + 1);
        let new = SetConfig { generation, active: false, primary, members, joining, ..c.clone() };
        if self.swap(g, c.version, new, ctx) {
            self.changes += 1;
            ctx.check.counts.changes += 1;
            self.changed[g] = ctx.now;
        }
        self.seen[g] = self.sets[g].clone();
    }
}

fn promoted(mut c: SetConfig, which: impl Fn(&Member) -> bool) -> SetConfig {
    let (ready, rest): (Vec<_>, Vec<_>) = c.joining.iter().copied().partition(which);
    c.members.extend(ready);
    (c.joining, c.last_active) = (rest, c.members.clone());
    c
}

fn nodes(members: &[Member]) -> Vec<u32> {
    members.iter().map(|m| m.node).collect()
}
