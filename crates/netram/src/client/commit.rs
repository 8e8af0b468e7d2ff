//! One commit: build the record, send it to all members at once, wait for all; settle what is in doubt.

use super::cache::OPEN;
use super::encode::{Encoded, encode};
use super::group::{GroupClient, Peer, Place, State, is_outage};
use super::view::LOCAL;
use crate::clock;
use crate::wire::{Answer, Connection};
use dspm_proto::message::{self, Ack, Outcome, OutcomeReply};
use dspm_proto::record::{DatasetChange, Record};
use dspm_proto::{DatasetId, Error, Kind, Lsn, PAGE_SIZE, RecordId, Refusal, limits};
use dspm_txn::dataset::{Change, PageBuf, Snapshot};
use std::time::{Duration, Instant};

/// A member that says nothing for this many lease lengths is not waited for any longer: the primary is asked.
const SILENCE: u32 = 2;

/// A link slower than this (10 MB/s) makes large commits doubtful.
const SLOWEST_NS_PER_BYTE: u64 = 100;
/// Pause before a commit that found no room is tried again.
const BACK_PRESSURE: Duration = Duration::from_millis(20);

/// A sealed record and the page data that travels with it.
struct Built {
    record: Record,
    meta: Vec<u8>,
    /// Encoded deltas, in the order of the record's pages.
    deltas: Vec<Vec<u8>>,
    /// Full pages, by their place in the change.
    full: Vec<usize>,
}

impl Built {
    fn data<'a>(&'a self, change: &'a Change<'_>) -> Vec<&'a [u8]> {
        let full = self.full.iter().map(|i| &change.pages[*i].1[..]);
        full.chain(self.deltas.iter().map(|d| &d[..])).collect()
    }
}

impl GroupClient {
    /// Commits under the reservation; the snapshot becomes the commit's own state.
    pub(crate) fn commit(
        &self,
        dataset: DatasetId,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
    ) -> Result<Lsn, Error> {
        let bytes = change.pages.len() * PAGE_SIZE;
        if bytes as u64 > u64::from(limits::DATA_MAX) {
            let text = format!(
                "a transaction of {} pages; at most {} are possible",
                change.pages.len(),
                limits::DATA_MAX as usize / PAGE_SIZE
            );
            return Err(Error::Full(text));
        }
        if change.size > limits::DATASET_MAX {
            let text = format!("a dataset of {} bytes; at most {} are possible", change.size, limits::DATASET_MAX);
            return Err(Error::Full(text));
        }
        let deadline = self.deadline();
        let mut tries = 0;
        loop {
            let place = self.place();
            let built = self.launch(&place, dataset, snapshot, change, tries == 0)?;
            let id = built.record.id;
            let Err(error) = self.send_to_all(&place, &built, dataset, snapshot, change) else {
                return Ok(id.lsn);
            };
            let outcome = self.resolve(deadline).map_err(|e| match (e, &error) {
                (Error::OutcomeUnknown(text), Error::Unavailable(why)) => {
                    Error::OutcomeUnknown(format!("{why}; {text}"))
                }
                (e, _) => e,
            });
            if outcome? {
                self.absorb(&mut self.lock(), dataset, snapshot, change, id);
                self.notify();
                return Ok(id.lsn);
            }
            tries += 1;
            let full = matches!(error, Error::Full(_) | Error::Refused(Refusal::Full));
            match full {
                true if Instant::now() >= deadline => {
                    return Err(Error::Full("a member has no room for the commit, and got none in time".into()));
                }
                true => std::thread::sleep(BACK_PRESSURE), // the flusher makes room
                false if tries > 1 => return Err(conflict()),
                false => {}
            }
            // Once more under a new token, if nothing came in between.
            self.regain(snapshot)?;
        }
    }

    /// Builds the record and marks it as in flight.
    fn launch(
        &self,
        place: &Place,
        dataset: DatasetId,
        snapshot: &Snapshot,
        change: &Change<'_>,
        deltas: bool,
    ) -> Result<Built, Error> {
        let mut state = self.lock();
        self.check_epoch(snapshot)?;
        let token = state.holder.token().ok_or_else(conflict)?;
        let base = state.holder.tail();
        if !state.holder.is_open() || base.lsn != snapshot.lsn {
            return Err(conflict());
        }
        state.transactions += 1;
        let cache = deltas.then_some(&self.client.cache);
        let Encoded { pages, deltas, full } = encode(cache, dataset, base.lsn, change);
        let mut record = Record {
            group: self.entry.group,
            id: RecordId { generation: place.set.generation, lsn: base.lsn.next(), hash: 0 },
            token,
            session: self.client.session,
            transaction: state.transactions,
            predecessor: base.hash,
            floor: self.floor(&state),
            stage: 0,
            staged: 0,
            datasets: vec![DatasetChange { dataset, size: change.size }],
            pages,
        };
        let meta = record.seal();
        let built = Built { record, meta, deltas, full };
        let members = place.peers.iter().map(|p| p.number).collect();
        state.holder.send(built.record.id, members).ok_or_else(conflict)?;
        Ok(built)
    }

    /// Sends the record to every member, then waits for every answer. Any error: the record is in doubt.
    fn send_to_all(
        &self,
        place: &Place,
        built: &Built,
        dataset: DatasetId,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
    ) -> Result<(), Error> {
        let data = built.data(change);
        self.client.count_round_trip();
        let mut failed = None;
        let mut waiting: Vec<(usize, Connection, u64)> = Vec::with_capacity(place.peers.len());
        for (i, peer) in place.peers.iter().enumerate() {
            let sent = peer.link.take(|| self.client.dialer(false)).and_then(|mut c| {
                let header = built.record.header(Kind::Commit, &built.meta, peer.store, 0);
                let request = c.send(header, &built.meta, &data)?;
                Ok((i, c, request))
            });
            match sent {
                Ok(x) => waiting.push(x),
                Err(e) => {
                    peer.link.distrust();
                    failed = Some(unacknowledged(peer, e));
                }
            }
        }
        let bytes: usize = data.iter().map(|d| d.len()).sum();
        let deadline = Instant::now() + self.lease * SILENCE + Duration::from_nanos(bytes as u64 * SLOWEST_NS_PER_BYTE);
        let (mut done, mut copies) = (false, 0);
        for (i, mut c, request) in waiting {
            let peer = &place.peers[i];
            let answer = c.receive(request, deadline).and_then(Answer::accept);
            let answer = answer.and_then(|a| Ok((message::decode::<Ack>(&a.meta)?, a.header)));
            match answer {
                Ok((ack, header)) if header.store == peer.store => {
                    peer.link.give(c);
                    copies += 1;
                    // The newest state and what this process has cached of it change at once.
                    let mut state = self.lock();
                    if place.epoch != self.epoch() {
                        continue; // who says so has forgotten it since: the outcome is asked for
                    }
                    done = state.holder.acked(peer.number, ack.id, clock::now());
                    if done {
                        self.absorb(&mut state, dataset, snapshot, change, ack.id);
                    }
                }
                Ok(_) => failed = Some(Error::Protocol("an acknowledgement of another store".into())),
                Err(e) => {
                    match e {
                        Error::Refused(_) => peer.link.give(c),
                        _ => peer.link.distrust(),
                    }
                    failed = Some(unacknowledged(peer, e));
                }
            }
        }
        match failed {
            None if done => {
                self.notify();
                Ok(())
            }
            other => {
                let mut state = self.lock();
                state.holder.doubt();
                (state.resolving, state.copies_now) = (true, copies);
                Err(other.unwrap_or_else(|| Error::Unavailable("not all members acknowledged".into())))
            }
        }
    }

    /// Asks until it is known whether the record in doubt was committed. The caller has set `resolving`, so there is
    /// one asker at a time; the background thread goes on asking when the caller's time is over.
    pub(crate) fn resolve(&self, deadline: Instant) -> Result<bool, Error> {
        let Some(flight) = self.lock().holder.flight().cloned() else {
            return Err(Error::OutcomeUnknown(
                "the commit is not in doubt any more, and its outcome was not kept".into(),
            ));
        };
        let question = || Outcome { session: self.client.session, token: flight.token, id: flight.id };
        let (answer, mut state) = loop {
            let answer = self.ask_primary::<_, OutcomeReply>(Kind::Outcome, deadline, question);
            let state = self.lock();
            if !matches!(&answer, Ok((_, asked)) if asked.epoch != self.epoch()) {
                break (answer, state); // else it was final for who has forgotten it since
            }
        };
        state.resolving = false;
        let result = match answer {
            Ok((reply, _)) => {
                state.holder.abandon();
                Ok(reply.committed)
            }
            Err(e) => {
                if !is_outage(&e) {
                    state.holder.abandon(); // nobody will ever be able to tell
                }
                Err(self.unknown(flight.id, &e))
            }
        };
        drop(state);
        self.notify();
        result
    }

    fn unknown(&self, id: RecordId, e: &Error) -> Error {
        let text = match is_outage(e) {
            true => format!("the outcome of commit {} is unknown: {e}", id.lsn),
            false => format!("the outcome of commit {} cannot be told: {e}", id.lsn),
        };
        Error::OutcomeUnknown(text)
    }

    /// Takes the lease again for the same transaction, if its snapshot is still the newest state. The reservation is
    /// kept meanwhile, so no other thread of the process gets in between.
    fn regain(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let deadline = self.deadline();
        loop {
            if Instant::now() >= deadline {
                return Err(conflict());
            }
            let mut state = self.lock();
            self.check_epoch(snapshot)?;
            let now = clock::now();
            if state.holder.valid(now) {
                if state.holder.tail().lsn != snapshot.lsn {
                    return Err(conflict());
                }
                let recall = state.holder.open(now);
                let token = state.holder.token().unwrap_or_default();
                self.answer_recall(&mut state, token, recall);
                return Ok(());
            }
            if let Some(place) = self.acquire(state, LOCAL, Duration::ZERO)? {
                self.forget(place);
                return Err(conflict()); // another transaction is open, and this one's snapshot is older
            }
        }
    }

    /// All members hold it: the process's own view moves on, under one lock.
    fn absorb(
        &self,
        state: &mut State,
        dataset: DatasetId,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
        id: RecordId,
    ) {
        let cache = &self.client.cache;
        state.holder.learned(id);
        let known = state.holder.tail().lsn;
        let until = if known > id.lsn { id.lsn.next() } else { OPEN };
        let old = state.sizes.get(&dataset).copied().unwrap_or(snapshot.size);
        if change.size < old {
            cache.supersede_from(dataset, dspm_proto::PageNo(dspm_proto::PageNo::count(change.size)), id.lsn);
        }
        for (page, content) in change.pages {
            let content: &PageBuf = content;
            cache.supersede(dataset, *page, id.lsn);
            cache.put(dataset, *page, id.lsn, until, content);
        }
        if known == id.lsn {
            state.sizes.insert(dataset, change.size);
        }
        state.copies_now = self.place().peers.len() as u32;
        state.pins.remove((snapshot.epoch, Lsn(snapshot.pin)));
        let epoch = self.epoch();
        state.pins.add((epoch, id.lsn));
        *snapshot = Snapshot { lsn: id.lsn, size: change.size, pin: id.lsn.0, epoch };
    }
}

/// Names the member in the error that users see when it is the one that is missing.
fn unacknowledged(peer: &Peer, e: Error) -> Error {
    match e {
        Error::Unavailable(why) => {
            let text = format!("node {} ({}) did not acknowledge the commit: {why}", peer.name, peer.link.address);
            Error::Unavailable(text)
        }
        other => other,
    }
}

fn conflict() -> Error {
    Error::Conflict("another commit came first".into())
}
