//! The node's part in removals: a group comes to rest, and who asks one that was removed is answered by the runtime.
//!
//! Fault model: nodes hear that a group was removed at different times; until then they serve it.

use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::node::Node;
use crate::wire::{Body, CrossMessage, Envelope, Who};
use dspm_proto::message::{Decision, Resolved};
use dspm_proto::{GroupId, RecordId};

impl Node {
    /// The registry is about to remove the group, or has given that up.
    pub(crate) fn mark(&mut self, g: usize, removing: bool, ctx: &mut Ctx<'_>) {
        self.slots[g].removing = removing;
        let config = self.slots[g].config.clone();
        self.reconfigured(g, &config, ctx.now, ctx);
        self.after(g, ctx.now, ctx);
    }

    /// True when the registry may remove it, as far as this node can say.
    pub(crate) fn is_at_rest(&mut self, g: usize, ctx: &mut Ctx<'_>) -> bool {
        let Some(r) = self.slots[g].replica.as_mut().filter(|r| r.setup().is_primary()) else { return false };
        if ctx.broken(Mutant::RemovedUnasked) {
            return true;
        }
        let quiet = r.is_quiet(ctx.now);
        self.after(g, ctx.now, ctx);
        quiet
    }

    /// What the runtime makes of a word to a group that was removed.
    pub(crate) fn hear_removed(&self, to: GroupId, message: CrossMessage, ctx: &mut Ctx<'_>) {
        let (asker, message) = match message {
            CrossMessage::Inquiry(m) => {
                let id = RecordId { generation: m.link.token.generation, lsn: m.link.lsn, hash: m.link.hash };
                let committed = ctx.broken(Mutant::RemovedCounts);
                (m.asker, CrossMessage::Decision(Decision { decider: to, id, lsn: m.lsn, committed }))
            }
            CrossMessage::Decision(m) => (m.decider, CrossMessage::Resolved(Resolved { participant: to, id: m.id })),
            CrossMessage::Resolved(_) => return,
        };
        let (group, me) = (asker.0 as usize - 1, Who::Node(self.no));
        ctx.out.push(Envelope { from: me, to: me, link: 0, group, body: Body::Cross { store: self.store, message } });
    }
}
