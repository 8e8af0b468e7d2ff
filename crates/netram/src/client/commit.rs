//! One commit: build the record, have it sent to all members, settle what is in doubt.
//!
//! Invariant: a commit fails for certain only when it went to no member, or when its outcome was asked for.

use super::ask::is_outage;
use super::cache::OPEN;
use super::encode::{Encoded, encode};
use super::group::{GroupClient, Peer, Place, State};
use super::reserve::LOCAL;
use super::send::{Built, Commit};
use crate::clock;
use dspm_proto::message::{Outcome, OutcomeReply};
use dspm_proto::record::{DatasetChange, Record};
use dspm_proto::{DatasetId, Error, Kind, Lsn, PAGE_SIZE, Part, RecordId, limits};
use dspm_txn::dataset::{Change, PageBuf, Snapshot};
use std::time::{Duration, Instant};

/// A commit that gave up waiting for room asks for its outcome for at least this long.
const LAST_WORD: Duration = Duration::from_secs(1);

impl GroupClient {
    /// Commits under the reservation; the snapshot becomes the commit's own state.
    pub(crate) fn commit(
        &self,
        dataset: DatasetId,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
    ) -> Result<Lsn, Error> {
        if change.pages.len() > limits::RECORD_PAGES_MAX {
            let most = limits::RECORD_PAGES_MAX;
            let text = format!("a transaction of {} pages; at most {most} are possible", change.pages.len());
            return Err(Error::Full(text));
        }
        if change.size > limits::DATASET_MAX {
            let text = format!("a dataset of {} bytes; at most {} are possible", change.size, limits::DATASET_MAX);
            return Err(Error::Full(text));
        }
        let deadline = self.deadline();
        if self.lock().holder.token().is_none() {
            self.regain(snapshot)?; // an earlier commit of this reservation was in doubt, which cost the token
        }
        let mut again = false;
        loop {
            let place = self.place();
            self.check_room_for(&place, change.pages.len(), deadline)?;
            let built = self.launch(&place, dataset, snapshot, change, !again)?;
            let id = built.record.id;
            let mut commit = Commit { dataset, snapshot, change };
            let Err(error) = self.send_to_all(&place, &built, &mut commit, deadline) else {
                return Ok(id.lsn);
            };
            let full = matches!(error, Error::Full(_));
            let last_word = Instant::now() + LAST_WORD.max(self.lease * 4);
            // Under one lock with the end of the doubt: no transaction of another thread begins before it, and no other
            // epoch.
            let absorb = |state: &mut State| self.absorb(state, &mut commit, id);
            let outcome = self.resolve(if full { deadline.max(last_word) } else { deadline }, absorb);
            let outcome = outcome.map_err(|e| match (e, &error) {
                (Error::OutcomeUnknown(text), Error::Unavailable(why) | Error::Full(why)) => {
                    Error::OutcomeUnknown(format!("{why}; {text}"))
                }
                (e, _) => e,
            });
            if outcome? {
                return Ok(id.lsn);
            }
            match error {
                Error::Full(_) => return Err(error),
                _ if Instant::now() >= deadline => return Err(error),
                _ => again = true,
            }
            // Again under a new token, if nothing came in between: members that restart one after the other each cost
            // a try.
            self.regain(snapshot)?;
        }
    }

    /// A record that a member can never hold must not reach the others. How much a member takes it says when it is
    /// connected to.
    fn check_room_for(&self, place: &Place, pages: usize, deadline: Instant) -> Result<(), Error> {
        for peer in &place.peers {
            let most = match peer.link.record_pages_max() {
                Some(most) => most,
                None if pages <= limits::RECORD_PAGES_MIN => continue,
                None => self.ask_room(peer, deadline)?,
            };
            if pages as u64 > most {
                let mib = (pages * PAGE_SIZE) >> 20;
                let text = format!(
                    "a transaction of {pages} pages ({mib} MiB); node {} ({}) has memory for at most {most} in one",
                    peer.name, peer.link.address
                );
                return Err(Error::Full(text));
            }
        }
        Ok(())
    }

    fn ask_room(&self, peer: &Peer, deadline: Instant) -> Result<u64, Error> {
        loop {
            let dialled = peer.link.take(|| self.client.dialer(false)).map(|c| peer.link.give(c));
            match (peer.link.record_pages_max(), dialled) {
                (Some(most), _) => return Ok(most),
                (None, Err(e)) if Instant::now() >= deadline => return Err(self.outage(peer, &e)),
                (None, Ok(())) => {
                    let text = format!("node {} ({}) does not say how much it takes", peer.name, peer.link.address);
                    return Err(Error::Protocol(text));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
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
        // Who is joining lacks the versions that deltas are made against.
        let cache = (deltas && place.peers.iter().all(|p| p.complete)).then_some(&self.client.cache);
        let Encoded { pages, deltas, full } = encode(cache, dataset, base.lsn, change);
        let mut record = Record {
            group: self.entry.group,
            id: RecordId { generation: place.set.generation, lsn: base.lsn.next(), hash: 0 },
            token,
            session: self.client.session,
            transaction: state.transactions,
            predecessor: base.hash,
            floor: self.floor(&state),
            part: Part::Alone,
            datasets: vec![DatasetChange { dataset, size: change.size }],
            links: Vec::new(),
            pages,
        };
        let meta = record.seal();
        let built = Built { record, meta, deltas, full };
        let members = place.peers.iter().map(|p| p.number).collect();
        state.holder.send(built.record.id, members).ok_or_else(conflict)?;
        Ok(built)
    }

    /// Asks until it is known whether the record in doubt was committed, which `absorb` takes in. The caller has set
    /// `resolving`, so there is one asker at a time; the background thread goes on asking when the caller's time is over.
    pub(crate) fn resolve(&self, deadline: Instant, absorb: impl FnOnce(&mut State)) -> Result<bool, Error> {
        let Some(flight) = self.lock().holder.flight().cloned() else {
            return Err(Error::OutcomeUnknown(
                "the commit is not in doubt any more, and its outcome was not kept".into(),
            ));
        };
        let question = || Outcome { session: self.client.session, token: flight.token, id: flight.question() };
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
                if reply.committed {
                    absorb(&mut state);
                }
                Ok(reply.committed)
            }
            Err(e) => {
                if !is_outage(&e) {
                    state.holder.abandon(); // nobody will ever be able to tell
                }
                Err(self.unknown(flight.id, &e))
            }
        };
        state.line.wake();
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
            if let Some(place) = self.acquire(state, LOCAL, Duration::ZERO, deadline)? {
                self.forget(place);
                return Err(conflict()); // another transaction is open, and this one's snapshot is older
            }
        }
    }

    /// All members hold it: the process's own view moves on, under one lock.
    pub(super) fn absorb(&self, state: &mut State, commit: &mut Commit<'_>, id: RecordId) {
        let Commit { dataset, change, snapshot } = commit;
        let dataset = *dataset;
        let cache = &self.client.cache;
        let before = Lsn(id.lsn.0 - 1); // its base: the process knew that, and nothing came in between
        state.holder.learned(id);
        let known = state.holder.tail().lsn;
        let until = if known > id.lsn { id.lsn.next() } else { OPEN };
        let old = state.sizes.get(&dataset).copied().unwrap_or(snapshot.size);
        if change.size < old {
            cache.supersede_from(dataset, dspm_proto::PageNo(dspm_proto::PageNo::count(change.size)), id.lsn, before);
        }
        for (page, content) in change.pages {
            let content: &PageBuf = content;
            cache.supersede(dataset, *page, id.lsn, before);
            cache.put(dataset, *page, id.lsn, until, content);
        }
        if known == id.lsn {
            state.sizes.insert(dataset, change.size);
        }
        state.copies_now = self.place().complete().count() as u32;
        state.pins.remove((snapshot.epoch, Lsn(snapshot.pin)));
        let epoch = self.epoch();
        state.pins.add((epoch, id.lsn));
        (snapshot.lsn, snapshot.size, snapshot.pin, snapshot.epoch) = (id.lsn, change.size, id.lsn.0, epoch);
    }
}

fn conflict() -> Error {
    Error::Conflict("another commit came first".into())
}
