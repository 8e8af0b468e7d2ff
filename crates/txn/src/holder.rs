//! A client process's part of one group: its write lease, its one record in flight, its doubt.
//!
//! Invariants kept here: a begin without a round trip only under a lease that had not lapsed by a clock read after the
//! call began, and never while a record of this process is in flight or in doubt; the lease counts from when its
//! renewal was sent; a token given up is never taken up again; after any refusal or silence the record is in doubt,
//! not failed, and the token is dead whatever the answer.
//!
//! What the primary shows while a record is in flight is as true as what it shows to other processes: the state before
//! the record, or the record once all members hold it. So one that waits for room holds up no reader. Once it is in
//! doubt everything of this process waits for the outcome.

use crate::replica::NodeNo;
use dspm_proto::{Instant, Lsn, RecordId, Token};
use std::time::Duration;

/// A called-back lease stays with a busy process this long after its grant, so that a hand-over pays.
pub const QUANTUM: Duration = Duration::from_millis(2);
/// A called-back lease that its process used within this time is not idle yet.
pub const LINGER: Duration = Duration::from_micros(200);

/// Where a transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Here: this is the newest state.
    Local(RecordId),
    /// At the primary.
    Ask,
    /// Later: a record of this process is in flight or in doubt.
    Wait,
}

/// A record on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The record.
    pub id: RecordId,
    /// The state that it follows.
    pub base: RecordId,
    /// Token that it was sent under.
    pub token: Token,
    /// Members that did not acknowledge yet.
    pub missing: Vec<NodeNo>,
    /// Nobody can tell any more but a settle.
    pub doubt: bool,
    /// It waits for room at a member, nobody knows how long.
    pub stalled: bool,
    /// What it is in a transaction over several groups.
    pub step: FlightStep,
}

/// A record on its way, in a transaction over several groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlightStep {
    /// A commit, of one group or for all.
    #[default]
    Commit,
    /// Prepared: held by all it is not committed, and stays in flight until the record behind it goes.
    Prepared,
    /// The record behind a prepared one, which is the flight's base: it says that the base is committed.
    Resolution,
}

impl Flight {
    /// The record to ask about when this one is in doubt. A settle may write another resolution in its place, so that its
    /// own outcome says nothing.
    pub fn question(&self) -> RecordId {
        if self.step == FlightStep::Resolution { self.base } else { self.id }
    }
}

/// What to do about a call-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// Give the lease back: send Release with this committed tail.
    Return(RecordId),
    /// In use for long: send Release with `kept`, and give it back at the transaction's end.
    Kept,
    /// In use a moment ago, or not for long, or its grant is still on its way: look again then.
    Linger(Instant),
    /// Answered since it was asked last, or nothing to answer.
    Nothing,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Holder {
    token: Option<Token>,
    until: Instant,
    granted: Instant,
    /// The newest state that this process knows to be committed.
    tail: RecordId,
    returned: Token,
    flight: Option<Flight>,
    /// A transaction of this process holds the reservation.
    open: bool,
    /// Since when.
    opened: Instant,
    /// The state that it was taken at.
    reserved: RecordId,
    keep: bool,
    used: Instant,
    recalled: bool,
    said_kept: bool,
    /// Threads that wait for a grant; a call-back may overtake its grant on another connection.
    asking: u32,
    recalled_early: Token,
    /// Until when the lease waits for a transaction that begins again.
    parked: Instant,
    /// The read lease: a begin at this state needs no question until then.
    read_at: Lsn,
    read_until: Instant,
    /// Read leases below are over, also those whose grant is still on its way.
    read_from: Lsn,
}

impl Holder {
    /// A holder of nothing.
    pub fn new() -> Holder {
        Holder::default()
    }

    /// The newest committed state that this process knows.
    pub fn tail(&self) -> RecordId {
        self.tail
    }

    /// The token, if there is one.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// The highest token given up.
    pub fn returned(&self) -> Token {
        self.returned
    }

    /// The record in flight or in doubt.
    pub fn flight(&self) -> Option<&Flight> {
        self.flight.as_ref()
    }

    /// True when the lease has not lapsed at `now`, a clock read made after the call that asks began.
    pub fn valid(&self, now: Instant) -> bool {
        self.token.is_some() && now < self.until
    }

    /// Where a transaction begins that was begun before `now` was read.
    pub fn begin(&mut self, now: Instant) -> Begin {
        if let Some(f) = &self.flight {
            return if f.stalled && !f.doubt { Begin::Ask } else { Begin::Wait };
        }
        if self.valid(now) {
            self.used = now;
            return Begin::Local(self.tail);
        }
        if now < self.read_until && self.tail.lsn == self.read_at {
            return Begin::Local(self.tail);
        }
        Begin::Ask
    }

    /// The primary showed the state at `at` in answer to a question sent at `sent`, with a read lease.
    pub fn may_read(&mut self, at: Lsn, sent: Instant, lease: Duration) {
        if at >= self.read_from && !lease.is_zero() {
            (self.read_at, self.read_until) = (at, sent.after(lease));
        }
    }

    /// A commit waits for the read lease: nothing begins below that LSN without asking from here on.
    pub fn recall_read(&mut self, below: Lsn) {
        self.read_from = self.read_from.max(below);
        if self.read_at < below {
            self.read_until = Instant(0);
        }
    }

    /// Gives the read lease up, if there is one: the LSN below which it is called back then. A lease at the same LSN is
    /// not taken up again, since the word about this one may arrive after its grant.
    pub fn end_read(&mut self, now: Instant) -> Option<Lsn> {
        let below = (now < self.read_until).then(|| self.read_at.next())?;
        self.recall_read(below);
        Some(below)
    }

    /// A snapshot of the primary: a newer committed state.
    pub fn learned(&mut self, tail: RecordId) {
        if tail.lsn > self.tail.lsn {
            self.tail = tail;
        }
    }

    /// A thread asks for the lease; answered by [`Holder::granted`] or not, it ends with [`Holder::asked`].
    pub fn ask(&mut self) {
        self.asking += 1;
    }

    /// The thread does not wait for a grant any more.
    pub fn asked(&mut self) {
        self.asking = self.asking.saturating_sub(1);
    }

    /// The primary granted the lease in answer to a request sent at `sent`. False: an old grant, not taken up.
    pub fn granted(&mut self, token: Token, sent: Instant, lease: Duration, tail: RecordId, now: Instant) -> bool {
        let old = token <= self.returned || self.token.is_some_and(|t| token < t);
        // A new token's tail is the newest state; one that is older than what we know was overtaken and has lapsed.
        let overtaken = self.token != Some(token) && tail.lsn < self.tail.lsn;
        if old || overtaken || self.flight.is_some() {
            return false;
        }
        if self.token != Some(token) {
            (self.token, self.granted, self.until, self.tail) = (Some(token), now, Instant(0), tail);
            (self.recalled, self.said_kept) = (self.recalled_early == token, false);
        }
        self.used = now;
        self.until = self.until.max(sent.after(lease));
        true
    }

    /// The answer to a renewal sent at `sent`; zero: the lease is over.
    pub fn renewed(&mut self, token: Token, sent: Instant, lease: Duration) {
        if self.token != Some(token) {
            return;
        }
        if lease.is_zero() && self.flight.is_none() && !self.open {
            self.drop_token();
        } else if !lease.is_zero() {
            self.until = self.until.max(sent.after(lease));
        }
    }

    /// The primary said that the lease is over: nothing begins under it, whatever the clock says.
    pub fn lapse(&mut self) {
        self.until = Instant(0);
    }

    /// Takes the process's reservation under the lease. The caller checked [`Holder::valid`] and the snapshot. A
    /// call-back that was not answered yet, because the lease lay idle for a moment, is answered now: it is kept.
    pub fn open(&mut self, now: Instant) -> Recall {
        (self.open, self.opened, self.used, self.parked) = (true, now, now, Instant(0));
        self.reserved = self.tail;
        if self.recalled { self.recall(now) } else { Recall::Nothing }
    }

    /// The lease was granted to a transaction whose snapshot is older: it waits for that transaction's next try.
    pub fn park(&mut self, now: Instant) {
        self.parked = now.after(crate::PARK);
    }

    /// True while a transaction of this process holds the reservation.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// True while nobody else can have written since the reservation was taken, but for its own commits. Read at `now`, as for
    /// [`Holder::valid`].
    pub fn owns(&self, now: Instant) -> bool {
        self.open && self.valid(now) && self.tail == self.reserved
    }

    /// Keeps the lease over transactions, or no longer.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// True when the lease is kept over transactions.
    pub fn keeps(&self) -> bool {
        self.keep
    }

    /// Ends the reservation. A lease that was called back goes now if its time is over.
    pub fn close(&mut self, now: Instant) -> Recall {
        (self.open, self.used) = (false, now);
        if self.recalled { self.recall(now) } else { Recall::Nothing }
    }

    /// The record is about to be sent to these members. None: it may not be. The lease of its reservation is gone, or a
    /// newer one (a late grant) took its place and others committed in between: the transaction conflicts. Or another record
    /// is in flight, perhaps without a caller by now: what became of it is asked for as long as nothing takes its place.
    pub fn send(&mut self, id: RecordId, members: Vec<NodeNo>) -> Option<&Flight> {
        self.launch(id, members, FlightStep::Commit)
    }

    /// [`Holder::send`] of a prepared record. [`Holder::acked`] says when all hold it; what is to begin waits on.
    pub fn send_prepared(&mut self, id: RecordId, members: Vec<NodeNo>) -> Option<&Flight> {
        self.launch(id, members, FlightStep::Prepared)
    }

    /// The decision is held by all its members: the resolution goes in the prepared record's place, behind it and under its
    /// token. None: it may not. The prepared record is not held by all, in doubt, or the token is gone: its outcome has to
    /// be asked for.
    pub fn follow(&mut self, id: RecordId, members: Vec<NodeNo>) -> Option<&Flight> {
        let held = |f: &&mut Flight| f.step == FlightStep::Prepared && f.missing.is_empty() && !f.doubt;
        let f = self.flight.as_mut().filter(held)?;
        if self.token != Some(f.token) || id.lsn != f.id.lsn.next() {
            return None;
        }
        (f.base, f.id, f.missing, f.step) = (f.id, id, members, FlightStep::Resolution);
        self.flight.as_ref()
    }

    fn launch(&mut self, id: RecordId, members: Vec<NodeNo>, step: FlightStep) -> Option<&Flight> {
        let free = self.flight.is_none() && (!self.open || self.tail == self.reserved);
        let token = self.token.filter(|_| free)?;
        let base = self.tail;
        // The primary takes the sender to read nothing older from here on, and forgets the read lease that it gave: one
        // whose grant is still on its way is over too, or it would outlive a doubt about this record.
        self.recall_read(id.lsn);
        self.flight = Some(Flight { id, base, token, missing: members, doubt: false, stalled: false, step });
        self.flight.as_ref()
    }

    /// A member has no room for the record, which will be sent to it again.
    pub fn stall(&mut self) {
        if let Some(f) = self.flight.as_mut() {
            f.stalled = true;
        }
    }

    /// A member holds the record. True when all do: it is committed, or, sent as a prepared one, prepared.
    pub fn acked(&mut self, from: NodeNo, id: RecordId, now: Instant) -> bool {
        let Some(f) = self.flight.as_mut().filter(|f| f.id == id && !f.doubt) else { return false };
        let waited = !f.missing.is_empty();
        f.missing.retain(|n| *n != from);
        if !waited || !f.missing.is_empty() {
            return false;
        }
        if f.step == FlightStep::Prepared {
            f.stalled = false;
            return true;
        }
        self.learned(id); // the primary may have shown this state already, or a later one
        (self.reserved, self.flight, self.used) = (id, None, now);
        true
    }

    /// A refusal or silence: the record is in doubt, the token dead.
    pub fn doubt(&mut self) {
        if let Some(f) = self.flight.as_mut() {
            f.doubt = true;
        }
        self.drop_token();
    }

    /// The outcome is known. Only who knows what a committed record changed may say [`Holder::learned`]: where the thread
    /// that committed is gone, the newest state known stays where it was and the next snapshot tells.
    pub fn abandon(&mut self) {
        self.flight = None;
    }

    /// The group went on from an older state, after all its memories were lost: nothing known before counts.
    pub fn restart(&mut self) {
        self.drop_token();
        self.tail = RecordId::default();
        (self.read_until, self.read_from) = (Instant(0), Lsn(0));
    }

    /// Another asks for the lease.
    pub fn callback(&mut self, token: Token, now: Instant) -> Recall {
        if self.token != Some(token) {
            if self.asking > 0 && token > self.returned {
                self.recalled_early = self.recalled_early.max(token);
                return self.recall(now);
            }
            // Never had it, or gave it up: say so, and never take it up should its grant arrive late.
            if self.token.is_none_or(|t| token > t) && self.flight.is_none() {
                self.returned = self.returned.max(token);
                return Recall::Return(self.tail);
            }
            return Recall::Nothing;
        }
        // Asked again, also after "kept" was said: that may have been lost, and who waits would never be sent away.
        (self.recalled, self.said_kept) = (true, false);
        self.recall(now)
    }

    /// Looks again after [`Recall::Linger`], or after a grant that its call-back may have overtaken.
    pub fn recall(&mut self, now: Instant) -> Recall {
        let expected = self.token.unwrap_or_default().max(self.returned);
        if self.asking > 0 && self.recalled_early > expected {
            return Recall::Linger(now.after(QUANTUM)); // for as long as a busy process would keep it
        }
        if !self.recalled || self.token.is_none() {
            return Recall::Nothing;
        }
        let run_ends = self.granted.max(self.opened).after(QUANTUM);
        if self.keep || (self.open || self.flight.is_some()) && now >= run_ends {
            return if std::mem::replace(&mut self.said_kept, true) { Recall::Nothing } else { Recall::Kept };
        }
        if self.open || self.flight.is_some() {
            return Recall::Linger(run_ends); // who waits is told "busy" because of a long transaction, not of a short one
        }
        if now < self.parked {
            return Recall::Linger(self.parked);
        }
        let idle_at = self.used.after(LINGER);
        if now < idle_at && now < self.granted.after(QUANTUM) {
            return Recall::Linger(idle_at);
        }
        self.drop_token();
        Recall::Return(self.tail)
    }

    /// Gives the lease up; None when there is none.
    pub fn give_up(&mut self) -> Option<Token> {
        if self.flight.is_some() {
            return None;
        }
        let token = self.token;
        self.drop_token();
        token
    }

    fn drop_token(&mut self) {
        if let Some(token) = self.token.take() {
            self.returned = self.returned.max(token);
        }
        (self.until, self.parked, self.recalled, self.said_kept) = (Instant(0), Instant(0), false, false);
    }

    /// The lowest state that this process may still read when no snapshot is open.
    pub fn floor(&self) -> Lsn {
        self.tail.lsn
    }
}

#[cfg(test)]
mod tests;
