//! Reading the past: `PRAGMA dspm_as_of`, and `as_of=` in a URI.
//!
//! A handle that is moved to another time keeps one snapshot of it until it is moved again or closed, so that it reads
//! the same state however often it looks, and never fails halfway because others wrote. Nothing is written meanwhile.
//!
//! Invariant: nothing that SQLite cached at one time is taken for the content at another. Change counter and number of
//! the schema tell commits apart only as long as nobody sets them by hand; so the pager is made to drop its cache, and
//! the schema gets another number with each move, as where a history was lost ([`Handle::enter_epoch`]).

use crate::errors::{Code, During};
use crate::ffi;
use crate::handle::Handle;
use crate::lock::Lock;
use crate::report;
use dspm_proto::{Error, Lsn};
use dspm_txn::dataset::AsOf;

impl Handle {
    /// Moves the handle to another time; none is the present.
    ///
    /// # Errors
    /// What people read. The handle stays where it was.
    pub fn set_as_of(&mut self, to: Option<AsOf>) -> Result<(), Error> {
        if self.lock != Lock::None {
            let text =
                "dspm_as_of cannot change inside a transaction: end it first, and finish statements that still run";
            return Err(Error::Usage(text.into()));
        }
        if self.snapshot.as_ref().is_some_and(|s| !s.past) {
            return Err(Error::Usage(
                "an immutable database is read at one commit: open it with as_of= instead".into(),
            ));
        }
        let next = to.map(|at| self.dataset.snapshot_as_of(at)).transpose()?;
        if next.is_none() && self.snapshot.is_none() {
            return Ok(());
        }
        if let Some(before) = std::mem::replace(&mut self.snapshot, next) {
            self.dataset.release(before);
        }
        if let Some(ticket) = self.ticket.take() {
            self.dataset.forget(ticket);
        }
        self.distrust_cache = true;
        self.moves += 1;
        Ok(())
    }

    /// The past commit that the handle reads at; 0 in the present.
    pub fn as_of(&self) -> Lsn {
        self.snapshot.as_ref().filter(|s| s.past).map_or(Lsn(0), |s| s.lsn)
    }

    /// Opens the handle at a time of the past.
    pub fn open_as_of(&mut self, text: &str) -> Result<(), Code> {
        AsOf::parse(text).and_then(|at| self.set_as_of(at)).map_err(|e| self.fail(&e, During::Open))
    }

    /// The past is not written.
    pub fn check_present(&mut self) -> Result<(), Code> {
        let at = self.as_of();
        if at == Lsn(0) {
            return Ok(());
        }
        let code = Code(ffi::READONLY);
        let text = format!("the database is read as of commit {at}: PRAGMA dspm_as_of = 0 goes back to the present");
        self.last_error = Some(report::failure(&self.copy.api, &self.name, &Error::Permission(text), code));
        Err(code)
    }
}
