//! Three groups of two members each in one thread, and writers that commit over all of them: the network loses, repeats and
//! reorders, members restart with what they hold, sets change their primary, writers die at any step.

use crate::{Caller, Effect, Fence, Member, NodeNo, Origin, PeerMessage, Records, Replica, Setup, Term};
use dspm_proto::message::{Acquire, Decision, Inquiry, Outcome, Resolved, Snapshot};
use dspm_proto::record::{DatasetChange, Record};
use dspm_proto::*;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const LEASE: Duration = Duration::from_millis(300);

/// Records that are nothing but records.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) log: Vec<Record>,
    committed: Lsn,
    pub(super) flushed: Lsn,
    fence: Fence,
    pub(super) closed: Lsn,
    /// The newest record cannot be read.
    pub(super) damaged: bool,
}

impl Memory {
    pub(super) fn at(&self, lsn: Lsn) -> Option<&Record> {
        self.log.get((lsn.0 as usize).checked_sub(1)?)
    }
}

impl Records for Memory {
    type Payload = ();
    fn tail(&self) -> RecordId {
        self.log.last().map_or(RecordId::default(), |r| r.id)
    }
    fn id_at(&self, lsn: Lsn) -> Option<RecordId> {
        self.at(lsn).map(|r| r.id)
    }
    fn newest_of(&self, _: ClientId) -> Option<RecordId> {
        None
    }
    fn part(&self, lsn: Lsn) -> Part {
        self.at(lsn).map_or(Part::Alone, |r| r.part)
    }
    fn links(&self, lsn: Lsn) -> Vec<Link> {
        self.at(lsn).filter(|_| !self.damaged).map_or_else(Vec::new, |r| r.links.clone())
    }
    fn close(&mut self, decision: Lsn) {
        self.closed = decision;
    }
    fn without_pages(_: Vec<u8>) {}
    fn fence(&self) -> Fence {
        self.fence
    }
    fn set_fence(&mut self, fence: Fence) {
        self.fence = fence;
    }
    fn committed(&self) -> Lsn {
        self.committed
    }
    fn set_committed(&mut self, lsn: Lsn) {
        assert!(lsn <= self.tail().lsn && self.part(lsn) != Part::Prepared, "{lsn} is called committed");
        self.committed = self.committed.max(lsn);
    }
    fn flushed(&self) -> Lsn {
        self.flushed
    }
    fn session(&self, _: ClientId) -> u64 {
        0
    }
    fn set_session(&mut self, _: Session) {}
    fn append(&mut self, record: &Record, (): (), _: Origin) -> Result<(), Refusal> {
        let tail = self.tail();
        assert_eq!((record.id.lsn, record.predecessor), (tail.lsn.next(), tail.hash));
        if record.part == Part::Aborts {
            assert_eq!(self.part(tail.lsn), Part::Prepared, "nothing to take back");
            if self.flushed < tail.lsn {
                return Err(Refusal::Full);
            }
        }
        self.log.push(record.clone());
        Ok(())
    }
    fn is_whole(&self) -> bool {
        true
    }
    fn keeps_from(&self, _: Lsn) -> bool {
        !self.damaged
    }
    fn cut(&mut self, to: Lsn) -> bool {
        self.log.truncate(to.0 as usize);
        true
    }
    fn rebase(&mut self, _: RecordId) {
        panic!("nobody joins");
    }
    fn horizon(&self) -> Lsn {
        Lsn(0)
    }
    fn set_horizon(&mut self, _: Lsn) {}
    fn is_pinned_too_much(&self) -> bool {
        false
    }
}

/// Something on its way.
#[derive(Clone)]
pub(super) enum Wire {
    Peer(usize, NodeNo, NodeNo, PeerMessage),
    Replicate(usize, NodeNo, NodeNo, Token, Record),
    Commit(usize, NodeNo, Record, u64),
    Ack(u64, usize, NodeNo, Lsn),
    Inquiry(Inquiry),
    Decision(GroupId, Decision),
    Resolved(GroupId, Resolved),
}

pub(super) struct Group {
    pub(super) members: Vec<Replica<Memory>>,
    pub(super) setup: Setup,
    boot: u32,
}

pub(super) struct World {
    pub(super) groups: Vec<Group>,
    pub(super) net: Vec<Wire>,
    pub(super) now: Instant,
    /// Answers to clients: connection, group, what.
    pub(super) told: Vec<(u64, usize, Effect)>,
    disk: bool,
}

fn member(node: NodeNo) -> Member {
    Member { node, store: StoreId(100 + u64::from(node)) }
}

pub(super) fn id_of(g: usize) -> GroupId {
    GroupId(g as u64 + 1)
}

impl World {
    pub(super) fn new(disk: bool) -> World {
        let group = |g: usize| {
            let setup = Setup {
                group: id_of(g),
                generation: Generation(1),
                primary: 0,
                members: vec![member(0), member(1)],
                joining: Vec::new(),
                active: true,
                min_copies: 1,
                term: Term::always(),
                me: member(0),
                boot: 1,
                started: Instant(1),
                lease: LEASE,
                history: Duration::ZERO,
                disk,
                removing: false,
            };
            let new = |n| Replica::new(Memory::default(), Setup { me: member(n), ..setup.clone() }, Instant(1));
            Group { members: vec![new(0), new(1)], setup: setup.clone(), boot: 1 }
        };
        World { groups: (0..3).map(group).collect(), net: Vec::new(), now: Instant(1), told: Vec::new(), disk }
    }

    /// Runs something on a member and takes its effects.
    pub(super) fn on(&mut self, g: usize, n: NodeNo, f: impl FnOnce(&mut Replica<Memory>, Instant)) {
        let now = self.now;
        let replica = &mut self.groups[g].members[n as usize];
        f(replica, now);
        let effects: Vec<Effect> = replica.effects().collect();
        for e in effects {
            self.effect(g, n, e);
        }
    }

    pub(super) fn on_primary(&mut self, g: usize, f: impl FnOnce(&mut Replica<Memory>, Instant)) {
        self.on(g, self.groups[g].setup.primary, f);
    }

    fn effect(&mut self, g: usize, n: NodeNo, e: Effect) {
        match e {
            Effect::Send { to, message } => self.net.push(Wire::Peer(g, n, to, message)),
            Effect::SendRecords { to, token, from, last } => {
                let log = self.groups[g].members[n as usize].records.log.clone();
                let some = log.into_iter().filter(|r| r.id.lsn >= from && r.id.lsn <= last);
                self.net.extend(some.map(|r| Wire::Replicate(g, n, to, token, r)));
            }
            Effect::Inquire { link, lsn } => self.net.push(Wire::Inquiry(Inquiry { asker: id_of(g), lsn, link })),
            Effect::Decide { to, decision } => self.net.push(Wire::Decision(to, decision)),
            Effect::Resolved { to, resolved } => self.net.push(Wire::Resolved(to, resolved)),
            Effect::Ack { to, ack } => self.net.push(Wire::Ack(to.connection, g, n, ack.id.lsn)),
            Effect::Activated => {
                self.groups[g].setup.active = true;
                self.tell_setup(g);
            }
            Effect::Alarm(text) => panic!("{text}"),
            Effect::Snapshot { tail, .. } => {
                let part = self.groups[g].members[n as usize].records.part(tail.lsn);
                assert_ne!(part, Part::Prepared, "half a transaction is shown");
                self.told.push((0, g, e));
            }
            Effect::Refuse { to, .. }
            | Effect::Fail { to, .. }
            | Effect::Granted { to, .. }
            | Effect::Busy { to, .. }
            | Effect::Awaits { to, .. }
            | Effect::Outcome { to, .. } => self.told.push((to.connection, g, e)),
            Effect::AsOf { .. } | Effect::Callback { .. } | Effect::Recall { .. } => {}
        }
    }

    fn tell_setup(&mut self, g: usize) {
        for n in 0..2 {
            let setup = Setup { me: member(n), boot: self.groups[g].boot, ..self.groups[g].setup.clone() };
            self.on(g, n, |r, now| r.configure(setup, now));
        }
    }

    /// The other member becomes primary, in a new generation that has to be activated.
    pub(super) fn change(&mut self, g: usize) {
        let setup = &mut self.groups[g].setup;
        (setup.generation, setup.primary, setup.active) =
            (Generation(setup.generation.0 + 1), 1 - setup.primary, false);
        self.tell_setup(g);
    }

    /// The process of a member dies and comes back with its records.
    pub(super) fn restart(&mut self, g: usize, n: NodeNo) {
        let group = &mut self.groups[g];
        group.boot += 1;
        let records = group.members[n as usize].records.clone();
        let setup = Setup { me: member(n), boot: group.boot, ..group.setup.clone() };
        group.members[n as usize] = Replica::new(records, setup, self.now);
        self.on(g, n, |r, now| r.tick(now));
    }

    pub(super) fn flush(&mut self, g: usize, n: NodeNo) {
        self.on(g, n, |r, now| {
            r.records.flushed = r.records.tail().lsn;
            r.flushed(now);
        });
    }

    /// Delivers one message of the network; what is for writers is handed back.
    pub(super) fn deliver(&mut self, wire: Wire) -> Option<Wire> {
        match wire {
            Wire::Peer(g, from, to, m) => self.on(g, to, |r, now| r.peer(from, member(from).store, m, now)),
            Wire::Replicate(g, from, to, token, r) => self.on(g, to, |x, now| x.replicate(from, token, &r, (), now)),
            Wire::Commit(g, to, r, connection) => {
                let caller = Caller { connection, request: r.id.lsn.0 };
                self.on(g, to, |x, now| x.commit(caller, member(to).store, &r, (), now));
            }
            Wire::Inquiry(m) => self.on_primary(m.link.group.0 as usize - 1, |r, now| r.inquiry(&m, now)),
            Wire::Decision(to, m) => self.on_primary(to.0 as usize - 1, |r, now| r.decision(&m, now)),
            Wire::Resolved(to, m) => self.on_primary(to.0 as usize - 1, |r, now| r.resolved(&m, now)),
            ack @ Wire::Ack(..) => return Some(ack),
        }
        None
    }

    /// Time passes for all.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now = Instant(self.now.0 + ms * 1_000_000);
        for g in 0..self.groups.len() {
            (0..2).for_each(|n| self.on(g, n, |r, now| r.tick(now)));
        }
    }

    /// Everything arrives, in order, for so long.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            for _ in 0..40 {
                for wire in std::mem::take(&mut self.net) {
                    self.deliver(wire);
                }
            }
            if self.disk || self.now.0 % 30_000_000 < 10_000_000 {
                (0..3).for_each(|g| (0..2).for_each(|n| self.flush(g, n)));
            }
            self.pass(10);
        }
    }

    pub(super) fn acquire(&mut self, g: usize, session: Session) {
        let from = Caller { connection: session.client.0, request: 0 };
        let ask = Acquire { session, wait_ns: u64::MAX >> 8, ..Acquire::default() };
        self.on_primary(g, |r, now| r.acquire(from, &ask, now));
    }

    /// The same, without patience.
    pub(super) fn try_acquire(&mut self, g: usize, session: Session) {
        let from = Caller { connection: session.client.0, request: 0 };
        let ask = Acquire { session, ..Acquire::default() };
        self.on_primary(g, |r, now| r.acquire(from, &ask, now));
    }

    /// For whom it was told to wait.
    pub(super) fn awaits(&self, g: usize, session: Session) -> Option<Vec<GroupId>> {
        self.told.iter().rev().find_map(|(c, at, e)| match e {
            Effect::Awaits { groups, .. } if (*c, *at) == (session.client.0, g) => Some(groups.clone()),
            _ => None,
        })
    }

    pub(super) fn granted(&mut self, g: usize, session: Session) -> Option<(Token, RecordId)> {
        let grant = |(c, at, e): &(u64, usize, Effect)| match e {
            Effect::Granted { token, tail, .. } if (*c, *at) == (session.client.0, g) => Some((*token, *tail)),
            _ => None,
        };
        let found = self.told.iter().rev().find_map(grant);
        self.told.retain(|t| grant(t).is_none());
        found
    }

    pub(super) fn ask_outcome(&mut self, g: usize, session: Session, r: &Record) {
        let from = Caller { connection: session.client.0, request: 1 };
        let ask = Outcome { session, token: r.token, id: r.id };
        self.on_primary(g, |x, now| x.outcome(from, &ask, now));
    }

    pub(super) fn outcome(&self, g: usize, session: Session) -> Option<bool> {
        self.told.iter().rev().find_map(|(c, at, e)| match e {
            Effect::Outcome { committed, .. } if (*c, *at) == (session.client.0, g) => Some(*committed),
            _ => None,
        })
    }

    /// Time passes, and no word gets from one group to another.
    pub(super) fn run_apart(&mut self, ms: u64) {
        let between = |wire: &Wire| matches!(wire, Wire::Decision(..) | Wire::Inquiry(..) | Wire::Resolved(..));
        for _ in 0..ms / 10 {
            for _ in 0..40 {
                self.net.retain(|wire| !between(wire));
                for wire in std::mem::take(&mut self.net) {
                    self.deliver(wire);
                }
            }
            self.pass(10);
        }
    }

    /// Asks the primary for the newest state and says which it shows, if it does at once.
    pub(super) fn shown(&mut self, g: usize) -> Option<Lsn> {
        self.told.clear();
        let ask = Snapshot { session: Session { client: ClientId(77), number: 1 }, ..Snapshot::default() };
        self.on_primary(g, |r, now| r.snapshot(Caller { connection: 77, request: 2 }, &ask, now));
        self.told.iter().find_map(|t| match t.2 {
            Effect::Snapshot { tail, .. } if t.1 == g => Some(tail.lsn),
            _ => None,
        })
    }
}

/// A transaction over groups: the first decides.
#[derive(Clone)]
pub(super) struct Transaction {
    pub(super) groups: Vec<usize>,
    /// In the order of the groups, and the resolutions of all but the first.
    pub(super) records: Vec<Record>,
    pub(super) resolutions: Vec<Record>,
}

impl Transaction {
    pub(super) fn new(session: Session, groups: &[usize], leases: &BTreeMap<usize, (Token, RecordId)>) -> Transaction {
        let blank = |g: usize| Record {
            group: id_of(g),
            id: RecordId { generation: leases[&g].0.generation, lsn: leases[&g].1.lsn.next(), hash: 0 },
            token: leases[&g].0,
            session,
            transaction: 1,
            predecessor: leases[&g].1.hash,
            floor: Lsn(0),
            part: Part::Alone,
            datasets: vec![DatasetChange { dataset: DatasetId(g as u64), size: 4096 }],
            links: Vec::new(),
            pages: Vec::new(),
        };
        let link = |r: &Record, hash| Link { group: r.group, lsn: r.id.lsn, hash, token: r.token };
        let mut records: Vec<Record> = groups.iter().map(|g| blank(*g)).collect();
        let links = records[1..].iter().map(|r| link(r, 0)).collect();
        (records[0].part, records[0].links) = (Part::Decides, links);
        records[0].seal();
        let decider = link(&records[0], records[0].id.hash);
        let mut resolutions = Vec::new();
        for r in &mut records[1..] {
            (r.part, r.links) = (Part::Prepared, vec![decider]);
            r.seal();
            let mut next = Record { part: Part::Alone, datasets: vec![], links: vec![], ..r.clone() };
            (next.id.lsn, next.predecessor, next.transaction) = (r.id.lsn.next(), r.id.hash, 2);
            next.seal();
            resolutions.push(next);
        }
        Transaction { groups: groups.to_vec(), records, resolutions }
    }
}
