//! What the machines of a node ask it to do: answers, messages to members, the log's sync.

use crate::cache::Changes;
use crate::ctx::Ctx;
use crate::node::{Node, Slot};
use crate::records::SimRecords;
use crate::set::group_id;
use crate::wire::{Answer, Body, CrossMessage, Envelope, Who};
use dspm_proto::message::{Inquiry, Read};
use dspm_proto::{Error, Generation, GroupId, Instant, Lsn, Refusal, Session, StoreId};
use dspm_txn::{Caller, Effect, PeerMessage, Records};

impl Node {
    pub(crate) fn after(&mut self, group: usize, now: Instant, ctx: &mut Ctx<'_>) {
        self.look_ahead(group, now, ctx);
        self.perform(group, now, ctx);
        let behind =
            |s: &Slot| s.config.disk && s.replica.as_ref().is_some_and(|r| r.records.synced() < r.records.last());
        if self.flushing.is_none() && self.slots.iter().any(behind) {
            let due = Instant(ctx.now.0 + ctx.rng.range(100_000, self.sync_max));
            let last = |s: &Slot| s.replica.as_ref().map_or(Lsn(0), |r| r.records.last());
            self.flushing = Some((due, self.slots.iter().map(last).collect()));
        }
    }

    /// Does what the machine asks for.
    fn perform(&mut self, group: usize, now: Instant, ctx: &mut Ctx<'_>) {
        loop {
            let Some(r) = self.slots[group].replica.as_mut() else { return };
            let effects: Vec<Effect> = r.effects().collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                if let Some(effect) = self.twist(group, effect, now, ctx) {
                    self.effect(group, effect, ctx);
                }
            }
        }
    }

    fn effect(&mut self, group: usize, effect: Effect, ctx: &mut Ctx<'_>) {
        let (to, answer) = match effect {
            Effect::Ack { to, ack } => (to, Answer::Ack(ack)),
            Effect::Refuse { to, why } => (to, Answer::Refused(why)),
            Effect::Fail { to, error } => (to, Answer::Failed(error)),
            Effect::Snapshot { to, known, tail, lease } => {
                (to, Answer::Snapshot { tail, changes: self.changes(group, known, tail.lsn), lease })
            }
            Effect::AsOf { to, lsn, .. } => {
                let Some(id) = self.records(group).and_then(|r| r.was(lsn)) else { return };
                (to, Answer::AsOf { id })
            }
            Effect::Granted { to, known, tail, token, lease } => {
                self.check_copies(group, true, "lets a writer in", ctx);
                (to, Answer::Granted { tail, changes: self.changes(group, known, tail.lsn), token, lease })
            }
            Effect::Busy { to, ticket } => (to, Answer::Busy { ticket }),
            Effect::Awaits { to, groups } => (to, Answer::Failed(Error::Busy(format!("{groups:?}")))),
            Effect::Outcome { to, committed, tail } => {
                self.check_copies(group, committed, "tells that a record is committed", ctx);
                (to, Answer::Outcome { committed, tail })
            }
            Effect::Callback { session, token } => {
                return self.call_back(group, session, Body::Callback { session, token }, ctx);
            }
            Effect::Recall { session, below } => {
                return self.call_back(group, session, Body::Recall { session, below }, ctx);
            }
            Effect::Send { to, message } => return self.send(group, to, message, ctx),
            Effect::SendRecords { to, token, from, last } => {
                let Some(records) = self.records(group) else { return };
                let list: Vec<_> = (from.0..=last.0).filter_map(|l| records.record(Lsn(l)).cloned()).collect();
                let (store, generation) = self.address(group, to);
                // One at a time: what is left has to be asked for again.
                for record in list.into_iter().take(1) {
                    let body = Body::Replicate { generation, store, token, record };
                    ctx.out.push(Envelope { from: Who::Node(self.no), to: Who::Node(to), link: 0, group, body });
                }
                return;
            }
            Effect::Inquire { link, lsn } => {
                let inquiry = Inquiry { asker: group_id(group), lsn, link };
                return self.cross(link.group, CrossMessage::Inquiry(inquiry), ctx);
            }
            Effect::Decide { to, decision } => return self.cross(to, CrossMessage::Decision(decision), ctx),
            Effect::Resolved { to, resolved } => return self.cross(to, CrossMessage::Resolved(resolved), ctx),
            Effect::Activated => {
                self.call_committed(group, ctx);
                return self.group_activated(group, ctx);
            }
            // No client commits over several groups yet.
            Effect::Alarm(text) => return ctx.check.fail(|| format!("node{} alarms: {text}", self.no)),
        };
        self.answer(group, to, answer, ctx);
    }

    /// What a message to a member is addressed with.
    fn address(&self, group: usize, to: u32) -> (StoreId, Generation) {
        let c = &self.slots[group].config;
        (c.store_of(to), c.generation)
    }

    /// To the primary of another group, as far as this node knows.
    pub(crate) fn cross(&self, to: GroupId, message: CrossMessage, ctx: &mut Ctx<'_>) {
        let group = to.0 as usize - 1;
        if self.slots[group].removed {
            return self.hear_removed(to, message, ctx);
        }
        let config = &self.slots[group].config;
        let (store, to) = (config.store_of(config.primary), Who::Node(config.primary));
        let body = Body::Cross { store, message };
        ctx.out.push(Envelope { from: Who::Node(self.no), to, link: 0, group, body });
    }

    fn check_copies(&self, group: usize, counts: bool, what: &str, ctx: &mut Ctx<'_>) {
        let c = &self.slots[group].config;
        if counts && c.members.len() < c.min_copies {
            let (no, have, need) = (self.no, c.members.len(), c.min_copies);
            ctx.check.fail(|| format!("node{no} {what} with {have} copies of {need}"));
        }
    }

    /// Pages changed behind `known`, if the records of all that are kept.
    fn changes(&self, group: usize, known: Lsn, tail: Lsn) -> Changes {
        self.records(group).and_then(|r| r.changes(known, tail))
    }

    pub(crate) fn answer(&self, group: usize, to: Caller, answer: Answer, ctx: &mut Ctx<'_>) {
        let Some(client) = self.links.get(&to.connection).copied() else { return };
        let body = Body::Answer { request: to.request, answer };
        ctx.out.push(Envelope { from: Who::Node(self.no), to: client, link: to.connection, group, body });
    }

    fn call_back(&self, group: usize, session: Session, body: Body, ctx: &mut Ctx<'_>) {
        let Some((_, link)) = self.homes.get(&session.client) else { return };
        let Some(client) = self.links.get(link).copied() else { return };
        ctx.out.push(Envelope { from: Who::Node(self.no), to: client, link: *link, group, body });
    }

    pub(crate) fn send(&self, group: usize, to: u32, message: PeerMessage, ctx: &mut Ctx<'_>) {
        if matches!(message, PeerMessage::Fence(_)) {
            ctx.check.counts.settles += 1;
        }
        let (store, generation) = self.address(group, to);
        let body = Body::Peer { generation, store, sender: self.store, message };
        ctx.out.push(Envelope { from: Who::Node(self.no), to: Who::Node(to), link: 0, group, body });
    }
}

/// A member that cannot prove the exact version says so; it never answers with a newer page.
pub(crate) fn read(records: &SimRecords, m: &Read, newest: bool) -> Answer {
    if !records.has_base() || m.at < records.base_at() && records.base_at() == records.horizon() {
        return Answer::Refused(Refusal::Missing); // it came later: another member may have that state
    }
    if newest {
        return Answer::Pages(m.pages.iter().map(|p| records.version(*p, records.last())).collect());
    }
    if m.at < records.horizon() {
        return Answer::Failed(Error::TooOld(format!("{} is below {}", m.at, records.horizon())));
    }
    if m.at > records.tail().lsn {
        return Answer::Refused(Refusal::Unsettled);
    }
    Answer::Pages(m.pages.iter().map(|p| records.version(*p, m.at)).collect())
}
