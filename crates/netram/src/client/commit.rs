//! One commit: build the record, have it sent to all members, settle what is in doubt.
//!
//! Invariant: a commit fails for certain only when it went to no member, or when its outcome was asked for.

use super::ask::is_outage;
use super::cache::OPEN;
use super::encode::{Encoded, encode};
use super::group::{GroupClient, Peer, Place, State};
use super::reserve::LOCAL;
use super::send::{Built, Changed, Commit};
use crate::clock;
use dspm_proto::message::{Outcome, OutcomeReply};
use dspm_proto::record::{DatasetChange, Record};
use dspm_proto::{Error, Kind, Link, Lsn, PAGE_SIZE, PageNo, Part, RecordId, Token, limits};
use dspm_txn::dataset::{PageBuf, Snapshot};
use std::time::{Duration, Instant};

/// A commit that gave up waiting for room asks for its outcome for at least this long.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

impl GroupClient {
    /// Commits under the reservation; the snapshot becomes the commit's own state.
    pub(super) fn commit(&self, snapshot: &mut Snapshot, changes: Vec<Changed<'_>>) -> Result<Lsn, Error> {
        let mut commit = Commit { snapshot, changes };
        commit.check()?;
        let deadline = self.deadline();
        if self.lock().holder.token().is_none() {
            self.regain(commit.snapshot)?; // an earlier commit of this reservation was in doubt, which cost the token
        }
        let mut again = false;
        loop {
            let place = self.place();
            self.check_room_for(&place, commit.pages(), deadline)?;
            let built = self.build(&place, &commit, !again, Part::Alone, Vec::new())?;
            self.take_off(&place, &built)?;
            let id = built.record.id;
            let Err(error) = self.send_to_all(&place, &built, &mut commit, deadline) else {
                return Ok(id.lsn);
            };
            let full = matches!(error, Error::Full(_));
            // Under one lock with the end of the doubt: no transaction of another thread begins before it, and no other
            // epoch.
            let absorb = |state: &mut State| self.absorb(state, &mut commit, id.lsn, id.lsn, Some(id));
            let outcome = self.resolve(if full { self.last_word(deadline) } else { deadline }, absorb);
            if outcome.map_err(|e| with_cause(e, &error))? {
                return Ok(id.lsn);
            }
            match error {
                Error::Full(_) => return Err(error),
                _ if Instant::now() >= deadline => return Err(error),
                _ => again = true,
            }
            // Again under a new token, if nothing came in between: members that restart one after the other each cost
            // a try.
            self.regain(commit.snapshot)?;
        }
    }

    /// When an outcome is not asked for any more.
    pub(super) fn last_word(&self, deadline: Instant) -> Instant {
        deadline.max(Instant::now() + LAST_WORD.max(self.lease * 4))
    }

    /// A record that a member can never hold must not reach the others. How much a member takes it says when it is
    /// connected to.
    pub(super) fn check_room_for(&self, place: &Place, pages: usize, deadline: Instant) -> Result<(), Error> {
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

    /// The lease and the state that a commit on top of that snapshot follows.
    pub(super) fn standing(&self, state: &State, snapshot: &Snapshot) -> Result<(Token, RecordId), Error> {
        self.check_epoch(snapshot)?;
        let token = state.holder.token().ok_or_else(conflict)?;
        let base = state.holder.tail();
        match state.holder.is_open() && base.lsn == snapshot.lsn {
            true => Ok((token, base)),
            false => Err(conflict()),
        }
    }

    /// Builds the record.
    pub(super) fn build(
        &self,
        place: &Place,
        commit: &Commit<'_>,
        deltas: bool,
        part: Part,
        links: Vec<Link>,
    ) -> Result<Built, Error> {
        let Commit { snapshot, changes } = commit;
        let mut state = self.lock();
        let (token, base) = self.standing(&state, snapshot)?;
        state.transactions += 1;
        // Who is joining lacks the versions that deltas are made against.
        let cache = (deltas && place.peers.iter().all(|p| p.complete)).then_some(&self.client.cache);
        let Encoded { pages, deltas, full } = encode(cache, base.lsn, changes);
        let mut record = Record {
            group: self.entry.group,
            id: RecordId { generation: place.set.generation, lsn: base.lsn.next(), hash: 0 },
            token,
            session: self.client.session,
            transaction: state.transactions,
            predecessor: base.hash,
            floor: self.floor(&state),
            part,
            datasets: changes.iter().map(|(dataset, c)| DatasetChange { dataset: *dataset, size: c.size }).collect(),
            links,
            pages,
        };
        let meta = record.seal();
        Ok(Built { record, meta, deltas, full })
    }

    /// Marks the record as in flight, if it still follows the newest state under the lease that is here.
    pub(super) fn take_off(&self, place: &Place, built: &Built) -> Result<(), Error> {
        let Record { id, token, predecessor, part, .. } = built.record;
        let mut state = self.lock();
        let base = state.holder.tail();
        if state.holder.token() != Some(token) || (base.lsn.next(), base.hash) != (id.lsn, predecessor) {
            return Err(conflict());
        }
        let flight = match part {
            Part::Prepared => state.holder.send_prepared(id, place.members()),
            _ => state.holder.send(id, place.members()),
        };
        flight.map(|_| ()).ok_or_else(conflict)
    }

    /// Asks until it is known whether the record in doubt was committed, which `absorb` takes in. The caller has set
    /// `resolving`, so there is one asker at a time; the background thread goes on asking when the caller's time is over.
    pub(crate) fn resolve(&self, deadline: Instant, absorb: impl FnOnce(&mut State)) -> Result<bool, Error> {
        let asker = Asker { group: self, asks: true };
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
        asker.ends(&mut state);
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
    pub(super) fn regain(&self, snapshot: &Snapshot) -> Result<(), Error> {
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
            match self.acquire(state, LOCAL, Duration::ZERO, deadline) {
                Ok(None) => {}
                Ok(Some(place)) => {
                    self.forget(place);
                    return Err(conflict()); // another transaction is open, and this one's snapshot is older
                }
                Err(Error::Busy(why)) => return Err(Error::Conflict(why)), // a COMMIT that says busy would be repeated
                Err(e) => return Err(e),
            }
        }
    }

    /// All members hold it: the process's own view moves on, under one lock. The pages are of commit `at`, the snapshot
    /// becomes the one at `shown`; `tail` is that commit, if its identity is known.
    pub(super) fn absorb(
        &self,
        state: &mut State,
        commit: &mut Commit<'_>,
        at: Lsn,
        shown: Lsn,
        tail: Option<RecordId>,
    ) {
        let Commit { changes, snapshot } = commit;
        let cache = &self.client.cache;
        let before = Lsn(at.0 - 1); // its base: the process knew that, and nothing came in between
        if let Some(tail) = tail {
            state.holder.learned(tail);
        }
        let known = state.holder.tail().lsn;
        let until = if known > shown { shown.next() } else { OPEN };
        for (i, (dataset, change)) in changes.iter().enumerate() {
            let dataset = *dataset;
            state.touch(dataset, at);
            let unknown = if i == 0 { snapshot.size } else { 0 };
            if change.size < state.sizes.get(&dataset).copied().unwrap_or(unknown) {
                cache.supersede_from(dataset, PageNo(PageNo::count(change.size)), at, before);
            }
            for (page, content) in change.pages {
                let content: &PageBuf = content;
                cache.supersede(dataset, *page, at, before);
                cache.put(dataset, *page, at, until, content);
            }
            if known == shown {
                state.sizes.insert(dataset, change.size);
            }
        }
        let size = changes.first().map_or(snapshot.size, |c| c.1.size);
        state.copies_now = self.place().complete().count() as u32;
        state.pins.remove((snapshot.epoch, Lsn(snapshot.pin)));
        let epoch = self.epoch();
        state.pins.add((epoch, shown));
        (snapshot.lsn, snapshot.size, snapshot.pin, snapshot.epoch) = (shown, size, shown.0, epoch);
    }
}

impl Commit<'_> {
    /// Refuses what no node could take.
    pub(super) fn check(&self) -> Result<(), Error> {
        for (what, n, most) in
            [("pages", self.pages(), limits::RECORD_PAGES_MAX), ("datasets", self.changes.len(), limits::DATASETS_MAX)]
        {
            if n > most {
                return Err(Error::Full(format!("a transaction of {n} {what}; at most {most} are possible")));
            }
        }
        match self.changes.iter().map(|c| c.1.size).find(|size| *size > limits::DATASET_MAX) {
            Some(size) => {
                Err(Error::Full(format!("a dataset of {size} bytes; at most {} are possible", limits::DATASET_MAX)))
            }
            None => Ok(()),
        }
    }

    /// How many it changes.
    pub(super) fn pages(&self) -> usize {
        self.changes.iter().map(|c| c.1.pages.len()).sum()
    }
}

/// The one that asks for the outcome of a group's record in doubt. When this is dropped it asks no more, so also in a
/// thread that panics: else nobody would ever ask again, and whoever wants to begin would wait for it.
struct Asker<'a> {
    group: &'a GroupClient,
    asks: bool,
}

impl Asker<'_> {
    /// Under the lock under which the doubt ended: the next doubt has an asker of its own.
    fn ends(mut self, state: &mut State) {
        state.resolving = false;
        self.asks = false;
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        if self.asks {
            self.group.lock().resolving = false;
            self.group.notify();
        }
    }
}

/// Why a record is in doubt, before what was learned of it.
pub(super) fn with_cause(e: Error, cause: &Error) -> Error {
    match (e, cause) {
        (Error::OutcomeUnknown(text), Error::Unavailable(why) | Error::Full(why)) => {
            Error::OutcomeUnknown(format!("{why}; {text}"))
        }
        (e, _) => e,
    }
}

pub(super) fn conflict() -> Error {
    Error::Conflict("another commit came first".into())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, group_of};
    use super::*;
    use crate::wire::{frame, reply_to};
    use dspm_proto::{Generation, message};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn who_panics_while_it_asks_asks_no_more() {
        let told = message::encode(&OutcomeReply { committed: true, ..OutcomeReply::default() });
        let node = FakeNode::start(move |_, h| (h.kind == Kind::Outcome).then(|| frame(reply_to(h), &told, 0)));
        let group = group_of(&node);
        let tail = RecordId { generation: Generation(1), lsn: Lsn(4), hash: 4 };
        let (token, now) = (Token { generation: Generation(1), boot: 1, n: 1 }, clock::now());
        let mut state = group.lock();
        assert!(state.holder.granted(token, now, Duration::from_secs(600), tail, now));
        state.holder.open(now);
        assert!(state.holder.send(RecordId { lsn: Lsn(5), hash: 5, ..tail }, vec![0]).is_some());
        state.holder.doubt();
        state.resolving = true;
        drop(state);
        let asked = catch_unwind(AssertUnwindSafe(|| group.resolve(group.deadline(), |_| panic!("on purpose"))));
        assert!(asked.is_err());
        assert!(!group.lock().resolving, "nobody would ever ask again");
    }
}
