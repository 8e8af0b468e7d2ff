//! Room: who may take the last frames, and when commits have to wait.
//!
//! Invariants: a commit leaves frames for settles, and both leave some for slots, cuts and state entries; frames that
//! a settle found missing are kept from commits until it has them. What is refused for want of room was refused
//! before anything of it was published, so the writer can send it again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dspm_proto::PAGE_SIZE;

use crate::arena::{Arena, lock};
use crate::log::LogError;
use crate::store::Store;

/// A settle that does not come back for the frames that it asked for has lost its claim.
const CLAIM: Duration = Duration::from_secs(2);

/// Bytes of log for a page, with its share of the record's metadata, and for the rounding of a batch.
const LOGGED: u64 = PAGE_SIZE as u64 + 512;
const SLACK: u64 = 64 << 10;

/// What a frame is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draw {
    /// A page of a writer's record.
    Commit,
    /// Its place in the ring: a record whose pages found room does not fail for want of that.
    Entry,
    /// A record that another member holds already, or that a restart reads back.
    Settle,
    /// What keeps the store itself going.
    Keep,
}

/// The frames that are not for everybody.
pub(crate) struct Reserve {
    keep: usize,
    settle: usize,
    claimed: AtomicUsize,
    claimed_at: Mutex<Option<Instant>>,
}

impl Reserve {
    pub(crate) fn new(frames: usize) -> Reserve {
        let (keep, settle) = ((frames / 128).max(8), frames / 32);
        Reserve { keep, settle, claimed: AtomicUsize::new(0), claimed_at: Mutex::new(None) }
    }

    /// Frames that have to stay free.
    #[inline]
    pub(crate) fn left(&self, draw: Draw) -> usize {
        match draw {
            Draw::Commit => self.keep + self.settle + self.claimed.load(Ordering::Relaxed),
            Draw::Entry => self.keep + self.settle / 2,
            Draw::Settle => self.keep,
            Draw::Keep => 0,
        }
    }

    fn claim(&self, frames: usize) {
        self.claimed.fetch_max(frames, Ordering::Relaxed);
        *lock(&self.claimed_at) = Some(Instant::now());
    }

    /// A settle got what it wanted.
    pub(crate) fn served(&self) {
        self.claimed.store(0, Ordering::Relaxed);
    }

    pub(crate) fn drop_old_claim(&self) {
        if lock(&self.claimed_at).take_if(|at| at.elapsed() > CLAIM).is_some() {
            self.served();
        }
    }
}

/// Since when the oldest record waits that is not in the synced log. Never later than the truth.
pub(crate) struct Backlog {
    start: Instant,
    /// Nanoseconds since the start; 0 for none. First the records that no flush has taken yet.
    fresh: AtomicU64,
    taken: AtomicU64,
}

impl Backlog {
    pub(crate) fn new() -> Backlog {
        Backlog { start: Instant::now(), fresh: AtomicU64::new(0), taken: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64 + 1
    }

    /// A record was appended.
    #[inline]
    pub(crate) fn grew(&self) {
        if self.fresh.load(Ordering::Relaxed) == 0 {
            let _ = self.fresh.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A flush takes everything that is there.
    pub(crate) fn flush_begins(&self) {
        let fresh = self.fresh.swap(0, Ordering::Relaxed);
        let _ = self.taken.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What it took is in the synced log.
    pub(crate) fn flush_ended(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let since = [&self.taken, &self.fresh].map(|t| t.load(Ordering::Relaxed));
        let oldest = since.into_iter().filter(|t| *t > 0).min();
        Duration::from_nanos(oldest.map_or(0, |t| self.now().saturating_sub(t)))
    }
}

/// Why the log cannot grow, as its two threads saw it last.
#[derive(Default)]
pub(crate) struct Stalls {
    /// A batch found no room.
    pub(crate) now: Mutex<Option<String>>,
    /// The next segment could not be made.
    pub(crate) next: Mutex<Option<String>>,
}

impl Stalls {
    /// Keeps, or forgets, the reason and the flag that goes with it.
    pub(crate) fn note(reason: &Mutex<Option<String>>, flag: &AtomicBool, result: &Result<(), LogError>) {
        let text = if let Err(LogError::Stalled(text)) = result { Some(text.clone()) } else { None };
        let changed = flag.swap(text.is_some(), Ordering::AcqRel) != text.is_some();
        if let (Some(text), true) = (&text, changed) {
            eprintln!("dspm: warning: commits wait: {text}");
        } else if changed {
            eprintln!("dspm: the log has room again");
        }
        *lock(reason) = text;
    }

    fn reason(&self) -> Option<String> {
        [&self.now, &self.next].into_iter().find_map(|s| lock(s).clone())
    }
}

impl Arena {
    /// A commit or a settle found no frame: what can be given back is looked for at once.
    pub(crate) fn is_short(&self) {
        self.kick.now();
        self.short.now();
    }
}

impl Store {
    /// Bytes of log that what is not on disk yet takes, and as many pages more.
    pub(crate) fn log_need(&self, pages: usize) -> u64 {
        (self.arena.dirty.load(Ordering::Relaxed) + pages as u64) * LOGGED + SLACK
    }

    /// True when no segment has to be made for a record of that many pages and for what is not on disk yet.
    fn has_log_room(&self, pages: usize) -> bool {
        let one = pages as u64 * LOGGED + SLACK;
        let [room, piece] = [0, 1].map(|i| self.log_room[i].load(Ordering::Relaxed));
        let enough = room >= self.log_need(pages) && piece >= one;
        if !enough {
            self.log_wanted.fetch_max(one, Ordering::Relaxed);
            self.arena.short.now();
        }
        enough
    }

    /// A record of that many pages is on its way: what the log needs for it is made meanwhile.
    pub fn expect(&self, pages: usize) {
        if self.arena.disk.load(Ordering::Relaxed) {
            let _ = self.has_log_room(pages); // where there is none it is asked for
        }
    }

    /// Why a commit of that many pages has to wait before it is published; None when there is room for it.
    pub fn shortage(&self, pages: usize) -> Option<String> {
        let flushes = self.arena.disk.load(Ordering::Relaxed);
        if flushes && (self.is_stalled() || !self.has_log_room(pages)) {
            return Some(self.stalls.reason().unwrap_or_else(|| "its log waits for the next segment".into()));
        }
        if self.is_dirty_full() {
            self.arena.kick.now();
            let mib = self.options.dirty_max >> 20;
            return Some(format!("as much as dirty_max ({mib} MiB) waits for its disk"));
        }
        let most = self.options.flush_interval.max(Duration::from_millis(1)) * 2;
        if flushes && self.arena.backlog.age() > most {
            self.arena.kick.now();
            return Some(format!("its disk is behind: a record waits for longer than 2 x flush_interval ({most:?})"));
        }
        None
    }

    /// What to tell a writer whose record found no room, whatever its size.
    pub fn shortage_text(&self) -> String {
        let frames = u64::from(self.arena.layout.frames);
        let full = || format!("its memory ({} MiB) is in use", (frames * PAGE_SIZE as u64) >> 20);
        self.shortage(0).or_else(|| self.stalls.reason()).unwrap_or_else(full)
    }

    /// Why the disk takes no more of the log, as it was seen last; None while it does.
    pub fn disk_full(&self) -> Option<String> {
        self.stalls.reason()
    }

    /// Most pages of one record: a member must be able to hold it whatever it holds besides.
    pub fn record_pages_max(&self) -> u64 {
        u64::from(self.arena.layout.frames) / 3
    }

    /// A commit of that many pages found too few frames: as many are made free.
    pub fn want(&self, frames: usize) {
        self.arena.wanted.fetch_max(frames + frames / 32, Ordering::Relaxed);
        self.arena.is_short();
    }

    /// A settle brought a record and found too few frames: those that become free are its, until it comes again.
    pub fn claim(&self, frames: usize) {
        self.arena.reserve.claim(frames.min(self.arena.layout.frames as usize / 2));
        self.arena.is_short();
    }

    /// True when readers pin more of a group's old versions than one may.
    pub fn is_history_full(&self, bytes: u64) -> bool {
        bytes > self.options.history_max
    }
}
