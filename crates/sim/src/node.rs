//! The node's runtime: connections, store ids, the flush of the log, and the state machine of every group that the
//! node is a member of.
//!
//! Fault model: it is stopped for any time and then handles what queued up; it dies and its records stay, or what was
//! not synced goes (power), or all of it (memory lost: a new store id, and the sets of the old one wait). The boot
//! number is raised at each start. What changes of membership ask of it is in [`crate::member`].

use crate::ctx::Ctx;
use crate::member::Copy;
use crate::mutant::Mutant;
use crate::perform::read;
use crate::records::SimRecords;
use crate::sabotage::Sabotage;
use crate::set::SetConfig;
use crate::wire::{Answer, Ask, Body, CrossMessage, Envelope, Who};
use dspm_proto::message;
use dspm_proto::record::Record;
use dspm_proto::{ClientId, Generation, Instant, Lsn, Part, Refusal, Session, StoreId};
use dspm_txn::{Caller, Grants, Replica};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process only.
    Nothing,
    /// What was not synced.
    Power,
    /// The same, and a synced record of the log reads with another bit.
    Flip,
    /// All memory.
    Memory,
}

/// One group at this node.
pub(crate) struct Slot {
    pub(crate) config: Rc<SetConfig>,
    /// While the process runs.
    pub(crate) replica: Option<Replica<SimRecords>>,
    /// While it does not.
    pub(crate) kept: Option<SimRecords>,
    /// It was primary in the generation before.
    pub(crate) led: bool,
    /// A base on its way here.
    pub(crate) copy: Option<Copy>,
    /// It is about to be removed, as far as this node knows.
    pub(crate) removing: bool,
    /// It was removed, as far as this node knows: nobody finds it here.
    pub(crate) removed: bool,
}

/// One set at this node.
pub(crate) struct SetPart {
    pub(crate) config: Rc<SetConfig>,
    /// While the process runs and membership changes.
    pub(crate) grants: Option<Grants>,
    /// Groups that this primary has settled in a generation that is not active yet.
    pub(crate) settled: BTreeSet<usize>,
}

/// A node.
pub struct Node {
    /// Its number.
    pub no: u32,
    /// What it remembers.
    pub store: StoreId,
    /// Stores whose memory was lost, or whose log was found damaged.
    pub lost: Vec<StoreId>,
    /// A record of its log was damaged at some time.
    pub flipped: bool,
    /// The next sync of its log fails; it did.
    pub(crate) sync_fails: bool,
    pub(crate) gave_up: bool,
    /// Power cuts tear what is being written.
    pub(crate) tears: bool,
    /// By their groups.
    pub(crate) slots: Vec<Slot>,
    /// By their sets.
    pub(crate) parts: Vec<SetPart>,
    pub(crate) boot: u32,
    pub(crate) running: bool,
    /// When the process started.
    pub(crate) started: Instant,
    pub(crate) beat_due: Instant,
    /// The newest connection of the registry.
    pub(crate) line: u64,
    /// Longest time that a base takes to be written.
    pub(crate) copy_max: u64,
    pub(crate) links: BTreeMap<u64, Who>,
    pub(crate) homes: BTreeMap<ClientId, (u64, u64)>,
    /// A sync under way: when it returns, and what it covers.
    pub(crate) flushing: Option<(Instant, Vec<Lsn>)>,
    /// Longest sync.
    pub(crate) sync_max: u64,
    /// Records not known to be committed that there is room for, over all groups. A settle may take more.
    pub(crate) room: u64,
    /// How often there is no room for a commit anyway, per mille.
    pub(crate) tight: u64,
    /// The clock at this event, or at events of the same time; and before it.
    pub(crate) read_at: (Instant, Instant),
    /// For the checker: highest session number whose Hello was answered.
    promised: BTreeMap<ClientId, u64>,
    pub(crate) sabotage: Sabotage,
}

impl Node {
    /// A node that never ran.
    pub fn new(no: u32, store: StoreId, sets: &[Rc<SetConfig>]) -> Node {
        let groups: usize = sets.iter().map(|c| c.groups.len()).sum();
        let slots = (0..groups)
            .map(|g| sets[g % sets.len()].clone())
            .map(|config| Slot {
                config,
                replica: None,
                kept: None,
                led: false,
                copy: None,
                removing: false,
                removed: false,
            })
            .collect();
        let part = |c: &Rc<SetConfig>| SetPart { config: c.clone(), grants: None, settled: BTreeSet::new() };
        Node {
            no,
            store,
            lost: Vec::new(),
            flipped: false,
            sync_fails: false,
            gave_up: false,
            tears: false,
            slots,
            parts: sets.iter().map(part).collect(),
            boot: 0,
            running: false,
            started: Instant(0),
            beat_due: Instant(0),
            line: 0,
            copy_max: 1_000_000,
            links: BTreeMap::new(),
            homes: BTreeMap::new(),
            flushing: None,
            sync_max: 2_000_000,
            room: u64::MAX,
            tight: 0,
            read_at: (Instant(0), Instant(0)),
            promised: BTreeMap::new(),
            sabotage: Sabotage::default(),
        }
    }

    /// True when the store of that id has its memory still.
    pub fn has_all_of(&self, store: StoreId) -> bool {
        self.store == store && !self.lost.contains(&store)
    }

    /// True while the process runs.
    pub fn up(&self) -> bool {
        self.running
    }

    /// Its records of a group, running or not.
    pub fn records(&self, group: usize) -> Option<&SimRecords> {
        let slot = &self.slots[group];
        slot.replica.as_ref().map(|r| &r.records).or(slot.kept.as_ref())
    }

    /// The time: read after the event came. (The fault: read before the node waited for it.)
    fn clock(&mut self, ctx: &Ctx<'_>) -> Instant {
        if self.read_at.0 != ctx.now {
            self.read_at = (ctx.now, self.read_at.0);
        }
        if ctx.broken(Mutant::StaleClock) { self.read_at.1 } else { ctx.now }
    }

    /// A message came.
    pub fn deliver(&mut self, e: Envelope, ctx: &mut Ctx<'_>) {
        let now = self.clock(ctx);
        let group = e.group;
        if self.membership(&e, now, ctx) || self.is_for_all(&e, ctx) {
            return;
        }
        if self.slots[group].removed {
            return;
        }
        if self.slots[group].replica.is_none() || self.sabotaged(&e, now, ctx) {
            return self.after(group, now, ctx);
        }
        let short = self.uncommitted() >= self.room;
        match (e.body, e.from) {
            (Body::Ask { request, generation, store, ask }, from) => {
                self.links.insert(e.link, from);
                self.ask(group, Caller { connection: e.link, request }, (generation, store), ask, now, ctx);
            }
            (Body::Peer { generation, store, sender, message }, Who::Node(from)) => {
                let Some(r) = self.slots[group].replica.as_mut() else { return };
                if r.check_addressee(generation, store).is_ok() {
                    r.peer(from, sender, message, now);
                }
            }
            (Body::Replicate { generation, store, token, record }, Who::Node(from)) => {
                let Some(r) = self.slots[group].replica.as_mut() else { return };
                if r.check_addressee(generation, store).is_ok() {
                    r.records.short = short;
                    r.replicate(from, token, &record, (), now);
                }
            }
            (Body::Cross { store, message }, _) if store == self.store => {
                let Some(r) = self.slots[group].replica.as_mut() else { return };
                match message {
                    CrossMessage::Inquiry(m) => r.inquiry(&m, now),
                    CrossMessage::Decision(m) => r.decision(&m, now),
                    CrossMessage::Resolved(m) => r.resolved(&m, now),
                }
            }
            _ => {}
        }
        self.after(group, now, ctx);
    }

    /// Questions that are not about one group.
    fn is_for_all(&mut self, e: &Envelope, ctx: &mut Ctx<'_>) -> bool {
        let Body::Ask { request, ask, .. } = &e.body else { return false };
        let from = Caller { connection: e.link, request: *request };
        match ask {
            Ask::Hello(session) => {
                self.links.insert(e.link, e.from);
                self.home(*session, e.link);
                self.hello(e.group, from, *session, ctx);
            }
            Ask::Locate => {
                self.links.insert(e.link, e.from);
                self.answer(e.group, from, Answer::Located(self.slots[e.group].config.clone()), ctx);
            }
            _ => return false,
        }
        true
    }

    fn uncommitted(&self) -> u64 {
        let inside = |s: &&Slot| s.config.store_of(self.no) == self.store; // what is owed to nobody makes room
        self.slots.iter().filter(inside).filter_map(|s| s.replica.as_ref()).map(|r| r.records.uncommitted()).sum()
    }

    fn ask(
        &mut self,
        group: usize,
        from: Caller,
        (generation, store): (Generation, StoreId),
        ask: Ask,
        now: Instant,
        ctx: &mut Ctx<'_>,
    ) {
        let short = self.uncommitted() >= self.room || self.tight > 0 && ctx.rng.chance(self.tight);
        let Some(r) = self.slots[group].replica.as_mut() else { return };
        if let Err(why) = r.check_addressee(generation, store) {
            return self.answer(group, from, Answer::Refused(why), ctx);
        }
        if let Some(session) = session_of(&ask) {
            self.home(session, from.connection);
        }
        let Some(r) = self.slots[group].replica.as_mut() else { return };
        match ask {
            Ask::Hello(_) | Ask::Locate => {}
            Ask::Renew { session, token, floor } => {
                let lease = r.renew(session, token, floor, now);
                if !r.hears(now) {
                    return self.answer(group, from, Answer::Refused(Refusal::NotMember), ctx);
                }
                let lease = self.uncapped(lease, group, ctx);
                self.answer(group, from, Answer::Renewed { token, lease }, ctx);
            }
            Ask::Snapshot(m) => r.snapshot(from, &m, now),
            Ask::AsOf(m) => r.as_of(from, &message::AsOf { word: self.sabotage.word(m.word, ctx), ..m }, now),
            Ask::Keep(m) => r.keep(&message::Keep { word: self.sabotage.word(m.word, ctx), ..m }, now),
            Ask::Acquire(m) => r.acquire(from, &m, now),
            Ask::Release(m) => r.release(&m, now),
            Ask::Commit(record) => {
                let before = r.records.last();
                r.records.lies.no_sessions = ctx.broken(Mutant::SessionIgnored);
                r.records.short = short;
                r.records.lies.token = ctx.broken(Mutant::NoFence).then_some(record.token);
                if short && ctx.rng.chance(500) {
                    r.commit_without_room(from, store, &record, now); // its pages found none while they came in
                } else {
                    r.commit(from, store, &record, (), now);
                }
                (r.records.lies.no_sessions, r.records.lies.token) = (false, None);
                let published = r.records.last() > before;
                self.check_session(published, &record, ctx);
            }
            Ask::Note(m) => r.note(m.token, m.id),
            Ask::Read(m) => {
                let answer = read(&r.records, &m, ctx.broken(Mutant::ReadNewest));
                self.answer(group, from, answer, ctx);
            }
            Ask::Outcome(m) => r.outcome(from, &m, now),
            Ask::Recalled(m) => r.recalled(&m, now),
            Ask::Resolved(m) => r.resolved(&m, now),
        }
    }

    /// Call-backs go to the newest session's last connection.
    fn home(&mut self, session: Session, link: u64) {
        let home = self.homes.entry(session.client).or_insert((session.number, link));
        if session.number >= home.0 {
            *home = (session.number, link);
        }
    }

    fn hello(&mut self, group: usize, from: Caller, session: Session, ctx: &mut Ctx<'_>) {
        for r in self.slots.iter_mut().filter_map(|s| s.replica.as_mut()) {
            r.hello(session);
        }
        let number = self.promised.entry(session.client).or_default();
        *number = session.number.max(*number);
        self.answer(group, from, Answer::Hello, ctx);
    }

    fn check_session(&self, published: bool, record: &Record, ctx: &mut Ctx<'_>) {
        let promised = self.promised.get(&record.session.client).copied().unwrap_or(0);
        if published && record.session.number < promised {
            let (no, id) = (self.no, record.id);
            ctx.check.fail(|| format!("node{no} published {id} of a session that it had ended"));
        }
    }

    /// A member that may lack what was committed, because its disk lied, until a settle gives it back.
    pub(crate) fn is_healing(&self, group: usize) -> bool {
        self.flipped && self.slots[group].replica.as_ref().is_none_or(|r| r.situation().unsettled)
    }

    /// It is a member of the group, and its tail there is prepared.
    pub(crate) fn is_unresolved(&self, group: usize) -> bool {
        let slot = &self.slots[group];
        let tail = slot.replica.as_ref().and_then(|r| r.records.record(r.records.last()));
        slot.config.store_of(self.no) == self.store && tail.is_some_and(|r| r.part == Part::Prepared)
    }

    /// The newest record of a group that is here.
    pub(crate) fn last(&self, group: usize) -> Lsn {
        self.slots[group].replica.as_ref().map_or(Lsn(0), |r| r.records.last())
    }

    /// Timers, and the log's sync.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        let now = self.clock(ctx);
        if let Some((_, upto)) = self.flushing.take_if(|f| f.0 <= ctx.now) {
            let failed = std::mem::take(&mut self.sync_fails);
            if failed && !ctx.broken(Mutant::SyncRepeated) {
                self.gave_up = true; // nobody knows what is on the disk: another sync may say yes
                return;
            }
            for (group, lsn) in upto.into_iter().enumerate() {
                if let Some(r) = self.slots[group].replica.as_mut() {
                    r.records.sync(lsn, failed);
                    r.flushed(now);
                    if ctx.rng.chance(300) || ctx.broken(Mutant::CheckpointEarly) {
                        r.records.checkpoint(ctx.broken(Mutant::CheckpointEarly));
                    }
                }
            }
        }
        self.tick_membership(now, ctx);
        for group in (0..self.slots.len()).filter(|g| !self.slots[*g].removed).collect::<Vec<_>>() {
            self.publish_late(group, now, ctx);
            if let Some(r) = self.slots[group].replica.as_mut() {
                r.tick(now);
            }
            self.after(group, now, ctx);
        }
    }

    /// When [`Node::tick`] is due.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let found = self.slots.iter().filter(|s| !s.removed);
        let machines = found.filter_map(|s| s.replica.as_ref().and_then(|r| r.wake(now)));
        let flush = self.flushing.as_ref().map(|f| f.0);
        machines.chain(flush).chain(self.sabotage.due()).chain(self.wake_membership()).min()
    }
}

fn session_of(ask: &Ask) -> Option<Session> {
    match ask {
        Ask::Hello(session) | Ask::Renew { session, .. } => Some(*session),
        Ask::Snapshot(m) => Some(m.session),
        Ask::AsOf(m) => Some(m.session),
        Ask::Acquire(m) => Some(m.session),
        _ => None,
    }
}
