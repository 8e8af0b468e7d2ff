//! The reservation: who of this process writes, and the write lease from the primary.
//!
//! Threads of the process wait for each other in a line, first come, first served; then for the lease. Neither wait is
//! needed for a right answer: whether the snapshot is the newest state is checked when the reservation is taken.

use super::group::{GroupClient, State, check_state};
use crate::clock;
use dspm_proto::message::{Acquire, Acquired, Renew, RenewGroup, Renewed};
use dspm_proto::{Error, Kind, Lsn};
use dspm_txn::Recall;
use dspm_txn::dataset::{Reserved, Snapshot, Ticket};
use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread waits while the process's line of writers does not move before it says busy.
const LOCAL_WAIT: Duration = Duration::from_millis(5);
/// Longest wait in a line that moves.
const LINE_WAIT: Duration = Duration::from_millis(100);
/// A ticket for a reservation that another thread of this process has: no place at the primary.
pub(super) const LOCAL: Ticket = Ticket(0);

impl GroupClient {
    /// Waits until it is the calling thread's turn to write; None if it takes too long. `patience` is how long it may
    /// take that nothing moves at all.
    pub(super) fn take_turn(&self, patience: Duration) -> Result<Option<(MutexGuard<'_, State>, u64)>, Error> {
        let (start, deadline) = (Instant::now(), self.deadline());
        let mut state = self.lock();
        let place = state.line.enter();
        loop {
            let now = Instant::now();
            let doubt = state.holder.flight().is_some();
            let free = !doubt && !state.holder.is_open() && !state.asking;
            if free && state.line.try_turn(place, now) {
                return Ok(Some((state, place)));
            }
            let still = (state.line.moved().max(start) + patience.max(LOCAL_WAIT)).min(start + LINE_WAIT.max(patience));
            let until = if doubt { deadline } else { still };
            if now >= until || (!doubt && state.line.is_own_turn() && state.holder.is_open()) {
                state.line.leave(place);
                state.line.wake();
                return if doubt { Err(self.in_doubt()) } else { Ok(None) };
            }
            let look = state.line.turn_ends().filter(|t| *t > now).map_or(until, |t| t.min(until));
            drop(state);
            thread::park_timeout(look.saturating_duration_since(now));
            state = self.lock();
        }
    }

    /// Gives a turn up that was not used.
    pub(super) fn leave_line(&self, turn: u64) {
        let mut state = self.lock();
        state.line.leave(turn);
        state.line.wake();
    }

    /// Makes this process the group's writer and the caller the process's.
    pub(crate) fn reserve(&self, snapshot: &Snapshot, ticket: Option<Ticket>) -> Result<Reserved, Error> {
        let state = self.lock();
        if snapshot.turn != 0 && state.line.has_turn(snapshot.turn) && !state.holder.is_open() {
            return self.reserve_in_turn(state, snapshot, ticket);
        }
        drop(state);
        let Some((state, turn)) = self.take_turn(Duration::ZERO)? else {
            return Ok(Reserved::Busy(ticket.unwrap_or(LOCAL)));
        };
        let reserved = self.reserve_in_turn(state, snapshot, ticket);
        if !matches!(reserved, Ok(Reserved::Granted)) {
            self.leave_line(turn);
        }
        reserved
    }

    fn reserve_in_turn<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        snapshot: &Snapshot,
        ticket: Option<Ticket>,
    ) -> Result<Reserved, Error> {
        let deadline = self.deadline();
        let mut ticket = ticket.unwrap_or(LOCAL);
        let mut acquired = false;
        loop {
            self.check_epoch(snapshot)?;
            let now = clock::now();
            if state.holder.flight().is_some() || state.holder.is_open() {
                return Ok(Reserved::Busy(LOCAL)); // another thread's: the turn was over before it was used
            }
            if state.holder.valid(now) {
                if state.holder.tail().lsn != snapshot.lsn {
                    if acquired {
                        state.holder.park(now);
                    }
                    return Ok(Reserved::Stale);
                }
                let recall = state.holder.open(now);
                let token = state.holder.token().unwrap_or_default();
                self.answer_recall(&mut state, token, recall);
                return Ok(Reserved::Granted);
            }
            if Instant::now() >= deadline {
                let text = format!("dataset {}: the write lease lapses before it arrives", self.entry.name);
                return Err(Error::Unavailable(text));
            }
            match self.acquire(state, ticket, Duration::ZERO, deadline)? {
                Some(place) => return Ok(Reserved::Busy(place)),
                None => (ticket, acquired) = (LOCAL, true),
            }
            state = self.lock();
        }
    }

    /// Asks for the lease until the deadline; None: it is here (or was, and went again), Some: the place in the queue.
    pub(super) fn acquire(
        &self,
        mut state: MutexGuard<'_, State>,
        ticket: Ticket,
        wait: Duration,
        deadline: Instant,
    ) -> Result<Option<Ticket>, Error> {
        state.holder.give_up();
        state.holder.ask();
        state.asking = true;
        drop(state);
        let mut known = Lsn(0);
        let question = || {
            let state = self.lock();
            known = state.holder.tail().lsn;
            Acquire {
                session: self.client.session,
                known,
                floor: self.floor(&state),
                ticket: ticket.0,
                wait_ns: wait.as_nanos() as u64,
                forget: false,
                returned: state.holder.returned(),
            }
        };
        let answer = self.ask_primary::<_, Acquired>(Kind::Acquire, deadline, question);
        let mut state = self.lock();
        state.holder.asked();
        state.asking = false;
        self.notify();
        let (reply, asked) = answer?;
        check_state(&reply.state)?;
        if asked.epoch != self.epoch() {
            return Ok(None); // the caller looks again, and finds no lease
        }
        if reply.ticket != 0 {
            return Ok(Some(Ticket(reply.ticket)));
        }
        let lease = Duration::from_nanos(reply.lease_ns);
        self.learn(&mut state, &reply.state);
        let now = clock::now();
        if state.holder.granted(reply.token, asked.sent, lease, reply.state.tail, now) {
            state.noted = reply.state.tail;
            let recall = state.holder.recall(now); // who waits behind may have called it back before it was here
            self.answer_recall(&mut state, reply.token, recall);
            if state.holder.token() == Some(reply.token) && !state.holder.valid(now) {
                drop(state);
                self.renew_now()?; // it waited in the queue longer than a lease lasts
            }
        } else {
            // Too late to be taken up: given back, or nobody could write until it lapses.
            let recall = state.holder.callback(reply.token, now);
            self.answer_recall(&mut state, reply.token, recall);
        }
        Ok(None)
    }

    /// Renews the lease with a round trip of the calling thread.
    fn renew_now(&self) -> Result<(), Error> {
        let question = || {
            let state = self.lock();
            Renew { session: self.client.session, groups: vec![self.renewal(&state)] }
        };
        let (reply, asked) = self.ask_primary::<_, Renewed>(Kind::Renew, self.deadline(), question)?;
        let mut state = self.lock();
        for g in &reply.groups {
            state.holder.renewed(g.token, asked.sent, Duration::from_nanos(g.lease_ns));
        }
        if reply.groups.iter().any(|g| g.lease_ns == 0 && Some(g.token) == state.holder.token()) {
            state.holder.lapse();
        }
        Ok(())
    }

    /// What a renewal says of this group.
    pub(crate) fn renewal(&self, state: &State) -> RenewGroup {
        let place = self.place();
        RenewGroup {
            group: self.entry.group,
            generation: place.set.generation,
            store: place.primary().store,
            floor: self.floor(state),
            token: state.holder.token().unwrap_or_default(),
        }
    }

    /// Asks whether this process is still the group's writer.
    pub(crate) fn confirm(&self, snapshot: &Snapshot) -> Result<(), Error> {
        self.renew_now()?;
        let state = self.lock();
        self.check_epoch(snapshot)?;
        match state.holder.valid(clock::now()) {
            true => Ok(()),
            false => Err(Error::Conflict("the write lease was lost inside the transaction".into())),
        }
    }

    /// Ends a reservation; a lease that was called back meanwhile may go now.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        let token = state.holder.token().unwrap_or_default();
        let recall = state.holder.close(clock::now());
        if recall != Recall::Nothing {
            self.answer_recall(&mut state, token, recall);
        }
        state.line.end_turn();
        state.line.wake();
        drop(state);
        self.notify();
    }

    /// Gives a place in the queue back.
    pub(crate) fn forget(&self, ticket: Ticket) {
        if ticket == LOCAL {
            return;
        }
        let state = self.lock();
        let acquire = Acquire {
            session: self.client.session,
            known: state.holder.tail().lsn,
            floor: self.floor(&state),
            ticket: ticket.0,
            wait_ns: 0,
            forget: true,
            returned: state.holder.returned(),
        };
        drop(state);
        let place = self.place();
        self.tell(&place, place.primary(), Kind::Acquire, &acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, group_of};
    use super::*;
    use crate::wire::{frame, reply_to};
    use dspm_proto::{Generation, RecordId, Token, message};

    const TOKEN: Token = Token { generation: Generation(1), boot: 1, n: 2 };

    fn granting() -> FakeNode {
        let lease_ns = Duration::from_secs(60).as_nanos() as u64;
        let reply = message::encode(&Acquired { token: TOKEN, lease_ns, ..Acquired::default() });
        FakeNode::start(move |_, h| Some(frame(reply_to(h), &reply, 0)))
    }

    #[test]
    fn a_lease_that_was_called_back_before_it_came_is_looked_at_at_once() {
        let node = granting();
        let group = group_of(&node);
        let mut state = group.lock();
        state.holder.ask();
        assert!(matches!(state.holder.callback(TOKEN, clock::now()), Recall::Linger(_)));
        state.holder.asked();
        assert!(group.acquire(state, LOCAL, Duration::ZERO, group.deadline()).unwrap().is_none());
        let state = group.lock();
        assert_eq!(state.holder.token(), Some(TOKEN));
        assert!(state.linger.is_some(), "nobody looks at it before it is called back again");
    }

    #[test]
    fn a_word_about_an_older_lease_leaves_the_next_look_at_this_one() {
        let node = granting();
        let group = group_of(&node);
        let mut state = group.lock();
        let at = clock::now().after(Duration::from_secs(1));
        group.answer_recall(&mut state, TOKEN, Recall::Linger(at));
        let older = Token { n: 1, ..TOKEN };
        for recall in [Recall::Nothing, Recall::Return(RecordId::default())] {
            group.answer_recall(&mut state, older, recall);
            assert_eq!(state.linger, Some(at), "after {recall:?}");
        }
    }
}
