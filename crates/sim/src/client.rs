//! A client process: the specification of the client runtime around [`Holder`], one event at a time.
//!
//! - One session, renewed every L/3 at each group's primary; every renewal carries the process's floor, the lowest
//!   version that one of its snapshots, or a question under way, may still need. A session that nobody confirmed for
//!   2 L is given up: the next number, no lease, the record in flight in doubt.
//! - Answers count only on the connection that the question went out on, and only while it is waited for.
//! - Threads share the lease: one writer at a time, begins without a round trip ([`crate::begin`]), the queue and
//!   call-backs ([`crate::reserve`]), the record in flight and its doubt ([`crate::commit`]).
//!
//! Fault model: it is stopped for any time, also between two events; it dies, and another process with a new client id
//! starts in its place; its connections break and their messages arrive late.

use crate::cache::{Cache, Changes};
use crate::commit::Sending;
use crate::ctx::Ctx;
use crate::joint::Joint;
use crate::mutant::Mutant;
use crate::set::SetConfig;
use crate::thread::{Step, Thread};
use crate::wire::{Answer, Ask, Body, Envelope, Who};
use dspm_proto::message::Recalled;
use dspm_proto::{ClientId, Error, Instant, Lsn, Session, Token};
use dspm_txn::Holder;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// One group as this process sees it.
pub struct Desk {
    pub(crate) config: Rc<SetConfig>,
    /// Lease, flight and doubt.
    pub holder: Holder,
    /// The thread that has the process's writer mutex.
    pub(crate) writer: Option<usize>,
    /// When each question for the lease went out.
    pub(crate) grants: BTreeMap<u64, Instant>,
    renewals: BTreeMap<u64, Instant>,
    renew_due: Instant,
    /// When the primary confirmed last, and when a node was asked for it.
    heard: Instant,
    located: Instant,
    /// Look at a recalled lease again.
    pub(crate) linger: Option<Instant>,
    /// Say alone what was committed, as no record followed.
    pub(crate) note_due: Option<Instant>,
    /// Until then the primary keeps what the floors pin.
    pub(crate) confirmed: Instant,
    pub(crate) sending: Option<Sending>,
    /// Words about the past so far, and what the last one said.
    pub(crate) word: (u64, Lsn),
    /// Pages that it read or wrote.
    pub(crate) cache: Cache,
    /// Until when the lease was valid last; for the fault that goes on using it.
    pub(crate) shadow: Instant,
    /// The last read lease, for the fault that takes it up after it was called back.
    pub(crate) shadow_read: (Lsn, Instant),
}

/// A process.
pub struct Client {
    /// Where it runs.
    pub no: u32,
    /// Its session.
    pub session: Session,
    /// Its groups.
    pub desks: Vec<Desk>,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// Threads do only what they are told.
    pub scripted: bool,
    /// Of write transactions, those over several groups, per mille.
    pub several: u64,
    /// Which group decides, where that is not left to chance.
    pub decides: Option<usize>,
    /// Transactions over several groups that are being committed.
    pub(crate) joints: BTreeMap<u64, Joint>,
    /// No faults any more: short pauses, each thread reads and writes in turn, in these groups.
    pub calm: Option<Vec<usize>>,
    /// Transactions, for the record's identity.
    pub(crate) transaction: u64,
    pub(crate) lease: Duration,
    /// Longest wait of a commit's caller.
    pub(crate) commit_timeout: Duration,
    links: Vec<u64>,
    request: u64,
    heard: Instant,
}

impl Client {
    /// A new process with its own id and `threads` threads.
    pub fn new(
        no: u32,
        id: ClientId,
        groups: &[Rc<SetConfig>],
        threads: usize,
        nodes: usize,
        ctx: &mut Ctx<'_>,
    ) -> Self {
        let desk = |config: &Rc<SetConfig>| Desk {
            config: config.clone(),
            holder: Holder::new(),
            writer: None,
            grants: BTreeMap::new(),
            renewals: BTreeMap::new(),
            renew_due: ctx.now,
            heard: ctx.now,
            located: Instant(0),
            linger: None,
            note_due: None,
            confirmed: Instant(0),
            sending: None,
            word: (0, Lsn(0)),
            cache: Cache::default(),
            shadow: Instant(0),
            shadow_read: (Lsn(0), Instant(0)),
        };
        let mut client = Client {
            no,
            session: Session { client: id, number: 1 },
            desks: groups.iter().map(desk).collect(),
            threads: (0..threads).map(|_| Thread::new(ctx.now)).collect(),
            scripted: false,
            several: 0,
            decides: None,
            joints: BTreeMap::new(),
            calm: None,
            transaction: 0,
            lease: groups[0].lease,
            commit_timeout: groups[0].lease * ctx.rng.pick(&[3, 30]),
            links: vec![0; nodes],
            request: 0,
            heard: ctx.now,
        };
        (0..nodes).for_each(|n| client.connect(n as u32, ctx));
        client
    }

    /// A new connection to a node; what the old one still carries is not for us. A record in flight goes out again.
    pub fn connect(&mut self, node: u32, ctx: &mut Ctx<'_>) {
        *ctx.links += 1;
        self.links[node as usize] = *ctx.links;
        self.ask(0, node, Ask::Hello(self.session), ctx);
        for g in 0..self.desks.len() {
            self.send_record(g, Some(node), ctx);
        }
    }

    /// Sends a question; answers its number.
    pub(crate) fn ask(&mut self, group: usize, node: u32, ask: Ask, ctx: &mut Ctx<'_>) -> u64 {
        self.request += 1;
        let config = &self.desks[group].config;
        let (store, generation) = (config.store_of(node), config.generation);
        let body = Body::Ask { request: self.request, generation, store, ask };
        let (from, link) = (Who::Client(self.no), self.links[node as usize]);
        ctx.out.push(Envelope { from, to: Who::Node(node), link, group, body });
        self.request
    }

    pub(crate) fn ask_primary(&mut self, group: usize, ask: Ask, ctx: &mut Ctx<'_>) -> u64 {
        let primary = self.desks[group].config.primary;
        self.ask(group, primary, ask, ctx)
    }

    /// The lowest version of a group that this process may still need. It never falls: whatever a question under way
    /// will be answered with is not older than what was known when it was asked.
    pub fn floor(&self, group: usize) -> Lsn {
        let of_group = self.threads.iter().filter(|t| t.group == group);
        let views = of_group.clone().filter(|t| t.past.is_none()).filter_map(|t| t.view.map(|v| v.id.lsn));
        let asked = of_group.filter(|t| matches!(t.step, Step::Asked { .. })).map(|t| t.pinned);
        views.chain(asked).fold(self.desks[group].holder.floor(), Lsn::min)
    }

    pub(crate) fn floor_sent(&self, group: usize, ctx: &Ctx<'_>) -> Lsn {
        if ctx.broken(Mutant::FloorNotSent) { Lsn(u64::MAX) } else { self.floor(group) }
    }

    /// A message came.
    pub fn deliver(&mut self, e: Envelope, ctx: &mut Ctx<'_>) {
        let Who::Node(node) = e.from else { return };
        if e.link != self.links[node as usize] && !ctx.broken(Mutant::ReplySession) {
            return;
        }
        match e.body {
            Body::Answer { request, answer } => self.answered(e.group, node, request, answer, ctx),
            Body::Callback { session, token } if session == self.session => {
                let recall = self.desks[e.group].holder.callback(token, ctx.now);
                self.recalled(e.group, token, recall, ctx);
            }
            Body::Recall { session, below } if session == self.session => {
                self.desks[e.group].shadow_read = (Lsn(0), Instant(0));
                if !ctx.broken(Mutant::RecalledRead) {
                    self.desks[e.group].holder.recall_read(below);
                }
                self.ask_primary(e.group, Ask::Recalled(Recalled { session, below }), ctx);
            }
            _ => {}
        }
        self.run(ctx);
    }

    fn answered(&mut self, g: usize, node: u32, request: u64, answer: Answer, ctx: &mut Ctx<'_>) {
        match answer {
            Answer::Renewed { token, lease } => self.renewed(g, request, token, lease, ctx),
            Answer::Snapshot { tail, changes, lease } => self.shown(g, request, tail, &changes, lease, ctx),
            Answer::AsOf { id } => self.shown_past(g, request, id, ctx),
            Answer::Pages(pages) => self.pages(request, &pages, ctx),
            Answer::Granted { tail, changes, token, lease } => {
                self.granted(g, request, (tail, &changes), token, lease, ctx);
            }
            Answer::Busy { ticket } => self.busy(g, request, ticket, ctx),
            Answer::Ack(ack) => self.acked(g, node, ack.id, ctx),
            Answer::Outcome { committed, .. } => self.resolved(g, request, committed, ctx),
            Answer::Refused(why) => {
                self.commit_refused(g, request, why, ctx);
                self.refused(g, request, why, ctx);
            }
            Answer::Failed(Error::OutcomeUnknown(_)) => self.unknowable(g, request, ctx),
            Answer::Failed(error) => self.failed(g, request, &error, ctx),
            Answer::Located(config) => self.located(&config, ctx),
            Answer::Hello => {}
        }
    }

    /// Asks some node where the group is now; not all the time.
    pub(crate) fn locate(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        if !self.desks[g].config.changes || ctx.now.since(self.desks[g].located) < self.lease / 10 {
            return;
        }
        self.desks[g].located = ctx.now;
        let node = ctx.rng.below(self.links.len() as u64) as u32;
        self.ask(g, node, Ask::Locate, ctx);
    }

    /// A node's word on where a group is. What was begun in an older generation is over.
    fn located(&mut self, config: &Rc<SetConfig>, ctx: &mut Ctx<'_>) {
        config.groups.iter().for_each(|g| self.moved(*g, config, ctx));
    }

    fn moved(&mut self, g: usize, config: &Rc<SetConfig>, ctx: &mut Ctx<'_>) {
        let old = self.desks[g].config.clone();
        if config.version <= old.version {
            return;
        }
        self.desks[g].config = config.clone();
        if config.generation == old.generation {
            return;
        }
        self.desks[g].renew_due = ctx.now;
        let flight = self.desks[g].holder.flight().map(|f| f.doubt);
        match flight {
            Some(false) => self.doubt(g, ctx),
            Some(true) => self.question(g, ctx),
            None => drop(self.desks[g].holder.give_up()),
        }
        for t in 0..self.threads.len() {
            if self.threads[t].group == g {
                self.forget_questions(t);
            }
        }
    }

    /// An answer says what changed behind what this process knew when it asked.
    pub(crate) fn learn(&mut self, g: usize, changes: &Changes, ctx: &Ctx<'_>) {
        if !ctx.broken(Mutant::UntilOpen) {
            let known = self.desks[g].holder.tail().lsn;
            self.desks[g].cache.learn(changes, known, ctx.broken(Mutant::UntilNewest));
        }
    }

    /// Timers.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.now.since(self.heard) > self.lease * 2 {
            self.next_session(ctx);
        }
        for g in 0..self.desks.len() {
            if ctx.now >= self.desks[g].renew_due {
                self.renew(g, ctx);
                if ctx.now.since(self.desks[g].heard) > self.lease {
                    self.locate(g, ctx);
                }
            }
            self.tick_reserve(g, ctx);
            self.tick_commit(g, ctx);
        }
        self.tick_joints(ctx);
        self.run(ctx);
    }

    /// When [`Client::tick`] is due.
    pub fn wake(&self) -> Instant {
        let desks = self.desks.iter().flat_map(|d| {
            let sending = d.sending.as_ref().map(|s| s.due);
            [Some(d.renew_due), d.linger, d.note_due, sending].into_iter().flatten()
        });
        let threads = self.threads.iter().filter_map(|t| t.step.due());
        desks.chain(threads).min().unwrap_or(Instant(u64::MAX))
    }

    fn run(&mut self, ctx: &mut Ctx<'_>) {
        for g in 0..self.desks.len() {
            if ctx.now >= self.desks[g].confirmed {
                self.unprotect(g);
            }
        }
        for t in 0..self.threads.len() {
            while self.advance(t, ctx) {}
        }
    }

    /// Nobody promised to keep the versions of these snapshots: TOO_OLD is an answer now.
    fn unprotect(&mut self, group: usize) {
        let views =
            self.threads.iter_mut().filter(|t| t.group == group && t.past.is_none()).filter_map(|t| t.view.as_mut());
        views.for_each(|v| v.protected = false);
    }

    pub(crate) fn renew(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let token = self.desks[g].holder.token().unwrap_or_default();
        let (session, floor) = (self.session, self.floor_sent(g, ctx));
        let request = self.ask_primary(g, Ask::Renew { session, token, floor }, ctx);
        let desk = &mut self.desks[g];
        desk.renewals.retain(|_, sent| ctx.now.since(*sent) < self.lease * 4);
        desk.renewals.insert(request, ctx.now);
        desk.renew_due = ctx.now.after(self.lease / 3);
        self.say_keep(g, ctx);
    }

    fn renewed(&mut self, g: usize, request: u64, token: Token, lease: Duration, ctx: &mut Ctx<'_>) {
        let Some(sent) = self.desks[g].renewals.remove(&request) else { return };
        self.heard = self.heard.max(sent);
        self.desks[g].heard = ctx.now;
        self.confirm(g, sent, ctx);
        let counted = if ctx.broken(Mutant::FromReceipt) { ctx.now } else { sent };
        let lease = stretched(lease, ctx);
        let desk = &mut self.desks[g];
        desk.holder.renewed(token, counted, lease);
        if desk.holder.token() == Some(token) {
            desk.shadow = desk.shadow.max(counted.after(lease));
        }
        for t in self.threads.iter_mut().filter(|t| t.group == g && matches!(t.step, Step::Renewing { .. })) {
            t.step = Step::Reserve;
        }
    }

    /// The primary heard our floor in a question sent then.
    pub(crate) fn confirm(&mut self, g: usize, sent: Instant, ctx: &Ctx<'_>) {
        let until = sent.after(self.lease - self.lease / 50);
        if ctx.now >= self.desks[g].confirmed {
            self.unprotect(g);
        }
        self.desks[g].confirmed = self.desks[g].confirmed.max(until);
    }

    /// The session is over: the next one. Nothing of the old one is waited for.
    pub fn next_session(&mut self, ctx: &mut Ctx<'_>) {
        self.session.number += 1;
        self.heard = ctx.now;
        if ctx.broken(Mutant::ReplySession) {
            self.request = 0;
        }
        ctx.trace.say(|| format!("client{} session {}", self.no, self.session.number));
        for t in 0..self.threads.len() {
            self.forget_questions(t);
        }
        for g in 0..self.desks.len() {
            self.unprotect(g);
            self.forget_past(g);
            let desk = &mut self.desks[g];
            (desk.confirmed, desk.renew_due) = (Instant(0), ctx.now);
            desk.grants.clear();
            desk.renewals.clear();
            if desk.holder.flight().is_some_and(|f| !f.doubt) {
                self.doubt(g, ctx);
            } else if desk.holder.flight().is_none() {
                desk.holder.give_up();
            }
        }
        for node in 0..self.links.len() as u32 {
            self.ask(0, node, Ask::Hello(self.session), ctx);
        }
    }
}

/// The lease as the client counts it; a fault adds the margin that the granter took off.
pub(crate) fn stretched(lease: Duration, ctx: &Ctx<'_>) -> Duration {
    if ctx.broken(Mutant::NoMargin) { lease + lease / 64 } else { lease }
}
