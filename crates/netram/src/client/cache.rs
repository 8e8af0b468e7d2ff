//! The process's page cache: exact versions with the interval of commits in which each is the page's content.
//!
//! An entry `[lsn, until)` answers snapshot s iff lsn ≤ s < until. `until` is the commit that replaced the version, or
//! open while none is known; an open entry is right up to the newest state that the group's client knows, and every
//! snapshot is at or below that. This is the page map's rule (map.as_of ≥ s and entry.lsn ≤ s) kept beside the page.
//! Clock replacement; a fixed number of slots, so the process never takes more than `cache.size`.

use dspm_proto::{DatasetId, Lsn, PAGE_SIZE, PageNo};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The open end of an interval.
pub(crate) const OPEN: Lsn = Lsn(u64::MAX);

/// Fewest slots: SQLite's own working set of a statement.
const SLOTS_MIN: u64 = 16;
const SHARDS: usize = 8;

/// Pages of all datasets of a process.
pub struct PageCache {
    shards: Vec<Mutex<Shard>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

type Key = (DatasetId, PageNo);

struct Shard {
    index: HashMap<Key, u32, BuildHasherDefault<Mix>>,
    slots: Vec<Slot>,
    most: usize,
    hand: usize,
}

struct Slot {
    key: Key,
    lsn: Lsn,
    until: Lsn,
    used: bool,
    content: Box<[u8; PAGE_SIZE]>,
}

impl Slot {
    /// Its successor is at most commit `lsn`. That is the last of several perhaps, and the first of them is not known:
    /// only up to what was known until now is the version proven, and readers of the past come in between.
    fn end(&mut self, lsn: Lsn, known: Lsn) {
        self.until = self.until.min(lsn).min(known.max(self.lsn).next());
    }
}

impl PageCache {
    /// A cache of at most `bytes`.
    pub fn new(bytes: u64) -> PageCache {
        let most = ((bytes / PAGE_SIZE as u64).max(SLOTS_MIN) as usize).div_ceil(SHARDS);
        let shard = || Mutex::new(Shard { index: HashMap::default(), slots: Vec::new(), most, hand: 0 });
        let shards = (0..SHARDS).map(|_| shard()).collect();
        PageCache { shards, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        // Neighbours share a shard in runs of 16, so a scan does not jump between locks at every page.
        let at = ((key.1.0 >> 4) ^ key.0.0) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies bytes `at..` of the version that snapshot `s` sees; false when it is not here.
    pub(crate) fn read(&self, dataset: DatasetId, page: PageNo, s: Lsn, at: usize, buf: &mut [u8]) -> bool {
        let key = (dataset, page);
        let mut shard = self.shard(&key);
        let found = shard.find(&key).filter(|x| x.lsn <= s && s < x.until);
        match found {
            Some(slot) => {
                slot.used = true;
                buf.copy_from_slice(&slot.content[at..at + buf.len()]);
                self.hits.fetch_add(1, Ordering::Relaxed);
                true
            }
            None => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// True when snapshot `s` finds its version here; does not count as a use.
    pub(crate) fn has(&self, dataset: DatasetId, page: PageNo, s: Lsn) -> bool {
        let key = (dataset, page);
        self.shard(&key).find(&key).is_some_and(|x| x.lsn <= s && s < x.until)
    }

    /// Runs `f` on the content and version that snapshot `s` sees, if it is here.
    pub(crate) fn with<T>(
        &self,
        dataset: DatasetId,
        page: PageNo,
        s: Lsn,
        f: impl FnOnce(&[u8; PAGE_SIZE], Lsn) -> T,
    ) -> Option<T> {
        let key = (dataset, page);
        let mut shard = self.shard(&key);
        let slot = shard.find(&key).filter(|x| x.lsn <= s && s < x.until)?;
        Some(f(&slot.content, slot.lsn))
    }

    /// Puts a version in, unless what is here is newer.
    pub(crate) fn put(&self, dataset: DatasetId, page: PageNo, lsn: Lsn, until: Lsn, content: &[u8; PAGE_SIZE]) {
        let key = (dataset, page);
        let mut shard = self.shard(&key);
        if let Some(slot) = shard.find(&key) {
            if slot.lsn > lsn || (slot.lsn == lsn && slot.until >= until) {
                return;
            }
            (slot.lsn, slot.until, slot.used) = (lsn, until, true);
            slot.content.copy_from_slice(content);
            return;
        }
        shard.insert(key, lsn, until, content);
    }

    /// The page was changed, last by commit `lsn`, perhaps by others behind `known` before: what is here ends there.
    /// True if it was the newest version until now.
    pub(crate) fn supersede(&self, dataset: DatasetId, page: PageNo, lsn: Lsn, known: Lsn) -> bool {
        let key = (dataset, page);
        let mut shard = self.shard(&key);
        let Some(slot) = shard.find(&key).filter(|x| x.lsn < lsn) else { return false };
        let newest = slot.until == OPEN;
        slot.end(lsn, known);
        newest
    }

    /// All pages from `first` on were cut off, or may have changed, at commit `lsn`; perhaps behind `known` before.
    pub(crate) fn supersede_from(&self, dataset: DatasetId, first: PageNo, lsn: Lsn, known: Lsn) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in &mut shard.slots {
                if slot.key.0 == dataset && slot.key.1 >= first && slot.lsn < lsn {
                    slot.end(lsn, known);
                }
            }
        }
    }

    /// Nothing that is here of the dataset counts any more.
    pub(crate) fn forget(&self, dataset: DatasetId) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = shard.slots.iter_mut().filter(|s| s.key.0 == dataset);
            slots.for_each(|s| (s.lsn, s.until) = (Lsn(0), Lsn(0)));
        }
    }

    /// Reads answered here, and reads asked of a node.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl Shard {
    fn find(&mut self, key: &Key) -> Option<&mut Slot> {
        let at = *self.index.get(key)?;
        self.slots.get_mut(at as usize)
    }

    fn insert(&mut self, key: Key, lsn: Lsn, until: Lsn, content: &[u8; PAGE_SIZE]) {
        if self.slots.len() < self.most {
            self.index.insert(key, self.slots.len() as u32);
            self.slots.push(Slot { key, lsn, until, used: false, content: Box::new(*content) });
            return;
        }
        let at = self.victim();
        let slot = &mut self.slots[at];
        self.index.remove(&slot.key);
        (slot.key, slot.lsn, slot.until, slot.used) = (key, lsn, until, false);
        slot.content.copy_from_slice(content);
        self.index.insert(key, at as u32);
    }

    /// Clock: the first slot not used since the hand passed it. Versions that ended go first.
    fn victim(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[at];
            if !std::mem::take(&mut slot.used) || slot.until != OPEN {
                return at;
            }
        }
    }
}

/// Keys are random ids and page numbers: one multiplication mixes them well enough, SipHash costs more than the copy.
#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: DatasetId = DatasetId(1);

    fn reads(c: &PageCache, page: u64, s: u64) -> Option<u8> {
        let mut b = [0; 1];
        c.read(D, PageNo(page), Lsn(s), 0, &mut b).then_some(b[0])
    }

    #[test]
    fn an_interval_answers_exactly_its_snapshots() {
        let c = PageCache::new(1 << 20);
        c.put(D, PageNo(0), Lsn(5), OPEN, &[1; PAGE_SIZE]);
        assert_eq!(reads(&c, 0, 4), None);
        assert_eq!(reads(&c, 0, 9), Some(1));
        c.supersede(D, PageNo(0), Lsn(8), Lsn(7));
        assert_eq!(reads(&c, 0, 7), Some(1));
        assert_eq!(reads(&c, 0, 8), None);
        c.put(D, PageNo(0), Lsn(8), OPEN, &[2; PAGE_SIZE]);
        assert_eq!(reads(&c, 0, 8), Some(2));
        c.put(D, PageNo(0), Lsn(5), Lsn(8), &[1; PAGE_SIZE]);
        assert_eq!(reads(&c, 0, 8), Some(2), "an older version never replaces a newer one");
        c.supersede_from(D, PageNo(0), Lsn(9), Lsn(8));
        assert_eq!((reads(&c, 0, 8), reads(&c, 0, 9)), (Some(2), None));
    }

    #[test]
    fn between_what_was_known_and_the_last_change_nothing_is_proven() {
        let c = PageCache::new(1 << 20);
        for page in 0..3 {
            c.put(D, PageNo(page), Lsn(5), OPEN, &[1; PAGE_SIZE]);
        }
        assert!(c.supersede(D, PageNo(0), Lsn(15), Lsn(10)));
        c.supersede_from(D, PageNo(1), Lsn(15), Lsn(10));
        for page in 0..3 {
            assert_eq!((reads(&c, page, 10), reads(&c, page, 11), reads(&c, page, 14)), (Some(1), None, None));
        }
        c.put(D, PageNo(3), Lsn(12), OPEN, &[2; PAGE_SIZE]);
        c.supersede(D, PageNo(3), Lsn(15), Lsn(10));
        assert_eq!((reads(&c, 3, 11), reads(&c, 3, 12), reads(&c, 3, 13)), (None, Some(2), None));
    }

    #[test]
    fn it_never_holds_more_than_its_size() {
        let c = PageCache::new(64 * PAGE_SIZE as u64);
        for p in 0..10_000 {
            c.put(D, PageNo(p), Lsn(1), OPEN, &[p as u8; PAGE_SIZE]);
        }
        let held = (0..10_000).filter(|p| reads(&c, *p, 1).is_some()).count();
        assert!((1..=64).contains(&held), "{held}");
        assert!((0..10_000).all(|p| reads(&c, p, 1).is_none_or(|v| v == p as u8)));
    }
}
