//! A transaction over several groups at its client: prepared in all but one, decided in that one, resolved in the others.
//!
//! - The groups are reserved one after the other; their records are made when all are. The decider's comes first, for the
//!   prepared ones carry its hash; it goes out last, when all members of all others hold theirs.
//! - A doubt before it went out ends the attempt: what went out is asked for, and each settles as aborted. A doubt about
//!   itself is asked for first, then the others. The caller hears "committed" when everything is resolved as such, and "no"
//!   when everything is resolved as aborted; when its time is over, that nobody knows. A decision on its way is
//!   in doubt then, and the token of the decider given up in any case: its next settle sees to the rest.
//! - Until then its threads keep what they reserved, and afterwards its records in flight come first: nothing of this
//!   process follows a decision that is not resolved.

use crate::client::Client;
use crate::commit::Sending;
use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::set::group_id;
use crate::wire::Ask;
use dspm_proto::message::Resolved;
use dspm_proto::record::Record;
use dspm_proto::{Instant, RecordId};
use std::collections::BTreeMap;
use std::rc::Rc;

const MS: u64 = 1_000_000;

/// A transaction that is being committed.
#[derive(Debug)]
pub struct Joint {
    /// None: its caller was told that the outcome is unknown.
    thread: Option<usize>,
    /// For the checker.
    txn: usize,
    decider: usize,
    decision: Rc<Record>,
    /// The state of the decider that it began at.
    base: RecordId,
    phase: Phase,
    shares: BTreeMap<usize, Prepared>,
    /// They go out one group after the other.
    in_turn: bool,
    began: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The prepared records are on their way.
    Preparing,
    /// The decision is.
    Deciding,
    /// The decision is committed.
    Decided,
    /// It never went out, or never will be committed.
    Failed,
}

/// What a participant is to hold.
#[derive(Debug)]
struct Prepared {
    record: Rc<Record>,
    base: RecordId,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not sent yet.
    Waiting,
    /// On its way.
    Sent,
    /// Held by all, perhaps with its resolution on the way.
    Held,
    Committed,
    Aborted,
    /// Nobody can tell any more.
    Unknown,
}

impl Fate {
    fn is_final(self) -> bool {
        matches!(self, Fate::Committed | Fate::Aborted | Fate::Unknown)
    }
}

impl Joint {
    /// Nothing of it is sent yet.
    pub(crate) fn new(
        thread: usize,
        txn: usize,
        (decider, decision, base): (usize, Rc<Record>, RecordId),
        prepared: Vec<(usize, Rc<Record>, RecordId)>,
        in_turn: bool,
        began: Instant,
    ) -> Joint {
        let share = |(g, record, base)| (g, Prepared { record, base, fate: Fate::Waiting });
        let (thread, phase, shares) = (Some(thread), Phase::Preparing, prepared.into_iter().map(share).collect());
        Joint { thread, txn, decider, decision, base, phase, shares, in_turn, began }
    }

    /// The record that decides.
    pub(crate) fn decision(&self) -> RecordId {
        self.decision.id
    }
}

impl Client {
    /// Sends what is to be prepared: all of it, or the next.
    pub(crate) fn send_prepared(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get_mut(&number) else { return };
        let busy = joint.in_turn && joint.shares.values().any(|s| s.fate == Fate::Sent);
        let waiting = joint.shares.iter_mut().filter(|(_, s)| s.fate == Fate::Waiting && !busy);
        let most = if joint.in_turn { 1 } else { usize::MAX };
        let mut next = Vec::new();
        for (g, share) in waiting.take(most) {
            share.fate = Fate::Sent;
            next.push((*g, share.record.clone(), share.base));
        }
        let txn = joint.txn;
        for (g, record, base) in next {
            let members = self.members(g, ctx);
            let sent = self.desks[g].holder.send_prepared(record.id, members).is_some();
            if !sent {
                self.settle_fate(number, g, Fate::Aborted);
                return self.joint_in_doubt(number, ctx); // another lease took its place
            }
            self.dispatch(g, record, (number, txn, base), ctx);
        }
    }

    fn dispatch(
        &mut self,
        g: usize,
        record: Rc<Record>,
        (number, txn, base): (u64, usize, RecordId),
        ctx: &mut Ctx<'_>,
    ) {
        self.desks[g].note_due = None;
        self.desks[g].sending = Some(Sending::new(record, txn, (None, Some(number)), base, ctx.now, self.lease));
        self.send_record(g, None, ctx);
    }

    fn settle_fate(&mut self, number: u64, g: usize, fate: Fate) {
        if let Some(share) = self.joints.get_mut(&number).and_then(|j| j.shares.get_mut(&g)) {
            share.fate = fate;
        }
    }

    /// All members of a group hold what was sent to it last.
    pub(crate) fn held_by_all(&mut self, number: u64, g: usize, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get_mut(&number) else { return };
        if g == joint.decider {
            self.desks[g].sending = None;
            return self.decided(number, ctx);
        }
        match joint.shares.get_mut(&g) {
            Some(share) if share.fate == Fate::Sent => {
                share.fate = Fate::Held;
                self.send_prepared(number, ctx);
                self.decide(number, ctx);
            }
            Some(share) => {
                let record = share.record.clone();
                self.desks[g].sending = None;
                let known = self.desks[g].holder.tail().lsn;
                self.desks[g].cache.wrote(&record, known);
                self.desks[g].note_due = Some(Instant(ctx.now.0 + ctx.rng.below(2 * MS)));
                self.resolved_as(number, g, Fate::Committed, ctx);
            }
            None => {}
        }
    }

    /// The decision goes out when everything is prepared. (The fault: before.)
    fn decide(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get_mut(&number).filter(|j| j.phase == Phase::Preparing) else { return };
        let early = ctx.broken(Mutant::DecidesEarly) && joint.shares.values().all(|s| s.fate != Fate::Waiting);
        if !early && joint.shares.values().any(|s| s.fate != Fate::Held) {
            return;
        }
        let (g, record, base, txn) = (joint.decider, joint.decision.clone(), joint.base, joint.txn);
        let members = self.members(g, ctx);
        if self.desks[g].holder.send(record.id, members).is_none() {
            return self.joint_in_doubt(number, ctx);
        }
        if let Some(joint) = self.joints.get_mut(&number) {
            joint.phase = Phase::Deciding;
        }
        self.dispatch(g, record, (number, txn, base), ctx);
        if ctx.broken(Mutant::ResolvesEarly) {
            self.follow_all(number, ctx);
        }
    }

    /// The decision is committed: every participant gets its resolution, or is asked where that cannot be.
    fn decided(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get_mut(&number) else { return };
        joint.phase = Phase::Decided;
        let (g, record) = (joint.decider, joint.decision.clone());
        let known = self.desks[g].holder.tail().lsn;
        self.desks[g].cache.wrote(&record, known);
        self.desks[g].note_due = Some(Instant(ctx.now.0 + ctx.rng.below(2 * MS)));
        if ctx.broken(Mutant::WriterGoesOn) {
            if let Some(t) = self.joints.get(&number).and_then(|j| j.thread) {
                self.leave_group(t, g, ctx); // others of the process write behind the decision
            }
        }
        if ctx.broken(Mutant::ReturnsDecided) {
            self.acknowledge(number, ctx);
        }
        self.follow_all(number, ctx);
        self.joint_over(number, ctx);
    }

    fn follow_all(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get(&number) else { return };
        let (txn, groups) = (joint.txn, joint.shares.keys().copied().collect::<Vec<_>>());
        for g in groups {
            let Some(share) = self.joints.get(&number).and_then(|j| j.shares.get(&g)) else { return };
            if share.fate.is_final() || self.desks[g].holder.flight().is_none_or(|f| f.doubt) {
                continue;
            }
            let record = self.resolution(g, &share.record.clone(), ctx);
            let members = self.members(g, ctx);
            match self.desks[g].holder.follow(record.id, members).map(|f| f.base) {
                Some(base) => {
                    ctx.check.made(g, &record);
                    self.dispatch(g, record, (number, txn, base), ctx);
                }
                None => self.doubt(g, ctx),
            }
        }
    }

    /// Something went wrong with one of its records. Before the decision went out that ends the attempt.
    pub(crate) fn joint_in_doubt(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get_mut(&number).filter(|j| j.phase == Phase::Preparing) else { return };
        joint.phase = Phase::Failed;
        joint.shares.values_mut().filter(|s| s.fate == Fate::Waiting).for_each(|s| s.fate = Fate::Aborted);
        self.ask_all(number, ctx);
        self.joint_over(number, ctx);
    }

    /// What is not resolved is asked for.
    fn ask_all(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get(&number) else { return };
        let open: Vec<usize> = joint.shares.iter().filter(|(_, s)| !s.fate.is_final()).map(|(g, _)| *g).collect();
        for g in open {
            if self.desks[g].holder.flight().is_some_and(|f| !f.doubt) {
                self.doubt(g, ctx);
            }
        }
    }

    /// What became of one of its records, finally; None: nobody knows any more.
    pub(crate) fn told(&mut self, number: u64, g: usize, committed: Option<bool>, ctx: &mut Ctx<'_>) {
        self.desks[g].sending = None;
        self.desks[g].holder.abandon();
        let Some(joint) = self.joints.get_mut(&number) else { return };
        let record = if g == joint.decider { Some(&joint.decision) } else { joint.shares.get(&g).map(|s| &s.record) };
        let Some(record) = record.cloned() else { return };
        ctx.trace.say(|| format!("client{} was told of {} in group {g}: {committed:?}", self.no, record.id));
        committed.iter().for_each(|committed| ctx.check.outcome(g, &record, *committed));
        if g != joint.decider {
            let fate = committed.map_or(Fate::Unknown, |yes| if yes { Fate::Committed } else { Fate::Aborted });
            return self.resolved_as(number, g, fate, ctx);
        }
        match committed {
            Some(true) => {
                self.desks[g].holder.learned(record.id);
                self.decided(number, ctx);
            }
            _ => {
                joint.phase = Phase::Failed;
                if committed.is_none() {
                    self.give_joint_up(number, ctx);
                }
                self.ask_all(number, ctx);
                self.joint_over(number, ctx);
            }
        }
    }

    fn resolved_as(&mut self, number: u64, g: usize, fate: Fate, ctx: &mut Ctx<'_>) {
        self.settle_fate(number, g, fate);
        let Some(joint) = self.joints.get(&number) else { return };
        if fate == Fate::Committed && ctx.rng.chance(800) {
            let resolved = Resolved { participant: group_id(g), id: joint.decision.id };
            self.ask_primary(joint.decider, Ask::Resolved(resolved), ctx);
        }
        self.joint_over(number, ctx);
    }

    /// Everything is resolved: the caller is told.
    fn joint_over(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get(&number) else { return };
        let open = joint.shares.values().any(|s| !s.fate.is_final());
        if open || matches!(joint.phase, Phase::Preparing | Phase::Deciding) {
            return;
        }
        let (thread, txn, decided) = (joint.thread, joint.txn, joint.phase == Phase::Decided);
        let all = |fate| joint.shares.values().all(|s| s.fate == fate);
        let (yes, no) = (decided && all(Fate::Committed), !decided && all(Fate::Aborted));
        if no {
            ctx.check.txns.failed(txn);
        }
        match thread {
            Some(t) if yes => self.returns(number, t, ctx),
            Some(t) => self.abort(t, ctx),
            None => {}
        }
        self.joints.remove(&number);
    }

    /// COMMIT returns.
    fn returns(&mut self, number: u64, t: usize, ctx: &mut Ctx<'_>) {
        self.acknowledge(number, ctx);
        let Some(joint) = self.joints.get(&number) else { return };
        ctx.trace.say(|| format!("client{}.{t} committed {} and the others", self.no, joint.decision.id));
        ctx.check.counts.joint += 1;
        let groups: Vec<usize> = joint.shares.keys().copied().chain([joint.decider]).collect();
        groups.into_iter().for_each(|g| self.threads[t].tally[g].writes += 1);
        self.end(t, ctx);
    }

    /// The caller may tell others from here on.
    fn acknowledge(&self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get(&number) else { return };
        ctx.check.committed(joint.decider, &joint.decision, joint.base);
        joint.shares.iter().for_each(|(g, s)| ctx.check.committed(*g, &s.record, s.base));
        ctx.check.txns.committed(joint.txn);
    }

    /// The caller's time is over. The process goes on asking, and the primaries see to what it does not.
    fn give_joint_up(&mut self, number: u64, ctx: &mut Ctx<'_>) {
        let Some(joint) = self.joints.get_mut(&number) else { return };
        let decider = joint.decider;
        if let Some(t) = joint.thread.take() {
            ctx.check.counts.unknown += 1;
            self.abort(t, ctx);
        }
        match self.desks[decider].holder.flight().map(|f| f.doubt) {
            Some(false) => self.doubt(decider, ctx), // committed or not, nothing goes out behind it under its token
            Some(true) => {}
            None => drop(self.desks[decider].holder.give_up()),
        }
    }

    pub(crate) fn tick_joints(&mut self, ctx: &mut Ctx<'_>) {
        let late = |j: &Joint| j.thread.is_some() && ctx.now.since(j.began) > self.commit_timeout + self.lease * 2;
        let late: Vec<u64> = self.joints.iter().filter(|(_, j)| late(j)).map(|(n, _)| *n).collect();
        for number in late {
            if self.joints.get(&number).is_some_and(|j| j.phase == Phase::Preparing) {
                self.joint_in_doubt(number, ctx);
            }
            self.give_joint_up(number, ctx);
        }
    }
}
