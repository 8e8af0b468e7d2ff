//! What goes wrong in a random run, and the fault-free end of it.
//!
//! Faults: loss, delay, repeats, cuts one way and both, stops longer than a lease, crashes with memory kept, power
//! cuts that tear what is written (durability disk; also of all nodes at once), synced records that read with another
//! bit, memory lost (durability memory; either on at most copies − 1 nodes), new
//! connections, new client processes, new sessions.
//!
//! Then everything is healed and every thread must read and write again in every group whose members are whole: what
//! hangs, or starves in the queue, is a violation too.

use crate::client::Client;
use crate::mutant::Mutant;
use crate::network::{Cut, Weather};
use crate::node::Loss;
use crate::rng::Rng;
use crate::thread::{Step, Thread};
use crate::wire::Who;
use crate::world::{Actor, Event, Shape, World};
use std::time::Duration;

const MS: u64 = 1_000_000;
/// Longest fault-free suffix until every thread got its turn.
const SUFFIX_MAX: u64 = 6_000 * MS;
/// A run with more events than this spins.
const EVENTS_MAX: u64 = 3_000_000;

impl World {
    /// The world of a seed, with its own weather and its own clumsiness.
    pub fn random(seed: u64, mutant: Option<Mutant>, lines: bool) -> World {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let changes = seed % 5 < 3;
        let copies = rng.pick(&[2, 2, 3]);
        // Few runs have many groups: they cost as much time as several.
        let (sets, groups) = rng.pick(&[(1, 1), (1, 1), (1, 1), (2, 2), (2, 2), (1, 2), (2, 3), (2, 4)]);
        let shape = Shape {
            copies,
            nodes: copies + if changes { rng.range(1, 2) } else { rng.below(2) } as u32,
            sets,
            groups,
            clients: rng.range(2, 3) as u32,
            threads: rng.range(1, 3) as usize,
            disk: rng.chance(if changes { 300 } else { 600 }),
            changes,
            lease: Duration::from_millis(rng.pick(&[300, 300, 100])),
            history: Duration::from_millis(rng.pick(&[0, 20, 200, 5000])),
        };
        let mut world = World::new(seed, shape, mutant, lines);
        let weather = Weather {
            loss: rng.pick(&[0, 0, 2, 20]),
            repeat: rng.pick(&[0, 10, 100]),
            slow: rng.pick(&[0, 10, 60]),
            slow_max: rng.pick(&[3 * MS, 60 * MS, 700 * MS]),
            keep: false,
        };
        world.network.weather = weather;
        world.fault_gap = rng.pick(&[25 * MS, 80 * MS, 250 * MS, 600 * MS]);
        world.fault_until = rng.range(700, if changes { 4000 } else { 2500 }) * MS;
        world.loses = rng.chance(if changes { 600 } else { 120 });
        // Without a registry a set that lost a member waits for ever, and with it those whose decisions it has.
        let several = if changes || !world.loses { rng.pick(&[0, 150, 400]) } else { 0 };
        world.several = several;
        world.clients.iter_mut().for_each(|c| c.several = several);
        if let Some(registry) = &mut world.registry {
            registry.hasty = rng.pick(&[0, 10, 40, 100]);
            let copy_max = rng.pick(&[5 * MS, 100 * MS, 600 * MS]);
            world.nodes.iter_mut().for_each(|n| n.copy_max = copy_max);
        }
        world.nodes.iter_mut().for_each(|n| n.tears = true);
        world.nodes.iter_mut().for_each(|n| n.sync_max = rng.pick(&[MS, 10 * MS, 120 * MS]));
        let most = (groups as u64).max(2);
        let (room, tight) = (rng.pick(&[u64::MAX, u64::MAX, most + 1, most]), rng.pick(&[0, 0, 100, 400]));
        world.nodes.iter_mut().for_each(|n| (n.room, n.tight) = (room, tight));
        world.push(world.time, Event::Fault);
        world
    }

    /// Runs it: faults, then none.
    pub fn play(&mut self) {
        let mut events = 0;
        while self.check.violation().is_none() && self.step(self.fault_until) {
            events += 1;
            if events > EVENTS_MAX {
                return self.check.fail(|| "too many events: something spins".into());
            }
        }
        if self.check.violation().is_none() {
            self.calm(EVENTS_MAX);
        }
    }

    pub(crate) fn fault(&mut self) {
        if self.time >= self.fault_until {
            return;
        }
        let next = self.time + self.rng.below(2 * self.fault_gap);
        self.push(next, Event::Fault);
        if self.time < 20 * MS {
            return;
        }
        self.check.counts.faults += 1;
        let who = self.anybody();
        if self.dead.contains(&who) || self.paused.contains_key(&who) {
            return;
        }
        match self.rng.below(100) {
            0..=34 => self.stop(who),
            35..=54 => self.part(),
            55..=79 => self.kill(who),
            80..=84 => self.blackout(),
            85..=89 => self.new_session(),
            _ => self.reconnect(),
        }
    }

    fn anybody(&mut self) -> Who {
        let (nodes, clients) = (self.nodes.len() as u64, self.clients.len() as u64);
        match self.rng.below(nodes + clients + u64::from(self.registry.is_some())) {
            n if n < nodes => Who::Node(n as u32),
            n if n < nodes + clients => Who::Client((n - nodes) as u32),
            _ => Who::Registry,
        }
    }

    fn stop(&mut self, who: Who) {
        let lease = self.sets[0].lease.as_nanos() as u64;
        let longest =
            self.rng.pick(&[2 * MS, 30 * MS, lease, if self.registry.is_some() { 6 * lease } else { 3 * lease }]);
        let end = self.time + self.rng.below(longest);
        self.pause(who);
        self.push(end, Event::Resume(who));
    }

    fn part(&mut self) {
        self.serial += 1;
        let most = if self.registry.is_some() { 4 } else { 2 };
        let side = (0..self.rng.range(1, most)).map(|_| self.anybody()).collect();
        let way = self.rng.below(4);
        let cut = Cut { id: self.serial, side, out: way != 0, into: way != 1 };
        self.trace.say(|| format!("cut off: {:?} out={} into={}", cut.side, cut.out, cut.into));
        let lease = self.sets[0].lease.as_nanos() as u64;
        let end = self.time + self.rng.below(if self.registry.is_some() { 5 * lease } else { 2 * lease });
        self.push(end, Event::Heal(cut.id));
        self.network.cut(cut);
    }

    fn kill(&mut self, who: Who) {
        let loss = match who {
            Who::Node(n) if self.may_lose(n) && self.rng.chance(250) => Loss::Memory,
            Who::Node(n) if self.may_flip(n) && self.rng.chance(250) => Loss::Flip,
            Who::Node(n) if self.may_flip(n) && self.sets[0].changes && self.rng.chance(200) => {
                return self.nodes[n as usize].sync_fails = true;
            }
            Who::Node(_) if self.sets[0].disk && self.rng.chance(400) => Loss::Power,
            _ => Loss::Nothing,
        };
        self.crash(who, loss);
        if who == Who::Registry && self.rng.chance(400) {
            self.restore_backup();
        }
        let longest = self.rng.pick(&[2 * MS, 50 * MS, if self.registry.is_some() { 2000 * MS } else { 500 * MS }]);
        let back = self.time + self.rng.below(longest);
        self.push(back, Event::Restart(who));
        if matches!(who, Who::Node(_)) && self.rng.chance(600) {
            self.resets(who);
        }
    }

    /// Within the promise: every group keeps one complete member whose memory is intact, of the set that was active last
    /// and of the one that may be about to become active.
    fn may_lose(&self, n: u32) -> bool {
        self.loses && (!self.sets[0].disk || self.sets[0].changes) && self.others_are_whole(n)
    }

    /// Likewise: a disk lies where another member's is honest.
    fn may_flip(&self, n: u32) -> bool {
        self.loses && self.sets[0].disk && self.others_are_whole(n)
    }

    fn others_are_whole(&self, n: u32) -> bool {
        let whole = |m: &dspm_txn::Member| {
            let node = &self.nodes[m.node as usize];
            m.node != n && node.has_all_of(m.store) && !node.flipped && !node.sync_fails
        };
        self.sets.iter().all(|c| c.members.iter().any(whole) && c.last_active.iter().any(whole))
    }

    /// The sync that was to fail does not: its node has become the last one that is whole.
    pub(crate) fn spare_the_last(&mut self, who: Who) {
        let Who::Node(n) = who else { return };
        if self.nodes[n as usize].sync_fails && !self.others_are_whole(n) {
            self.nodes[n as usize].sync_fails = false;
        }
    }

    /// Power fails everywhere; or every process dies.
    fn blackout(&mut self) {
        let loss = if self.sets[0].disk { Loss::Power } else { Loss::Nothing };
        for n in 0..self.nodes.len() as u32 {
            if !self.dead.contains(&Who::Node(n)) {
                self.crash(Who::Node(n), loss);
            }
            let back = self.time + self.rng.below(100 * MS);
            self.push(back, Event::Restart(Who::Node(n)));
        }
    }

    fn running(&mut self) -> Option<Who> {
        let c = Who::Client(self.rng.below(self.clients.len() as u64) as u32);
        (!self.dead.contains(&c) && !self.paused.contains_key(&c)).then_some(c)
    }

    fn new_session(&mut self) {
        if let Some(who) = self.running() {
            self.act(who, |actor, ctx| {
                if let Actor::Client(c) = actor {
                    c.next_session(ctx);
                    c.tick(ctx);
                }
            });
        }
    }

    fn reconnect(&mut self) {
        let node = self.rng.below(self.nodes.len() as u64) as u32;
        if let Some(who) = self.running() {
            self.connect(who, node);
        }
    }

    /// The clients of a node that died notice it.
    fn resets(&mut self, node: Who) {
        let Who::Node(n) = node else { return };
        for c in 0..self.clients.len() as u32 {
            let who = Who::Client(c);
            if !self.dead.contains(&who) && !self.paused.contains_key(&who) {
                self.connect(who, n);
            }
        }
    }

    fn connect(&mut self, who: Who, node: u32) {
        self.act(who, |actor, ctx| {
            if let Actor::Client(c) = actor {
                c.connect(node, ctx);
            }
        });
    }

    /// No faults any more: everybody is up, every thread must read and write.
    fn calm(&mut self, events_max: u64) {
        self.trace.say(|| "---- no faults from here on".into());
        self.network.weather = Weather::FAIR;
        self.heal(None);
        if self.has_old_record() {
            // By itself where that is certain; else an operator says which record is the newest.
            let operator = self.time + self.rng.below(2000 * MS);
            self.push(operator, Event::PutBack);
        }
        let everybody: Vec<Who> = self.clocks.keys().copied().collect();
        for who in everybody {
            self.restart(who);
            self.resume(who);
        }
        self.nodes.iter_mut().for_each(|n| (n.sync_max, n.tight, n.sync_fails) = (MS, 0, false)); // what little room there is stays so
        let live = self.live_groups();
        self.registry.iter_mut().for_each(|r| r.hasty = 0);
        self.clients.iter_mut().for_each(|c| c.calm = Some(live.clone()));
        let before = self.tallies();
        let (healed, end) = (self.time, self.time + SUFFIX_MAX);
        (0..self.clients.len() as u32).for_each(|c| self.keep_nothing(Who::Client(c)));
        for _ in 0..events_max {
            if self.check.violation().is_some() {
                return;
            }
            if self.served(&before, &live) && self.sets_are_whole(&live) {
                self.check.counts.recovery_ms = (self.time - healed) / MS;
                return self.end(&live);
            }
            if !self.step(end) {
                break;
            }
        }
        let late = self.late(&before, &live) + &self.not_whole(&live);
        self.check.fail(|| format!("liveness: without faults these did not read and write in time: {late}"));
    }

    /// Nobody begins anything any more: what is under way comes to its end, in all its groups.
    fn end(&mut self, live: &[usize]) {
        self.trace.say(|| "---- nothing begins from here on".into());
        self.clients.iter_mut().for_each(|c| c.calm = Some(Vec::new()));
        let end = self.time + SUFFIX_MAX;
        let waits = |t: &Thread| t.step != Step::Stopped && t.groups().iter().all(|g| live.contains(g));
        let busy = |c: &Client| c.threads.iter().any(waits) || !c.joints.is_empty();
        // One of a writer that died, which its primary lacks, waits for the settle before the next grant, as any record that
        // was on its way does: nobody waits for it.
        let open = |w: &World, g: &usize| {
            let set = w.sets.iter().find(|s| s.groups.contains(g));
            let led = set.map(|s| w.nodes[s.primary as usize].last(*g));
            w.nodes.iter().any(|n| n.is_unresolved(*g) && Some(n.last(*g)) <= led)
        };
        while self.clients.iter().any(busy) || live.iter().any(|g| open(self, g)) {
            if self.check.violation().is_some() {
                return;
            }
            if !self.step(end) {
                let what = "a transaction does not come to its end, or a prepared record is never resolved";
                return self.check.fail(|| format!("liveness: {what}"));
            }
        }
        self.audit_all();
        self.check_transactions();
    }

    /// Sets have all their copies, each of them complete and there.
    fn sets_are_whole(&self, live: &[usize]) -> bool {
        self.not_whole(live).is_empty()
    }

    fn not_whole(&self, live: &[usize]) -> String {
        let mut text = String::new();
        for c in self.sets.iter().filter(|c| c.changes && c.groups.iter().any(|g| live.contains(g))) {
            let complete = c.members.iter().filter(|m| self.nodes[m.node as usize].has_all_of(m.store)).count();
            if complete < c.copies || !c.active || !c.joining.is_empty() {
                text += &format!("set {} g{} has {complete} of {} copies ", c.no, c.generation, c.copies);
            }
        }
        text
    }

    fn keep_nothing(&mut self, who: Who) {
        self.act(who, |actor, ctx| {
            if let Actor::Client(c) = actor {
                (0..c.desks.len()).for_each(|g| c.keep(g, false, ctx));
            }
        });
    }

    fn tallies(&self) -> Vec<Vec<(u64, u64)>> {
        let sum = |t: &crate::thread::Thread| t.tally.iter().fold((0, 0), |s, x| (s.0 + x.reads, s.1 + x.writes));
        self.clients.iter().map(|c| c.threads.iter().map(sum).collect()).collect()
    }

    /// True when every thread read and wrote since; threads of sets that lost a member are excused.
    fn served(&self, before: &[Vec<(u64, u64)>], live: &[usize]) -> bool {
        live.is_empty() || self.late(before, live).is_empty()
    }

    fn late(&self, before: &[Vec<(u64, u64)>], live: &[usize]) -> String {
        let now = self.tallies();
        let mut late = String::new();
        for (c, client) in self.clients.iter().enumerate() {
            for (t, thread) in client.threads.iter().enumerate() {
                let (old, new) = (before[c][t], now[c][t]);
                let done = new.0 > old.0 && new.1 > old.1;
                if !done && live.contains(&thread.group) {
                    late += &format!(
                        "client{c}.{t} {:?} (reads {}, writes {}) ",
                        thread.step,
                        new.0 - old.0,
                        new.1 - old.1
                    );
                }
            }
        }
        late
    }
}
