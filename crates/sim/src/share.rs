//! What a transaction over several groups is made of: the groups that it reserves one after the other, and the records
//! that name each other.

use crate::client::Client;
use crate::commit::values;
use crate::ctx::Ctx;
use crate::elle::Key;
use crate::joint::Joint;
use crate::set::group_id;
use crate::thread::{Share, Step};
use dspm_proto::record::Record;
use dspm_proto::{Link, Part, RecordId};
use std::rc::Rc;

impl Client {
    /// Some other groups besides the chosen one, in an order in which nobody waits for anybody in a circle.
    pub(crate) fn choose_several(&mut self, t: usize, groups: &[usize], ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        let mut others: Vec<usize> = groups.iter().copied().filter(|g| *g != thread.group).collect();
        ctx.rng.shuffle(&mut others);
        others.truncate(ctx.rng.range(1, 2) as usize);
        others.push(thread.group);
        others.sort_unstable();
        (thread.group, thread.rest) = (others[0], others[1..].to_vec());
    }

    /// Begins a transaction over several groups on a thread that does nothing.
    pub fn start_all(&mut self, t: usize, groups: &[usize], ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        (thread.group, thread.rest) = (groups[0], groups[1..].to_vec());
        (thread.writes, thread.work, thread.again, thread.past) = (true, 0, false, None);
        self.call(t, ctx);
        while self.advance(t, ctx) {}
    }

    /// A group is reserved: the next one of the transaction. False: it was the last.
    pub(crate) fn reserve_next(&mut self, t: usize, ctx: &Ctx<'_>) -> bool {
        let thread = &mut self.threads[t];
        let Some(view) = thread.view.filter(|_| !thread.rest.is_empty()) else { return false };
        let targets = std::mem::take(&mut thread.targets);
        thread.shares.push(Share { group: thread.group, view: view.id, targets });
        thread.group = thread.rest.remove(0);
        (thread.view, thread.called, thread.step) = (None, ctx.check.top(thread.group), Step::Begin);
        true
    }

    /// All groups are reserved: makes the records and sends the prepared ones.
    pub(crate) fn commit_all(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let Some(view) = self.threads[t].view else { return false };
        let (group, targets) = (self.threads[t].group, self.threads[t].targets.clone());
        let mut shares = self.threads[t].shares.clone();
        shares.push(Share { group, view: view.id, targets });
        let current = |s: &Share| {
            let desk = &self.desks[s.group];
            desk.holder.token().is_some_and(|token| token.generation == desk.config.generation)
                && desk.holder.tail() == s.view
                && desk.holder.flight().is_none()
        };
        if !shares.iter().all(current) {
            for share in &shares {
                let desk = &mut self.desks[share.group];
                let token = desk.holder.token();
                if token.is_some_and(|token| token.generation != desk.config.generation) {
                    desk.holder.give_up(); // another generation, other members
                }
            }
            self.begin_again(t, ctx);
            return true;
        }
        ctx.rng.shuffle(&mut shares);
        let which = shares.iter().position(|s| self.decides == Some(s.group)).unwrap_or_default();
        let decides = shares.remove(which);
        let joint = self.make_all(t, &decides, &shares, ctx);
        self.transaction += 1;
        let number = self.transaction;
        ctx.trace.say(|| format!("client{}.{t} commits {} and {} others", self.no, joint.decision(), shares.len()));
        self.joints.insert(number, joint);
        self.threads[t].step = Step::Committing;
        self.send_prepared(number, ctx);
        false
    }

    fn make_all(&mut self, t: usize, decides: &Share, shares: &[Share], ctx: &mut Ctx<'_>) -> Joint {
        let mut appends: Vec<(Key, Vec<u64>)> = Vec::new();
        let mut written = |s: &Share, ctx: &mut Ctx<'_>| {
            let list: Vec<_> = s.targets.iter().map(|p| (*p, values(ctx))).collect();
            appends.extend(list.iter().map(|(page, values)| ((s.group, *page), values.clone())));
            list
        };
        let link = |c: &Client, g: usize, hash| {
            let holder = &c.desks[g].holder;
            Link { group: group_id(g), lsn: holder.tail().lsn.next(), hash, token: holder.token().unwrap_or_default() }
        };
        let token = |c: &Client, g: usize| c.desks[g].holder.token().unwrap_or_default();
        let links = shares.iter().map(|s| link(self, s.group, 0)).collect();
        let list = written(decides, ctx);
        let decision = self.record(decides.group, token(self, decides.group), &list, (Part::Decides, links), ctx);
        ctx.check.made(decides.group, &decision);
        let mut prepared = Vec::new();
        for s in shares {
            let link = link(self, decides.group, decision.id.hash);
            let list = written(s, ctx);
            let record = self.record(s.group, token(self, s.group), &list, (Part::Prepared, vec![link]), ctx);
            ctx.check.made(s.group, &record);
            prepared.push((s.group, record, s.view));
        }
        let txn = ctx.check.txns.sent(self.threads[t].txn.clone(), &appends);
        let decider = (decides.group, decision, decides.view);
        Joint::new(t, txn, decider, prepared, ctx.rng.chance(300), ctx.now)
    }

    /// The record behind a prepared one that says that it is committed.
    pub(crate) fn resolution(&mut self, g: usize, prepared: &Record, ctx: &mut Ctx<'_>) -> Rc<Record> {
        self.transaction += 1;
        let id = RecordId { lsn: prepared.id.lsn.next(), hash: 0, ..prepared.id };
        let mut record = Record {
            id,
            transaction: self.transaction,
            predecessor: prepared.id.hash,
            floor: self.floor_sent(g, ctx),
            part: Part::Alone,
            datasets: Vec::new(),
            links: Vec::new(),
            pages: Vec::new(),
            ..prepared.clone()
        };
        record.seal();
        Rc::new(record)
    }
}
