//! The arena: the mapped file, its frame table, and the pool of free frames.
//!
//! Invariants: a frame is in exactly one place: the pool, a [`crate::FrameBuf`], a group (page, ring) or the slot
//! table. The pool's lock is held for a push or pop only and no other lock is taken under it. A frame that somebody
//! still reads ([`crate::PinnedFrame`]) does not return to the pool before it is let go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dspm_proto::codec::get_u64;
use dspm_proto::{Error, GroupId, Lsn, PAGE_SIZE, StoreId, checksum};

use crate::layout::{ArenaHeader, FrameNo, Layout, META_SIZE, SUSPECT_AT};
use crate::mapping::Mapping;
use crate::meta::{FrameMeta, STATE_AT, Use};
use crate::room::{Backlog, Draw, Reserve};
use crate::slot::SlotNo;
use crate::step::step;

/// Set in a frame's pin count when it was freed while pinned.
const FREED: u32 = 1 << 31;

/// What all groups of a node share.
pub(crate) struct Arena {
    pub(crate) map: Mapping,
    pub(crate) layout: Layout,
    header: Mutex<ArenaHeader>,
    pub(crate) salt: u64,
    free: Mutex<Vec<u32>>,
    free_count: AtomicUsize,
    pub(crate) reserve: Reserve,
    pins: Box<[AtomicU32]>,
    /// Per frame: the next older version of the same page. Owned by the frame's group.
    prev: Box<[AtomicU32]>,
    pub(crate) slots: Mutex<Vec<SlotNo>>,
    /// Groups that exist; the rings share their budget by it.
    pub(crate) groups: AtomicUsize,
    pub(crate) ring_frames: AtomicUsize,
    pub(crate) dirty: AtomicU64,
    pub(crate) checksum_errors: AtomicU64,
    /// True once a disk log runs: "clean" then means "in the synced log", before that "committed".
    pub(crate) disk: AtomicBool,
    pub(crate) kick: Kick,
    /// Wakes maintenance.
    pub(crate) short: Kick,
    pub(crate) backlog: Backlog,
    /// Groups of which the log, or the directory of base files, has to hear something besides records.
    pub(crate) owed: Mutex<BTreeSet<GroupId>>,
    /// Frames that a commit did not find.
    pub(crate) wanted: AtomicUsize,
    /// Where the search for frames to evict goes on.
    pub(crate) hand: AtomicUsize,
    /// Dirty pages at which the flusher begins at once.
    pub(crate) flush_at: AtomicU64,
    /// How long a client's newest record is remembered, at least.
    pub(crate) outcome_retention_ms: AtomicU64,
}

/// Wakes a thread behind the store.
#[derive(Default)]
pub(crate) struct Kick {
    set: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Kick {
    /// Ends the thread's wait, now or the next one.
    pub(crate) fn now(&self) {
        if !self.set.swap(true, Ordering::AcqRel) {
            let _guard = lock(&self.lock);
            self.wake.notify_all();
        }
    }

    /// Waits for a kick, but not longer than that.
    pub(crate) fn wait(&self, most: Duration) {
        let guard = lock(&self.lock);
        let idle = |_: &mut ()| !self.set.load(Ordering::Acquire);
        drop(self.wake.wait_timeout_while(guard, most, idle));
        self.set.store(false, Ordering::Release);
    }
}

/// A lock that a panic elsewhere does not take away: what it guards is valid after every statement.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    /// An arena whose frames are all taken until [`Arena::release`] gives them to the pool.
    pub(crate) fn new(map: Mapping, header: ArenaHeader) -> Arena {
        let layout = header.layout;
        let table = || (0..layout.frames).map(|_| AtomicU32::new(0)).collect::<Box<[_]>>();
        Arena {
            map,
            layout,
            salt: header.salt,
            header: Mutex::new(header),
            free: Mutex::new(Vec::new()),
            free_count: AtomicUsize::new(0),
            reserve: Reserve::new(layout.frames as usize),
            pins: table(),
            prev: table(),
            slots: Mutex::new(Vec::new()),
            groups: AtomicUsize::new(0),
            ring_frames: AtomicUsize::new(0),
            dirty: AtomicU64::new(0),
            checksum_errors: AtomicU64::new(0),
            disk: AtomicBool::new(false),
            kick: Kick::default(),
            short: Kick::default(),
            backlog: Backlog::new(),
            owed: Mutex::default(),
            wanted: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            flush_at: AtomicU64::new(u64::MAX),
            outcome_retention_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Writes a first header over a table of free frames.
    pub(crate) fn format(map: &Mapping, header: &ArenaHeader) {
        map.store(0, 0);
        map.store(128, 0);
        for i in 0..header.layout.frames as usize {
            map.store32(header.layout.meta_at(header.layout.frame(i)) + STATE_AT, 0);
        }
        map.store(SUSPECT_AT, 0);
        Self::write_header(map, header);
    }

    fn write_header(map: &Mapping, header: &ArenaHeader) {
        let (at, bytes) = header.encode();
        map.store(at, 0);
        map.write(at + 8, &bytes[8..]);
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        map.store(at, u64::from_le_bytes(word));
    }

    /// The name of what this memory remembers.
    pub(crate) fn store_id(&self) -> StoreId {
        lock(&self.header).store
    }

    /// Gives the memory another name.
    pub(crate) fn rename(&self, store: StoreId) {
        let mut h = lock(&self.header);
        h.store = store;
        h.sequence += 1;
        Self::write_header(&self.map, &h);
    }

    /// Marks the memory as not to be trusted after the next start.
    pub(crate) fn set_suspect(&self) {
        self.map.store(SUSPECT_AT, 1);
    }

    /// Takes a free frame, if enough are left.
    #[inline]
    pub(crate) fn take(&self, draw: Draw) -> Option<FrameNo> {
        let mut free = lock(&self.free);
        if free.len() <= self.reserve.left(draw) {
            drop(free);
            self.is_short();
            return None;
        }
        let frame = FrameNo(free.pop()?);
        self.free_count.store(free.len(), Ordering::Relaxed);
        drop(free);
        self.pins[self.layout.index(frame)].store(0, Ordering::Relaxed);
        Some(frame)
    }

    /// Returns a frame whose table entry says "free" to the pool, at the latest when the last pin goes.
    #[inline]
    pub(crate) fn release(&self, frame: FrameNo) {
        if self.pins[self.layout.index(frame)].fetch_or(FREED, Ordering::AcqRel) == 0 {
            self.push_free(frame);
        }
    }

    fn push_free(&self, frame: FrameNo) {
        let mut free = lock(&self.free);
        free.push(frame.0);
        self.free_count.store(free.len(), Ordering::Relaxed);
    }

    /// Fills the pool at start, lowest frames on top.
    pub(crate) fn fill(&self, mut frames: Vec<u32>) {
        let mut free = lock(&self.free);
        free.append(&mut frames);
        free.sort_unstable_by(|a, b| b.cmp(a));
        self.free_count.store(free.len(), Ordering::Relaxed);
    }

    /// Keeps a frame from the pool. Its group's lock is held, and the frame is the group's.
    pub(crate) fn pin(&self, frame: FrameNo) {
        self.pins[self.layout.index(frame)].fetch_add(1, Ordering::AcqRel);
    }

    /// True while somebody reads a frame of a group whose lock is held, or wrote it to the log just now.
    pub(crate) fn is_pinned(&self, frame: FrameNo) -> bool {
        self.pins[self.layout.index(frame)].load(Ordering::Acquire) != 0
    }

    /// Ends a pin.
    pub(crate) fn unpin(&self, frame: FrameNo) {
        if self.pins[self.layout.index(frame)].fetch_sub(1, Ordering::AcqRel) == FREED | 1 {
            self.push_free(frame);
        }
    }

    /// Free frames that commits may take.
    pub(crate) fn free_pages(&self) -> usize {
        self.free_count.load(Ordering::Relaxed).saturating_sub(self.reserve.left(Draw::Commit))
    }

    /// Free frames, the reserve included.
    pub(crate) fn free_all(&self) -> usize {
        self.free_count.load(Ordering::Relaxed)
    }

    /// Frames that one group's ring keeps for the sake of history.
    pub(crate) fn ring_budget(&self) -> usize {
        let all = self.layout.frames as usize / 160;
        (all / self.groups.load(Ordering::Relaxed).max(1)).clamp(2, 1024)
    }

    /// Writes a table entry; the state word last.
    #[inline]
    pub(crate) fn publish(&self, frame: FrameNo, meta: &FrameMeta) {
        let at = self.layout.meta_at(frame);
        for (i, word) in meta.encode(frame).chunks_exact(8).enumerate() {
            self.map.store(at + i * 8, get_u64(word, 0));
        }
        step("frame entry written");
        self.map.store(at + STATE_AT, meta.used as u64);
        step("frame published");
    }

    /// Marks a frame free in the table and gives it back.
    #[inline]
    pub(crate) fn free(&self, frame: FrameNo) {
        self.map.store(self.layout.meta_at(frame) + STATE_AT, Use::Free as u64);
        step("frame freed");
        self.release(frame);
    }

    /// A table entry; None when free. Without the lock of the frame's group it is a hint, and may look damaged.
    pub(crate) fn meta(&self, frame: FrameNo) -> Result<Option<FrameMeta>, Error> {
        let mut b = [0u8; META_SIZE];
        for (i, word) in b.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.map.load(self.layout.meta_at(frame) + i * 8).to_le_bytes());
        }
        FrameMeta::decode(&b, frame)
    }

    /// True for a published page of that group. It stays one as long as the group's lock is held.
    #[inline]
    pub(crate) fn is_page_of(&self, frame: FrameNo, group: GroupId) -> bool {
        let at = self.layout.meta_at(frame);
        self.map.load(at + STATE_AT) == Use::Page as u64 && self.map.load(at) == group.0
    }

    /// LSN of a page's version.
    #[inline]
    pub(crate) fn lsn(&self, frame: FrameNo) -> Lsn {
        Lsn(self.map.load(self.layout.meta_at(frame) + FrameMeta::LSN_AT))
    }

    /// Checksum that a page's version must have.
    #[inline]
    pub(crate) fn sum(&self, frame: FrameNo) -> u64 {
        self.map.load(self.layout.meta_at(frame) + FrameMeta::SUM_AT)
    }

    /// The next older version of the same page.
    #[inline]
    pub(crate) fn older(&self, frame: FrameNo) -> FrameNo {
        FrameNo(self.prev[self.layout.index(frame)].load(Ordering::Relaxed))
    }

    /// Links a version to the next older one.
    #[inline]
    pub(crate) fn set_older(&self, frame: FrameNo, older: FrameNo) {
        self.prev[self.layout.index(frame)].store(older.0, Ordering::Relaxed);
    }

    /// Checksum of a frame's content as it is.
    pub(crate) fn actual_sum(&self, frame: FrameNo, buffer: &mut [u8; PAGE_SIZE]) -> u64 {
        self.map.read(self.layout.page_at(frame), buffer);
        checksum(buffer)
    }

    /// The LSN up to which a group's pages need no longer be held for durability's sake.
    pub(crate) fn clean(&self, committed: Lsn, flushed: Lsn) -> Lsn {
        if self.disk.load(Ordering::Relaxed) { flushed } else { committed }
    }
}
