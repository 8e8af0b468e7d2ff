//! The pages of one dataset: page → newest version, older ones chained through the arena's `older` table.
//!
//! Sixteen pages share a leaf, so that a dense dataset costs 8 bytes a page and a sparse one about 100.
//! Invariant: along a chain LSNs fall strictly. Content that is no frame (zeros, shrinking, damage) stands in the
//! lists beside it; the newest of all at or below a snapshot is what the snapshot sees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use dspm_proto::{DatasetId, Lsn, PageNo};

use crate::arena::Arena;
use crate::base::BaseFile;
use crate::layout::FrameNo;

const LEAF: u64 = 16;

/// Leaf numbers are small integers: one multiplication spreads them.
#[derive(Default)]
pub(crate) struct LeafHasher(u64);

impl Hasher for LeafHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        let x = (self.0 ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = x ^ (x >> 32);
    }
}

type Leaves = HashMap<u64, [u32; LEAF as usize], BuildHasherDefault<LeafHasher>>;

/// What a base file holds of a dataset.
#[derive(Clone)]
pub(crate) struct Base {
    pub(crate) lsn: Lsn,
    pub(crate) file: Arc<BaseFile>,
}

/// A version whose copy here is damaged. Its frame stays the group's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    /// What its content must have.
    pub(crate) sum: u64,
    pub(crate) frame: FrameNo,
    /// No good copy was found: log and base files take the damaged one along, under that checksum.
    pub(crate) given_up: bool,
}

impl Lost {
    pub(crate) fn new(sum: u64, frame: FrameNo) -> Lost {
        Lost { sum, frame, given_up: false }
    }
}

/// The newest content of a page at a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Frame(FrameNo, Lsn),
    Zero(Lsn),
    Lost(Lsn, u64),
    Base(Lsn),
}

/// One dataset of a group.
pub(crate) struct Dataset {
    pub(crate) id: DatasetId,
    leaves: Leaves,
    /// (LSN, size from there on), rising; never empty after the first record.
    pub(crate) sizes: Vec<(Lsn, u64)>,
    /// (LSN, first page that is gone from there on), rising.
    pub(crate) truncations: Vec<(Lsn, u64)>,
    /// (page, LSN) of zeros written.
    pub(crate) zeros: BTreeSet<(u64, Lsn)>,
    /// (page, LSN) → versions whose frame was found damaged; the frame stays taken, so that the damage is found again.
    pub(crate) lost: BTreeMap<(u64, Lsn), Lost>,
    pub(crate) base: Option<Base>,
    /// A base file is still to come: zeros and shrinkings have to be told from what nobody wrote.
    pub(crate) awaits: bool,
    /// LSN of the newest shrinking that is no longer in the list.
    pub(crate) forgotten: Lsn,
}

impl Dataset {
    pub(crate) fn new(id: DatasetId) -> Dataset {
        Dataset {
            id,
            leaves: Leaves::default(),
            sizes: Vec::new(),
            truncations: Vec::new(),
            zeros: BTreeSet::new(),
            lost: BTreeMap::new(),
            base: None,
            awaits: false,
            forgotten: Lsn(0),
        }
    }

    /// One whose base file may be still to come.
    pub(crate) fn awaiting(id: DatasetId, awaits: bool) -> Dataset {
        Dataset { awaits, ..Dataset::new(id) }
    }

    /// Size in bytes at a snapshot.
    pub(crate) fn size(&self, at: Lsn) -> u64 {
        self.sizes.iter().rev().find(|(l, _)| *l <= at).map_or(0, |s| s.1)
    }

    /// Size in bytes now.
    pub(crate) fn newest_size(&self) -> u64 {
        self.sizes.last().map_or(0, |s| s.1)
    }

    /// Notes a size; returns the first page that is gone when it shrinks.
    pub(crate) fn resize(&mut self, lsn: Lsn, size: u64) -> Option<u64> {
        let old = self.newest_size();
        let unknown = self.awaits && self.sizes.is_empty();
        if self.sizes.is_empty() || old != size {
            self.sizes.push((lsn, size));
        }
        // Of what the base file has, this is what is left: it may have been more.
        if !unknown && PageNo::count(size) >= PageNo::count(old) {
            return None;
        }
        self.truncations.push((lsn, PageNo::count(size)));
        Some(PageNo::count(size))
    }

    /// The newest frame of a page.
    #[inline]
    pub(crate) fn newest(&self, page: u64) -> FrameNo {
        self.leaves.get(&(page / LEAF)).map_or(FrameNo::NONE, |l| FrameNo(l[(page % LEAF) as usize]))
    }

    fn set_newest(&mut self, page: u64, frame: FrameNo) {
        let leaf = self.leaves.entry(page / LEAF).or_insert([0; LEAF as usize]);
        leaf[(page % LEAF) as usize] = frame.0;
        if frame == FrameNo::NONE && leaf.iter().all(|f| *f == 0) {
            self.leaves.remove(&(page / LEAF));
        }
    }

    /// Adds the newest version of a page. True when an older one stands behind it, or beside it, damaged.
    #[inline]
    pub(crate) fn insert(&mut self, arena: &Arena, page: u64, frame: FrameNo) -> bool {
        let leaf = self.leaves.entry(page / LEAF).or_insert([0; LEAF as usize]);
        let old = FrameNo(std::mem::replace(&mut leaf[(page % LEAF) as usize], frame.0));
        arena.set_older(frame, old);
        old != FrameNo::NONE || self.is_damaged(page)
    }

    /// The newest frame of a page at or below an LSN.
    #[inline]
    pub(crate) fn frame_at(&self, arena: &Arena, page: u64, at: Lsn) -> Option<(FrameNo, Lsn)> {
        let mut f = self.newest(page);
        while f != FrameNo::NONE {
            let lsn = arena.lsn(f);
            if lsn <= at {
                return Some((f, lsn));
            }
            f = arena.older(f);
        }
        None
    }

    /// The newest zeros of a page at or below an LSN, written or by shrinking.
    pub(crate) fn zero_at(&self, page: u64, at: Lsn) -> Option<Lsn> {
        let cut = self.truncations.iter().rev().find(|(l, first)| *l <= at && *first <= page).map(|t| t.0);
        if self.zeros.is_empty() {
            return cut;
        }
        cut.max(self.zeros.range((page, Lsn(0))..=(page, at)).next_back().map(|z| z.1))
    }

    /// What a snapshot sees of a page. The caller checked that the snapshot is still kept.
    #[inline]
    pub(crate) fn find(&self, arena: &Arena, page: u64, at: Lsn) -> Found {
        let frame = self.frame_at(arena, page, at);
        let simple = self.truncations.is_empty() && self.zeros.is_empty() && self.lost.is_empty();
        match frame {
            Some((f, l)) if simple => Found::Frame(f, l),
            _ => self.find_among(page, at, frame),
        }
    }

    fn find_among(&self, page: u64, at: Lsn, frame: Option<(FrameNo, Lsn)>) -> Found {
        let newest = frame.map(|f| f.1);
        let zero = self.zero_at(page, at);
        let lost = self.lost.range((page, Lsn(0))..=(page, at)).next_back().map(|(k, v)| (k.1, v.sum));
        let base = self.base.as_ref().filter(|b| b.file.has_page(page)).map(|b| b.lsn);
        if let Some((lsn, sum)) = lost {
            if Some(lsn) > newest.max(zero) && Some(lsn) > base {
                return Found::Lost(lsn, sum);
            }
        }
        match (frame, zero, base) {
            (Some((f, l)), z, _) if Some(l) > z => Found::Frame(f, l),
            (_, Some(z), b) if Some(z) > b => Found::Zero(z),
            (_, _, Some(b)) => Found::Base(b),
            (_, z, None) => Found::Zero(z.unwrap_or(Lsn(0))),
        }
    }

    /// Frees the versions of a page that no snapshot at or above `horizon` sees. Returns how many.
    pub(crate) fn prune(&mut self, arena: &Arena, page: u64, horizon: Lsn) -> usize {
        let zero = self.zero_at(page, horizon);
        let (mut newer, mut f) = (FrameNo::NONE, self.newest(page));
        while f != FrameNo::NONE && arena.lsn(f) > horizon {
            (newer, f) = (f, arena.older(f));
        }
        // `f` is the newest at the horizon: it stays unless zeros came after it.
        let mut kept = None;
        if f != FrameNo::NONE && Some(arena.lsn(f)) > zero {
            kept = Some(arena.lsn(f));
            (newer, f) = (f, arena.older(f));
        }
        if f != FrameNo::NONE {
            self.unlink(arena, page, newer);
        }
        let mut freed = 0;
        while f != FrameNo::NONE {
            let older = arena.older(f);
            arena.free(f);
            freed += 1;
            f = older;
        }
        freed + self.prune_lists(arena, page, horizon, zero.max(kept))
    }

    fn unlink(&mut self, arena: &Arena, page: u64, newer: FrameNo) {
        if newer == FrameNo::NONE {
            self.set_newest(page, FrameNo::NONE);
        } else {
            arena.set_older(newer, FrameNo::NONE);
        }
    }

    /// Forgets zeros, and damage that `newest` (a version at or below the horizon) hides.
    fn prune_lists(&mut self, arena: &Arena, page: u64, horizon: Lsn, newest: Option<Lsn>) -> usize {
        if self.zeros.is_empty() && self.lost.is_empty() {
            return 0;
        }
        let zeros: Vec<_> = self.zeros.range((page, Lsn(0))..=(page, horizon)).copied().collect();
        let keep = usize::from(self.base.is_some() || self.awaits);
        for z in zeros.iter().take(zeros.len().saturating_sub(keep)) {
            self.zeros.remove(z);
        }
        let Some(newest) = newest else { return 0 };
        let hidden: Vec<_> = self.lost.range((page, Lsn(0))..(page, newest)).map(|(k, v)| (*k, v.frame)).collect();
        for (key, frame) in &hidden {
            self.lost.remove(key);
            arena.free(*frame);
        }
        hidden.len()
    }

    /// Damaged versions that the base file holds, and the older ones that would stand for them, are forgotten.
    pub(crate) fn drop_lost(&mut self, arena: &Arena, base: Lsn) {
        let lost: Vec<_> = self.lost.iter().filter(|(k, _)| k.1 <= base).map(|(k, v)| (*k, v.frame)).collect();
        for ((page, lsn), frame) in lost {
            self.lost.remove(&(page, lsn));
            arena.free(frame);
            self.drop_from(arena, page, lsn);
        }
    }

    /// Frees the versions of a page at or below an LSN; the base file stands for them.
    pub(crate) fn drop_from(&mut self, arena: &Arena, page: u64, lsn: Lsn) {
        let (newer, mut f) = self.newest_upto(arena, page, lsn);
        if f == FrameNo::NONE {
            return;
        }
        self.unlink(arena, page, newer);
        while f != FrameNo::NONE {
            let older = arena.older(f);
            arena.free(f);
            f = older;
        }
    }

    /// The newest frame of a page at or below an LSN, behind the next newer one.
    pub(crate) fn newest_upto(&self, arena: &Arena, page: u64, lsn: Lsn) -> (FrameNo, FrameNo) {
        let (mut newer, mut f) = (FrameNo::NONE, self.newest(page));
        while f != FrameNo::NONE && arena.lsn(f) > lsn {
            (newer, f) = (f, arena.older(f));
        }
        (newer, f)
    }

    /// The oldest content of a page that is newer than an LSN: a version, zeros or damage.
    pub(crate) fn newer_than(&self, arena: &Arena, page: u64, lsn: Lsn) -> Option<Lsn> {
        let (newer, _) = self.newest_upto(arena, page, lsn);
        let frame = (newer != FrameNo::NONE).then(|| arena.lsn(newer));
        let behind = (page, lsn.next())..=(page, Lsn(u64::MAX));
        let zero = self.zeros.range(behind.clone()).next().map(|z| z.1);
        let cut = self.truncations.iter().filter(|t| t.0 > lsn && t.1 <= page).map(|t| t.0).min();
        let lost = self.lost.range(behind).next().map(|(k, _)| k.1);
        [frame, zero, cut, lost].into_iter().flatten().min()
    }

    /// The newest damaged version of a page at or below an LSN of which no good copy was found.
    pub(crate) fn given_up_at(&self, page: u64, at: Lsn) -> Option<(FrameNo, Lsn)> {
        let mut versions = self.lost.range((page, Lsn(0))..=(page, at)).rev();
        versions.find(|(_, lost)| lost.given_up).map(|(key, lost)| (lost.frame, key.1))
    }

    fn is_damaged(&self, page: u64) -> bool {
        !self.lost.is_empty() && self.lost.range((page, Lsn(0))..=(page, Lsn(u64::MAX))).next().is_some()
    }

    /// Takes a version out of the chain whose content turned out to be damaged. False when it is not there.
    pub(crate) fn lose(&mut self, arena: &Arena, page: u64, frame: FrameNo) -> bool {
        let lsn = arena.lsn(frame);
        let (newer, f) = self.newest_upto(arena, page, lsn);
        if f != frame {
            return false;
        }
        if newer == FrameNo::NONE {
            self.set_newest(page, arena.older(frame));
        } else {
            arena.set_older(newer, arena.older(frame));
        }
        self.lost.insert((page, lsn), Lost::new(arena.sum(frame), frame));
        true
    }

    /// A base file holds everything up to `lsn` now. Nothing at or below it is lost.
    pub(crate) fn set_base(&mut self, base: Base) {
        let covered = self.truncations.iter().filter(|t| t.0 <= base.lsn).map(|t| t.0).max();
        self.forgotten = self.forgotten.max(covered.unwrap_or_default());
        self.truncations.retain(|t| t.0 > base.lsn);
        self.zeros.retain(|z| z.1 > base.lsn);
        (self.base, self.awaits) = (Some(base), false);
    }

    /// Frees versions that shrinking to `first` pages hid, and forgets the shrinking where nothing older is left.
    pub(crate) fn prune_from(&mut self, arena: &Arena, lsn: Lsn, first: u64, horizon: Lsn) -> usize {
        let freed = self.pages_from(first).iter().map(|p| self.prune(arena, *p, horizon)).sum::<usize>();
        if self.base.is_none() && !self.awaits {
            self.truncations.retain(|t| *t != (lsn, first));
            self.forgotten = self.forgotten.max(lsn);
        }
        freed
    }

    /// Pages at or beyond `first` that have a frame or an entry in the lists.
    pub(crate) fn pages_from(&self, first: u64) -> Vec<u64> {
        let mut pages: Vec<u64> = self.zeros.range((first, Lsn(0))..).map(|z| z.0).collect();
        pages.extend(self.lost.range((first, Lsn(0))..).map(|z| z.0.0));
        for (leaf, frames) in &self.leaves {
            let slots = frames.iter().enumerate().filter(|(_, f)| **f != 0);
            pages.extend(slots.map(|(i, _)| leaf * LEAF + i as u64).filter(|p| *p >= first));
        }
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// Puts a healed version back between older and newer ones.
    pub(crate) fn insert_sorted(&mut self, arena: &Arena, page: u64, frame: FrameNo) {
        let (newer, f) = self.newest_upto(arena, page, arena.lsn(frame));
        if newer == FrameNo::NONE {
            self.insert(arena, page, frame);
        } else {
            arena.set_older(frame, f);
            arena.set_older(newer, frame);
        }
    }

    /// Numbers of the leaves, for [`Dataset::leaf_pages`].
    pub(crate) fn leaf_numbers(&self) -> Vec<u64> {
        let damaged = self.lost.keys().map(|k| k.0 / LEAF);
        let mut numbers: Vec<u64> = self.leaves.keys().copied().chain(damaged).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Pages of a leaf that have a frame, in the chain or damaged.
    pub(crate) fn leaf_pages(&self, leaf: u64) -> impl Iterator<Item = u64> {
        let frames = self.leaves.get(&leaf).copied().unwrap_or_default();
        let has = move |i: u64| frames[i as usize] != 0 || self.is_damaged(leaf * LEAF + i);
        (0..LEAF).filter(move |i| has(*i)).map(move |i| leaf * LEAF + i)
    }

    /// Takes out the newest version of a page (it was cut, or it is on disk). The frame is the caller's to free.
    pub(crate) fn pop_newest(&mut self, arena: &Arena, page: u64) -> FrameNo {
        let f = self.newest(page);
        if f != FrameNo::NONE {
            self.set_newest(page, arena.older(f));
        }
        f
    }

    /// Forgets sizes that no snapshot at or above the horizon has.
    pub(crate) fn prune_sizes(&mut self, horizon: Lsn) {
        let keep = self.sizes.iter().rposition(|(l, _)| *l <= horizon).unwrap_or(0);
        self.sizes.drain(..keep);
    }

    /// Forgets what came after an LSN, frames excepted.
    pub(crate) fn cut_lists(&mut self, arena: &Arena, to: Lsn) {
        for (_, lost) in self.lost.iter().filter(|(k, _)| k.1 > to) {
            arena.free(lost.frame);
        }
        self.sizes.retain(|s| s.0 <= to);
        self.truncations.retain(|t| t.0 <= to);
        self.zeros.retain(|z| z.1 <= to);
        self.lost.retain(|k, _| k.1 <= to);
    }
}
