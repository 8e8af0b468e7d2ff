//! Reading the past: the primary is asked once, and told every L/3 what stays in use.
//!
//! Invariants: no snapshot is newer than what this process knows. What a snapshot of the past needs is in every word that
//! leaves this process from before the primary is asked for it until it is released. Words are counted under the group's
//! lock, so the primary can tell which of two is the later one, whatever connections they come by.

use super::ask::Asked;
use super::group::GroupClient;
use super::pins::Pins;
use dspm_proto::message::{self, AsOfReply, Keep};
use dspm_proto::{DatasetId, Error, Kind, Lsn, limits};
use dspm_txn::dataset::{AsOf, Intent, Snapshot};
use std::time::{Duration, Instant};

/// What this process reads of a group's past.
#[derive(Default)]
pub(crate) struct Keeps {
    pub(crate) pins: Pins,
    word: u64,
    told: Lsn,
}

impl Keeps {
    /// The next word: its number, and the oldest state in use.
    fn word(&mut self, epoch: u64) -> (u64, Lsn) {
        self.word += 1;
        self.told = self.pins.lowest(epoch).unwrap_or_default();
        (self.word, self.told)
    }
}

impl GroupClient {
    /// Begins a read of the past.
    pub(crate) fn begin_as_of(&self, dataset: DatasetId, at: AsOf) -> Result<Snapshot, Error> {
        let deadline = self.deadline();
        loop {
            let lsn = match at {
                AsOf::Lsn(lsn) => lsn,
                AsOf::Ago(ago) => self.ask_past(Lsn(0), ago, deadline)?.0.lsn,
            };
            let mut state = self.lock();
            let pin = (self.epoch(), lsn);
            state.keeps.pins.add(pin);
            drop(state);
            let answer = self.ask_past(lsn, Duration::ZERO, deadline);
            let answer = answer.and_then(|a| self.catch_up(dataset, lsn).map(|()| a));
            let mut state = self.lock();
            // An answer of another epoch than that of the pin is about another history.
            let fits = |asked: &Asked| asked.epoch == pin.0 && self.epoch() == pin.0;
            match answer {
                Ok((reply, asked)) if fits(&asked) => {
                    let size = reply.sizes.iter().find(|s| s.dataset == dataset).map_or(0, |s| s.size);
                    return Ok(Snapshot { lsn, size, pin: lsn.0, turn: 0, ticket: None, epoch: pin.0, past: true });
                }
                Ok(_) if Instant::now() < deadline => state.keeps.pins.remove(pin),
                other => {
                    state.keeps.pins.remove(pin);
                    return Err(other.err().unwrap_or_else(|| self.overtaken()));
                }
            }
        }
    }

    /// Open versions of the cache are proven up to what this process knows, so no snapshot may be above that.
    fn catch_up(&self, dataset: DatasetId, lsn: Lsn) -> Result<(), Error> {
        if self.lock().holder.tail().lsn < lsn {
            let newest = self.begin(dataset, Intent::Read)?;
            self.unpin(&newest);
        }
        match self.lock().holder.tail().lsn >= lsn {
            true => Ok(()),
            false => Err(Error::Protocol(format!("commit {lsn} was shown, but is not in the newest state"))),
        }
    }

    /// Asks for a commit, or (`at` is 0) for what was the newest so long ago.
    fn ask_past(&self, at: Lsn, ago: Duration, deadline: Instant) -> Result<(AsOfReply, Asked), Error> {
        let question = || {
            let (word, keep) = self.lock().keeps.word(self.epoch());
            message::AsOf { session: self.client.session, word, keep, at, ago_ns: ago.as_nanos() as u64 }
        };
        let answer = self.ask_primary::<_, AsOfReply>(Kind::AsOf, deadline, question);
        let (reply, asked) = answer.map_err(|e| self.explain(e))?;
        let other = at > Lsn(0) && reply.lsn != at;
        if other || reply.lsn.0 > limits::LSN_MAX || reply.sizes.iter().any(|s| s.size > limits::DATASET_MAX) {
            return Err(Error::Protocol(format!("a past state at commit {}", reply.lsn)));
        }
        Ok((reply, asked))
    }

    /// The primary knows commits, people know names.
    fn explain(&self, e: Error) -> Error {
        let name = &self.entry.name;
        match e {
            Error::TooOld(text) => {
                let kept = match Duration::from_millis(self.entry.history_ms) {
                    Duration::ZERO => "it was made without `history`".to_owned(),
                    history => format!("its `history` is {history:?}"),
                };
                Error::TooOld(format!("dataset {name}: {text} ({kept})"))
            }
            Error::Usage(text) => Error::Usage(format!("dataset {name}: {text}")),
            other => other,
        }
    }

    /// Tells the primary what of the past is in use here, as long as something is, and once when nothing is any more.
    pub(crate) fn say_keep(&self) {
        let mut state = self.lock();
        if state.keeps.pins.lowest(self.epoch()).is_none() && state.keeps.told == Lsn(0) {
            return;
        }
        let (word, keep) = state.keeps.word(self.epoch());
        drop(state);
        let place = self.place();
        self.tell(&place, place.primary(), Kind::Keep, &Keep { session: self.client.session, word, keep });
    }
}
