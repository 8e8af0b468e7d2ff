//! The node's side of the deliberate faults: each hook does nothing unless its rule is the one that is broken.

use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::node::Node;
use crate::wire::{Answer, Ask, Body, Envelope, Who};
use dspm_proto::message::{Ack, Completed, Fenced, Probed, Recalled};
use dspm_proto::record::Record;
use dspm_proto::{Error, Instant, Lsn, RecordId, Refusal, Token};
use dspm_txn::{Caller, Effect, Fence, Origin, PeerMessage, Records};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What the faults remember.
#[derive(Default)]
pub(crate) struct Sabotage {
    /// Records that passed the check on arrival and are published later.
    late: Vec<(usize, Instant, Caller, Rc<Record>)>,
    /// Last answer to a probe of each member.
    probed: BTreeMap<(usize, u32), Probed>,
    /// What a joining member was asked to have last.
    asked: Option<(usize, Token, RecordId)>,
    /// Words about the past so far, in the order in which they came.
    words: u64,
}

impl Sabotage {
    /// The number of a word about the past. (The fault: each is newer than the last one heard.)
    pub(crate) fn word(&mut self, number: u64, ctx: &Ctx<'_>) -> u64 {
        self.words += 1;
        if ctx.broken(Mutant::LateKeep) { self.words } else { number }
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.late.iter().map(|l| l.1).min()
    }
}

impl Node {
    /// A message before the machine gets it. True: it does not get it.
    pub(crate) fn sabotaged(&mut self, e: &Envelope, now: Instant, ctx: &mut Ctx<'_>) -> bool {
        let Some(broken) = ctx.mutant else { return false };
        match (&e.body, e.from) {
            (Body::Ask { request, ask, .. }, _) => {
                let caller = Caller { connection: e.link, request: *request };
                self.ask_sabotaged(broken, e.group, caller, ask, now, ctx)
            }
            (Body::Cross { message, .. }, _) => self.mishears(e.group, message, now, ctx),
            (Body::Peer { message, sender, .. }, Who::Node(from)) => {
                let known = self.slots[e.group].config.store_of(from) == *sender;
                known && self.peer_sabotaged(broken, e.group, from, message, now, ctx)
            }
            _ => false,
        }
    }

    fn ask_sabotaged(&mut self, m: Mutant, g: usize, to: Caller, ask: &Ask, now: Instant, ctx: &mut Ctx<'_>) -> bool {
        if let Some(lie) = self.lie(m, g, ask) {
            self.answer(g, to, lie, ctx);
            return true;
        }
        if let (Mutant::YesInMemory, Ask::Commit(record)) = (m, ask) {
            self.takes_for_resolved(g, record);
        }
        let Some(r) = self.slots[g].replica.as_mut() else { return false };
        let (situation, tail, fence) = (r.situation(), r.records.tail(), r.records.fence());
        let (primary, disk) = (r.setup().is_primary(), r.setup().disk);
        let answer = match (m, ask) {
            (Mutant::OutcomeNoSettle, Ask::Outcome(o)) => {
                Answer::Outcome { committed: tail.lsn >= o.id.lsn && r.records.holds(o.id), tail }
            }
            (Mutant::NoProbe, Ask::Snapshot(_)) if primary && !situation.unsettled && !situation.settling => {
                Answer::Snapshot { tail, changes: None, lease: Duration::ZERO }
            }
            (Mutant::RestartServes, Ask::Snapshot(_)) if primary && situation.unsettled => {
                Answer::Snapshot { tail, changes: None, lease: Duration::ZERO }
            }
            (Mutant::DuplicateByToken | Mutant::NotRechecked, _) if disk => return false, // it would break the sync's rule too
            (Mutant::DuplicateByToken, Ask::Commit(c)) => {
                let same = r.records.record(c.id.lsn).is_some_and(|h| h.token == c.token && c.token == fence.token);
                if !same {
                    return false;
                }
                Answer::Ack(Ack { id: c.id, horizon: Lsn(0) })
            }
            (Mutant::NoBackupFence, Ask::Commit(c)) => {
                if c.token > fence.token && !primary {
                    r.records.set_fence(Fence { token: c.token, ..fence });
                }
                return false;
            }
            (Mutant::NotRechecked, Ask::Commit(c)) => {
                let next = c.id.lsn == tail.lsn.next() && c.predecessor == tail.hash;
                if !next || c.token != fence.token || situation.unsettled {
                    return false;
                }
                let due = Instant(now.0 + ctx.rng.below(60_000_000));
                self.sabotage.late.push((g, due, to, c.clone()));
                return true;
            }
            _ => return false,
        };
        self.answer(g, to, answer, ctx);
        true
    }

    /// Publishes what passed the check on arrival, without another look.
    pub(crate) fn publish_late(&mut self, g: usize, now: Instant, ctx: &mut Ctx<'_>) {
        while let Some(at) = self.sabotage.late.iter().position(|l| l.0 == g && l.1 <= now) {
            let (_, _, to, record) = self.sabotage.late.remove(at);
            let Some(r) = self.slots[g].replica.as_mut() else { return };
            if record.id.lsn == r.records.last().next() {
                let _ = r.records.append(&record, (), Origin::Settle);
            }
            let answer = match r.records.holds(record.id) {
                true => Answer::Ack(Ack { id: record.id, horizon: Lsn(0) }),
                false => Answer::Refused(Refusal::NotNext),
            };
            self.answer(g, to, answer, ctx);
        }
    }

    fn peer_sabotaged(
        &mut self,
        broken: Mutant,
        g: usize,
        from: u32,
        message: &PeerMessage,
        now: Instant,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        let sender = self.slots[g].config.store_of(from);
        let Some(r) = self.slots[g].replica.as_mut() else { return false };
        let (tail, fence) = (r.records.tail(), r.records.fence());
        let reply = match (broken, message) {
            (Mutant::FenceGoesBack, PeerMessage::Fence(m)) if m.token < fence.token => {
                r.records.set_fence(Fence { token: m.token, ..fence });
                PeerMessage::Fenced(Fenced { token: m.token, tail, unsettled: false, whole: true })
            }
            (Mutant::CompleteRepeats, PeerMessage::Complete(m)) if m.token == fence.token && tail.lsn > m.tail.lsn => {
                r.records.truncate(m.tail.lsn);
                PeerMessage::Completed(Completed { token: m.token, tail: m.tail })
            }
            (Mutant::OwnTailOnly, PeerMessage::Fenced(m)) if m.tail.lsn > tail.lsn => {
                r.peer(from, sender, PeerMessage::Fenced(Fenced { tail, ..m.clone() }), now);
                return true;
            }
            (Mutant::OwnTailOnly, PeerMessage::Completed(m)) if m.tail.lsn > tail.lsn => {
                r.peer(from, sender, PeerMessage::Completed(Completed { tail, ..m.clone() }), now);
                return true;
            }
            (Mutant::RejoinNoCut, PeerMessage::Complete(m)) => {
                self.sabotage.asked = Some((g, m.token, m.tail));
                return false;
            }
            (Mutant::RebaseRepeats, PeerMessage::Rebase(m)) if m.token == fence.token && tail.lsn > m.tail.lsn => {
                r.records.rebase(m.tail);
                PeerMessage::Completed(Completed { token: m.token, tail: m.tail })
            }
            (Mutant::ProbeRoundIgnored, PeerMessage::Probed(m)) => {
                self.sabotage.probed.insert((g, from), m.clone());
                return false;
            }
            _ => return false,
        };
        self.send(g, from, reply, ctx);
        true
    }

    /// An effect before it is performed. None: it is not.
    pub(crate) fn twist(&mut self, g: usize, effect: Effect, now: Instant, ctx: &mut Ctx<'_>) -> Option<Effect> {
        let Some(broken) = ctx.mutant else { return Some(effect) };
        if let (Mutant::ReadLeaseIgnored, Effect::Recall { session, below }) = (broken, &effect) {
            let back = Recalled { session: *session, below: *below };
            self.slots[g].replica.as_mut()?.recalled(&back, now);
            return None;
        }
        if let (Mutant::OutcomeForgotten, Effect::Fail { to, error: Error::OutcomeUnknown(_) }) = (broken, &effect) {
            let tail = self.slots[g].replica.as_ref()?.records.tail();
            return Some(Effect::Outcome { to: *to, committed: false, tail });
        }
        let effect = self.twist_joint(g, effect, now, ctx);
        let effect = self.uncap(g, effect, ctx);
        let Effect::Send { to, message } = effect else {
            let drop = broken == Mutant::NoCallback && matches!(effect, Effect::Callback { .. });
            return (!drop).then_some(effect);
        };
        let tail = self.slots[g].replica.as_ref()?.records.tail();
        let last = self.slots[g].config.everyone().map(|m| m.node).filter(|n| *n != self.no).max();
        match (broken, &message) {
            (Mutant::ProbeUnsynced, PeerMessage::Probed(m)) => {
                let message = PeerMessage::Probed(Probed { tail, ..m.clone() });
                return Some(Effect::Send { to, message });
            }
            (Mutant::NoBackupFence, PeerMessage::Fence(m)) => {
                let fenced = Fenced { token: m.token, tail, unsettled: false, whole: true };
                self.pretend(g, to, PeerMessage::Fenced(fenced), now);
                return None;
            }
            (Mutant::RejoinNoCut, PeerMessage::Fenced(m))
                if self.slots[g].config.joining.iter().any(|j| j.node == self.no) =>
            {
                let records = &self.slots[g].replica.as_ref()?.records;
                let committed = records.was(records.committed()).unwrap_or_default();
                return Some(Effect::Send {
                    to,
                    message: PeerMessage::Fenced(Fenced { tail: committed, ..m.clone() }),
                });
            }
            (Mutant::RejoinNoCut, PeerMessage::Completed(m)) => {
                // It keeps what it had above the settled tail and says that all is well.
                let asked = self.sabotage.asked.filter(|a| a.0 == g && a.1 == m.token && m.tail.lsn >= a.2.lsn);
                let tail = asked.map_or(m.tail, |a| a.2);
                return Some(Effect::Send { to, message: PeerMessage::Completed(Completed { token: m.token, tail }) });
            }
            (Mutant::SettleNotAll, PeerMessage::Complete(m)) if last == Some(to) => {
                let completed = Completed { token: m.token, tail: m.tail };
                self.pretend(g, to, PeerMessage::Completed(completed), now);
            }
            (Mutant::ProbeRoundIgnored, PeerMessage::Probe(m)) => {
                let old = self.sabotage.probed.get(&(g, to)).filter(|p| p.token == m.token).cloned();
                if let Some(old) = old {
                    self.pretend(g, to, PeerMessage::Probed(Probed { round: m.round, ..old }), now);
                }
            }
            _ => {}
        }
        Some(Effect::Send { to, message })
    }

    /// (The fault: the settled tail of a generation that is not active yet.)
    pub(crate) fn call_committed(&mut self, g: usize, ctx: &Ctx<'_>) {
        if let Some(r) = self.slots[g].replica.as_mut().filter(|_| ctx.broken(Mutant::SettledIsCommitted)) {
            r.records.set_committed(r.records.tail().lsn);
        }
    }

    /// (The fault: leases are as long as ever, whatever the grants.)
    pub(crate) fn uncapped(&self, lease: Duration, g: usize, ctx: &Ctx<'_>) -> Duration {
        let full = self.slots[g].config.lease;
        if ctx.broken(Mutant::LeaseUncapped) && !lease.is_zero() { full - full / 64 } else { lease }
    }

    fn uncap(&self, g: usize, effect: Effect, ctx: &Ctx<'_>) -> Effect {
        match effect {
            Effect::Granted { to, known, tail, token, lease } => {
                Effect::Granted { to, known, tail, token, lease: self.uncapped(lease, g, ctx) }
            }
            Effect::Snapshot { to, known, tail, lease } => {
                Effect::Snapshot { to, known, tail, lease: self.uncapped(lease, g, ctx) }
            }
            other => other,
        }
    }

    /// The machine is told that a member answered.
    pub(crate) fn pretend(&mut self, g: usize, from: u32, message: PeerMessage, now: Instant) {
        let sender = self.slots[g].config.store_of(from);
        if let Some(r) = self.slots[g].replica.as_mut() {
            r.peer(from, sender, message, now);
        }
    }

    /// A primary whose clock runs ahead when somebody waits for a lease.
    pub(crate) fn look_ahead(&mut self, g: usize, now: Instant, ctx: &mut Ctx<'_>) {
        if !ctx.broken(Mutant::LeaseNotWaited) {
            return;
        }
        let lease = self.slots[g].config.lease;
        if let Some(r) = self.slots[g].replica.as_mut() {
            let s = r.situation();
            if s.waiting > 0 && !s.settling {
                r.tick(now.after(lease * 4));
            }
        }
    }
}
