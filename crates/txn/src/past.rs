//! `history`: replaced versions are kept for a time, whether anybody reads them or not.
//!
//! Marks (time, LSN) say what the newest committed state was when; the horizon stays at or below the newest mark that
//! is at least as old as `history`, so it may keep a little more (a 256th), never less. A restarted primary knows
//! nothing of before: it keeps what is there for a whole `history`.

use dspm_proto::{Instant, Lsn};
use std::collections::VecDeque;
use std::time::Duration;

/// Marks of one `history`.
const MARKS: u32 = 256;

/// What was the newest state when.
pub(crate) struct Past {
    keep: Duration,
    marks: VecDeque<(Instant, Lsn)>,
    /// Marks up to here say what is kept, not when it was the newest.
    vague: Lsn,
}

impl Past {
    pub(crate) fn new(keep: Duration, now: Instant) -> Past {
        let marks = if keep.is_zero() { VecDeque::new() } else { VecDeque::from([(now, Lsn(0))]) };
        Past { keep, marks, vague: Lsn(0) }
    }

    /// Nothing at or above this LSN may go.
    pub(crate) fn limit(&self) -> Lsn {
        self.marks.front().map_or(Lsn(u64::MAX), |m| m.1)
    }

    /// The newest committed state is this one now.
    pub(crate) fn mark(&mut self, committed: Lsn, now: Instant) {
        let Some((at, lsn)) = self.marks.back() else { return };
        if *lsn < committed && now.since(*at) >= self.keep / MARKS {
            self.marks.push_back((now, committed));
        }
        while self.marks.get(1).is_some_and(|(at, _)| now.since(*at) >= self.keep) {
            self.marks.pop_front();
        }
    }

    /// It takes more room than it may: the oldest part goes. False: there is none but the newest state. The last mark
    /// may be much older than that: marks are a 256th of `history` apart.
    pub(crate) fn shorten(&mut self, committed: Lsn) -> bool {
        let Some(oldest) = self.marks.pop_front() else { return false };
        if self.marks.is_empty() {
            self.vague = committed.max(oldest.1);
            self.marks.push_back((oldest.0, self.vague));
        }
        self.limit() > oldest.1
    }

    /// What was the newest state then: exactly, or some moment before, at most a 256th of `history`. None: nobody knows.
    pub(crate) fn newest_at(&self, then: Instant) -> Option<Lsn> {
        self.marks.iter().rev().find(|m| m.0 <= then).map(|m| m.1).filter(|lsn| *lsn > self.vague)
    }

    /// When the limit rises, or the next mark is due.
    pub(crate) fn wake(&self, committed: Lsn) -> Option<Instant> {
        let rises = self.marks.get(1).map(|(at, _)| at.after(self.keep));
        let due = self.marks.back().filter(|(_, lsn)| *lsn < committed).map(|(at, _)| at.after(self.keep / MARKS));
        rises.into_iter().chain(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_newest_so_long_ago_is_kept() {
        let mut past = Past::new(Duration::from_secs(10), Instant(0));
        for s in 1..=30 {
            past.mark(Lsn(s * 100), Instant(s * SECOND));
            let then = s.saturating_sub(10) * 100; // the newest state ten seconds ago
            assert_eq!(past.limit(), Lsn(then), "at {s} s");
        }
        past.mark(Lsn(3000), Instant(100 * SECOND));
        assert_eq!((past.limit(), past.wake(Lsn(3000))), (Lsn(3000), None), "nothing newer came");
    }

    #[test]
    fn a_time_finds_the_state_of_that_time_or_none() {
        let mut past = Past::new(Duration::from_secs(256), Instant(5 * SECOND));
        for s in [10, 20, 30] {
            past.mark(Lsn(s), Instant(s * SECOND));
        }
        let at = |past: &Past, s: u64| past.newest_at(Instant(s * SECOND)).map(|l| l.0);
        assert_eq!([4, 9, 10, 29, 30, 99].map(|s| at(&past, s)), [None, None, Some(10), Some(20), Some(30), Some(30)]);
        while past.shorten(Lsn(35)) {}
        assert_eq!(at(&past, 99), None, "when the last mark's state became the newest is not known");
        past.mark(Lsn(36), Instant(40 * SECOND));
        assert_eq!((at(&past, 39), at(&past, 40)), (None, Some(36)));
    }

    #[test]
    fn without_history_nothing_is_kept_and_room_comes_first() {
        let none = Past::new(Duration::ZERO, Instant(0));
        assert_eq!((none.limit(), none.wake(Lsn(9))), (Lsn(u64::MAX), None));
        let mut past = Past::new(Duration::from_secs(10), Instant(0));
        past.mark(Lsn(5), Instant(SECOND));
        assert!(past.shorten(Lsn(5)) && past.limit() == Lsn(5));
        assert!(!past.shorten(Lsn(5)));
    }

    #[test]
    fn room_comes_first_also_between_two_marks() {
        let mut past = Past::new(Duration::from_secs(256 * 3600), Instant(0));
        past.mark(Lsn(9), Instant(SECOND));
        assert_eq!(past.limit(), Lsn(0), "the next mark is due in an hour");
        assert!(past.shorten(Lsn(9)) && past.limit() == Lsn(9));
        assert!(!past.shorten(Lsn(9)), "the newest state stays");
        assert!(!Past::new(Duration::ZERO, Instant(0)).shorten(Lsn(9)));
    }
}
