//! The write lease in a client: the process's writer mutex, the queue at the primary, grants and call-backs.
//!
//! A grant counts from when its question went out; one that lapsed on the way is renewed first. A grant that nobody
//! can take up goes back at once. A lapsed lease is given up before it is asked for again.

use crate::cache::Changes;
use crate::client::{Client, stretched};
use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::thread::Step;
use crate::wire::Ask;
use dspm_proto::message::{Acquire, Release};
use dspm_proto::{Instant, RecordId, Token};
use dspm_txn::{Holder, Recall};
use std::time::Duration;

const MS: u64 = 1_000_000;

impl Client {
    /// The thread has the writer mutex and needs the lease. A record whose caller has given up comes first: what follows it
    /// is not known before.
    pub(crate) fn reserve(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let g = self.threads[t].group;
        let desk = &mut self.desks[g];
        if desk.holder.flight().is_some() {
            return false;
        }
        if !desk.holder.valid(ctx.now) {
            desk.holder.give_up();
            self.acquire(t, ctx);
            return false;
        }
        let again = self.threads[t].again;
        let newest = self.threads[t].view.map(|v| v.id) == Some(desk.holder.tail());
        if newest || (again && ctx.broken(Mutant::RetryAnyBase)) {
            let token = desk.holder.token().unwrap_or_default();
            let recall = desk.holder.open(ctx.now);
            self.recalled(g, token, recall, ctx);
            if !self.reserve_next(t, ctx) {
                let due = Instant(ctx.now.0 + if again { 0 } else { self.threads[t].work });
                self.threads[t].step = Step::Working { due };
            }
        } else if again {
            self.abort(t, ctx); // another commit came first: a conflict
        } else {
            desk.holder.park(ctx.now); // it begins again, here
            self.begin_again(t, ctx);
        }
        true
    }

    fn acquire(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let g = self.threads[t].group;
        let patience = ctx.rng.range(MS, 100 * MS);
        let floor = self.floor_sent(g, ctx);
        let desk = &mut self.desks[g];
        desk.holder.ask();
        let ask = Acquire {
            session: self.session,
            known: desk.holder.tail().lsn,
            floor,
            ticket: self.threads[t].ticket,
            wait_ns: patience,
            forget: false,
            returned: desk.holder.returned(),
        };
        let request = self.ask_primary(g, Ask::Acquire(ask), ctx);
        let grants = &mut self.desks[g].grants;
        grants.retain(|_, sent| ctx.now.since(*sent) < self.lease * 20);
        grants.insert(request, ctx.now);
        self.threads[t].step = Step::Acquiring { request, due: ctx.now.after(self.lease * 2) };
    }

    fn acquiring(&self, g: usize, request: u64) -> Option<usize> {
        let waits = |s: &Step| matches!(s, Step::Acquiring { request: r, .. } if *r == request);
        self.threads.iter().position(|t| t.group == g && waits(&t.step))
    }

    pub(crate) fn granted(
        &mut self,
        g: usize,
        request: u64,
        (tail, changes): (RecordId, &Changes),
        token: Token,
        lease: Duration,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(sent) = self.desks[g].grants.remove(&request) else {
            if self.desks[g].holder.token() != Some(token) {
                self.release(g, token, false, ctx); // of a question that was forgotten: nobody will use it
            }
            return;
        };
        let waits = self.acquiring(g, request);
        self.confirm(g, sent, ctx);
        let counted = if ctx.broken(Mutant::FromReceipt) { ctx.now } else { sent };
        let lease = stretched(lease, ctx);
        let desk = &mut self.desks[g];
        if ctx.broken(Mutant::LateGrant) && desk.holder.token().is_none() && desk.holder.flight().is_none() {
            let known = std::mem::replace(&mut desk.holder, Holder::new());
            desk.holder.learned(known.tail());
        }
        self.learn(g, changes, ctx);
        let desk = &mut self.desks[g];
        let taken = desk.holder.granted(token, counted, lease, tail, ctx.now);
        ctx.trace.say(|| format!("client{} {} {token}", self.no, if taken { "takes" } else { "does not take" }));
        if taken {
            desk.shadow = desk.shadow.max(counted.after(lease));
        } else if desk.holder.token() != Some(token) {
            self.release(g, token, false, ctx);
        }
        let Some(t) = waits else { return self.look_at_recall(g, ctx) };
        self.desks[g].holder.asked();
        self.threads[t].ticket = 0;
        self.threads[t].step = Step::Reserve;
        if taken && !self.desks[g].holder.valid(ctx.now) {
            self.renew(g, ctx);
            self.threads[t].step = Step::Renewing { due: ctx.now.after(self.lease / 2) };
        }
    }

    /// An open transaction holds the lease: the place in the queue stays, the transaction tries again or gives up.
    pub(crate) fn busy(&mut self, g: usize, request: u64, ticket: u64, ctx: &mut Ctx<'_>) {
        self.desks[g].grants.remove(&request);
        let Some(t) = self.acquiring(g, request) else { return };
        self.desks[g].holder.asked();
        ctx.check.counts.busy += 1;
        // A record that goes out again does not wait: its snapshot is older than what the open transaction makes.
        let several = !self.threads[t].shares.is_empty() || !self.threads[t].rest.is_empty();
        if self.threads[t].again || several || (self.calm.is_none() && ctx.rng.chance(150)) {
            return self.forget(t, ticket, ctx);
        }
        self.threads[t].ticket = ticket;
        self.leave(t, ctx);
        self.threads[t].view = None;
        self.threads[t].step = Step::Pause { due: Instant(ctx.now.0 + ctx.rng.below(40 * MS)) };
    }

    /// The caller of a thread that waits for the lease does not want to wait any more.
    pub fn give_up_waiting(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        if matches!(self.threads[t].step, Step::Acquiring { .. }) {
            self.desks[self.threads[t].group].holder.asked();
            self.abort(t, ctx);
        }
    }

    fn forget(&mut self, t: usize, ticket: u64, ctx: &mut Ctx<'_>) {
        let g = self.threads[t].group;
        let floor = self.floor_sent(g, ctx);
        let returned = self.desks[g].holder.returned();
        let known = self.desks[g].holder.tail().lsn;
        let ask = Acquire { session: self.session, known, floor, ticket, wait_ns: 0, forget: true, returned };
        self.ask_primary(g, Ask::Acquire(ask), ctx);
        self.threads[t].ticket = 0;
        self.abort(t, ctx);
    }

    /// Gives the writer mutex back, and the reservation with it, in all groups; a lease that was called back goes now.
    pub(crate) fn leave(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let shares = std::mem::take(&mut self.threads[t].shares);
        shares.iter().for_each(|s| self.leave_group(t, s.group, ctx));
        self.leave_group(t, self.threads[t].group, ctx);
    }

    pub(crate) fn leave_group(&mut self, t: usize, g: usize, ctx: &mut Ctx<'_>) {
        if self.desks[g].writer != Some(t) {
            return;
        }
        self.desks[g].writer = None;
        let holder = &mut self.desks[g].holder;
        let token = holder.token().unwrap_or_default();
        let recall = if holder.is_open() { holder.close(ctx.now) } else { holder.recall(ctx.now) };
        self.recalled(g, token, recall, ctx);
    }

    /// A call-back came, or is looked at again.
    pub(crate) fn recalled(&mut self, g: usize, token: Token, recall: Recall, ctx: &mut Ctx<'_>) {
        match recall {
            Recall::Return(_) => self.release(g, token, false, ctx),
            Recall::Kept => self.release(g, token, true, ctx),
            Recall::Linger(at) => self.desks[g].linger = Some(at),
            Recall::Nothing => {}
        }
    }

    /// Keeps the lease over transactions, or no longer.
    pub(crate) fn keep(&mut self, g: usize, keep: bool, ctx: &mut Ctx<'_>) {
        if self.desks[g].holder.keeps() != keep {
            self.desks[g].holder.keep(keep);
            self.look_at_recall(g, ctx);
        }
    }

    fn look_at_recall(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let holder = &mut self.desks[g].holder;
        let token = holder.token().unwrap_or_default();
        let recall = holder.recall(ctx.now);
        self.recalled(g, token, recall, ctx);
    }

    fn release(&mut self, g: usize, token: Token, kept: bool, ctx: &mut Ctx<'_>) {
        let committed = self.desks[g].holder.tail();
        ctx.trace.say(|| format!("client{} {} {token}", self.no, if kept { "keeps" } else { "gives back" }));
        self.ask_primary(g, Ask::Release(Release { session: self.session, token, kept, committed }), ctx);
    }

    pub(crate) fn tick_reserve(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        if self.desks[g].linger.is_some_and(|at| ctx.now >= at) {
            self.desks[g].linger = None;
            self.look_at_recall(g, ctx);
        }
    }
}
