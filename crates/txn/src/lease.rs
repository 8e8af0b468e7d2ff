//! The write lease of a group at its primary: who holds it, who waits, and what became of records in doubt.
//!
//! The lease is sticky: it stays with a process until another asks. It is returned or lapses, it is never seized: a
//! live holder inside a transaction keeps it and the others are told to come back; their place in the queue is kept.
//! Every grant follows a settle, so the new token is known to every member before anybody uses it.

use crate::effect::{Caller, Effect};
use crate::replica::{Records, Replica};
use crate::{PARK, QUEUE_MAX, RESEND};
use dspm_proto::message::{Acquire, Outcome, Release};
use dspm_proto::{ClientId, Error, Instant, Lsn, RecordId, Refusal, Session, Token};
use std::collections::VecDeque;
use std::time::Duration;

/// What a holder is told of a lease of length `lease`: less than the granter waits, so that the difference of two
/// clocks' rates (at most 1 %) never makes the holder's lease the longer one.
pub(crate) fn promised(lease: Duration) -> Duration {
    lease - lease / 64
}

/// Leases, queue and questions of one group.
#[derive(Default)]
pub(crate) struct Leases {
    held: Option<Held>,
    /// The last token given, and until when its holder may begin without asking, even if it was fenced since.
    last: Option<(Session, Token)>,
    busy_until: Instant,
    /// The token was raised by a settle and given to nobody yet.
    pub(crate) token_unused: bool,
    queue: VecDeque<Waiter>,
    tickets: u64,
    outcomes: Vec<Question>,
}

/// Somebody asks what became of a record.
struct Question {
    from: Caller,
    client: ClientId,
    id: RecordId,
    /// The writer that still held the lease when it asked.
    holder: Option<Session>,
}

struct Held {
    session: Session,
    token: Token,
    until: Instant,
    called: Option<Instant>,
    kept: bool,
}

struct Waiter {
    ticket: u64,
    session: Session,
    known: Lsn,
    /// Where the answer goes; None while its client is between two tries.
    caller: Option<Caller>,
    /// How long it waits for a lease that is in use.
    patience: Instant,
    /// Since when it is this one's turn.
    turn: Option<Instant>,
    heard: Instant,
}

impl Leases {
    pub(crate) fn holder(&self) -> Option<Session> {
        self.held.as_ref().map(|h| h.session)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The token is dead; what the holder may still read is not.
    pub(crate) fn revoke(&mut self) {
        self.held = None;
        self.token_unused = false;
    }

    pub(crate) fn somebody_waits(&self) -> bool {
        !self.queue.is_empty() || !self.outcomes.is_empty()
    }

    fn free(&self, now: Instant) -> bool {
        now >= self.busy_until
    }

    pub(crate) fn live(&self, now: Instant) -> bool {
        !self.free(now)
    }

    /// The generation is over, and with it every place in the queue: who is to be told.
    pub(crate) fn send_away(&mut self) -> Vec<Caller> {
        let waiting = std::mem::take(&mut self.queue).into_iter().filter_map(|w| w.caller);
        let asking = std::mem::take(&mut self.outcomes).into_iter().map(|q| q.from);
        waiting.chain(asking).collect()
    }

    fn end(&mut self) {
        self.held = None;
        self.busy_until = Instant(0);
    }

    /// A writer whose record no member took sends it once more, if no other commit comes in between: its turn is next,
    /// for as long as a turn is parked. Else a refusal under contention would fail a transaction that nothing is wrong with.
    fn keep_turn(&mut self, session: Session, now: Instant) {
        let waits = self.queue.iter().position(|w| w.session == session).and_then(|i| self.queue.remove(i));
        let waiter = waits.unwrap_or_else(|| {
            self.tickets += 1;
            let (ticket, known) = (self.tickets, Lsn(0));
            Waiter { ticket, session, known, caller: None, patience: now, turn: None, heard: now }
        });
        self.queue.push_front(waiter);
    }

    pub(crate) fn wake<R: Records>(&self, now: Instant, replica: &Replica<R>) -> Option<Instant> {
        if replica.settle.is_some() || self.queue.is_empty() {
            return (!self.outcomes.is_empty() && now < replica.quarantine).then_some(replica.quarantine);
        }
        let mut times: Vec<Instant> = vec![replica.quarantine.max(self.busy_until)];
        times.extend(self.queue.iter().filter(|w| w.caller.is_some()).map(|w| w.patience));
        times.extend(self.queue.iter().filter_map(|w| w.turn).map(|t| t.after(PARK)));
        times.extend(self.held.as_ref().and_then(|h| h.called).map(|c| c.after(RESEND)));
        times.into_iter().filter(|t| *t > now).min()
    }
}

impl<R: Records> Replica<R> {
    /// A client asks for the write lease, or gives its place in the queue back.
    pub fn acquire(&mut self, from: Caller, m: &Acquire, now: Instant) {
        if !self.setup.is_primary() {
            return self.effects.push(Effect::Refuse { to: from, why: Refusal::NotMember });
        }
        if !self.same_session(m.session) {
            return self.effects.push(Effect::Refuse { to: from, why: Refusal::SessionOver });
        }
        self.views.floor(m.session, m.floor, now);
        if m.forget {
            // Unless another thread of the process asked since.
            self.leases.queue.retain(|w| w.ticket != m.ticket || w.session != m.session || w.caller.is_some());
            return self.advance(now);
        }
        if self.leases.last.is_some_and(|(s, token)| s == m.session && token <= m.returned) {
            self.leases.end(); // not merely because it asks: an old, repeated question may arrive while it holds one
        }
        self.enqueue(from, m, now);
        self.advance(now);
    }

    fn enqueue(&mut self, from: Caller, m: &Acquire, now: Instant) {
        let patience = now.after(Duration::from_nanos(m.wait_ns));
        let leases = &mut self.leases;
        // One place a process, whichever of its threads asks: the lease is the process's. A question that it gave up
        // (silence, a new connection) would be granted to nobody and waste a whole lease; a thread that pauses with a
        // ticket would hold up its own process's next question for as long as a turn is parked.
        if let Some(w) = leases.queue.iter_mut().find(|w| w.session == m.session) {
            if let Some(to) = w.caller.filter(|c| *c != from) {
                self.effects.push(Effect::Busy { to, ticket: w.ticket });
            }
            (w.caller, w.known, w.patience, w.heard) = (Some(from), m.known, patience, now);
            return;
        }
        if leases.queue.len() >= QUEUE_MAX {
            let error = Error::Busy(format!("{QUEUE_MAX} clients wait for this dataset already"));
            return self.effects.push(Effect::Fail { to: from, error });
        }
        leases.tickets += 1;
        leases.queue.push_back(Waiter {
            ticket: leases.tickets,
            session: m.session,
            known: m.known,
            caller: Some(from),
            patience,
            turn: None,
            heard: now,
        });
    }

    /// The holder gives the lease back, or says that it keeps it to the end of its transaction.
    pub fn release(&mut self, m: &Release, now: Instant) {
        self.note(m.token, m.committed);
        if self.leases.last != Some((m.session, m.token)) {
            return;
        }
        match (&mut self.leases.held, m.kept) {
            (Some(h), true) => h.kept = true,
            (None, true) => {}
            (_, false) => self.leases.end(),
        }
        self.advance(now);
    }

    /// The holder's lease goes on: how long from when it sent the renewal; zero when it is over.
    pub fn renew(&mut self, session: Session, token: Token, floor: Lsn, now: Instant) -> Duration {
        self.views.floor(session, floor, now);
        let serves = self.serves(now) && self.settle.is_none() && self.same_session(session);
        let lease = self.lease(now);
        match &mut self.leases.held {
            Some(h) if serves && h.session == session && h.token == token => {
                h.until = now.after(lease);
                self.leases.busy_until = self.leases.busy_until.max(h.until);
                promised(lease)
            }
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn same_session(&mut self, session: Session) -> bool {
        self.hello(session);
        self.records.session(session.client) <= session.number
    }

    /// Serves the queue as far as it goes.
    pub(crate) fn advance(&mut self, now: Instant) {
        if self.leases.queue.is_empty() {
            return;
        }
        if self.settle.is_some() {
            return self.send_impatient_away(now);
        }
        if self.leases.live(now) {
            return self.ask_holder(now);
        }
        self.leases.held = None;
        if !self.may_serve(now) || !self.has_copies() {
            return;
        }
        self.drop_absent(now);
        if self.leases.queue.is_empty() {
            return;
        }
        if !self.leases.token_unused {
            return self.start_settle(now);
        }
        if self.is_open(self.records.tail()) {
            self.tell_participants(now);
            return self.send_impatient_away(now);
        }
        if self.setup.removing {
            return; // who waits is told when the dataset is gone, or is next when it stays
        }
        let Some(first) = self.leases.queue.front_mut() else { return };
        match first.caller.take() {
            Some(to) => self.grant(to, now),
            None => first.turn = first.turn.or(Some(now)),
        }
    }

    /// Calls the lease back, and sends away those who do not want to wait for a transaction's end.
    fn ask_holder(&mut self, now: Instant) {
        let leases = &mut self.leases;
        if let Some(h) = leases.held.as_mut().filter(|h| h.called.is_none_or(|c| now.since(c) >= RESEND)) {
            h.called = Some(now);
            self.effects.push(Effect::Callback { session: h.session, token: h.token });
        }
        if !leases.held.as_ref().is_some_and(|h| h.kept) {
            return; // an idle lease is always waited for
        }
        for w in leases.queue.iter_mut().filter(|w| w.patience <= now) {
            if let Some(to) = w.caller.take() {
                self.effects.push(Effect::Busy { to, ticket: w.ticket });
            }
        }
    }

    /// Other groups hold this one up, and nobody knows for how long: who does not want to wait is told for whom.
    fn send_impatient_away(&mut self, now: Instant) {
        let impatient = |w: &Waiter| w.patience <= now && w.caller.is_some();
        if !self.leases.queue.iter().any(impatient) {
            return;
        }
        let groups = self.awaited(now);
        if groups.is_empty() {
            return;
        }
        let (away, stay) = std::mem::take(&mut self.leases.queue).into_iter().partition(impatient);
        self.leases.queue = stay;
        let away: VecDeque<Waiter> = away;
        for to in away.into_iter().filter_map(|w| w.caller) {
            self.effects.push(Effect::Awaits { to, groups: groups.clone() });
        }
    }

    /// Those whose turn came and went, and those not heard of for long, lose their place.
    fn drop_absent(&mut self, now: Instant) {
        self.leases.queue.retain(|w| {
            w.caller.is_some()
                || !(w.turn.is_some_and(|t| now.since(t) >= PARK) || now.since(w.heard) >= crate::SESSION_MAX)
        });
    }

    fn grant(&mut self, to: Caller, now: Instant) {
        let Some(w) = self.leases.queue.pop_front() else { return };
        let (token, lease) = (self.records.fence().token, self.lease(now));
        let until = now.after(lease);
        self.leases.token_unused = false;
        self.leases.held = Some(Held { session: w.session, token, until, called: None, kept: false });
        self.leases.last = Some((w.session, token));
        self.leases.busy_until = until;
        let tail = self.records.tail();
        self.views.floor(w.session, tail.lsn.min(self.views.floor_of(w.session.client)), now);
        let lease = promised(lease);
        self.effects.push(Effect::Granted { to, known: w.known, tail, token, lease });
        if !self.leases.queue.is_empty() {
            self.advance(now);
        }
    }

    /// Was this record committed? Answered after a settle, finally; the asker's token is dead either way.
    pub fn outcome(&mut self, from: Caller, m: &Outcome, now: Instant) {
        if !self.setup.is_primary() || m.token.generation > self.setup.generation {
            return self.effects.push(Effect::Refuse { to: from, why: Refusal::NotMember });
        }
        let holds = self.leases.last == Some((m.session, m.token));
        if holds {
            self.leases.end();
        }
        // A process asks about one record at a time: what it asked before, it gave up.
        self.leases.outcomes.retain(|q| q.client != m.session.client);
        self.leases.outcomes.push(Question {
            from,
            client: m.session.client,
            id: m.id,
            holder: holds.then_some(m.session),
        });
        if m.token >= self.records.fence().token || self.unsettled || !self.serving {
            self.start_settle(now);
        }
        if self.is_settled() {
            self.answer_outcomes(now);
        }
        self.advance(now); // the asker's lease is over
    }

    pub(crate) fn answer_outcomes(&mut self, now: Instant) {
        if !self.serves(now) {
            return; // "committed" is an acknowledgement, and a read lease of before the restart may last
        }
        // Of what came after the last settle only what is known to be committed may be told.
        let (last, committed) = (self.records.tail().lsn, self.records.committed());
        let Some(tail) = self.identity(committed) else { return };
        let unresolved = self.unresolved().map(|tail| tail.lsn);
        for Question { from: to, client, id, holder } in std::mem::take(&mut self.leases.outcomes) {
            if unresolved == Some(id.lsn) {
                self.leases.outcomes.push(Question { from: to, client, id, holder });
                continue; // who decides is asked
            }
            let known = if id.lsn > last { Some(false) } else { self.was_committed(client, id) };
            if known == Some(true) && !self.has_copies() {
                self.leases.outcomes.push(Question { from: to, client, id, holder });
                continue; // that would acknowledge it
            }
            if let Some(session) = holder.filter(|_| id.lsn > last) {
                self.leases.keep_turn(session, now);
            }
            self.effects.push(match known {
                Some(committed) => Effect::Outcome { to, committed, tail },
                None => {
                    let text = format!("commit {} is too long ago, its outcome is no longer kept", id.lsn);
                    Effect::Fail { to, error: Error::OutcomeUnknown(text) }
                }
            });
        }
    }

    /// Whether a client's record at or below the settled tail is in the history; None: nobody knows any more.
    fn was_committed(&self, client: ClientId, id: RecordId) -> Option<bool> {
        if let Some(held) = self.records.id_at(id.lsn) {
            return Some(held == id && !self.is_aborted(id.lsn));
        }
        // The record at that LSN is forgotten. Its writer's newest one is that one, or shows that it is another's, or
        // came later and shows nothing.
        let newest = self.records.newest_of(client)?;
        (newest.lsn <= id.lsn).then_some(newest == id)
    }
}
