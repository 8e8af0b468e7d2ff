//! What SQLite's locks mean.
//!
//! | SQLite asks for | dspm does |
//! | --- | --- |
//! | NONE → SHARED | a snapshot; with a ticket, at most [`TICKET_WAIT`] for the lease first; in a handle that writes often, the lease if it is idle |
//! | SHARED → RESERVED | the process's writer mutex and the group's lease; a newer commit: BUSY_SNAPSHOT, an open transaction: BUSY and a ticket |
//! | → PENDING, EXCLUSIVE | nothing: readers keep their snapshots, so nobody has to leave |
//! | → SHARED | the reservation ends; what was not published is gone |
//! | → NONE | the snapshot ends, unless it is of the past |
//!
//! A refused writer keeps its place in the queue over the program's retries, and waits for its turn where a snapshot is
//! taken: one taken before the lease arrives would be stale on arrival. It loses the place when it comes to read only.
//! For the same reason a handle that wrote of late fetches the lease where it begins, before anybody knows whether it
//! will write this time.

use crate::connection;
use crate::errors::{Code, During};
use crate::ffi;
use crate::fork::process;
use crate::handle::Handle;
use crate::overlay::Overlay;
use dspm_proto::Error;
use dspm_txn::dataset::{Intent, Reserved, Snapshot};
use std::ffi::c_int;
use std::time::Duration;

/// How long a queued writer waits for its turn before it takes a snapshot anyway.
const TICKET_WAIT: Duration = Duration::from_millis(100);

/// A handle writes often if so many of its last eight transactions did.
const OFTEN: u32 = 2;

/// How often `locking_mode=EXCLUSIVE` takes a new snapshot when other commits keep coming before the lease.
const HOLD_TRIES: usize = 8;

/// SQLite's lock levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    None = 0,
    Shared = 1,
    Reserved = 2,
    Pending = 3,
    Exclusive = 4,
}

impl Lock {
    /// The level of SQLite's number.
    pub fn of(level: c_int) -> Option<Lock> {
        [Lock::None, Lock::Shared, Lock::Reserved, Lock::Pending, Lock::Exclusive]
            .into_iter()
            .find(|l| *l as c_int == level)
    }
}

impl Handle {
    /// `xLock`.
    pub fn lock(&mut self, wanted: Lock) -> Result<(), Code> {
        if self.lock == Lock::None && wanted > Lock::None {
            self.begin_read()?;
            self.lock = Lock::Shared;
        }
        if self.lock < Lock::Reserved && wanted >= Lock::Reserved {
            self.begin_write()?;
        }
        self.lock = self.lock.max(wanted);
        Ok(())
    }

    /// `xUnlock`. Never fails.
    pub fn unlock(&mut self, wanted: Lock) {
        if self.lock >= Lock::Reserved && wanted < Lock::Reserved {
            self.end_write();
        }
        if self.lock > Lock::None && wanted == Lock::None {
            self.end_read();
        }
        self.lock = self.lock.min(wanted);
    }

    /// `xCheckReservedLock`: whether some handle of this process is writing.
    pub fn is_reserved(&self) -> bool {
        self.dataset.is_reserved()
    }

    /// `PRAGMA locking_mode`. The lease is taken with the next SHARED.
    pub fn set_exclusive(&mut self, exclusive: bool) {
        self.exclusive = exclusive;
        if !exclusive && self.holding {
            self.holding = false;
            process().holds.drop(&self.dataset);
        }
    }

    /// `xClose`.
    pub fn close(&mut self) {
        self.unlock(Lock::None);
        if let Some(snapshot) = self.snapshot.take() {
            self.dataset.release(snapshot);
        }
        if let Some(ticket) = self.ticket.take() {
            self.dataset.forget(ticket);
        }
        self.set_exclusive(false);
    }

    /// What a transaction that begins now will do, going by what the last ones did.
    fn intent(&self) -> Intent {
        match self.ticket {
            _ if self.read_only => Intent::Read,
            Some(ticket) => Intent::Write { ticket: Some(ticket), wait: TICKET_WAIT },
            None if self.wrote.count_ones() >= OFTEN => Intent::Write { ticket: None, wait: Duration::ZERO },
            None => Intent::Read,
        }
    }

    fn begin_read(&mut self) -> Result<(), Code> {
        if self.snapshot.is_some() {
            return Ok(());
        }
        for _ in 0..HOLD_TRIES {
            let snapshot = match self.dataset.snapshot(self.intent()) {
                Ok(snapshot) => snapshot,
                Err(e) => return Err(self.fail(&e, During::Lock)),
            };
            self.ticket = snapshot.ticket.or(self.ticket);
            if !self.exclusive || self.holding || self.read_only {
                self.ticket_idle = self.ticket.is_some();
                self.enter_epoch(&snapshot);
                self.snapshot = Some(snapshot);
                self.wrote <<= 1;
                return Ok(());
            }
            match self.take_hold(&snapshot) {
                Ok(true) => {
                    self.enter_epoch(&snapshot);
                    self.snapshot = Some(snapshot);
                    return Ok(());
                }
                Ok(false) => self.dataset.release(snapshot),
                Err(code) => {
                    self.dataset.release(snapshot);
                    return Err(code);
                }
            }
        }
        Err(Code(ffi::BUSY))
    }

    /// Takes the lease to keep it; false if the snapshot is older than it.
    fn take_hold(&mut self, snapshot: &Snapshot) -> Result<bool, Code> {
        match self.dataset.reserve(snapshot, self.ticket) {
            Ok(Reserved::Granted) => {
                self.ticket = None;
                self.holding = true;
                // Held before the reservation ends, so that the lease cannot leave in between.
                process().holds.take(&self.dataset);
                self.dataset.release_write();
                Ok(true)
            }
            Ok(Reserved::Stale) => Ok(false),
            Ok(Reserved::Busy(ticket)) => {
                self.ticket = Some(ticket);
                Err(Code(ffi::BUSY))
            }
            Err(e) => Err(self.fail(&e, During::Reserve)),
        }
    }

    fn begin_write(&mut self) -> Result<(), Code> {
        if self.read_only {
            return Err(Code(ffi::READONLY));
        }
        self.check_present()?;
        process().stages.remove_of(connection::of(self) as usize);
        self.ticket_idle = false;
        self.wrote |= 1;
        let Some(snapshot) = &self.snapshot else {
            return Err(self.fail(&Error::Failed("a reservation without a snapshot".into()), During::Reserve));
        };
        match self.dataset.reserve(snapshot, self.ticket) {
            Ok(Reserved::Granted) => {
                self.ticket = None;
                self.overlay = Some(Overlay::new(snapshot.size, self.copy.opener.transaction_max()));
                Ok(())
            }
            Ok(Reserved::Stale) => {
                self.wrote = u8::MAX; // it will come again, and should not be late again
                Err(Code(ffi::BUSY_SNAPSHOT))
            }
            Ok(Reserved::Busy(ticket)) => {
                self.ticket = Some(ticket);
                Err(Code(ffi::BUSY))
            }
            Err(e) => Err(self.fail(&e, During::Reserve)),
        }
    }

    fn end_write(&mut self) {
        // A pager that rolled back restored its cache from the journal. It is made to look again all the same: were
        // the replay skipped or failed, it would show rows that the store never had.
        self.distrust_cache |= self.is_written();
        self.overlay = None;
        (self.refused, self.decided) = (false, false);
        process().stages.remove(self.place);
        process().journals.delete_leftover(&self.journal);
        self.dataset.release_write();
    }

    fn end_read(&mut self) {
        if let Some(snapshot) = self.snapshot.take_if(|s| !s.past) {
            self.dataset.release(snapshot);
        }
        if std::mem::take(&mut self.ticket_idle) {
            if let Some(ticket) = self.ticket.take() {
                self.dataset.forget(ticket);
            }
        }
        if let Some(name) = self.foreign_super.take() {
            process().journals.delete(&name);
        }
    }
}
