//! Snapshots and the write lease: where a transaction begins, and who may write.

use super::group::{GroupClient, State};
use super::pins::Pin;
use crate::clock;
use dspm_proto::message::{self, Acquire, Acquired, Renew, RenewGroup, Renewed, SnapshotReply};
use dspm_proto::{DatasetId, Error, Kind, Lsn};
use dspm_txn::dataset::{Reserved, Snapshot, Ticket};
use dspm_txn::{Begin, Recall};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

/// How long a thread waits for another thread's transaction of the same process before it says busy.
const LOCAL_WAIT: Duration = Duration::from_millis(5);
/// A ticket for a reservation that another thread of this process has: no place at the primary.
pub(super) const LOCAL: Ticket = Ticket(0);

impl GroupClient {
    /// Begins a read of a dataset.
    pub(crate) fn begin(&self, dataset: DatasetId, ticket: Option<(Ticket, Duration)>) -> Result<Snapshot, Error> {
        if let Some((ticket, wait)) = ticket {
            self.await_turn(ticket, wait)?;
        }
        let deadline = self.deadline();
        let mut state = self.lock();
        loop {
            let now = clock::now();
            let local = self.client.options.lease_reads;
            match state.holder.begin(now) {
                Begin::Local(tail) if local => return Ok(self.pin(&mut state, dataset, tail.lsn)),
                Begin::Wait => {
                    if Instant::now() >= deadline {
                        return Err(self.in_doubt());
                    }
                    state = self.wait(state, deadline);
                }
                Begin::Ask | Begin::Local(_) => {
                    drop(state);
                    return self.ask_snapshot(dataset, deadline);
                }
            }
        }
    }

    /// One round trip to the primary.
    fn ask_snapshot(&self, dataset: DatasetId, deadline: Instant) -> Result<Snapshot, Error> {
        loop {
            // Until the answer is pinned the floor stays where the question was asked: the answer is not older.
            let known = self.pin_known();
            let snapshot = self.ask_pinned_snapshot(dataset, deadline);
            self.lock().pins.remove(known);
            match snapshot? {
                Some(snapshot) => return Ok(snapshot),
                None if Instant::now() >= deadline => return Err(self.overtaken()),
                None => {}
            }
        }
    }

    fn pin_known(&self) -> Pin {
        let mut state = self.lock();
        let pin = (self.epoch(), state.holder.tail().lsn);
        state.pins.add(pin);
        pin
    }

    /// None: the answer came from an epoch that is over.
    fn ask_pinned_snapshot(&self, dataset: DatasetId, deadline: Instant) -> Result<Option<Snapshot>, Error> {
        let mut known = Lsn(0);
        let question = || {
            let state = self.lock();
            known = state.holder.tail().lsn;
            let session = self.client.session;
            message::Snapshot { session, known, floor: self.floor(&state), read_lease: false }
        };
        let (reply, asked) = self.ask_primary::<_, SnapshotReply>(Kind::Snapshot, deadline, question)?;
        let mut state = self.lock();
        if asked.epoch != self.epoch() {
            return Ok(None);
        }
        self.learn(&mut state, &reply.state);
        let lsn = reply.state.tail.lsn;
        state.holder.learned(reply.state.tail);
        let size = reply.state.sizes.iter().find(|s| s.dataset == dataset).map_or(0, |s| s.size);
        Ok(Some(self.pinned(&mut state, lsn, size)))
    }

    /// Waits, at most `wait`, until the place in the queue is the first.
    fn await_turn(&self, ticket: Ticket, wait: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        while (state.holder.is_open() || state.asking) && Instant::now() < deadline {
            state = self.wait(state, deadline);
        }
        if state.holder.valid(clock::now()) || state.holder.is_open() || ticket == LOCAL {
            return Ok(());
        }
        self.acquire(state, ticket, wait).map(|_| ())
    }

    /// Makes this process the group's writer and the caller the process's.
    pub(crate) fn reserve(&self, snapshot: &Snapshot, ticket: Option<Ticket>) -> Result<Reserved, Error> {
        let (deadline, busy_at) = (self.deadline(), Instant::now() + LOCAL_WAIT);
        let mut ticket = ticket.unwrap_or(LOCAL);
        let mut acquired = false;
        let mut state = self.lock();
        loop {
            self.check_epoch(snapshot)?;
            let now = clock::now();
            if state.holder.flight().is_some() {
                if Instant::now() >= deadline {
                    return Err(self.in_doubt());
                }
                state = self.wait(state, deadline);
            } else if state.holder.is_open() || state.asking {
                if Instant::now() >= busy_at {
                    return Ok(Reserved::Busy(ticket));
                }
                state = self.wait(state, busy_at);
            } else if state.holder.valid(now) {
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
            } else if Instant::now() >= deadline {
                let text = format!("dataset {}: the write lease lapses before it arrives", self.entry.name);
                return Err(Error::Unavailable(text));
            } else {
                match self.acquire(state, ticket, Duration::ZERO)? {
                    Some(place) => return Ok(Reserved::Busy(place)),
                    None => (ticket, acquired) = (LOCAL, true),
                }
                state = self.lock();
            }
        }
    }

    /// Asks for the lease; None: it is here (or was, and went again), Some: the place in the queue.
    pub(super) fn acquire(
        &self,
        mut state: MutexGuard<'_, State>,
        ticket: Ticket,
        wait: Duration,
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
        let answer = self.ask_primary::<_, Acquired>(Kind::Acquire, self.deadline(), question);
        let mut state = self.lock();
        state.holder.asked();
        state.asking = false;
        self.notify();
        let (reply, asked) = answer?;
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
            if !state.holder.valid(now) {
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

    /// Ends a read.
    pub(crate) fn unpin(&self, snapshot: &Snapshot) {
        self.lock().pins.remove((snapshot.epoch, Lsn(snapshot.pin)));
    }

    pub(crate) fn in_doubt(&self) -> Error {
        let name = &self.entry.name;
        let text = format!("dataset {name}: the outcome of an earlier commit of this process is not known yet");
        Error::Unavailable(text)
    }

    fn overtaken(&self) -> Error {
        Error::Unavailable(format!("dataset {}: all copies lost their memory a moment ago; try again", self.entry.name))
    }

    fn pin(&self, state: &mut State, dataset: DatasetId, lsn: Lsn) -> Snapshot {
        let size = state.sizes.get(&dataset).copied().unwrap_or(0);
        self.pinned(state, lsn, size)
    }

    fn pinned(&self, state: &mut State, lsn: Lsn, size: u64) -> Snapshot {
        let epoch = self.epoch();
        state.pins.add((epoch, lsn));
        Snapshot { lsn, size, pin: lsn.0, epoch }
    }
}
