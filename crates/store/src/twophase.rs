//! Records of transactions over several groups: which are prepared, decide or abort, and how one is taken back.
//!
//! Order of taking back: the ring's entry of the record that aborts (the point of no return), then the index, then frames
//! are freed. Recovery finds the entry and frees what a crash left.
//!
//! Invariants: a prepared record is taken back while it is the tail, so nothing stands on its pages, and after the log has
//! it, so the log is whole. Its record stays in the chain: what goes are its pages, zeros, shrinkings and sizes. Whoever has a
//! record behind a prepared one has the record that resolves it: neither ring nor log begins between the two. An open
//! decision at the tail stands in the ring and behind the checkpoint, whatever is dropped. Both are kept a second time beside
//! the ring while they are the tail: nothing about them waits for an entry that is damaged, which is written again from that.

use std::sync::atomic::Ordering;

use dspm_proto::record::{Payload, Record};
use dspm_proto::{Error, Header, Kind, Link, Lsn, Part, Refusal, StoreId};

use crate::group::GroupStore;
use crate::index::Dataset;
use crate::layout::FrameNo;
use crate::step::step;

impl GroupStore {
    /// The part of a record of the ring; [`Part::Alone`] when it is not there as a record.
    pub fn part(&self, lsn: Lsn) -> Part {
        self.kept(lsn).map_or(Part::Alone, |k| k.part)
    }

    /// The records of other groups that a record of the ring names.
    pub fn links(&self, lsn: Lsn) -> Vec<Link> {
        if matches!(self.part(lsn), Part::Alone | Part::Aborts) {
            return Vec::new();
        }
        self.decoded(lsn).ok().flatten().map_or_else(Vec::new, |(record, _)| record.links)
    }

    /// True when the record behind it took that one back.
    pub fn is_aborted(&self, lsn: Lsn) -> bool {
        self.part(lsn.next()) == Part::Aborts
    }

    /// Nobody will ask about the decision at the tail: it goes the way of other records. A restart forgets that.
    pub fn close(&mut self, decision: Lsn) {
        self.closed = self.closed.max(decision.min(self.tail.lsn));
    }

    /// Up to here records may be known as pages alone: a decision at the tail is asked for by its record.
    pub(crate) fn forgettable(&self) -> Lsn {
        let tail = self.tail.lsn;
        let open = self.part(tail) == Part::Decides && self.closed < tail;
        if open { Lsn(tail.0 - 1) } else { Lsn(u64::MAX) }
    }

    /// The prepared record that this one takes back, if it does.
    ///
    /// # Errors
    /// [`Refusal::NotNext`] when the tail is not prepared; [`Error::Full`] before the log has it: again later.
    pub(crate) fn to_take_back(&self, record: &Record) -> Result<Option<Record>, Error> {
        if record.part != Part::Aborts {
            return Ok(None);
        }
        let tail = self.tail.lsn;
        if self.part(tail) != Part::Prepared {
            return Err(Error::Refused(Refusal::NotNext));
        }
        if self.arena.disk.load(Ordering::Relaxed) && self.flushed() < tail {
            return Err(Error::Full(format!("record {tail} is not in the log yet, and has to be before it is void")));
        }
        let prepared = self.decoded(tail)?.ok_or_else(|| Error::Corrupt(format!("record {tail} cannot be read")))?;
        Ok(Some(prepared.0))
    }

    /// Takes the pages of the record before the tail out of the index and frees them.
    pub(crate) fn take_back(&mut self, prepared: &Record) {
        let lsn = prepared.id.lsn;
        step("aborted");
        for p in prepared.pages.iter().filter(|p| p.payload != Payload::Zero) {
            let id = prepared.datasets[p.dataset as usize].dataset;
            let Some(d) = self.datasets.get_mut(&id) else { continue };
            let newest = d.newest(p.page.0);
            if newest != FrameNo::NONE && self.arena.lsn(newest) == lsn {
                d.pop_newest(&self.arena, p.page.0);
                self.arena.free(newest);
            }
        }
        if lsn > self.counted_clean {
            let pages = self.kept(lsn).map_or(0, |k| u64::from(k.pages));
            self.arena.dirty.fetch_sub(pages, Ordering::Relaxed);
        }
        while self.superseded.back().is_some_and(|s| s.0 == lsn) {
            self.superseded.pop_back();
        }
        self.forget_taken(lsn);
    }

    /// Forgets what a record said that was taken back, frames in the index excepted. Recovery uses it too.
    pub(crate) fn forget_taken(&mut self, lsn: Lsn) {
        let at = lsn.0.checked_sub(self.base.lsn.0 + 1).map(|i| i as usize);
        if let Some(kept) = at.and_then(|i| self.records.get_mut(i)) {
            kept.pages = 0;
        }
        let arena = self.arena.clone();
        self.datasets.values_mut().for_each(|d| d.forget(&arena, lsn));
        self.datasets.retain(|_, d| !d.sizes.is_empty());
        self.sessions.took_back(lsn);
    }

    /// Remembers the newest record, if others ask about it or it may be taken back.
    pub(crate) fn note_open(&mut self, record: &Record, meta: &[u8]) {
        let open = matches!(record.part, Part::Prepared | Part::Decides);
        self.open = open.then(|| (record.clone(), meta.to_vec()));
    }

    /// The newest record as it is remembered beside the ring.
    pub(crate) fn remembered(&self, lsn: Lsn) -> Option<&(Record, Vec<u8>)> {
        self.open.as_ref().filter(|open| lsn == self.tail.lsn && open.0.id == self.tail)
    }

    /// A record follows, so the newest one is remembered no longer: its entry has to be sound.
    pub(crate) fn mend_open(&mut self) {
        let Some(kept) = self.records.back().filter(|_| self.open.is_some()) else { return };
        let position = kept.position;
        if !matches!(self.ring.entry(position), Ok(Some(_))) && self.rewrite_open(position) {
            self.arena.checksum_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes the ring's entry at that position again, where it is the one that is remembered.
    pub(crate) fn rewrite_open(&mut self, position: u64) -> bool {
        let is_newest = self.records.back().is_some_and(|k| k.position == position);
        let Some((record, meta)) = self.remembered(self.tail.lsn).filter(|_| is_newest) else { return false };
        self.ring.rewrite(position, ring_header(record, meta), meta);
        true
    }

    /// Remembers a record as its process's newest. A resolution is nobody's: a process asks about its prepared record.
    pub(crate) fn note_writer(&mut self, record: &Record) {
        if !record.is_empty() {
            self.sessions.wrote(record.session, record.id);
        }
    }
}

/// Header of a record's entry in the ring.
pub(crate) fn ring_header(record: &Record, meta: &[u8]) -> Header {
    Header { flags: 0, ..record.header(Kind::Commit, meta, StoreId(0), 0) }
}

impl Dataset {
    /// Forgets what one record said, frames excepted.
    fn forget(&mut self, arena: &crate::arena::Arena, lsn: Lsn) {
        for (_, lost) in self.lost.iter().filter(|(k, _)| k.1 == lsn) {
            arena.free(lost.frame);
        }
        self.sizes.retain(|s| s.0 != lsn);
        self.truncations.retain(|t| t.0 != lsn);
        self.zeros.retain(|z| z.1 != lsn);
        self.lost.retain(|k, _| k.1 != lsn);
    }
}
