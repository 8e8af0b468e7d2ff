//! Transactions of a client's threads: begin, read, end.
//!
//! A begin is local under a lease that had not lapsed by a clock read after the call; it waits while a record of the
//! process is in flight or in doubt; else it asks the primary, and asks again until it is answered.

use crate::cache::Changes;
use crate::client::{Client, stretched};
use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::thread::{Step, View};
use crate::wire::Ask;
use dspm_proto::message::{Read, Snapshot};
use dspm_proto::{DatasetId, Error, Instant, Lsn, PageNo, RecordId, Refusal};
use dspm_txn::Begin;
use std::time::Duration;

/// Pages of a group.
pub const PAGES: u64 = 4;
const MS: u64 = 1_000_000;

impl Client {
    /// Begins a transaction on a thread that does nothing.
    pub fn start(&mut self, t: usize, group: usize, writes: bool, work: u64, ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        (thread.group, thread.writes, thread.work, thread.again) = (group, writes, work, false);
        (thread.past, thread.rest) = (None, Vec::new());
        self.call(t, ctx);
        while self.advance(t, ctx) {}
    }

    /// The begin is called now: what was seen until now is to be seen.
    pub(crate) fn call(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        (thread.view, thread.called, thread.step) = (None, ctx.check.top(thread.group), Step::Begin);
        thread.txn = ctx.check.txns.begin();
    }

    /// Moves a thread on. False: it waits.
    pub(crate) fn advance(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let group = self.threads[t].group;
        let due = self.threads[t].step.due().is_some_and(|due| ctx.now >= due);
        match self.threads[t].step {
            Step::Idle { .. } if due && !self.scripted => self.choose(t, ctx),
            Step::Begin => self.begin(t, ctx),
            Step::Asked { .. } if due => {
                self.threads[t].step = Step::Begin; // the same call goes on
                true
            }
            Step::Reading { .. } if due => self.read(t, ctx),
            Step::Mutex if self.desks[group].writer.is_none() => {
                self.desks[group].writer = Some(t);
                self.threads[t].step = Step::Reserve;
                true
            }
            Step::Reserve => self.reserve(t, ctx),
            Step::Acquiring { .. } if due => {
                self.desks[group].holder.asked();
                self.threads[t].step = Step::Reserve;
                true
            }
            Step::Renewing { .. } if due => {
                self.threads[t].step = Step::Reserve;
                true
            }
            Step::Working { .. } if due => self.commit(t, ctx),
            Step::Pause { .. } if due => {
                self.call(t, ctx);
                true
            }
            _ => false,
        }
    }

    fn choose(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let groups: Vec<usize> = self.calm.clone().unwrap_or_else(|| (0..self.desks.len()).collect());
        if groups.is_empty() {
            self.threads[t].step = Step::Stopped;
            return false;
        }
        let group = ctx.rng.pick(&groups);
        let work = match ctx.rng.below(100) {
            _ if self.calm.is_some() => ctx.rng.below(MS),
            0..=59 => 0,
            60..=94 => ctx.rng.below(10 * MS),
            _ => ctx.rng.below(900 * MS),
        };
        let writes = ctx.rng.chance(550);
        let keep = self.calm.is_none()
            && if self.desks[group].holder.keeps() { ctx.rng.chance(900) } else { ctx.rng.chance(10) };
        self.keep(group, keep, ctx);
        self.threads[t].ticket = 0;
        let thread = &mut self.threads[t];
        (thread.group, thread.writes, thread.work, thread.again) = (group, writes, work, false);
        (thread.past, thread.rest) = (None, Vec::new());
        if writes && groups.len() > 1 && ctx.rng.chance(self.several) {
            self.choose_several(t, &groups, ctx);
        }
        if self.calm.is_none() && !writes && ctx.rng.chance(150) {
            self.choose_past(t, ctx);
        }
        self.call(t, ctx);
        true
    }

    fn begin(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let g = self.threads[t].group;
        if self.begin_past(t, ctx) {
            return false;
        }
        let desk = &mut self.desks[g];
        match desk.holder.begin(ctx.now) {
            Begin::Local(tail) => self.view(t, tail, true, ctx),
            _ if self.begins_anyway(g, ctx) => self.view(t, self.desks[g].holder.tail(), true, ctx),
            Begin::Wait => return false,
            Begin::Ask => {
                let floor = self.floor_sent(g, ctx);
                self.threads[t].pinned = self.floor(g);
                let known = self.desks[g].holder.tail().lsn;
                let ask = Snapshot { session: self.session, known, floor, read_lease: true };
                let request = self.ask_primary(g, Ask::Snapshot(ask), ctx);
                let due = ctx.now.after(self.lease / 2);
                self.threads[t].step = Step::Asked { request, sent: ctx.now, due };
                return false;
            }
        }
        true
    }

    /// The faults that begin where they may not.
    fn begins_anyway(&self, g: usize, ctx: &Ctx<'_>) -> bool {
        let (desk, now) = (&self.desks[g], ctx.now);
        match ctx.mutant {
            Some(Mutant::LapsedBegin) => desk.holder.token().is_some() && desk.holder.flight().is_none(),
            Some(Mutant::ReturnedUsed) => now < desk.shadow && desk.holder.flight().is_none(),
            Some(Mutant::LateReadLease) => {
                now < desk.shadow_read.1
                    && desk.shadow_read.0 == desk.holder.tail().lsn
                    && desk.holder.flight().is_none()
            }
            Some(Mutant::BeginInFlight) => desk.holder.valid(now) && desk.holder.flight().is_some_and(|f| !f.doubt),
            _ => false,
        }
    }

    /// The primary showed a state.
    pub(crate) fn shown(
        &mut self,
        g: usize,
        request: u64,
        tail: RecordId,
        changes: &Changes,
        lease: Duration,
        ctx: &mut Ctx<'_>,
    ) {
        let asked = self.threads.iter().enumerate().find_map(|(t, thread)| match thread.step {
            Step::Asked { request: r, sent, .. } if r == request && thread.group == g => Some((t, sent)),
            _ => None,
        });
        let Some((t, sent)) = asked else { return };
        self.confirm(g, sent, ctx);
        self.learn(g, changes, ctx);
        let desk = &mut self.desks[g];
        desk.holder.learned(tail);
        if !lease.is_zero() {
            ctx.check.counts.read_leases += 1;
            desk.holder.may_read(tail.lsn, sent, stretched(lease, ctx));
            desk.shadow_read = (tail.lsn, sent.after(lease));
        }
        self.view(t, tail, false, ctx);
    }

    fn view(&mut self, t: usize, id: RecordId, local: bool, ctx: &mut Ctx<'_>) {
        let (g, called) = (self.threads[t].group, self.threads[t].called);
        if self.threads[t].past.is_some() {
            return self.view_past(t, ctx); // that was to learn what is newest
        }
        ctx.trace.say(|| format!("client{}.{t} begins at {id}{}", self.no, if local { " without asking" } else { "" }));
        ctx.check.begin(g, id, called, local);
        let protected = ctx.now < self.desks[g].confirmed;
        let first = ctx.rng.below(PAGES);
        let thread = &mut self.threads[t];
        thread.view = Some(View { id, protected });
        thread.pages = (0..ctx.rng.range(0, 2)).map(|n| PageNo((first + n) % PAGES)).collect();
        thread.targets.clear();
        if thread.writes {
            let first = ctx.rng.below(PAGES);
            thread.targets = (0..ctx.rng.range(1, 2)).map(|n| PageNo((first + n) % PAGES)).collect();
            let more = thread.targets.iter().filter(|p| !thread.pages.contains(p)).copied().collect::<Vec<_>>();
            thread.pages.extend(more);
        }
        self.go_on(t, ctx);
    }

    /// Reads what is left to read, then writes or ends.
    pub(crate) fn go_on(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        if !thread.pages.is_empty() {
            let slow = self.calm.is_none() && !self.scripted && !thread.writes && ctx.rng.chance(60);
            let later = if slow { ctx.rng.below(2000 * MS) } else { 0 };
            thread.step = Step::Reading { request: 0, due: Instant(ctx.now.0 + later) };
        } else if thread.writes {
            thread.step = Step::Mutex;
        } else {
            thread.tally[thread.group].reads += 1;
            ctx.check.txns.read_only(std::mem::take(&mut thread.txn));
            self.end(t, ctx);
        }
    }

    fn read(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let g = self.threads[t].group;
        let Some(view) = self.threads[t].view else { return false };
        let mut pages = std::mem::take(&mut self.threads[t].pages);
        pages.retain(|page| {
            let cached = self.desks[g].cache.read(*page, view.id.lsn, ctx.broken(Mutant::CacheNoAsOf));
            let Some(value) = cached else { return true };
            ctx.check.cached(g, view.id, *page, value);
            self.threads[t].saw(*page, value);
            false
        });
        self.threads[t].pages = pages.clone();
        if pages.is_empty() {
            self.go_on(t, ctx);
            return true;
        }
        let members: Vec<u32> = self.desks[g].config.members.iter().map(|m| m.node).collect();
        let primary = self.desks[g].config.primary;
        let node = if self.threads[t].past.is_some() { primary } else { ctx.rng.pick(&members) };
        let ask = Read { session: self.session, dataset: DatasetId(1), at: view.id.lsn, pages };
        let request = self.ask(g, node, Ask::Read(ask), ctx);
        self.threads[t].step = Step::Reading { request, due: ctx.now.after(self.lease / 2) };
        false
    }

    fn reader(&self, request: u64) -> Option<usize> {
        self.threads.iter().position(|t| matches!(t.step, Step::Reading { request: r, .. } if r == request && r != 0))
    }

    pub(crate) fn pages(&mut self, request: u64, pages: &[(PageNo, Lsn, u64)], ctx: &mut Ctx<'_>) {
        let Some(t) = self.reader(request) else { return };
        let (g, Some(view)) = (self.threads[t].group, self.threads[t].view) else { return };
        let known = if ctx.broken(Mutant::FetchedOpen) { Lsn(0) } else { self.desks[g].holder.tail().lsn };
        for (page, lsn, value) in pages {
            ctx.check.page(g, view.id, *page, *value);
            self.threads[t].saw(*page, *value);
            self.desks[g].cache.fetched(*page, (*lsn, *value), view.id.lsn, known);
        }
        // Read again later, perhaps: the snapshot must stay readable.
        let again = self.calm.is_none() && !self.scripted && !self.threads[t].writes && ctx.rng.chance(200);
        if !again {
            self.threads[t].pages.clear();
        }
        self.go_on(t, ctx);
    }

    pub(crate) fn failed(&mut self, g: usize, request: u64, error: &Error, ctx: &mut Ctx<'_>) {
        if let (Some(t), Error::TooOld(text)) = (self.reader(request), error) {
            ctx.check.counts.too_old += 1;
            let past = self.threads[t].past;
            let live = past.map_or(self.desks[g].confirmed, |p| p.until);
            let live = ctx.now < live && self.threads[t].view.is_some_and(|v| v.protected);
            if live {
                ctx.check.fail(|| format!("client{}: a live reader's snapshot is gone: {text}", self.no));
            }
            return self.abort(t, ctx);
        }
        if let Some(t) = self.asker_of_past(g, request) {
            return self.abort(t, ctx); // not kept, or not there yet
        }
        self.refused(g, request, Refusal::NotMember, ctx);
    }

    /// A question was refused: a dead session asks under the next one, other questions are asked again soon.
    pub(crate) fn refused(&mut self, g: usize, request: u64, why: Refusal, ctx: &mut Ctx<'_>) {
        let soon = Instant(ctx.now.0 + 20 * MS);
        if matches!(why, Refusal::Fenced | Refusal::NotMember) {
            self.locate(g, ctx);
        }
        if let Some(t) = self.reader(request).filter(|_| why == Refusal::Missing) {
            ctx.check.counts.too_old += 1; // its base is newer than this snapshot
            return self.abort(t, ctx);
        }
        let mut mine = false;
        for t in self.threads.iter_mut() {
            match &mut t.step {
                Step::Reading { request: r, due } | Step::Asked { request: r, due, .. } if *r == request => {
                    (*due, mine) = (soon, true);
                }
                Step::Acquiring { request: r, due } if *r == request => (*due, mine) = (soon, true),
                _ => {}
            }
        }
        if mine && why == Refusal::SessionOver {
            self.next_session(ctx);
        }
        self.desks[g].grants.remove(&request);
    }

    /// Answers to what a thread asked are not waited for any more.
    pub(crate) fn forget_questions(&mut self, t: usize) {
        let thread = &mut self.threads[t];
        match &mut thread.step {
            Step::Asked { .. } => thread.step = Step::Begin,
            Step::Acquiring { .. } => {
                self.desks[thread.group].holder.asked();
                thread.step = Step::Reserve;
            }
            Step::Reading { request, .. } => *request = 0,
            _ => {}
        }
        thread.ticket = 0;
    }

    /// The transaction is told no.
    pub(crate) fn abort(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        thread.tally[thread.group].aborts += 1;
        self.end(t, ctx);
    }

    /// The transaction is over.
    pub(crate) fn end(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let g = self.threads[t].group;
        self.leave(t, ctx);
        let think = match self.calm {
            Some(_) => ctx.rng.below(3 * MS),
            None if ctx.rng.chance(100) => ctx.rng.below(500 * MS),
            None => ctx.rng.below(8 * MS),
        };
        let scripted = self.scripted;
        let thread = &mut self.threads[t];
        (thread.view, thread.past) = (None, None);
        thread.step = if scripted { Step::Stopped } else { Step::Idle { due: Instant(ctx.now.0 + think) } };
        debug_assert!(self.desks[g].writer != Some(t), "the mutex was given back");
    }

    /// A transaction whose snapshot is no longer the newest state begins again.
    pub(crate) fn begin_again(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let groups = self.threads[t].groups();
        self.leave(t, ctx);
        let thread = &mut self.threads[t];
        (thread.group, thread.rest, thread.again) = (groups[0], groups[1..].to_vec(), false);
        self.call(t, ctx);
    }
}
