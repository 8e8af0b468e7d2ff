//! The write lease of a group, and its queue.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a granted lease waits for a queued writer that does not come.
const PARKED: Duration = Duration::from_millis(200);

/// Who may write.
#[derive(Default)]
pub struct Lease {
    /// The process that has it.
    pub owner: Option<u64>,
    /// Some handle of the owner is in a write transaction.
    pub reserved: bool,
    /// Processes that keep it once they have it.
    pub kept: HashSet<u64>,
    queue: VecDeque<Waiter>,
    last_ticket: u64,
}

struct Waiter {
    ticket: u64,
    /// Since when it could have had the lease.
    parked: Option<Instant>,
}

impl Lease {
    /// True if `process` could write now: it has the lease, or can get it, and nobody is before it in the queue.
    pub fn is_free_for(&mut self, process: u64, ticket: Option<u64>) -> bool {
        let kept = self.owner.is_some_and(|owner| owner != process && self.kept.contains(&owner));
        if self.reserved || kept {
            return false;
        }
        self.drop_absent();
        match self.queue.front_mut() {
            None => true,
            Some(first) if Some(first.ticket) == ticket => true,
            Some(first) => {
                first.parked.get_or_insert_with(Instant::now);
                false
            }
        }
    }

    /// The place in the queue, a new one if there is none yet.
    pub fn queue(&mut self, ticket: Option<u64>) -> u64 {
        if let Some(known) = ticket.filter(|t| self.queue.iter().any(|w| w.ticket == *t)) {
            return known;
        }
        self.last_ticket += 1;
        self.queue.push_back(Waiter { ticket: self.last_ticket, parked: None });
        self.last_ticket
    }

    /// Gives a place up.
    pub fn forget(&mut self, ticket: u64) {
        self.queue.retain(|waiter| waiter.ticket != ticket);
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        self.queue.len()
    }

    fn drop_absent(&mut self) {
        while self.queue.front().is_some_and(|w| w.parked.is_some_and(|since| since.elapsed() > PARKED)) {
            self.queue.pop_front();
        }
    }
}
