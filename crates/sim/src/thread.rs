//! A thread of a client process and where its transaction stands.

use crate::elle::Txn;
use dspm_proto::{Instant, Lsn, PageNo, RecordId};

/// A snapshot that a thread reads from.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The state.
    pub id: RecordId,
    /// The session was confirmed all the while: nobody may drop its versions.
    pub protected: bool,
}

/// A past state that a thread reads.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// The commit.
    pub at: Lsn,
    /// The primary granted it.
    pub id: Option<RecordId>,
    /// Until then the primary keeps it, whatever becomes of later words.
    pub until: Instant,
}

/// A group that a transaction over several has reserved.
#[derive(Clone, Debug)]
pub struct Share {
    /// Which.
    pub group: usize,
    /// The state that it was reserved at.
    pub view: RecordId,
    /// Pages that are to be written.
    pub targets: Vec<PageNo>,
}

/// Where a transaction stands. `due`: when it goes on by itself; `request`: the answer it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are described above
pub enum Step {
    /// Waits to be told.
    Stopped,
    /// Thinks.
    Idle { due: Instant },
    /// Wants a snapshot; waits while a record of the process is in flight.
    Begin,
    /// Asked the primary for one.
    Asked { request: u64, sent: Instant, due: Instant },
    /// Asked a member for pages.
    Reading { request: u64, due: Instant },
    /// Waits for the process's writer mutex.
    Mutex,
    /// Has it; needs the lease.
    Reserve,
    /// Asked for the lease.
    Acquiring { request: u64, due: Instant },
    /// The grant came so late that it lapsed; asked for more of it.
    Renewing { due: Instant },
    /// Inside its write transaction.
    Working { due: Instant },
    /// Its record is in flight, or in doubt.
    Committing,
    /// Told BUSY; tries again.
    Pause { due: Instant },
}

impl Step {
    /// When it goes on by itself.
    pub fn due(&self) -> Option<Instant> {
        match *self {
            Step::Idle { due } | Step::Asked { due, .. } | Step::Reading { due, .. } => Some(due),
            Step::Acquiring { due, .. } | Step::Renewing { due } | Step::Working { due } | Step::Pause { due } => {
                Some(due)
            }
            Step::Stopped | Step::Begin | Step::Mutex | Step::Reserve | Step::Committing => None,
        }
    }
}

/// What a thread finished.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Read transactions.
    pub reads: u64,
    /// Commits.
    pub writes: u64,
    /// Transactions that were told no.
    pub aborts: u64,
}

/// A thread.
#[derive(Debug)]
pub struct Thread {
    /// Where its transaction stands.
    pub step: Step,
    /// The group that its transaction works on.
    pub group: usize,
    /// Groups that its transaction writes besides, in the order in which they are reserved.
    pub rest: Vec<usize>,
    /// Groups that it has reserved.
    pub shares: Vec<Share>,
    /// The transaction writes.
    pub writes: bool,
    /// Its snapshot.
    pub view: Option<View>,
    /// Its snapshot is of the past.
    pub past: Option<Past>,
    /// The process's floor when it asked for one.
    pub pinned: Lsn,
    /// Its place in the queue, 0 if none.
    pub ticket: u64,
    /// The newest state that anybody had seen when its begin was called; for the checker.
    pub called: Lsn,
    /// Pages that it wants to read.
    pub pages: Vec<PageNo>,
    /// Pages that it is going to write; it reads them too.
    pub targets: Vec<PageNo>,
    /// What it read, for the checker.
    pub txn: Txn,
    /// Its record goes out a second time.
    pub again: bool,
    /// How long its write transaction works before it commits.
    pub work: u64,
    /// What it finished, by group.
    pub tally: Vec<Tally>,
}

impl Thread {
    /// The groups of its transaction, in the order in which they are reserved.
    pub(crate) fn groups(&self) -> Vec<usize> {
        let reserved = self.shares.iter().map(|s| s.group);
        reserved.chain([self.group]).chain(self.rest.iter().copied()).collect()
    }

    /// It read a page. What is read of the past is no part of the present's order.
    pub(crate) fn saw(&mut self, page: PageNo, value: u64) {
        if self.past.is_none() {
            self.txn.reads.push(((self.group, page), value));
        }
    }

    /// An idle thread.
    pub fn new(now: Instant) -> Thread {
        Thread {
            step: Step::Idle { due: now },
            group: 0,
            rest: Vec::new(),
            shares: Vec::new(),
            writes: false,
            view: None,
            past: None,
            pinned: Lsn(0),
            ticket: 0,
            called: Lsn(0),
            pages: Vec::new(),
            targets: Vec::new(),
            txn: Txn::default(),
            again: false,
            work: 0,
            tally: vec![Tally::default(); 4],
        }
    }
}
