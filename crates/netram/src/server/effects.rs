//! Does what a replica asks for: answers, call-backs, messages to members, and its next deadline.

use super::dispatch::{peer_frame, replicate_head};
use super::group::Group;
use super::node::Node;
use super::sender::Sender;
use super::twophase::Word;
use crate::clock;
use crate::wire::{error_reply, frame};
use dspm_proto::header::{FLAG_REPLY, Header};
use dspm_proto::message::{
    self, Acquired, AsOfReply, Callback, Changed, DatasetSize, Field, OutcomeReply, Recall, SnapshotReply, State,
};
use dspm_proto::{Error, Kind, Lsn, RecordId, Refusal, Session, Token};
use dspm_store::{PinnedFrame, StoredPage, StoredRecord};
use dspm_txn::{Caller, Effect, NodeNo, PeerMessage};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of records that are sent to a member before it is heard how far it got.
const PART: usize = 8 << 20;

impl Node {
    /// Empties the replica's list of effects and sets its deadline.
    pub(crate) fn run_effects(self: &Arc<Self>, g: &mut Group) {
        let effects: Vec<Effect> = g.replica.effects().collect();
        for effect in effects {
            self.run_effect(g, effect);
        }
        let records = &g.replica.records.group;
        if g.replica.setup().disk && (records.flushed() < records.tail().lsn || records.owes_log()) {
            self.store.request_flush(records.id(), records.tail().lsn);
        }
        self.arm(g);
    }

    fn arm(&self, g: &mut Group) {
        let id = g.replica.records.group.id();
        let Some(wake) = g.replica.wake(clock::now()) else { return };
        if g.armed.is_some_and(|at| at <= wake) {
            return;
        }
        if self.timers.set(id, g.armed, wake) {
            self.mailboxes[0].wake();
        }
        g.armed = Some(wake);
    }

    /// Looks at the groups that are due.
    pub(crate) fn serve_timers(self: &Arc<Self>) {
        for id in self.timers.due(clock::now()) {
            if let Ok(group) = self.group(id) {
                let mut g = group.lock();
                g.armed = None;
                // Read under the lock: a lease granted at a time before its request was sent would end too early.
                g.replica.tick(clock::now());
                self.run_effects(&mut g);
            }
        }
    }

    fn run_effect(self: &Arc<Self>, g: &Group, effect: Effect) {
        match effect {
            Effect::Ack { to, ack } => {
                let mut h = self.reply(g, Kind::Commit, to);
                h.lsn = ack.id.lsn;
                h.store = self.store_id;
                self.answer(to, h, &ack);
            }
            Effect::Refuse { to, why: Refusal::Full } => self.fail(to, &self.without_room()),
            Effect::Refuse { to, why } => self.fail(to, &Error::Refused(why)),
            Effect::Fail { to, error } => self.fail(to, &error),
            Effect::Snapshot { to, known, tail, lease } => {
                let reply = SnapshotReply { state: state(g, known, tail), lease_ns: lease.as_nanos() as u64 };
                self.answer(to, self.reply(g, Kind::Snapshot, to), &reply);
            }
            Effect::AsOf { to, lsn, newest } => {
                let reply = AsOfReply { lsn, newest, sizes: sizes(g, lsn) };
                self.answer(to, self.reply(g, Kind::AsOf, to), &reply);
            }
            Effect::Granted { to, known, tail, token, lease } => {
                let state = state(g, known, tail);
                let reply = Acquired { ticket: 0, token, lease_ns: lease.as_nanos() as u64, state };
                self.answer(to, self.reply(g, Kind::Acquire, to), &reply);
            }
            Effect::Busy { to, ticket } => {
                let reply = Acquired { ticket, ..Acquired::default() };
                self.answer(to, self.reply(g, Kind::Acquire, to), &reply);
            }
            Effect::Awaits { to, groups } => self.fail(to, &self.awaits(g, &groups)),
            Effect::Outcome { to, committed, tail } => {
                self.answer(to, self.reply(g, Kind::Outcome, to), &OutcomeReply { committed, tail });
            }
            Effect::Callback { session, token } => self.call(g, session, Kind::Callback, &Callback { token }),
            Effect::Recall { session, below } => self.call(g, session, Kind::Recall, &Recall { below }),
            Effect::Send { to, message } => self.send_peer(g, to, &message),
            Effect::SendRecords { to, token, from, last } => self.send_records(g, to, token, from, last),
            Effect::Inquire { link, lsn } => self.inquire(g, link, lsn),
            Effect::Decide { to, decision } => self.decide(g, to, decision),
            Effect::Resolved { to, resolved } => self.say_to(to, Word::Resolved(resolved)),
            Effect::Activated => self.group_activated(g.entry.set, g.replica.setup().generation, g.entry.group),
            Effect::Alarm(text) => {
                self.counters.alarms.fetch_add(1, Ordering::Relaxed);
                eprintln!("dspm-node: ALARM: dataset {}: {text}", g.entry.name);
            }
        }
    }

    /// To the connection on which a client takes what it did not ask for.
    fn call<T: Field>(&self, g: &Group, session: Session, kind: Kind, message: &T) {
        if let Some(sender) = self.sessions.callbacks(session) {
            let mut h = Header::new(kind);
            h.group = g.entry.group;
            sender.send(&frame(h, &message::encode(message), 0), &[]);
        }
    }

    fn reply(&self, g: &Group, kind: Kind, to: Caller) -> Header {
        let mut h = Header::new(kind);
        h.flags = FLAG_REPLY;
        h.request = to.request;
        h.group = g.entry.group;
        h.generation = g.replica.setup().generation;
        h
    }

    fn answer<T: Field>(&self, to: Caller, header: Header, reply: &T) {
        if let Some(sender) = self.sender(to.connection) {
            sender.send(&frame(header, &message::encode(reply), 0), &[]);
        }
    }

    fn fail(&self, to: Caller, error: &Error) {
        if let Some(sender) = self.sender(to.connection) {
            sender.send(&error_reply(Kind::Control, to.request, error), &[]);
        }
    }

    /// Header and way to a member; None while there is no link to it.
    fn to_member(&self, g: &Group, to: NodeNo) -> Option<(Arc<Sender>, Header)> {
        let setup = g.replica.setup();
        let member = setup.others().find(|m| m.node == to)?;
        let sender = self.links.to(self.catalog().name(to)?)?;
        let mut h = Header::new(Kind::Fence);
        (h.group, h.generation, h.store) = (g.entry.group, setup.generation, member.store);
        Some((sender, h))
    }

    fn send_peer(&self, g: &Group, to: NodeNo, message: &PeerMessage) {
        if let Some((sender, header)) = self.to_member(g, to) {
            sender.send(&peer_frame(message, header), &[]);
        }
    }

    /// Sends records again, every page in full, until the connection has enough of them. The member says how far it got,
    /// or asks again.
    fn send_records(&self, g: &Group, to: NodeNo, token: Token, from: Lsn, last: Lsn) {
        let Some((sender, header)) = self.to_member(g, to) else { return };
        if !sender.may_send_records(header.group, from) {
            return;
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for lsn in from.0..=last.0 {
            let Some(stored) = self.to_send(g, Lsn(lsn)) else { break };
            let id = stored.record.id;
            let (full, meta) = stored.record.in_full();
            if bytes > 0 && bytes + full.data_len() > PART {
                break;
            }
            bytes += full.data_len() + meta.len();
            let h = Header { lsn: id.lsn, generation: id.generation, ..header };
            let head = replicate_head(token, header.store, h, &meta, full.data_len());
            records.push((head, stored.pages.into_iter().filter_map(frame_of).collect()));
        }
        sender.send_records(header.group, from, records);
    }
}

impl Node {
    /// A record as it is here, every page sound. One that is not would be refused for ever: it is put right first.
    fn to_send(&self, g: &Group, lsn: Lsn) -> Option<StoredRecord> {
        let stored = g.replica.records.group.record(lsn);
        let damaged = stored.as_ref().map_or_else(Vec::new, |s| g.replica.records.damaged_of(s));
        damaged.iter().for_each(|(dataset, page)| self.scrub.suspect(g.entry.group, *dataset, *page));
        let whole = stored.filter(|s| s.is_complete() && damaged.is_empty());
        if whole.is_none() && damaged.is_empty() {
            let name = &g.entry.name;
            eprintln!("dspm-node: ALARM: commit {lsn} of {name} is asked for and no longer kept as a whole");
        }
        whole
    }
}

fn frame_of(page: StoredPage) -> Option<PinnedFrame> {
    match page {
        StoredPage::Frame(f) => Some(f),
        StoredPage::Zero | StoredPage::Gone => None,
    }
}

/// All sizes at a commit.
fn sizes(g: &Group, at: Lsn) -> Vec<DatasetSize> {
    let records = &g.replica.records.group;
    let size = |(dataset, _)| DatasetSize { dataset, size: records.size(dataset, at) };
    records.datasets().into_iter().map(size).collect()
}

/// What changed in `(known, tail]`, and all sizes.
fn state(g: &Group, known: Lsn, tail: RecordId) -> State {
    let records = &g.replica.records.group;
    let item = |(dataset, page, lsn)| Changed { dataset, page, lsn };
    let changes = if known == Lsn(0) && tail.lsn > Lsn(0) { None } else { records.changes(known, tail.lsn) };
    let mut state = State { tail, sizes: sizes(g, tail.lsn), whole: changes.is_some(), ..State::default() };
    if let Some(c) = changes {
        state.changed = c.pages.into_iter().map(item).collect();
        state.truncated = c.truncations.into_iter().map(item).collect();
    }
    state
}
