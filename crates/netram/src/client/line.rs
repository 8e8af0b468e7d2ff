//! The threads of one process that want to write one group, first come, first served.
//!
//! A thread that was woken by a condition variable finds the reservation taken again by the thread that just gave it
//! up. So threads queue; a turn begins where a transaction begins, not where it first writes: a snapshot taken before
//! the thread in front commits would be stale when the reservation is free. A turn that is not used is soon over, and
//! nothing but fairness depends on it: whether a snapshot is the newest state is checked when it is reserved.

use std::collections::VecDeque;
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

/// How long a turn waits for its transaction to write.
const TURN: Duration = Duration::from_millis(2);

/// Who waits, and whose turn it is.
pub(crate) struct Line {
    places: VecDeque<(u64, Thread)>,
    last: u64,
    turn: Option<Turn>,
    /// When the line last moved.
    moved: Instant,
}

struct Turn {
    place: u64,
    thread: ThreadId,
    until: Instant,
}

impl Line {
    pub(crate) fn new() -> Line {
        Line { places: VecDeque::new(), last: 0, turn: None, moved: Instant::now() }
    }

    /// The calling thread takes the last place.
    pub(crate) fn enter(&mut self) -> u64 {
        self.last += 1;
        self.places.push_back((self.last, thread::current()));
        self.last
    }

    /// Gives a place, or the turn that came of it, up.
    pub(crate) fn leave(&mut self, place: u64) {
        self.places.retain(|(p, _)| *p != place);
        if self.has_turn(place) {
            self.end_turn();
        }
    }

    /// Makes it this place's turn if it is the first and nobody's turn lasts.
    pub(crate) fn try_turn(&mut self, place: u64, now: Instant) -> bool {
        let first = self.places.front().is_some_and(|(p, _)| *p == place);
        if !first || self.turn.as_ref().is_some_and(|t| now < t.until) {
            return false;
        }
        self.places.pop_front();
        self.turn = Some(Turn { place, thread: thread::current().id(), until: now + TURN });
        self.moved = now;
        true
    }

    /// True while that turn lasts or nobody took the next.
    pub(crate) fn has_turn(&self, place: u64) -> bool {
        self.turn.as_ref().is_some_and(|t| t.place == place)
    }

    /// True if the last turn was the calling thread's: it would wait for itself.
    pub(crate) fn is_own_turn(&self) -> bool {
        self.turn.as_ref().is_some_and(|t| t.thread == thread::current().id())
    }

    /// The reservation ended.
    pub(crate) fn end_turn(&mut self) {
        (self.turn, self.moved) = (None, Instant::now());
    }

    /// Lets the first one look.
    pub(crate) fn wake(&self) {
        if let Some((_, thread)) = self.places.front() {
            thread.unpark();
        }
    }

    /// Since when nothing moved.
    pub(crate) fn moved(&self) -> Instant {
        self.moved
    }

    /// When the present turn is over if it is not used.
    pub(crate) fn turn_ends(&self) -> Option<Instant> {
        self.turn.as_ref().map(|t| t.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut line = Line::new();
        let (a, b, now) = (line.enter(), line.enter(), Instant::now());
        assert!(!line.try_turn(b, now), "the other came first");
        assert!(line.try_turn(a, now) && line.has_turn(a));
        assert!(!line.try_turn(b, now), "the turn lasts");
        line.end_turn();
        assert!(line.try_turn(b, now));
    }

    #[test]
    fn a_turn_that_is_not_used_ends_and_a_place_can_be_given_up() {
        let mut line = Line::new();
        let (a, b, c, now) = (line.enter(), line.enter(), line.enter(), Instant::now());
        assert!(line.try_turn(a, now));
        line.leave(b);
        assert!(line.try_turn(c, now + TURN), "the unused turn is over");
        line.leave(a);
        assert!(line.has_turn(c), "who lost the turn takes nothing from the next");
    }
}
