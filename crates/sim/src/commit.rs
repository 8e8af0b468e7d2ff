//! The record in flight of a client: sent to all members at once, acknowledged by all, or in doubt.
//!
//! A member without room says so and holds nothing: it gets the same record again, under the same token, for a while.
//! Any other refusal, or silence longer than 2 L, puts it in doubt; then the primary is asked until it answers. The caller
//! waits for that as long as its `commit_timeout`; the process goes on asking, and its other work waits meanwhile. After "not
//! committed" it goes out once more under a new token if nothing came between; otherwise the transaction is told that
//! it conflicts. "Committed up to n" rides on record n + 1, or goes alone when none follows.

use crate::begin::PAGES;
use crate::client::{Client, Desk};
use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::set::group_id;
use crate::thread::{Step, View};
use crate::wire::Ask;
use dspm_proto::message::{Note, Outcome};
use dspm_proto::record::{DatasetChange, PageChange, Payload, Record};
use dspm_proto::{DatasetId, Instant, Link, Lsn, PAGE_SIZE, PageNo, Part, RecordId, Refusal, Token};
use std::rc::Rc;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// Pause before a member without room is asked again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// A record on its way.
#[derive(Debug)]
pub struct Sending {
    pub(crate) record: Rc<Record>,
    /// Its transaction, for the checker.
    txn: usize,
    /// None: its caller was told that the outcome is unknown, or waits for more than this record.
    thread: Option<usize>,
    /// The transaction over several groups that it is of.
    pub(crate) joint: Option<u64>,
    /// Where its transaction began.
    base: RecordId,
    /// The last sign of life since it went out.
    sent: Instant,
    /// Until when a member without room is waited for.
    patience: Instant,
    /// Send again, ask again.
    pub(crate) due: Instant,
    /// Requests that carried it.
    requests: Vec<u64>,
    /// Requests that asked for its outcome.
    questions: Vec<u64>,
}

impl Sending {
    /// A record that goes out now: for a thread, or for a transaction over several groups.
    pub(crate) fn new(
        record: Rc<Record>,
        txn: usize,
        (thread, joint): (Option<usize>, Option<u64>),
        base: RecordId,
        now: Instant,
        lease: Duration,
    ) -> Sending {
        let (patience, due) = (now.after(lease * 3), now.after(lease / 2));
        let (requests, questions) = (Vec::new(), Vec::new());
        Sending { record, txn, thread, joint, base, sent: now, patience, due, requests, questions }
    }
}

/// What a transaction appends to a page: its last value names the list.
pub(crate) fn values(ctx: &mut Ctx<'_>) -> Vec<u64> {
    let count = if ctx.rng.chance(100) { 2 } else { 1 };
    let value = |_| {
        *ctx.values += 1;
        *ctx.values
    };
    (0..count).map(value).collect()
}

impl Client {
    /// The write transaction commits.
    pub(crate) fn commit(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        if !self.threads[t].shares.is_empty() {
            return self.commit_all(t, ctx);
        }
        let g = self.threads[t].group;
        let (Some(token), Some(view)) = (self.desks[g].holder.token(), self.threads[t].view) else {
            self.begin_again(t, ctx); // the lease went with its session
            return true;
        };
        let config = self.desks[g].config.clone();
        if token.generation != config.generation {
            self.desks[g].holder.give_up(); // another generation, other members
            self.begin_again(t, ctx);
            return true;
        }
        let values: Vec<_> = self.threads[t].targets.iter().map(|p| (*p, values(ctx))).collect();
        let record = self.record(g, token, &values, (Part::Alone, Vec::new()), ctx);
        ctx.check.made(g, &record);
        let members = self.members(g, ctx);
        if self.desks[g].holder.send(record.id, members).is_none() {
            self.begin_again(t, ctx); // another lease took its place: others may have committed
            return true;
        }
        self.desks[g].note_due = None;
        let appends: Vec<_> = values.into_iter().map(|(page, values)| ((g, page), values)).collect();
        let txn = ctx.check.txns.sent(self.threads[t].txn.clone(), &appends);
        let sending = Sending::new(record.clone(), txn, (Some(t), None), view.id, ctx.now, self.lease);
        self.desks[g].sending = Some(sending);
        self.threads[t].step = Step::Committing;
        self.send_record(g, None, ctx);
        if ctx.broken(Mutant::NoteEarly) {
            self.note(g, record.id, ctx);
        }
        false
    }

    /// To whom a record goes.
    pub(crate) fn members(&self, g: usize, ctx: &Ctx<'_>) -> Vec<u32> {
        let config = &self.desks[g].config;
        match ctx.broken(Mutant::WriterSkipsJoining) {
            true => config.members.iter().map(|m| m.node).collect(),
            false => config.everyone().map(|m| m.node).collect(),
        }
    }

    /// The record behind the newest state.
    pub(crate) fn record(
        &mut self,
        g: usize,
        token: Token,
        values: &[(PageNo, Vec<u64>)],
        (part, links): (Part, Vec<Link>),
        ctx: &mut Ctx<'_>,
    ) -> Rc<Record> {
        self.transaction += 1;
        let tail = self.desks[g].holder.tail();
        let pages = values.iter().map(|(page, values)| {
            let (page, checksum) = (*page, values.last().copied().unwrap_or_default());
            PageChange { dataset: 0, page, payload: Payload::Full, bytes: PAGE_SIZE as u32, checksum, base: Lsn(0) }
        });
        let pages = pages.collect();
        let mut record = Record {
            group: group_id(g),
            id: RecordId { generation: token.generation, lsn: tail.lsn.next(), hash: 0 },
            token,
            session: self.session,
            transaction: self.transaction,
            predecessor: tail.hash,
            floor: self.floor_sent(g, ctx),
            part,
            datasets: vec![DatasetChange { dataset: DatasetId(1), size: PAGES * PAGE_SIZE as u64 }],
            links,
            pages,
        };
        record.seal();
        if ctx.broken(Mutant::HashNoWriter) {
            record.id.hash = tail.hash.wrapping_mul(31).wrapping_add(record.id.lsn.0);
        }
        Rc::new(record)
    }

    /// Sends the record in flight to the members, or to one, that did not acknowledge it yet.
    pub(crate) fn send_record(&mut self, g: usize, only: Option<u32>, ctx: &mut Ctx<'_>) {
        let Some(flight) = self.desks[g].holder.flight().filter(|f| !f.doubt) else { return };
        let missing: Vec<u32> = flight.missing.iter().copied().filter(|n| only.is_none_or(|o| o == *n)).collect();
        let Some(record) = self.desks[g].sending.as_ref().map(|s| s.record.clone()) else { return };
        for node in missing {
            let request = self.ask(g, node, Ask::Commit(record.clone()), ctx);
            if let Some(sending) = &mut self.desks[g].sending {
                sending.requests.push(request);
            }
        }
    }

    pub(crate) fn acked(&mut self, g: usize, node: u32, id: RecordId, ctx: &mut Ctx<'_>) {
        let holder = &mut self.desks[g].holder;
        let mut done = holder.acked(node, id, ctx.now);
        let one_left = holder.flight().and_then(|f| (f.missing.len() == 1 && !f.doubt).then(|| f.missing[0]));
        if let (Some(last), true) = (one_left, ctx.broken(Mutant::AckEarly)) {
            done = holder.acked(last, id, ctx.now);
        }
        let joint = self.desks[g].sending.as_ref().and_then(|s| s.joint);
        match joint.filter(|_| done) {
            Some(joint) => self.held_by_all(joint, g, ctx),
            None if done => self.committed(g, ctx),
            None => {}
        }
    }

    /// The commit returns.
    fn committed(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let Some(s) = self.desks[g].sending.take() else { return };
        let Some(t) = s.thread else { return };
        ctx.trace.say(|| format!("client{}.{t} committed {}", self.no, s.record.id));
        ctx.check.committed(g, &s.record, s.base);
        ctx.check.txns.committed(s.txn);
        let known = self.desks[g].holder.tail().lsn;
        self.desks[g].cache.wrote(&s.record, known);
        self.desks[g].note_due = Some(Instant(ctx.now.0 + ctx.rng.below(2 * MS)));
        let thread = &mut self.threads[t];
        thread.view = Some(View { id: s.record.id, protected: false });
        thread.tally[g].writes += 1;
        self.end(t, ctx);
    }

    pub(crate) fn note(&mut self, g: usize, id: RecordId, ctx: &mut Ctx<'_>) {
        let Some(token) = self.desks[g].holder.token() else { return };
        for m in self.desks[g].config.clone().everyone() {
            self.ask(g, m.node, Ask::Note(Note { token, id }), ctx);
        }
    }

    /// A refusal of a record in flight says nothing about its outcome. One for want of room says that this request did
    /// nothing.
    pub(crate) fn commit_refused(&mut self, g: usize, request: u64, why: Refusal, ctx: &mut Ctx<'_>) {
        let Desk { holder, sending, .. } = &mut self.desks[g];
        let Some(s) = sending else { return };
        let in_flight = holder.flight().is_some_and(|f| !f.doubt);
        if !in_flight || !s.requests.contains(&request) {
            return;
        }
        let full = why == Refusal::Full;
        if full && ctx.now < s.patience && !ctx.broken(Mutant::FullFails) {
            (s.sent, s.due) = (ctx.now, ctx.now.after(ROOM_PAUSE));
            return holder.stall(); // readers go on
        }
        let alone = s.joint.is_none();
        if alone && (ctx.broken(Mutant::RefusalFails) || full && ctx.broken(Mutant::FullFails)) {
            return self.not_committed(g, ctx);
        }
        self.doubt(g, ctx);
    }

    pub(crate) fn doubt(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        self.desks[g].holder.doubt();
        ctx.trace.say(|| format!("client{} is in doubt about group {g}", self.no));
        self.question(g, ctx);
        if let Some(joint) = self.desks[g].sending.as_ref().and_then(|s| s.joint) {
            self.joint_in_doubt(joint, ctx);
        }
    }

    pub(crate) fn question(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let Some((token, id)) = self.desks[g].holder.flight().map(|f| (f.token, f.question())) else { return };
        let request = self.ask_primary(g, Ask::Outcome(Outcome { session: self.session, token, id }), ctx);
        if let Some(s) = &mut self.desks[g].sending {
            s.questions.push(request);
            s.due = ctx.now.after(self.lease / 3);
        }
    }

    /// The final answer.
    pub(crate) fn resolved(&mut self, g: usize, request: u64, committed: bool, ctx: &mut Ctx<'_>) {
        let asked = self.desks[g].sending.as_ref().filter(|s| s.questions.contains(&request));
        let Some((record, waits)) = asked.map(|s| (s.record.clone(), s.thread.is_some())) else { return };
        if let Some(joint) = asked.and_then(|s| s.joint) {
            return self.told(joint, g, Some(committed), ctx);
        }
        if !committed {
            return self.not_committed(g, ctx);
        }
        let holder = &mut self.desks[g].holder;
        holder.abandon();
        if waits {
            holder.learned(record.id); // the caller knows what it changed; without one the next snapshot tells
        }
        ctx.check.outcome(g, &record, true);
        self.committed(g, ctx);
    }

    fn not_committed(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let holder = &mut self.desks[g].holder;
        holder.doubt();
        holder.abandon();
        let Some(s) = self.desks[g].sending.take() else { return };
        ctx.trace.say(|| format!("client{} was told: {} is not committed", self.no, s.record.id));
        ctx.check.outcome(g, &s.record, false);
        ctx.check.txns.failed(s.txn);
        let Some(t) = s.thread else { return };
        let thread = &mut self.threads[t];
        if thread.again {
            self.abort(t, ctx);
        } else {
            // Once more under a new token, if nothing came in between: see `reserve`.
            (thread.again, thread.step) = (true, Step::Reserve);
        }
    }

    /// Nobody can tell any more: the caller is told so, and the next transaction begins at what there is.
    pub(crate) fn unknowable(&mut self, g: usize, request: u64, ctx: &mut Ctx<'_>) {
        if !self.desks[g].sending.as_ref().is_some_and(|s| s.questions.contains(&request)) {
            return;
        }
        ctx.check.counts.unknown += 1;
        if let Some(joint) = self.desks[g].sending.as_ref().and_then(|s| s.joint) {
            return self.told(joint, g, None, ctx);
        }
        self.desks[g].holder.abandon();
        self.give_caller_up(g, ctx);
        self.desks[g].sending = None;
    }

    /// The caller's time is over: it is told that the outcome is unknown. The process goes on asking.
    fn give_caller_up(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        if let Some(t) = self.desks[g].sending.as_mut().and_then(|s| s.thread.take()) {
            self.abort(t, ctx);
        }
    }

    pub(crate) fn tick_commit(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        if self.desks[g].note_due.is_some_and(|due| ctx.now >= due) {
            self.desks[g].note_due = None;
            let tail = self.desks[g].holder.tail();
            self.note(g, tail, ctx);
        }
        let Some(s) = self.desks[g].sending.as_mut().filter(|s| ctx.now >= s.due) else { return };
        let (sent, waits, alone) = (s.sent, s.thread.is_some(), s.joint.is_none());
        s.due = ctx.now.after(self.lease / 2);
        let in_doubt = self.desks[g].holder.flight().is_some_and(|f| f.doubt);
        let held = self.desks[g].holder.flight().is_some_and(|f| f.missing.is_empty());
        if held && !in_doubt {
            return; // prepared: it is not what the transaction waits for
        }
        if in_doubt {
            if waits && ctx.now.since(sent) > self.commit_timeout {
                self.give_caller_up(g, ctx);
            }
            self.question(g, ctx);
        } else if ctx.now.since(sent) <= self.lease * 2 {
            self.send_record(g, None, ctx);
        } else if alone && ctx.broken(Mutant::SilenceFails) {
            self.not_committed(g, ctx);
        } else {
            self.doubt(g, ctx);
        }
    }
}
