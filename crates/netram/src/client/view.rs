//! Snapshots: where a transaction begins.

use super::ask::{PATIENCE, is_outage};
use super::group::{GroupClient, State, check_state};
use super::pins::Pin;
use super::reserve::LOCAL;
use crate::clock;
use dspm_proto::message::{self, Recalled, SnapshotReply};
use dspm_proto::{DatasetId, Error, Kind, Lsn};
use dspm_txn::Begin;
use dspm_txn::dataset::{Intent, Snapshot, Ticket};
use std::time::{Duration, Instant};

impl GroupClient {
    /// Begins a read of a dataset.
    pub(crate) fn begin(&self, dataset: DatasetId, intent: Intent) -> Result<Snapshot, Error> {
        match intent {
            Intent::Read => self.begin_read(dataset),
            Intent::Write { ticket, wait } => self.begin_write(dataset, ticket, wait),
        }
    }

    fn begin_read(&self, dataset: DatasetId) -> Result<Snapshot, Error> {
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

    /// Begins a transaction that will write: first the turn among the process's threads, then the lease, then the
    /// snapshot. Whatever is not had in time, it begins all the same and tries again where it first writes.
    fn begin_write(&self, dataset: DatasetId, ticket: Option<Ticket>, wait: Duration) -> Result<Snapshot, Error> {
        let Some((state, turn)) = self.take_turn(wait)? else { return self.begin_read(dataset) };
        let mut place = None;
        let result = if state.holder.valid(clock::now()) || self.short_of_copies().is_some() {
            drop(state);
            Ok(())
        } else {
            let until = self.deadline().min(Instant::now() + wait + self.lease * PATIENCE);
            self.acquire(state, ticket.unwrap_or(LOCAL), wait, until).map(|p| place = p)
        };
        // Nothing is written yet: while no lease is to be had, reading goes on.
        let result = result.or_else(|e| if is_outage(&e) || matches!(e, Error::Busy(_)) { Ok(()) } else { Err(e) });
        match result.and_then(|()| self.begin_read(dataset)) {
            Ok(snapshot) => Ok(Snapshot { turn, ticket: place, ..snapshot }),
            Err(e) => {
                self.leave_line(turn);
                Err(e)
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
        let local = self.client.options.lease_reads;
        let mut known = Lsn(0);
        let question = || {
            let state = self.lock();
            known = state.holder.tail().lsn;
            let session = self.client.session;
            // Without its background connection it could not be called back, and every commit would wait for it; this
            // process's own record would, too.
            let free = state.holder.flight().is_none() && self.place().primary().link.has_background();
            let read_lease = local && free;
            message::Snapshot { session, known, floor: self.floor(&state), read_lease }
        };
        let (reply, asked) = self.ask_primary::<_, SnapshotReply>(Kind::Snapshot, deadline, question)?;
        check_state(&reply.state)?;
        let mut state = self.lock();
        if asked.epoch != self.epoch() {
            return Ok(None);
        }
        self.learn(&mut state, &reply.state);
        let lsn = reply.state.tail.lsn;
        state.holder.learned(reply.state.tail);
        state.holder.may_read(lsn, asked.sent, Duration::from_nanos(reply.lease_ns));
        let size = reply.state.sizes.iter().find(|s| s.dataset == dataset).map_or(0, |s| s.size);
        Ok(Some(self.pinned(&mut state, lsn, size)))
    }

    /// Begins nothing below an LSN without asking any more, and says so.
    pub(crate) fn end_read_lease(&self, state: &mut State, below: Lsn) {
        state.holder.recall_read(below);
        let place = self.place();
        let recalled = Recalled { session: self.client.session, below };
        self.tell(&place, place.primary(), Kind::Recalled, &recalled);
    }

    /// Ends a read.
    pub(crate) fn unpin(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        let pin = (snapshot.epoch, Lsn(snapshot.pin));
        match snapshot.past {
            true => state.keeps.pins.remove(pin), // the background thread says so
            false => state.pins.remove(pin),
        }
        if snapshot.turn != 0 && state.line.has_turn(snapshot.turn) && !state.holder.is_open() {
            state.line.end_turn(); // it did not write
            state.line.wake();
        }
    }

    pub(crate) fn in_doubt(&self) -> Error {
        let name = &self.entry.name;
        let text = format!("dataset {name}: the outcome of an earlier commit of this process is not known yet");
        Error::Unavailable(text)
    }

    pub(crate) fn overtaken(&self) -> Error {
        Error::Unavailable(format!("dataset {}: all copies lost their memory a moment ago; try again", self.entry.name))
    }

    fn pin(&self, state: &mut State, dataset: DatasetId, lsn: Lsn) -> Snapshot {
        let size = state.sizes.get(&dataset).copied().unwrap_or(0);
        self.pinned(state, lsn, size)
    }

    fn pinned(&self, state: &mut State, lsn: Lsn, size: u64) -> Snapshot {
        let epoch = self.epoch();
        state.pins.add((epoch, lsn));
        Snapshot { lsn, size, pin: lsn.0, turn: 0, ticket: None, epoch, past: false }
    }
}
