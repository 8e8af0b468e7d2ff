//! Publication of a record, and taking records back.
//!
//! Order of stores in an append: ring room, frame table entries, ring entry (the point of no return), index. A crash
//! before the ring entry leaves frames above the tail, which recovery frees. A cut appends an entry that says so
//! before it frees frames, so a crash leaves the records whole or gone. What a record takes back ([`crate::twophase`]) goes
//! in the same order: its ring entry says so.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use dspm_proto::record::{PageChange, Payload};
use dspm_proto::{Error, Header, Kind, Lsn, PageNo, RecordId, Refusal};

use crate::frames::FrameBuf;
use crate::group::{GroupStore, Hidden, Kept};
use crate::index::Dataset;
use crate::layout::FrameNo;
use crate::meta::{FrameMeta, Use};
use crate::room::Draw;
use crate::twophase::ring_header;

impl GroupStore {
    /// Publishes a record behind the tail. `frames[i]` holds record.pages[i] in full; None for zeros. The caller has
    /// decoded `record` from `meta` and checked the frames' content. After an error nothing has changed, and the
    /// frames are free.
    ///
    /// # Errors
    /// [`Refusal::NotNext`] unless it follows the tail; [`Error::Full`] when the ring finds no frame;
    /// [`Error::Usage`] when frames and pages do not fit together; [`Error::Corrupt`] for a page named twice.
    pub fn append(
        &mut self,
        record: &dspm_proto::record::Record,
        meta: &[u8],
        frames: Vec<Option<FrameBuf>>,
    ) -> Result<(), Error> {
        self.publish(record, meta, frames, Draw::Entry)
    }

    /// [`GroupStore::append`] of a record that another member, or the log, holds already: from the reserve if need be.
    ///
    /// # Errors
    /// As [`GroupStore::append`].
    pub fn append_settled(
        &mut self,
        record: &dspm_proto::record::Record,
        meta: &[u8],
        frames: Vec<Option<FrameBuf>>,
    ) -> Result<(), Error> {
        self.publish(record, meta, frames, Draw::Settle)?;
        self.arena.reserve.served();
        Ok(())
    }

    fn publish(
        &mut self,
        record: &dspm_proto::record::Record,
        meta: &[u8],
        frames: Vec<Option<FrameBuf>>,
        draw: Draw,
    ) -> Result<(), Error> {
        self.check(record, &frames)?;
        let taken = self.to_take_back(record)?;
        self.mend_open();
        self.reserve(meta.len(), draw)?;
        let mut placed = Vec::with_capacity(frames.len());
        for (page, frame) in record.pages.iter().zip(frames) {
            placed.push(frame.map(FrameBuf::into_page));
            if let Some(Some(frame)) = placed.last() {
                self.arena.publish(*frame, &self.frame_meta(record, page));
            }
        }
        let position = self.ring.push(ring_header(record, meta), meta);
        self.index_record(record, position, &placed);
        self.note_open(record, meta);
        if let Some(prepared) = taken {
            self.take_back(&prepared);
        }
        Ok(())
    }

    fn check(&self, record: &dspm_proto::record::Record, frames: &[Option<FrameBuf>]) -> Result<(), Error> {
        if record.group != self.id() {
            return Err(Error::Usage(format!("a record of group {} in group {}", record.group, self.id())));
        }
        if record.id.lsn != self.tail.lsn.next() || record.predecessor != self.tail.hash {
            return Err(Error::Refused(Refusal::NotNext));
        }
        let fits = |(p, f): (&PageChange, &Option<FrameBuf>)| {
            f.is_some() == (p.payload != Payload::Zero)
                && f.as_ref().is_none_or(|f| f.is_of(&self.arena))
                && (p.dataset as usize) < record.datasets.len()
        };
        if frames.len() != record.pages.len() || !record.pages.iter().zip(frames).all(fits) {
            return Err(Error::Usage("a record's frames do not fit its pages".into()));
        }
        if has_duplicates(&record.pages) {
            return Err(Error::Corrupt("a record names a page twice".into()));
        }
        Ok(())
    }

    fn frame_meta(&self, record: &dspm_proto::record::Record, page: &PageChange) -> FrameMeta {
        FrameMeta {
            used: Use::Page,
            group: record.group,
            dataset: record.datasets[page.dataset as usize].dataset,
            page: page.page,
            generation: record.id.generation,
            lsn: record.id.lsn,
            checksum: page.checksum,
        }
    }

    fn index_record(&mut self, record: &dspm_proto::record::Record, position: u64, placed: &[Option<FrameNo>]) {
        let lsn = record.id.lsn;
        self.note_sizes(record);
        self.note_writer(record);
        for (page, frame) in record.pages.iter().zip(placed) {
            let Some(frame) = frame else { continue };
            let id = record.datasets[page.dataset as usize].dataset;
            let d = self.datasets.entry(id).or_insert_with(|| Dataset::new(id));
            if d.insert(&self.arena, page.page.0, *frame) {
                self.superseded.push_back((lsn, id, Hidden::Page(page.page.0)));
            }
        }
        let pages = placed.iter().flatten().count();
        let dirty = self.arena.dirty.fetch_add(pages as u64, Ordering::Relaxed) + pages as u64;
        self.arena.backlog.grew();
        self.records.push_back(Kept { position, pages: pages as u32, part: record.part });
        self.tail = record.id;
        if dirty >= self.arena.flush_at.load(Ordering::Relaxed) || self.wants_flush() {
            self.arena.kick.now();
        }
    }

    /// Sizes, shrinking and zeros of a record. Recovery uses it too.
    pub(crate) fn note_sizes(&mut self, record: &dspm_proto::record::Record) {
        let (lsn, awaits) = (record.id.lsn, !self.is_whole());
        for c in &record.datasets {
            let d = self.datasets.entry(c.dataset).or_insert_with(|| Dataset::awaiting(c.dataset, awaits));
            if let Some(first) = d.resize(lsn, c.size) {
                self.superseded.push_back((lsn, c.dataset, Hidden::From(first)));
            }
        }
        for p in record.pages.iter().filter(|p| p.payload == Payload::Zero) {
            let c = record.datasets[p.dataset as usize];
            if p.page.0 >= PageNo::count(c.size) {
                continue; // beyond the end: the size says it
            }
            if let Some(d) = self.datasets.get_mut(&c.dataset) {
                d.zeros.insert((p.page.0, lsn));
                self.superseded.push_back((lsn, c.dataset, Hidden::Page(p.page.0)));
            }
        }
    }

    /// Drops the records above `to` and their pages: this member held them, and the group went another way.
    ///
    /// # Errors
    /// [`Error::TooOld`] below the committed LSN, or below the oldest record kept: copy the base again;
    /// [`Error::Full`] without a frame for the ring.
    pub fn cut(&mut self, to: Lsn) -> Result<(), Error> {
        if to >= self.tail.lsn {
            return Ok(());
        }
        let back = self.is_aborted(to); // what was taken back does not come again
        if back || to < self.base.lsn || to < self.slot.committed || (to < self.floor() && !self.holds_below_floor(to))
        {
            return Err(Error::TooOld(format!("group {}: LSN {to} cannot be gone back to", self.id())));
        }
        let tail = self.record_id(to).ok_or_else(|| Error::TooOld(format!("record {to} is gone")))?;
        self.reserve(0, Draw::Keep)?;
        let mut header = Header::new(Kind::Complete).for_meta(&[]);
        (header.group, header.lsn, header.generation) = (self.id(), to, tail.generation);
        self.ring.push(header, &[]);
        self.forget_above(to, tail);
        Ok(())
    }

    fn forget_above(&mut self, to: Lsn, tail: RecordId) {
        let mut dirty = 0;
        for lsn in (to.0 + 1)..=self.tail.lsn.0 {
            dirty += self.kept(Lsn(lsn)).filter(|_| Lsn(lsn) > self.counted_clean).map_or(0, |k| u64::from(k.pages));
        }
        self.arena.dirty.fetch_sub(dirty, Ordering::Relaxed);
        self.free_above(to);
        self.records.truncate((to.0 - self.base.lsn.0) as usize);
        self.sessions.cut(to);
        self.superseded.retain(|s| s.0 <= to);
        self.tail = tail;
        (self.counted_clean, self.closed) = (self.counted_clean.min(to), self.closed.min(to));
        self.epoch += 1;
        self.cut_to_log = Some(self.cut_to_log.map_or(to, |c| c.min(to)));
        self.owe();
        if self.slot.flushed > to || self.slot.horizon > to {
            self.slot.flushed = self.slot.flushed.min(to);
            self.slot.horizon = self.slot.horizon.min(to);
            self.place.write(&self.arena, &mut self.slot);
        }
    }

    /// True when a snapshot at `to` is whole although it is below the floor: a group rebuilt from disk calls all below
    /// its tail unsure, because a checkpoint may have been under way. What one has written is found by its LSN, and it
    /// cuts files off only where a record of the log did.
    fn holds_below_floor(&self, to: Lsn) -> bool {
        let untouched = |d: &Dataset| match &d.base {
            Some(b) => d.truncations.is_empty() && b.file.newest().is_ok_and(|l| l <= to),
            None => true,
        };
        let mut records = ((self.base.lsn.0 + 1)..=to.0).map(Lsn);
        self.base.lsn == self.checkpointed()
            && records.all(|l| self.is_kept(l))
            && self.datasets.values().all(untouched)
    }

    /// Frees the pages of the records above `to`.
    fn free_above(&mut self, to: Lsn) {
        for d in self.datasets.values_mut() {
            for page in d.pages_from(0) {
                while d.newest(page) != FrameNo::NONE && self.arena.lsn(d.newest(page)) > to {
                    let f = d.pop_newest(&self.arena, page);
                    self.arena.free(f);
                }
            }
            d.cut_lists(&self.arena, to);
        }
        self.datasets.retain(|_, d| !d.sizes.is_empty());
    }
}

fn has_duplicates(pages: &[PageChange]) -> bool {
    let key = |p: &PageChange| (p.dataset, p.page);
    if pages.len() <= 8 {
        return pages.iter().enumerate().any(|(i, p)| pages[..i].iter().any(|q| key(q) == key(p)));
    }
    let mut seen = HashSet::with_capacity(pages.len());
    !pages.iter().all(|p| seen.insert(key(p)))
}
