//! The node's part in changes of membership: it takes the configurations that the registry pushes, asks for grants and gives
//! them, says that it lives, that its sets are settled and that it is whole, and copies the base of what it joins.
//!
//! Fault model: the node forgets what it copied so far when it dies; configurations and words come late and twice.

use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::node::{Node, SetPart};
use crate::records::{Copied, Lies, SimRecords};
use crate::set::SetConfig;
use crate::wire::{Body, Envelope, Who};
use dspm_proto::{Generation, Instant, StoreId, Token};
use dspm_txn::{Fence, Grants, Member, Records, Replica, Setup, Term};
use std::rc::Rc;
use std::sync::Arc;

const MS: u64 = 1_000_000;
/// How often a node says that it lives, and what else the registry waits for.
const BEAT: u64 = 30 * MS;
/// Pause before a base is asked for again.
const ASK_AGAIN: u64 = 60 * MS;

/// A base that is on its way.
pub(crate) struct Copy {
    /// What arrived of it, if anything did.
    base: Option<Copied>,
    /// Asked again, or written, then.
    due: Instant,
}

impl Node {
    /// The machine of a group that this node is in, over what it remembers.
    pub(crate) fn open(&mut self, g: usize, records: SimRecords, ctx: &mut Ctx<'_>) {
        let me = Member { node: self.no, store: self.store };
        let started = if ctx.broken(Mutant::RestartNoWait) { Instant(0) } else { self.started };
        let config = self.slots[g].config.clone();
        let setup = config.setup(g, me, self.boot, started, term(&self.parts[config.no], ctx));
        let setup = Setup { removing: self.slots[g].removing, ..twisted(setup, ctx) };
        let mut replica = Replica::new(records, setup, ctx.now);
        let (synced, no_reserve) = (ctx.broken(Mutant::AckBeforeSync), ctx.broken(Mutant::NoReserve));
        let (no_cut, no_pages) = (ctx.broken(Mutant::RejoinNoCut), ctx.broken(Mutant::TailWithoutPages));
        let (no_parts, no_undo) = (ctx.broken(Mutant::PreparedCommits), ctx.broken(Mutant::AbortKeepsPages));
        replica.records.lies = Lies { synced, no_reserve, no_cut, no_pages, no_parts, no_undo, ..Lies::default() };
        replica.records.disk_counts = config.disk;
        self.slots[g].replica = Some(replica);
    }

    /// The grants of a set that this node is in, over what its groups obey already.
    pub(crate) fn take_part(&mut self, set: usize, ctx: &Ctx<'_>) {
        let config = self.parts[set].config.clone();
        if !config.changes || self.parts[set].grants.is_some() || config.store_of(self.no) != self.store {
            return;
        }
        let may_have_given = self.boot > 1 && !ctx.broken(Mutant::RestartNoWait);
        let given = if may_have_given { self.started.after(config.lease) } else { Instant(0) };
        let setup = config.grants(self.no, ctx.broken(Mutant::GrantsCompleteOnly));
        let fences = config.groups.iter().filter_map(|g| self.records(*g)).map(|r| r.fence().generation);
        let fenced = fences.max().unwrap_or_default();
        self.parts[set].grants = Some(Grants::new(setup, fenced, given));
    }

    /// A group is settled in a generation that is not active yet. The registry hears of it when all groups of the set are.
    pub(crate) fn group_activated(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let part = &mut self.parts[self.slots[g].config.no];
        part.settled.insert(g);
        if part.config.groups.iter().all(|g| part.settled.contains(g)) {
            let (set, generation) = (part.config.no, part.config.generation);
            self.report(set, Body::Activated { generation }, ctx);
        }
    }

    /// The registry's word on all sets.
    pub(crate) fn viewed(&mut self, sets: &[Rc<SetConfig>], now: Instant, ctx: &mut Ctx<'_>) {
        for (set, new) in sets.iter().enumerate() {
            let known = &self.parts[set].config;
            let contradicts = known.contradicts(new) && !ctx.broken(Mutant::ViewGoesBack);
            if new.version <= known.version || contradicts {
                continue;
            }
            let old = std::mem::replace(&mut self.parts[set].config, new.clone());
            let next = new.generation > old.generation;
            if let Some(grants) = &mut self.parts[set].grants {
                let setup = new.grants(self.no, ctx.broken(Mutant::GrantsCompleteOnly));
                match next && ctx.broken(Mutant::GrantsNotWaited) {
                    true => *grants = Grants::new(setup, new.generation, Instant(0)),
                    false => grants.configure(setup),
                }
            }
            if next {
                self.parts[set].settled.clear();
            }
            self.take_part(set, ctx);
            for g in new.groups.iter().copied() {
                self.slots[g].config = new.clone();
                if next {
                    (self.slots[g].copy, self.slots[g].led) = (None, old.primary == self.no);
                }
                match self.slots[g].replica.is_some() {
                    true => self.reconfigured(g, &old, now, ctx),
                    false if new.store_of(self.no) == self.store => {
                        let records = self.slots[g].kept.take().unwrap_or_default();
                        self.open(g, records, ctx);
                    }
                    false => {}
                }
                self.after(g, now, ctx);
            }
        }
    }

    pub(crate) fn reconfigured(&mut self, g: usize, old: &SetConfig, now: Instant, ctx: &mut Ctx<'_>) {
        let new = self.slots[g].config.clone();
        let stays = old.primary == self.no && new.primary == self.no && new.generation > old.generation;
        if stays && ctx.broken(Mutant::LeaseNotCarried) {
            let Some(mut records) = self.slots[g].replica.take().map(|r| r.records) else { return };
            let fence = records.fence();
            records.lies.fresh = true; // nothing was ever promised
            self.open(g, records, ctx);
            if let Some(r) = self.slots[g].replica.as_mut() {
                r.records.set_fence(Fence { generation: new.generation, ..fence });
            }
            return;
        }
        let by_node = ctx.broken(Mutant::NamedByNode) && new.store_of(self.no) != StoreId(0);
        let store = if by_node { new.store_of(self.no) } else { self.store };
        let me = Member { node: self.no, store };
        let setup = new.setup(g, me, self.boot, self.started, term(&self.parts[new.no], ctx));
        let slot = &mut self.slots[g];
        let led = slot.led;
        if let Some(r) = slot.replica.as_mut() {
            r.configure(Setup { removing: slot.removing, ..twisted(setup, ctx) }, now);
            let begins = new.primary == self.no && new.active && !old.active;
            if ctx.broken(Mutant::HorizonNotKept) && begins && !led {
                let committed = r.records.committed();
                r.records.set_horizon(committed);
            }
        }
    }

    /// Something about membership came. False: it was something else.
    pub(crate) fn membership(&mut self, e: &Envelope, now: Instant, ctx: &mut Ctx<'_>) -> bool {
        match (&e.body, e.from) {
            (Body::View(sets), _) => {
                self.line = self.line.max(e.link);
                self.viewed(sets, now, ctx);
            }
            (Body::Grant { generation, store, sender, sent, answer }, Who::Node(from)) => {
                let asked = if *answer { None } else { Some(*sent) };
                if *store == self.store {
                    self.grant(e.group, Member { node: from, store: *sender }, *generation, *sent, asked, now, ctx);
                }
            }
            (Body::CopyAsk { generation, store }, Who::Node(from)) => {
                self.copy_asked(e.group, from, *generation, *store, now, ctx);
            }
            (Body::CopyReply { generation, base }, Who::Node(_)) => {
                let slot = &mut self.slots[e.group];
                let wanted = slot.copy.as_mut().filter(|c| c.base.is_none() && slot.config.generation == *generation);
                if let Some(copy) = wanted {
                    copy.base = Some((**base).clone());
                    copy.due = Instant(now.0 + ctx.rng.below(self.copy_max));
                }
            }
            _ => return false,
        }
        true
    }

    #[allow(clippy::too_many_arguments)] // the fields of the message
    fn grant(
        &mut self,
        set: usize,
        from: Member,
        generation: Generation,
        sent: Instant,
        asked: Option<Instant>,
        now: Instant,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(grants) = &mut self.parts[set].grants else { return };
        match asked {
            Some(sent) if grants.asked(from.node, generation, now) => {
                self.say_grant(set, from, generation, sent, true, ctx)
            }
            Some(_) => {}
            None => {
                let served = grants.term().serves(now);
                grants.granted(from.node, from.store, generation, sent);
                let term_began = !served && grants.term().serves(now);
                let groups = self.parts[set].config.groups.clone();
                for g in groups.into_iter().filter(|_| term_began) {
                    if let Some(r) = self.slots[g].replica.as_mut() {
                        r.tick(now);
                    }
                    self.after(g, now, ctx);
                }
            }
        }
    }

    fn say_grant(
        &self,
        set: usize,
        to: Member,
        generation: Generation,
        sent: Instant,
        answer: bool,
        ctx: &mut Ctx<'_>,
    ) {
        let body = Body::Grant { generation, store: to.store, sender: self.store, sent, answer };
        ctx.out.push(Envelope { from: Who::Node(self.no), to: Who::Node(to.node), link: 0, group: set, body });
    }

    /// A joining node asks for the base: what is committed, if this is the primary and serves.
    fn copy_asked(
        &mut self,
        g: usize,
        to: u32,
        generation: Generation,
        store: StoreId,
        now: Instant,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(r) = self.slots[g].replica.as_ref() else { return };
        if r.check_addressee(generation, store).is_err() || !r.serves(now) {
            return;
        }
        let body = Body::CopyReply { generation, base: Rc::new(r.records.copy()) };
        ctx.out.push(Envelope { from: Who::Node(self.no), to: Who::Node(to), link: 0, group: g, body });
    }

    /// Timers of membership.
    pub(crate) fn tick_membership(&mut self, now: Instant, ctx: &mut Ctx<'_>) {
        if !self.parts.iter().any(|p| p.config.changes) {
            return;
        }
        (0..self.parts.len()).for_each(|set| self.ask_grants(set, now, ctx));
        (0..self.slots.len()).for_each(|g| self.copy_on(g, now, ctx));
        if now < self.beat_due {
            return;
        }
        self.beat_due = Instant(now.0 + BEAT);
        let known = self.parts.iter().map(|p| p.config.clone()).collect();
        self.report(0, Body::Beat { store: self.store, known, line: self.line }, ctx);
        for set in 0..self.parts.len() {
            let c = &self.parts[set].config;
            let is_whole = |g: &usize| self.slots[*g].replica.as_ref().is_some_and(Replica::is_whole);
            let whole =
                c.groups.iter().all(is_whole) || ctx.broken(Mutant::WholeByOne) && c.groups.iter().any(is_whole);
            if whole && c.active && c.joining.iter().any(|m| m.node == self.no) {
                for g in c.groups.clone() {
                    self.slots[g].replica.as_mut().map(Replica::vouch);
                }
                let c = &self.parts[set].config;
                let body = Body::Whole { generation: c.generation, store: self.store };
                self.report(set, body, ctx);
            }
        }
    }

    pub(crate) fn report(&self, set: usize, body: Body, ctx: &mut Ctx<'_>) {
        ctx.out.push(Envelope { from: Who::Node(self.no), to: Who::Registry, link: 0, group: set, body });
    }

    fn ask_grants(&mut self, set: usize, now: Instant, ctx: &mut Ctx<'_>) {
        let Some(grants) = &mut self.parts[set].grants else { return };
        let asked = grants.tick(now);
        let config = self.parts[set].config.clone();
        for to in config.everyone().filter(|m| asked.contains(&m.node)) {
            self.say_grant(set, to, config.generation, now, false, ctx);
        }
    }

    /// A joining member that is settled and not whole copies the base.
    fn copy_on(&mut self, g: usize, now: Instant, ctx: &mut Ctx<'_>) {
        let slot = &mut self.slots[g];
        let Some(r) = slot.replica.as_mut() else { return };
        let config = slot.config.clone();
        if r.records.has_base() || r.situation().unsettled {
            slot.copy = None;
            return;
        }
        if slot.copy.as_ref().is_some_and(|c| now < c.due) {
            return;
        }
        if slot.copy.take().and_then(|c| c.base).is_some_and(|base| r.records.install(base)) {
            ctx.check.counts.bases += 1;
            return self.after(g, now, ctx);
        }
        self.slots[g].copy = Some(Copy { base: None, due: Instant(now.0 + ASK_AGAIN) });
        let body = Body::CopyAsk { generation: config.generation, store: config.store_of(config.primary) };
        let to = Who::Node(config.primary);
        ctx.out.push(Envelope { from: Who::Node(self.no), to, link: 0, group: g, body });
    }

    /// When [`Node::tick_membership`] is due.
    pub(crate) fn wake_membership(&self) -> Option<Instant> {
        let changes = self.parts.iter().any(|p| p.config.changes);
        let grants = self.parts.iter().filter_map(|p| p.grants.as_ref().and_then(Grants::wake));
        let copies = self.slots.iter().filter_map(|s| s.copy.as_ref().map(|c| c.due));
        grants.chain(copies).chain(changes.then_some(self.beat_due)).min()
    }

    /// A fault: the process comes back with nothing of the generation that it adopted.
    pub(crate) fn forget_generation(&mut self, first: &[Rc<SetConfig>]) {
        self.parts.iter_mut().zip(first).for_each(|(part, first)| part.config = first.clone());
        for slot in &mut self.slots {
            slot.config = first[slot.config.no].clone();
            if let Some(records) = &mut slot.kept {
                let generation = Generation(1);
                records.set_fence(Fence { generation, token: Token { generation, ..Token::default() } });
            }
        }
    }
}

/// What the machine goes by.
fn term(part: &SetPart, ctx: &Ctx<'_>) -> Arc<Term> {
    let Some(grants) = &part.grants else { return Term::always() };
    let term = grants.term();
    match ctx.mutant {
        Some(Mutant::ActiveWithoutGrants) if !part.config.active => Term::always(),
        Some(Mutant::ServeWithoutGrants) => Term::new(term.from(), Instant(u64::MAX)),
        _ => term,
    }
}

fn twisted(mut setup: Setup, ctx: &Ctx<'_>) -> Setup {
    setup.active |= ctx.broken(Mutant::ServeActivating);
    if ctx.broken(Mutant::MinCopiesIgnored) {
        setup.min_copies = 0;
    }
    setup
}
