//! Settle: raise the token, fence every member, complete the longest tail on all, call it committed. A tail that is
//! prepared for another group's decision is completed, resolved as that group says ([`crate::twophase`]), and so is the
//! resolution.
//! Joining members take part ([`crate::join`]); what they hold is no source.
//!
//! It runs at hand-over of the lease, restart of a member, an outcome question, and when a tail stays unconfirmed.
//! Within a generation nothing is discarded: a record that any member holds may have been acknowledged to be read by
//! nobody yet, so it is completed, and the outcome is the same for every later asker.

use crate::RESEND;
use crate::config::Setup;
use crate::effect::{Effect, PeerMessage};
use crate::replica::{Fence, NodeNo, Records, Replica};
use dspm_proto::message::{self, Complete, Completed, Fenced, Fetch, Rebase};
use dspm_proto::{GroupId, Instant, RecordId, Token};
use std::collections::{BTreeMap, BTreeSet};

/// A settle under way at the primary.
pub(crate) struct Settle {
    pub(crate) token: Token,
    phase: Phase,
    /// What the others answered.
    tails: BTreeMap<NodeNo, Fenced>,
    /// Joining members that start over.
    pub(crate) rebase: BTreeSet<NodeNo>,
    sent: Instant,
}

enum Phase {
    /// Waiting for every member's tail.
    Fence,
    /// Waiting for records that another member holds and we lack.
    Fetch { from: NodeNo, target: RecordId },
    /// Waiting for every member to hold the target.
    Complete { target: RecordId, done: Vec<NodeNo> },
    /// Every member holds the tail, which is prepared: waiting for who decides.
    Inquire { since: Instant },
}

impl<R: Records> Replica<R> {
    /// Begins a settle; one at a time.
    pub(crate) fn start_settle(&mut self, now: Instant) {
        if self.settle.is_some() || !self.setup.is_primary() || self.is_overtaken() {
            return;
        }
        self.settles += 1;
        let token = Token { generation: self.setup.generation, boot: self.setup.boot, n: self.settles };
        if token <= self.records.fence().token {
            self.effects.push(Effect::Alarm(format!("token {token} does not pass {}", self.records.fence().token)));
            return;
        }
        self.records.set_fence(Fence { generation: self.setup.generation, token });
        self.leases.revoke();
        self.views.abandon_probe();
        let (tails, rebase) = (BTreeMap::new(), BTreeSet::new());
        self.settle = Some(Settle { token, phase: Phase::Fence, tails, rebase, sent: now });
        self.send_settle(now);
        self.drive_settle(now);
    }

    /// Sends, or sends again, what the settle waits for.
    fn send_settle(&mut self, now: Instant) {
        let Some(settle) = self.settle.as_mut() else { return };
        settle.sent = now;
        let token = settle.token;
        let others: Vec<NodeNo> = self.setup.others().map(|m| m.node).collect();
        match &settle.phase {
            Phase::Fence => {
                for to in others.into_iter().filter(|n| !settle.tails.contains_key(n)) {
                    self.effects.push(Effect::Send { to, message: PeerMessage::Fence(message::Fence { token }) });
                }
            }
            Phase::Fetch { from, target } => {
                let fetch = Fetch { token, from: self.records.tail().lsn.next(), to: target.lsn };
                self.effects.push(Effect::Send { to: *from, message: PeerMessage::Fetch(fetch) });
            }
            Phase::Complete { done, .. } => {
                let rest: Vec<NodeNo> = others.into_iter().filter(|n| !done.contains(n)).collect();
                rest.into_iter().for_each(|to| self.send_rest(to));
            }
            Phase::Inquire { .. } => self.inquire(now),
        }
    }

    /// The records that a member lacks, or as many as go at once, and the question how far it got.
    fn send_rest(&mut self, to: NodeNo) {
        let Some(settle) = self.settle.as_ref() else { return };
        let Phase::Complete { target, .. } = &settle.phase else { return };
        let (token, tail, held) = (settle.token, *target, settle.tails.get(&to).cloned());
        let joins = held.as_ref().filter(|_| self.setup.is_joining(to));
        if settle.rebase.contains(&to) || joins.is_some_and(|held| self.must_rebase(held, tail)) {
            self.rebase_instead(to);
            let Some(tail) = self.rebase_target(tail) else { return };
            let message = PeerMessage::Rebase(Rebase { token, tail });
            return self.effects.push(Effect::Send { to, message });
        }
        if let Some(held) = held.filter(|t| t.tail.lsn < tail.lsn) {
            self.effects.push(Effect::SendRecords { to, token, from: held.tail.lsn.next(), last: tail.lsn });
        }
        let message = PeerMessage::Complete(Complete { token, tail });
        self.effects.push(Effect::Send { to, message });
    }

    /// Moves the settle on as far as it goes.
    pub(crate) fn drive_settle(&mut self, now: Instant) {
        let own = self.records.tail();
        let Some(settle) = self.settle.as_mut() else { return };
        match &settle.phase {
            Phase::Fence => {
                if self.setup.others().any(|m| !settle.tails.contains_key(&m.node)) {
                    return;
                }
                let complete = settle.tails.iter().filter(|(n, _)| !self.setup.is_joining(**n));
                let rank = |id: RecordId| (id.generation, id.lsn);
                settle.phase = match complete.max_by_key(|(_, t)| rank(t.tail)) {
                    Some((&from, t)) if rank(t.tail) > rank(own) => Phase::Fetch { from, target: t.tail },
                    _ => complete_phase(own, &settle.tails, &self.setup),
                };
                if let Phase::Fetch { target, .. } = settle.phase {
                    self.give_way(target);
                }
                self.send_settle(now);
                self.drive_settle(now);
            }
            Phase::Fetch { target, .. } if own == *target => {
                settle.phase = complete_phase(own, &settle.tails, &self.setup);
                self.send_settle(now);
                self.drive_settle(now);
            }
            Phase::Fetch { .. } => {}
            Phase::Complete { target, done } => {
                let durable = !self.setup.disk || self.records.flushed() >= target.lsn;
                let all = self.setup.others().all(|m| done.contains(&m.node));
                if durable && all && self.is_held_back(self.newest(), now) {
                    self.recall_readers(now);
                } else if durable && all {
                    self.settled(now);
                }
            }
            Phase::Inquire { .. } => self.resolve(now),
        }
    }

    /// True when no settle is under way, or only who decides about the tail is waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.settle.as_ref().is_none_or(|s| matches!(s.phase, Phase::Inquire { .. }))
    }

    /// Since when who decides about the tail is waited for.
    pub(crate) fn inquires_since(&self) -> Option<Instant> {
        match self.settle.as_ref()?.phase {
            Phase::Inquire { since } => Some(since),
            _ => None,
        }
    }

    /// True while nobody has the token of the last settle, which is over or waits for who decides about the tail.
    pub(crate) fn has_no_writer(&self) -> bool {
        match &self.settle {
            None => self.leases.token_unused,
            Some(s) => matches!(s.phase, Phase::Inquire { .. }),
        }
    }

    /// The group whose decision a settle waits for.
    pub(crate) fn asked_decider(&self) -> Option<GroupId> {
        let asks = self.settle.as_ref().is_some_and(|s| matches!(s.phase, Phase::Inquire { .. }));
        self.unresolved().filter(|_| asks).and_then(|tail| Some(self.records.links(tail.lsn).first()?.group))
    }

    /// The prepared tail is settled, in an active generation: it is resolved now.
    pub(crate) fn ask_decider(&mut self, now: Instant) {
        if self.unresolved().is_some() && self.is_settled() {
            self.send_settle(now);
            self.drive_settle(now);
        }
    }

    /// Goes on behind a prepared tail as soon as it is known what became of it.
    fn resolve(&mut self, now: Instant) {
        let Some(token) = self.settle.as_ref().map(|s| s.token).filter(|_| self.setup.active) else { return };
        let tail = self.records.tail();
        let Some(target) = self.append_resolution(token, now) else { return };
        if let Some(settle) = self.settle.as_mut() {
            // All others hold the tail, and are settled.
            settle.tails.values_mut().for_each(|t| (t.tail, t.unsettled) = (tail, false));
            settle.rebase.clear();
            settle.phase = Phase::Complete { target, done: Vec::new() };
        }
        self.send_settle(now);
        self.drive_settle(now);
    }

    fn settled(&mut self, now: Instant) {
        self.unsettled = false;
        (self.serving, self.placed) = (true, true);
        if self.unresolved().is_some() {
            if let Some(settle) = self.settle.as_mut() {
                settle.phase = Phase::Inquire { since: now };
            }
        } else {
            self.settle = None;
            self.leases.token_unused = true;
        }
        if self.setup.active {
            self.confirm_settled(now);
        }
        self.tick_config(now);
    }

    pub(crate) fn on_fenced(&mut self, from: NodeNo, m: Fenced, now: Instant) {
        let Some(settle) = self.settle.as_mut() else { return };
        if settle.token == m.token && matches!(settle.phase, Phase::Fence) {
            settle.tails.insert(from, m);
            self.drive_settle(now);
        }
    }

    pub(crate) fn on_completed(&mut self, from: NodeNo, m: Completed, now: Instant) {
        let Some(settle) = self.settle.as_mut() else { return };
        let Phase::Complete { target, done } = &mut settle.phase else { return };
        if settle.token != m.token {
            return;
        }
        if settle.rebase.remove(&from) {
            if let Some(t) = settle.tails.get_mut(&from) {
                (t.tail, t.unsettled) = (m.tail, false);
            }
            return self.send_rest(from); // from there on it is like the others
        }
        if m.tail == *target {
            if !done.contains(&from) {
                done.push(from);
            }
            self.drive_settle(now);
        } else if m.tail.lsn >= target.lsn && self.setup.is_joining(from) {
            self.rebase_instead(from);
            self.send_rest(from);
        } else if m.tail.lsn >= target.lsn {
            self.effects.push(Effect::Alarm(format!("member {from} has {}, the settled tail is {target}", m.tail)));
        } else if let Some(t) = settle.tails.get_mut(&from) {
            let part_arrived = m.tail.lsn > t.tail.lsn;
            t.tail = m.tail; // the next records start there
            if part_arrived {
                self.send_rest(from);
            } // else they are sent again when their time comes
        }
    }

    pub(crate) fn tick_settle(&mut self, now: Instant) {
        if self.must_settle() {
            self.start_settle(now);
        } else if self.says_unsettled() && now.since(self.said_unsettled) >= RESEND {
            self.said_unsettled = now;
            let message = PeerMessage::Unsettled(message::Unsettled { tail: self.records.tail() });
            self.effects.push(Effect::Send { to: self.setup.primary, message });
        }
        if self.settle.as_ref().is_some_and(|s| now.since(s.sent) >= RESEND) {
            self.send_settle(now);
        }
    }

    /// It obeys a generation whose configuration it has not heard yet.
    fn is_overtaken(&self) -> bool {
        self.records.fence().generation > self.setup.generation
    }

    /// A primary that restarted, or whose generation is not settled yet.
    fn must_settle(&self) -> bool {
        let due = self.unsettled || !self.setup.active;
        due && self.setup.is_primary() && self.settle.is_none() && !self.serving && !self.is_overtaken()
    }

    /// A restarted member, until a settle of this process's time reached it.
    fn says_unsettled(&self) -> bool {
        let member = !self.setup.is_primary() && (self.setup.members.contains(&self.setup.me) || self.setup.joins());
        member && self.unsettled && self.records.fence().token <= self.born
    }

    pub(crate) fn wake_settle(&self, now: Instant) -> Option<Instant> {
        match &self.settle {
            Some(s) => Some(s.sent.after(RESEND)),
            None if self.must_settle() => Some(now),
            None if self.says_unsettled() => Some(self.said_unsettled.after(RESEND)),
            None => None,
        }
    }

    // --- the member's side

    pub(crate) fn on_fence(&mut self, from: NodeNo, m: message::Fence) {
        let current = m.token.generation == self.setup.generation && m.token >= self.records.fence().token;
        let old = self.unsettled && m.token <= self.born; // perhaps sent to the process before
        if from != self.setup.primary || !current || old {
            return;
        }
        self.records.set_fence(Fence { generation: m.token.generation, token: m.token });
        let (tail, unsettled, whole) = (self.records.tail(), self.unsettled, self.records.is_whole());
        let fenced = Fenced { token: m.token, tail, unsettled, whole };
        self.effects.push(Effect::Send { to: from, message: PeerMessage::Fenced(fenced) });
    }

    pub(crate) fn on_complete(&mut self, from: NodeNo, m: &Complete) {
        if !self.obeys(from, m.token) {
            return;
        }
        self.go_back(m);
        self.completing = Some((from, m.token, m.tail));
        self.complete_when_durable();
    }

    /// Answers a Complete when the records are here and durable as asked. Applied once a token: a repeat finds the
    /// member settled and is only acknowledged.
    pub(crate) fn complete_when_durable(&mut self) {
        let Some((to, token, target)) = self.completing else { return };
        let tail = self.records.tail();
        if tail == target && self.setup.disk && self.records.flushed() < target.lsn {
            return;
        }
        self.completing = None;
        if tail.lsn > target.lsn && self.completed == Some(token) {
            return; // an older word of the settle: what came since may not be durable
        }
        if tail == target && token == self.records.fence().token {
            (self.completed, self.unsettled, self.placed) = (Some(token), false, true); // not committed yet: another member may still lack it
        }
        self.say_completed(to, token);
    }

    pub(crate) fn on_unsettled(&mut self, now: Instant) {
        // It restarted, perhaps without the unsynced records that we fetch from it, perhaps with its base half there, and
        // obeys none of the tokens from before: all is asked again under a new one.
        if self.settle.take().is_some() || self.serving {
            self.start_settle(now);
        }
    }
}

/// Members whose tail is the target and who accept records need not be told; with durability disk they are, for a tail
/// says nothing about the log's sync. Joining ones are, to know that they are in the history.
fn complete_phase(target: RecordId, tails: &BTreeMap<NodeNo, Fenced>, setup: &Setup) -> Phase {
    let holds = |n: NodeNo, t: &Fenced| !setup.disk && t.tail == target && !t.unsettled && !setup.is_joining(n);
    let done = tails.iter().filter(|(n, t)| holds(**n, t)).map(|(n, _)| *n).collect();
    Phase::Complete { target, done }
}
