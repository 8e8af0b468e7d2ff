//! Reading the past: the client's side, and directed schedules about it.
//!
//! A thread asks the primary for a commit; its process says what it reads of the past in that question, and again with
//! each renewal. What was granted is kept for a lease from the question at least, whatever becomes of the later words. A
//! state that is newer than what the process knows is read when that was learned: the cache proves nothing above it.

use crate::client::Client;
use crate::ctx::Ctx;
use crate::directed::{A, B, L, MS, client, cut_off, finish, inject, read, start, verdict, world_of, write};
use crate::mutant::Mutant;
use crate::thread::{Past, Step, View};
use crate::wire::{Ask, Body, Envelope};
use crate::world::{Actor, World};
use dspm_proto::message::{AsOf, Keep};
use dspm_proto::{Instant, Lsn, PageNo, RecordId};
use std::time::Duration;

impl Client {
    /// Some commit of the last ones, or of the next.
    pub(crate) fn choose_past(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let known = self.desks[self.threads[t].group].holder.tail().lsn.0;
        let at = Lsn(ctx.rng.range(known.saturating_sub(12).max(1), known + 4));
        self.threads[t].past = Some(Past { at, id: None, until: Instant(0) });
    }

    /// Asks for a past state. False: the newest one is wanted, or to be learned first.
    pub(crate) fn begin_past(&mut self, t: usize, ctx: &mut Ctx<'_>) -> bool {
        let g = self.threads[t].group;
        let Some(Past { at, id: None, .. }) = self.threads[t].past else { return false };
        let (word, keep) = self.word(g, Some(at), ctx);
        let ask = AsOf { session: self.session, word, keep, at, ago_ns: 0 };
        let request = self.ask_primary(g, Ask::AsOf(ask), ctx);
        self.threads[t].pinned = self.floor(g);
        self.threads[t].step = Step::Asked { request, sent: ctx.now, due: ctx.now.after(self.lease / 2) };
        true
    }

    /// The next word about the past: its number, and the oldest state in use.
    fn word(&mut self, g: usize, wanted: Option<Lsn>, ctx: &Ctx<'_>) -> (u64, Lsn) {
        let waits = |t: &&crate::thread::Thread| t.view.is_some() || matches!(t.step, Step::Asked { .. } | Step::Begin);
        let used = self.threads.iter().filter(|t| t.group == g).filter(waits).filter_map(|t| t.past.map(|p| p.at));
        let keep = used.chain(wanted).min().filter(|_| !ctx.broken(Mutant::PastNotKept)).unwrap_or_default();
        let desk = &mut self.desks[g];
        desk.word = (desk.word.0 + 1, keep);
        desk.word
    }

    /// As long as something of the past is in use, and once when nothing is any more.
    pub(crate) fn say_keep(&mut self, g: usize, ctx: &mut Ctx<'_>) {
        let told = self.desks[g].word.1;
        let used = self.threads.iter().any(|t| t.group == g && t.past.is_some());
        if (told == Lsn(0) && !used) || ctx.broken(Mutant::KeepOnce) {
            return;
        }
        let (word, keep) = self.word(g, None, ctx);
        self.ask_primary(g, Ask::Keep(Keep { session: self.session, word, keep }), ctx);
    }

    pub(crate) fn asker_of_past(&self, g: usize, request: u64) -> Option<usize> {
        self.threads.iter().position(|t| {
            let asked = matches!(t.step, Step::Asked { request: r, .. } if r == request);
            asked && t.group == g && t.past.is_some_and(|p| p.id.is_none())
        })
    }

    /// The primary granted a past state.
    pub(crate) fn shown_past(&mut self, g: usize, request: u64, id: RecordId, ctx: &mut Ctx<'_>) {
        let Some(t) = self.asker_of_past(g, request) else { return };
        let Step::Asked { sent, .. } = self.threads[t].step else { return };
        ctx.check.past(g, id);
        let Some(past) = self.threads[t].past.as_mut() else { return };
        if past.at != id.lsn {
            let at = past.at;
            return ctx.check.fail(|| format!("commit {at} was asked for, {id} is shown"));
        }
        (past.id, past.until) = (Some(id), sent.after(self.lease - self.lease / 50));
        let known = self.desks[g].holder.tail().lsn;
        if known < id.lsn && !ctx.broken(Mutant::PastUnlearned) {
            self.threads[t].step = Step::Begin;
            return;
        }
        self.view_past(t, ctx);
    }

    /// The transaction begins in the past.
    pub(crate) fn view_past(&mut self, t: usize, ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        let Some(Past { id: Some(id), .. }) = thread.past else { return };
        ctx.trace.say(|| format!("client{}.{t} reads as of {id}", self.no));
        thread.view = Some(View { id, protected: true });
        let first = ctx.rng.below(crate::begin::PAGES);
        let count = ctx.rng.range(1, crate::begin::PAGES);
        thread.pages = (0..count).map(|n| PageNo((first + n) % crate::begin::PAGES)).collect();
        self.go_on(t, ctx);
    }

    /// The session is over, and what it kept with it.
    pub(crate) fn forget_past(&mut self, g: usize) {
        let past = self.threads.iter_mut().filter(|t| t.group == g).filter_map(|t| t.past.as_mut());
        past.for_each(|p| p.until = Instant(0));
    }

    /// Begins a read of the past on a thread that does nothing.
    pub fn start_past(&mut self, t: usize, at: Lsn, ctx: &mut Ctx<'_>) {
        let thread = &mut self.threads[t];
        (thread.group, thread.writes, thread.work, thread.again) = (0, false, 0, false);
        thread.past = Some(Past { at, id: None, until: Instant(0) });
        self.call(t, ctx);
        while self.advance(t, ctx) {}
    }
}

const HISTORY: Duration = Duration::from_millis(100);

/// A commits `n` times.
fn writes(w: &mut World, n: usize) -> bool {
    (0..n).all(|_| write(w, A, L))
}

fn newest(w: &World) -> Lsn {
    w.check.top(0)
}

/// B's second thread begins to read a past state.
pub(crate) fn start_past(w: &mut World, at: Lsn) {
    w.act(B, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.start_past(1, at, ctx);
        }
    });
}

/// B's reader has its snapshot, and goes on so much later. False: it has none.
fn stand_still(w: &mut World, ns: u64) -> bool {
    for _ in 0..100 {
        if client(w, B).threads[1].view.is_some() {
            w.act(B, |actor, ctx| {
                if let Actor::Client(c) = actor {
                    c.threads[1].step = Step::Reading { request: 0, due: Instant(ctx.now.0 + ns) };
                }
            });
            return true;
        }
        w.run_for(MS / 20);
    }
    false
}

/// The same, to the end. True: it read something.
fn read_past(w: &mut World, at: Lsn) -> bool {
    let before = client(w, B).threads[1].tally[0].reads;
    start_past(w, at);
    finish(w, B, 1, L) && client(w, B).threads[1].tally[0].reads > before
}

/// B's reader of the past stands still before it reads its pages; A commits for much longer than `history` and than a
/// silent session counts. Then it reads on.
pub(crate) fn kept(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world_of(m, false, HISTORY);
    let ok = writes(&mut w, 6);
    let at = Lsn(newest(&w).0 - 3);
    start_past(&mut w, at);
    let begun = stand_still(&mut w, 4000 * MS);
    let mut going = true;
    for _ in 0..75 {
        going &= write(&mut w, A, L);
        w.run_for(50 * MS);
    }
    let before = client(&w, B).threads[1].tally[0].reads;
    let done = finish(&mut w, B, 1, 1000 * MS) && client(&w, B).threads[1].tally[0].reads > before;
    verdict(w, ok && begun && going && done, "what B read of the past was not kept for it")
}

/// B's word that it reads nothing of the past any more is late: it comes when B reads there again.
pub(crate) fn late_word(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world_of(m, false, HISTORY / 5);
    let ok = writes(&mut w, 6);
    let at = Lsn(newest(&w).0 - 3);
    let first = read_past(&mut w, at);
    w.network.catch(true, |e: &Envelope| matches!(&e.body, Body::Ask { ask: Ask::Keep(k), .. } if k.keep == Lsn(0)));
    w.run_for(L / 2);
    let late = w.network.caught();
    let sent = !late.is_empty();
    let again = writes(&mut w, 4);
    let at = Lsn(newest(&w).0 - 2);
    start_past(&mut w, at);
    let begun = stand_still(&mut w, 200 * MS);
    w.run_for(L * 2 / 5); // its floor is the newest state again
    inject(&mut w, late);
    cut_off(&mut w, &[B]); // no further word comes
    let more = writes(&mut w, 3);
    w.run_for(L / 6);
    let more = more && writes(&mut w, 3);
    w.run_for(L / 12);
    w.heal(None);
    finish(&mut w, B, 1, L);
    verdict(w, ok && first && sent && again && begun && more, "the schedule did not come about")
}

/// B has the pages of one state and learns of a much newer one; then it reads every state between.
pub(crate) fn between(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world_of(m, false, 100 * HISTORY);
    let mut ok = writes(&mut w, 1);
    for _ in 0..8 {
        let known = newest(&w);
        ok &= read_past(&mut w, known);
        ok &= writes(&mut w, 6);
        read(&mut w, B);
        let states = known.0 + 1..newest(&w).0;
        ok &= states.into_iter().all(|lsn| read_past(&mut w, Lsn(lsn)));
    }
    verdict(w, ok, "a state that is kept was not read")
}

/// B has the pages of one state, and reads one that is newer than all it knows.
pub(crate) fn ahead(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world_of(m, false, 100 * HISTORY);
    let mut ok = writes(&mut w, 1);
    for _ in 0..8 {
        let known = newest(&w);
        ok &= read_past(&mut w, known) && writes(&mut w, 6);
        ok &= read_past(&mut w, Lsn(known.0 + 3)) && read_past(&mut w, Lsn(known.0 + 5));
        start(&mut w, B, 1, false, 0);
        ok &= finish(&mut w, B, 1, L);
    }
    verdict(w, ok, "a state that is kept was not read")
}
