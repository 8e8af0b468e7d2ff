//! One run: processes, their clocks, the network and the queue of events, all on one thread from one seed.
//!
//! After every event the world audits its processes ([`crate::audit`]). A registry is one more process where membership changes.

use crate::check::Checker;
use crate::client::Client;
use crate::clock::Clock;
use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::network::{Network, Weather};
use crate::node::Node;
use crate::registry::Registry;
use crate::rng::Rng;
use crate::set::SetConfig;
use crate::trace::Trace;
use crate::wire::{Envelope, Who};
use dspm_proto::{ClientId, Generation, Instant, Lsn, StoreId};
use dspm_txn::Member;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Members of each group.
    pub copies: u32,
    /// Nodes.
    pub nodes: u32,
    /// Replica sets.
    pub sets: usize,
    /// Groups, spread over the sets.
    pub groups: usize,
    /// Clients.
    pub clients: u32,
    /// Threads of each.
    pub threads: usize,
    /// Durability disk.
    pub disk: bool,
    /// L.
    pub lease: Duration,
    /// How long old versions are kept.
    pub history: Duration,
    /// There is a registry.
    pub changes: bool,
}

pub(crate) enum Event {
    Deliver(Box<Envelope>),
    Wake(Who, u64),
    Resume(Who),
    Restart(Who),
    Heal(u64),
    PutBack,
    Fault,
}

/// A run.
pub struct World {
    /// True time, ns.
    pub time: u64,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The client processes.
    pub clients: Vec<Client>,
    /// Changes the sets, where they change.
    pub registry: Option<Registry>,
    /// The sets as they began.
    pub(crate) first: Vec<Rc<SetConfig>>,
    /// The sets by the registry's record.
    pub sets: Vec<Rc<SetConfig>>,
    /// Between them.
    pub network: Network,
    /// What callers saw.
    pub check: Checker,
    /// What happened.
    pub trace: Trace,
    pub(crate) rng: Rng,
    pub(crate) clocks: BTreeMap<Who, Clock>,
    pub(crate) paused: BTreeMap<Who, Vec<Envelope>>,
    pub(crate) dead: BTreeSet<Who>,
    pub(crate) mutant: Option<Mutant>,
    /// Counts everything that needs a number of its own.
    pub(crate) serial: u64,
    /// Mean time between faults.
    pub(crate) fault_gap: u64,
    pub(crate) fault_until: u64,
    /// Memory is lost in this run, now and then.
    pub(crate) loses: bool,
    /// Of write transactions, those over several groups, per mille.
    pub(crate) several: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    wakes: BTreeMap<Who, u64>,
    links: u64,
    values: u64,
    pub(crate) committed: Vec<Vec<Lsn>>,
    pub(crate) horizons: Vec<Vec<Lsn>>,
    /// What each client process told last: its floor never falls.
    pub(crate) floors: BTreeMap<(ClientId, usize), Lsn>,
}

/// The actor of an event.
pub(crate) enum Actor<'a> {
    Node(&'a mut Node),
    Client(&'a mut Client),
    Registry(&'a mut Registry),
}

impl World {
    /// A world in which everything was just started.
    pub fn new(seed: u64, shape: Shape, mutant: Option<Mutant>, lines: bool) -> World {
        let mut rng = Rng::new(seed);
        let stores: Vec<StoreId> = (0..shape.nodes).map(|_| StoreId(rng.bits() | 1)).collect();
        let sets: Vec<_> = (0..shape.sets).map(|s| Rc::new(config(s, shape, &stores))).collect();
        let registry = shape.changes.then(|| Registry::new(sets.clone(), shape.nodes));
        let nodes = (0..shape.nodes).map(|n| Node::new(n, stores[n as usize], &sets)).collect();
        let rows = vec![vec![Lsn(0); shape.nodes as usize]; shape.groups];
        let mut world = World {
            time: 1_000_000,
            nodes,
            clients: Vec::new(),
            registry,
            first: sets.clone(),
            sets,
            network: Network::new(Weather::FAIR),
            check: Checker::new(shape.groups),
            trace: Trace::new(lines),
            rng,
            clocks: BTreeMap::new(),
            paused: BTreeMap::new(),
            dead: BTreeSet::new(),
            mutant,
            serial: 0,
            fault_gap: 100_000_000,
            fault_until: 0,
            loses: false,
            several: 0,
            queue: BTreeMap::new(),
            order: 0,
            wakes: BTreeMap::new(),
            links: 0,
            values: 0,
            committed: rows.clone(),
            horizons: rows,
            floors: BTreeMap::new(),
        };
        (0..shape.nodes).for_each(|n| world.set_clock(Who::Node(n)));
        if shape.changes {
            world.set_clock(Who::Registry);
            world.act(Who::Registry, |actor, ctx| actor.start(ctx));
        }
        (0..shape.clients).for_each(|c| world.set_clock(Who::Client(c)));
        (0..shape.nodes).for_each(|n| world.act(Who::Node(n), |actor, ctx| actor.start(ctx)));
        (0..shape.clients).for_each(|c| world.new_client(c, shape.threads));
        world
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.committed.len()
    }

    /// The set of a group.
    pub fn set_of(&self, group: usize) -> &Rc<SetConfig> {
        &self.sets[group % self.sets.len()]
    }

    pub(crate) fn set_clock(&mut self, who: Who) {
        let ppm = self.rng.range(0, 8000) as i64 - crate::clock::DRIFT_PPM_MAX;
        let offset = self.rng.below(1 << 50) + 1_000_000_000_000;
        self.clocks.insert(who, Clock::new(offset, ppm));
    }

    /// A client process starts, in place of the one that ran there.
    pub(crate) fn new_client(&mut self, no: u32, threads: usize) {
        self.serial += 1;
        let id = ClientId(self.serial);
        // Some node told it: the registry may know what it told nobody.
        let node = no as usize % self.nodes.len();
        let configs: Vec<_> = self.nodes[node].slots.iter().map(|s| s.config.clone()).collect();
        let nodes = self.nodes.len();
        let now = self.clocks[&Who::Client(no)].local(self.time);
        let mut ctx = context(
            now,
            self.mutant,
            (&mut self.rng, &mut self.check, &mut self.trace),
            (&mut self.links, &mut self.values),
        );
        let mut client = Client::new(no, id, &configs, threads, nodes, &mut ctx);
        client.several = self.several;
        let out = ctx.out;
        match self.clients.get_mut(no as usize) {
            Some(old) => *old = client,
            None => self.clients.push(client),
        }
        out.into_iter().for_each(|e| self.send(e));
        self.plan_wake(Who::Client(no));
    }

    /// Lets a process handle one event.
    pub(crate) fn act(&mut self, who: Who, f: impl FnOnce(Actor<'_>, &mut Ctx<'_>)) {
        self.trace.time = self.time;
        self.spare_the_last(who);
        let now = self.clocks[&who].local(self.time);
        let mut ctx = context(
            now,
            self.mutant,
            (&mut self.rng, &mut self.check, &mut self.trace),
            (&mut self.links, &mut self.values),
        );
        match who {
            Who::Node(n) => f(Actor::Node(&mut self.nodes[n as usize]), &mut ctx),
            Who::Client(c) => f(Actor::Client(&mut self.clients[c as usize]), &mut ctx),
            Who::Registry => {
                if let Some(registry) = &mut self.registry {
                    f(Actor::Registry(registry), &mut ctx);
                }
            }
        }
        let out = ctx.out;
        out.into_iter().for_each(|e| self.send(e));
        self.plan_wake(who);
        self.audit(who);
        self.give_up(who);
    }

    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at.max(self.time), self.order), event);
    }

    /// Puts a message into the network.
    pub fn send(&mut self, e: Envelope) {
        if self.network.takes(&e) {
            return;
        }
        for delay in self.network.delays(&mut self.rng) {
            self.push(self.time + delay, Event::Deliver(Box::new(e.clone())));
        }
    }

    fn plan_wake(&mut self, who: Who) {
        let clock = self.clocks[&who];
        let now = clock.local(self.time);
        let at = match who {
            Who::Node(n) => self.nodes[n as usize].wake(now),
            Who::Client(c) => Some(self.clients[c as usize].wake()),
            Who::Registry => self.registry.as_ref().map(Registry::wake),
        };
        let number = self.wakes.entry(who).or_default();
        *number += 1;
        let number = *number;
        if let Some(at) = at.filter(|at| at.0 < u64::MAX / 2) {
            let time = clock.time(at).max(self.time + 1000);
            self.push(time, Event::Wake(who, number));
        }
    }

    /// Handles the next event before `until`. False: there is none.
    pub fn step(&mut self, until: u64) -> bool {
        let Some(first) = self.queue.first_entry().filter(|e| e.key().0 <= until) else {
            self.time = self.time.max(until);
            return false;
        };
        let ((time, _), event) = first.remove_entry();
        self.time = time;
        self.trace.time = time;
        match event {
            Event::Deliver(e) => self.deliver(*e),
            Event::Wake(who, number) => self.wake(who, number),
            Event::Resume(who) => self.resume(who),
            Event::Restart(who) => self.restart(who),
            Event::Heal(id) => self.heal(Some(id)),
            Event::PutBack => self.put_newest_back(),
            Event::Fault => self.fault(),
        }
        true
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ns: u64) {
        let until = self.time + ns;
        while self.check.violation().is_none() && self.step(until) {}
    }

    fn deliver(&mut self, e: Envelope) {
        if self.dead.contains(&e.to) {
            return;
        }
        if let Some(queued) = self.paused.get_mut(&e.to) {
            return queued.push(e);
        }
        if let Some(e) = self.network.pass(e, &mut self.rng) {
            self.hand_over(e);
        }
    }

    fn hand_over(&mut self, e: Envelope) {
        let closed = e.from == Who::Registry && self.registry.as_ref().is_some_and(|r| r.backups.line > e.link);
        if closed {
            return;
        }
        let [a, b, c] = e.body.digest();
        self.trace.mix(&[self.time, e.from.code() << 32 | e.to.code(), e.group as u64, a, b, c]);
        self.trace.say(|| e.to_string());
        self.act(e.to, |actor, ctx| match actor {
            Actor::Node(node) => node.deliver(e, ctx),
            Actor::Client(client) => client.deliver(e, ctx),
            Actor::Registry(registry) => registry.deliver(e, ctx),
        });
    }

    fn wake(&mut self, who: Who, number: u64) {
        if self.wakes.get(&who) != Some(&number) || self.dead.contains(&who) || self.paused.contains_key(&who) {
            return;
        }
        self.trace.mix(&[self.time, who.code()]);
        self.act(who, |actor, ctx| actor.tick(ctx));
    }

    /// A stopped process goes on: with its timers or with what queued up.
    pub fn resume(&mut self, who: Who) {
        let Some(queued) = self.paused.remove(&who) else { return };
        self.trace.say(|| format!("{who} goes on"));
        let timers_first = self.rng.chance(500);
        if timers_first {
            self.act(who, |actor, ctx| actor.tick(ctx));
        }
        queued.into_iter().for_each(|e| self.hand_over(e));
        self.act(who, |actor, ctx| actor.tick(ctx));
    }

    pub(crate) fn heal(&mut self, id: Option<u64>) {
        self.trace.say(|| "links heal".into());
        self.network.heal(id).into_iter().for_each(|e| self.send(e));
    }
}

impl Actor<'_> {
    pub(crate) fn start(self, ctx: &mut Ctx<'_>) {
        match self {
            Actor::Node(node) => node.start(ctx),
            Actor::Registry(registry) => registry.start(ctx),
            Actor::Client(_) => {}
        }
    }

    fn tick(self, ctx: &mut Ctx<'_>) {
        match self {
            Actor::Node(node) => node.tick(ctx),
            Actor::Client(client) => client.tick(ctx),
            Actor::Registry(registry) => registry.tick(ctx),
        }
    }
}

fn context<'a>(
    now: Instant,
    mutant: Option<Mutant>,
    (rng, check, trace): (&'a mut Rng, &'a mut Checker, &'a mut Trace),
    (links, values): (&'a mut u64, &'a mut u64),
) -> Ctx<'a> {
    Ctx { now, rng, mutant, check, out: Vec::new(), trace, links, values }
}

/// Set s's primary is node s, its backups the next ones: nodes hold several groups in several roles.
fn config(no: usize, shape: Shape, stores: &[StoreId]) -> SetConfig {
    let member = |n: u32| Member { node: n, store: stores[n as usize] };
    let members: Vec<Member> = (0..shape.copies).map(|n| member((no as u32 + n) % shape.nodes)).collect();
    SetConfig {
        no,
        groups: (no..shape.groups).step_by(shape.sets).collect(),
        version: 1,
        generation: Generation(1),
        active: true,
        primary: members[0].node,
        last_active: members.clone(),
        members,
        joining: Vec::new(),
        copies: shape.copies as usize,
        min_copies: (shape.copies as usize - 1).max(1),
        changes: shape.changes,
        disk: shape.disk,
        lease: shape.lease,
        history: shape.history,
    }
}
