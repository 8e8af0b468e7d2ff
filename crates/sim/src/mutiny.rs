//! The node's side of the deliberate faults about transactions over several groups. Like [`crate::sabotage`]: each hook
//! does nothing unless its rule is the one that is broken.

use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::node::Node;
use crate::set::group_id;
use crate::wire::{Answer, Ask, CrossMessage};
use dspm_proto::message::{Decision, Rebase, Resolved, Unsettled};
use dspm_proto::record::Record;
use dspm_proto::{Instant, Part, RecordId};
use dspm_txn::{Effect, PeerMessage, Records};
use std::time::Duration;

impl Node {
    fn part(&self, g: usize, id: RecordId) -> Part {
        self.records(g).and_then(|r| r.record(id.lsn)).map_or(Part::Alone, |r| r.part)
    }

    fn tail(&self, g: usize) -> RecordId {
        self.records(g).map(Records::tail).unwrap_or_default()
    }

    /// What a client is told instead.
    pub(crate) fn lie(&self, m: Mutant, g: usize, ask: &Ask) -> Option<Answer> {
        let r = self.slots[g].replica.as_ref().filter(|r| r.setup().is_primary() && !r.situation().unsettled)?;
        let tail = r.records.tail();
        match (m, ask) {
            (Mutant::PreparedShown, Ask::Snapshot(_)) if self.part(g, tail) == Part::Prepared => {
                Some(Answer::Snapshot { tail, changes: None, lease: Duration::ZERO })
            }
            (Mutant::AbortedCommitted, Ask::Outcome(o)) => {
                let aborted = RecordId { lsn: o.id.lsn.next(), ..tail };
                let told = r.records.holds(o.id) && self.part(g, aborted) == Part::Aborts;
                told.then_some(Answer::Outcome { committed: true, tail })
            }
            _ => None,
        }
    }

    /// A member of a participant that takes its tail for resolved is sent something else than a resolution.
    pub(crate) fn takes_for_resolved(&mut self, g: usize, record: &Record) {
        let tail = self.tail(g);
        let follows = record.predecessor == tail.hash && !record.is_empty() && self.part(g, tail) == Part::Prepared;
        if let Some(r) = self.slots[g].replica.as_mut().filter(|_| follows) {
            r.records.lies.resolved = Some(tail);
        }
    }

    /// A word from another group before the machine gets it. True: it does not get it.
    pub(crate) fn mishears(&mut self, g: usize, message: &CrossMessage, now: Instant, ctx: &mut Ctx<'_>) -> bool {
        let tail = self.tail(g);
        match (ctx.mutant, message) {
            (Some(Mutant::NoWithoutSettle), CrossMessage::Inquiry(m)) if m.link.lsn > tail.lsn => {
                let id = RecordId { generation: m.link.token.generation, lsn: m.link.lsn, hash: m.link.hash };
                let decision = Decision { decider: group_id(g), id, lsn: m.lsn, committed: false };
                self.cross(m.asker, CrossMessage::Decision(decision), ctx);
                true
            }
            (Some(Mutant::ResolvedUnheld | Mutant::YesInMemory), CrossMessage::Decision(m)) if m.committed => {
                let resolved = Resolved { participant: group_id(g), id: m.id };
                self.cross(m.decider, CrossMessage::Resolved(resolved), ctx);
                let in_memory = ctx.broken(Mutant::YesInMemory) && tail.lsn == m.lsn;
                if in_memory {
                    self.forget_prepared(g, tail, now);
                }
                in_memory
            }
            _ => false,
        }
    }

    fn forget_prepared(&mut self, g: usize, tail: RecordId, now: Instant) {
        let Some(r) = self.slots[g].replica.as_mut() else { return };
        r.records.lies.resolved = Some(tail);
        let other = self.slots[g].config.everyone().find(|m| m.node != self.no);
        if let Some(other) = other {
            self.pretend(g, other.node, PeerMessage::Unsettled(Unsettled { tail }), now);
        }
    }

    /// An effect before it is performed.
    pub(crate) fn twist_joint(&mut self, g: usize, effect: Effect, now: Instant, ctx: &Ctx<'_>) -> Effect {
        let tail = self.tail(g);
        match (ctx.mutant, effect) {
            (Some(Mutant::UntoldGoesOn), Effect::Decide { to, decision }) => {
                if let Some(r) = self.slots[g].replica.as_mut() {
                    r.resolved(&Resolved { participant: to, id: decision.id }, now);
                }
                Effect::Decide { to, decision }
            }
            (Some(Mutant::BareRebase), Effect::Send { to, message: PeerMessage::Rebase(m) })
                if m.tail.lsn < tail.lsn && self.part(g, tail) == Part::Prepared =>
            {
                Effect::Send { to, message: PeerMessage::Rebase(Rebase { tail, ..m }) }
            }
            (_, effect) => effect,
        }
    }
}
