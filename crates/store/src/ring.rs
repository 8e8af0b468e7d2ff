//! A group's record ring: a stream of entries in 4 KiB parts, each a frame of the arena.
//!
//! Entries are packed one behind the other, header and metadata, over the borders of the parts. A position counts the
//! stream's bytes since the group began; position p lies in part p / 4096. Parts before the head are given back.
//!
//! Invariants: an entry's first 8 bytes are stored last, and the 8 bytes behind the newest entry are zero before
//! that, so the stream always ends at a zero word or at the end of the last part. Nothing published is changed, unless it
//! is damaged; what has to go is cut by an entry that says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dspm_proto::header::HEADER_SIZE;
use dspm_proto::{Error, GroupId, Header, PAGE_SIZE, StoreId};

use crate::arena::Arena;
use crate::layout::FrameNo;
use crate::meta::{FrameMeta, Use};
use crate::room::Draw;
use crate::step::step;

const PART: u64 = PAGE_SIZE as u64;

/// The parts that hold positions head..end.
pub(crate) struct Ring {
    arena: Arc<Arena>,
    group: GroupId,
    parts: VecDeque<FrameNo>,
    /// Number of the first part.
    first: u64,
    end: u64,
}

impl Ring {
    /// An empty ring whose next entry stands at `end`.
    pub(crate) fn new(arena: &Arc<Arena>, group: GroupId, end: u64) -> Ring {
        Ring { arena: arena.clone(), group, parts: VecDeque::new(), first: end / PART, end }
    }

    /// Puts found parts together; those before the head's are handed back to be freed.
    pub(crate) fn from_parts(
        arena: &Arc<Arena>,
        group: GroupId,
        head: u64,
        mut found: Vec<(u64, FrameNo)>,
    ) -> Result<(Ring, Vec<FrameNo>), Error> {
        found.sort_unstable();
        let mut ring = Ring::new(arena, group, head);
        let mut stale = Vec::new();
        for (number, frame) in found {
            if number < ring.first {
                stale.push(frame);
            } else if number == ring.first + ring.parts.len() as u64 {
                ring.parts.push_back(frame);
            } else {
                return Err(Error::Corrupt(format!("ring of group {group}: part {number} does not follow")));
            }
        }
        Ok((ring, stale))
    }

    /// Where the next entry goes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Recovery found the last entry's end.
    pub(crate) fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// Parts held.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    fn limit(&self) -> u64 {
        (self.first + self.parts.len() as u64) * PART
    }

    fn place(&self, position: u64) -> usize {
        let part = (position / PART - self.first) as usize;
        self.arena.layout.page_at(self.parts[part]) + (position % PART) as usize
    }

    fn write(&self, mut position: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = bytes.len().min((PART - position % PART) as usize);
            self.arena.map.write(self.place(position), &bytes[..n]);
            position += n as u64;
            bytes = &bytes[n..];
        }
    }

    /// Copies bytes out. The caller knows that they are there.
    pub(crate) fn read(&self, mut position: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let n = out.len().min((PART - position % PART) as usize);
            let (head, rest) = out.split_at_mut(n);
            self.arena.map.read(self.place(position), head);
            position += n as u64;
            out = rest;
        }
    }

    /// Makes room for an entry of that much metadata, so that [`Ring::push`] cannot fail.
    pub(crate) fn reserve(&mut self, meta_len: usize, draw: Draw) -> Result<(), Error> {
        let need = self.end + (HEADER_SIZE + padded(meta_len)) as u64;
        while self.limit() < need {
            let full = || Error::Full("the arena has no room for another record".into());
            let frame = self.arena.take(draw).ok_or_else(full)?;
            let number = self.first + self.parts.len() as u64;
            self.arena.map.store(self.arena.layout.page_at(frame), 0);
            self.arena.publish(frame, &FrameMeta::plain(Use::Ring, self.group, number));
            self.arena.ring_frames.fetch_add(1, Ordering::Relaxed);
            self.parts.push_back(frame);
        }
        Ok(())
    }

    /// Appends an entry: its first word last. Returns its position. Room was reserved.
    pub(crate) fn push(&mut self, header: Header, meta: &[u8]) -> u64 {
        let at = self.end;
        let end = at + (HEADER_SIZE + padded(meta.len())) as u64;
        if end < self.limit() {
            self.arena.map.store(self.place(end), 0);
        }
        self.rewrite(at, header, meta);
        self.end = end;
        at
    }

    /// Writes the entry at a position. One that is there already is damaged, and was this one.
    pub(crate) fn rewrite(&self, at: u64, mut header: Header, meta: &[u8]) {
        header.store = StoreId(self.arena.salt);
        header.request = at;
        let bytes = header.encode();
        self.write(at + HEADER_SIZE as u64, meta);
        step("ring metadata written");
        self.write(at + 8, &bytes[8..]);
        step("ring header written");
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        self.arena.map.store(self.place(at), u64::from_le_bytes(word));
        step("ring entry published");
    }

    /// The entry at a position and the position behind it; None at the stream's end.
    pub(crate) fn entry(&self, at: u64) -> Result<Option<(Header, Vec<u8>, u64)>, Error> {
        if at >= self.limit() || self.arena.map.load(self.place(at)) == 0 {
            return Ok(None);
        }
        let bad = || Error::Corrupt(format!("ring of group {} at {at}", self.group));
        if at + HEADER_SIZE as u64 > self.limit() {
            return Err(bad());
        }
        let mut bytes = [0u8; HEADER_SIZE];
        self.read(at, &mut bytes);
        let header = Header::decode(&bytes)?;
        let end = at + (HEADER_SIZE + padded(header.meta_len as usize)) as u64;
        if end > self.limit() || header.store.0 != self.arena.salt || header.request != at || header.group != self.group
        {
            return Err(bad());
        }
        let mut meta = vec![0; header.meta_len as usize];
        self.read(at + HEADER_SIZE as u64, &mut meta);
        header.verify_meta(&meta)?;
        Ok(Some((header, meta, end)))
    }

    /// Where a byte of the stream lies in the arena.
    #[cfg(test)]
    pub(crate) fn byte_at(&self, position: u64) -> usize {
        self.place(position)
    }

    /// Gives back the parts before the one that holds `head`. The slot already says so.
    pub(crate) fn drop_before(&mut self, head: u64) {
        while self.first < head / PART {
            let Some(frame) = self.parts.pop_front() else {
                self.first = head / PART;
                return;
            };
            self.first += 1;
            self.give_back(frame);
        }
    }

    /// Frees parts behind the stream's end (reserved by an append that a crash cut short).
    pub(crate) fn trim(&mut self) {
        while self.parts.len() > 1 && self.limit() - PART >= self.end {
            if let Some(frame) = self.parts.pop_back() {
                self.give_back(frame);
            }
        }
    }

    fn give_back(&self, frame: FrameNo) {
        self.arena.ring_frames.fetch_sub(1, Ordering::Relaxed);
        self.arena.free(frame);
    }

    /// Frees everything.
    pub(crate) fn clear(&mut self) {
        while let Some(frame) = self.parts.pop_back() {
            self.give_back(frame);
        }
    }
}

/// Entries start at multiples of 8.
pub(crate) fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}
