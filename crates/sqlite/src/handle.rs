//! One open database: what a `sqlite3_file` of a main database means.
//!
//! SQLite calls a handle from one thread at a time. `lock` and `publish` hold the transitions; here are reading,
//! writing and what every handle knows.
//!
//! Invariants: a snapshot is there from SHARED on (or always, if immutable or of the past); the overlay is there exactly while this
//! handle holds the process's reservation of the dataset; nothing here allocates or does a system call while a warm
//! read transaction runs (lock, 16 bytes at 24, unlock).

use crate::errors::{Code, During, code, is_ordinary};
use crate::ffi;
use crate::fork;
use crate::header;
use crate::lock::Lock;
use crate::overlay::{Base, Overlay, read_snapshot};
use crate::register::Copy;
use crate::report;
use dspm_proto::Error;
use dspm_txn::dataset::{Dataset, Intent, Snapshot, Ticket};
use std::ffi::c_void;
use std::sync::Arc;

/// SQLite validates what its pager has cached by this many bytes …
const PROBE_SIZE: usize = 16;
/// … at this offset of page 1.
const PROBE_AT: u64 = 24;

/// The epoch of a handle's first snapshot, and how many have begun since.
#[derive(Clone, Copy)]
pub struct Epoch {
    first: u64,
    passed: u32,
}

/// An open database. `born` comes first in every entry: after a fork nothing else of it may be touched.
pub struct Handle {
    pub born: u64,
    pub copy: &'static Copy,
    pub name: Box<str>,
    /// Name of its journal, as SQLite makes it.
    pub journal: Box<[u8]>,
    pub dataset: Arc<dyn Dataset>,
    pub read_only: bool,
    pub lock: Lock,
    pub snapshot: Option<Snapshot>,
    pub overlay: Option<Overlay>,
    /// The place in the queue that the last refused reservation got.
    pub ticket: Option<Ticket>,
    /// Which of the last eight transactions wrote, the newest in the lowest bit.
    pub wrote: u8,
    /// The present read transaction waited with the ticket and did not try to write yet.
    pub ticket_idle: bool,
    /// What the pager cached may be of a transaction that is not in the store, or differ from what was stored: the
    /// next probe answers something else, once, so that the pager drops its cache.
    pub distrust_cache: bool,
    /// The epoch of the last snapshot, counted from the handle's first: where it changed, the numbers by which SQLite
    /// knows its cached pages and its schema may stand for other content than before.
    pub epoch: Option<Epoch>,
    /// How often this handle was moved to another time ([`Handle::set_as_of`]).
    pub moves: u32,
    /// This transaction may not be published: another VFS decides it, or its publish failed.
    pub refused: bool,
    /// This transaction was published; what SQLite still has to say about it changes nothing.
    pub decided: bool,
    /// A super-journal of another VFS that this transaction was refused for.
    pub foreign_super: Option<Box<[u8]>>,
    /// `locking_mode=EXCLUSIVE` was asked for …
    pub exclusive: bool,
    /// … and the lease is held.
    pub holding: bool,
    /// Where SQLite keeps the connection that uses this file (FCNTL_PDB); null if it never said.
    pub connection: *const *mut c_void,
    /// Where this handle lives, for the table of stages; null until it is open.
    pub place: *mut Handle,
    /// The text of the last failure.
    pub last_error: Option<String>,
}

impl Handle {
    /// A handle without any lock.
    pub fn new(copy: &'static Copy, name: &str, dataset: Arc<dyn Dataset>, read_only: bool) -> Handle {
        Handle {
            born: fork::generation(),
            copy,
            name: name.into(),
            journal: [name.as_bytes(), b"-journal"].concat().into(),
            dataset,
            read_only,
            lock: Lock::None,
            snapshot: None,
            overlay: None,
            ticket: None,
            wrote: 0,
            ticket_idle: false,
            distrust_cache: false,
            epoch: None,
            moves: 0,
            refused: false,
            decided: false,
            foreign_super: None,
            exclusive: false,
            holding: false,
            connection: std::ptr::null(),
            place: std::ptr::null_mut(),
            last_error: None,
        }
    }

    /// Reports an error and answers its result code.
    pub fn fail(&mut self, error: &Error, during: During) -> Code {
        let code = code(error, during);
        if !is_ordinary(code) {
            self.last_error = Some(report::failure(&self.copy.api, &self.name, error, code));
        } else if matches!(error, Error::Busy(_)) {
            self.last_error = Some(report::quietly(&self.name, error)); // it says for whom one waits
        }
        code
    }

    /// Fails a call that SQLite does not make: a bug here, there, or in between.
    pub fn misuse(&mut self, what: &str) -> Code {
        self.fail(&Error::Failed(format!("{what} without a write lock")), During::Commit)
    }

    /// What a failed read or write is to be taken for.
    pub fn during(&self) -> During {
        if self.overlay.is_some() { During::Write } else { During::Read }
    }

    /// `xRead`: fills the buffer; short at the end of the database, with zeros.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Code> {
        let size = match self.read_bytes(offset, buf) {
            Ok(size) => size,
            Err(e) => return Err(self.fail(&e, self.during())),
        };
        if offset == 0 {
            header::show_no_wal(buf);
            header::disguise(buf, self.epochs_passed());
        }
        let there = size.saturating_sub(offset).min(buf.len() as u64) as usize;
        if self.distrust_cache && offset == PROBE_AT && buf.len() == PROBE_SIZE {
            self.distrust_cache = false;
            buf[0] ^= 0x80;
        }
        if there < buf.len() {
            buf[there..].fill(0);
            return Err(Code(ffi::IOERR_SHORT_READ));
        }
        Ok(())
    }

    /// Reads what is there and answers the size of the database.
    fn read_bytes(&self, offset: u64, buf: &mut [u8]) -> Result<u64, Error> {
        let Some(snapshot) = &self.snapshot else {
            // sqlite3_open looks at the header before any lock.
            let snapshot = self.dataset.snapshot(Intent::Read)?;
            let base = Base { dataset: &*self.dataset, snapshot: &snapshot };
            let done = read_existing(base, snapshot.size, offset, buf).map(|()| snapshot.size);
            self.dataset.release(snapshot);
            return done;
        };
        let base = Base { dataset: &*self.dataset, snapshot };
        match &self.overlay {
            None => read_existing(base, snapshot.size, offset, buf).map(|()| snapshot.size),
            Some(overlay) => overlay.read(base, offset, buf).map(|()| overlay.size()),
        }
    }

    /// `xWrite`.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        if offset == 0 && self.epochs_passed() > 0 {
            let mut stored = data.to_vec();
            header::disguise(&mut stored, self.epochs_passed());
            return self.change("a write", |overlay, base| overlay.write(base, offset, &stored));
        }
        self.change("a write", |overlay, base| overlay.write(base, offset, data))
    }

    /// A read transaction begins. In another epoch than the last one did, pages and schema that SQLite has are of a
    /// history that is gone, though the change counter and the schema's number may well be the same again: the pager
    /// is made to drop its cache, and the handle shows another number for the schema from here on.
    pub fn enter_epoch(&mut self, snapshot: &Snapshot) {
        let epoch = self.epoch.get_or_insert(Epoch { first: snapshot.epoch, passed: 0 });
        let passed = (snapshot.epoch - epoch.first) as u32;
        self.distrust_cache |= passed != epoch.passed;
        epoch.passed = passed;
    }

    /// How often what SQLite knows by its numbers became something else.
    fn epochs_passed(&self) -> u32 {
        self.epoch.map_or(0, |e| e.passed) + self.moves
    }

    /// `xTruncate`.
    pub fn truncate(&mut self, size: u64) -> Result<(), Code> {
        self.change("a truncation", |overlay, base| overlay.truncate(base, size))
    }

    fn change(
        &mut self,
        what: &str,
        how: impl FnOnce(&mut Overlay, Base<'_>) -> Result<(), Error>,
    ) -> Result<(), Code> {
        let (Some(snapshot), Some(overlay)) = (&self.snapshot, &mut self.overlay) else {
            return Err(self.misuse(what));
        };
        let base = Base { dataset: &*self.dataset, snapshot };
        how(overlay, base).map_err(|e| self.fail(&e, During::Write))
    }

    /// `xFileSize`.
    pub fn size(&mut self) -> Result<u64, Code> {
        match (&self.overlay, &self.snapshot) {
            (Some(overlay), _) => Ok(overlay.size()),
            (None, Some(snapshot)) => Ok(snapshot.size),
            (None, None) => match self.dataset.snapshot(Intent::Read) {
                Ok(snapshot) => {
                    let size = snapshot.size;
                    self.dataset.release(snapshot);
                    Ok(size)
                }
                Err(e) => Err(self.fail(&e, During::Size)),
            },
        }
    }

    /// True if this transaction has written anything.
    pub fn is_written(&self) -> bool {
        self.overlay.as_ref().is_some_and(Overlay::is_written)
    }

    /// Takes the one snapshot that an immutable database is read from.
    pub fn pin(&mut self) -> Result<(), Code> {
        match self.dataset.snapshot(Intent::Read) {
            Ok(snapshot) => {
                self.snapshot = Some(snapshot);
                Ok(())
            }
            Err(e) => Err(self.fail(&e, During::Open)),
        }
    }
}

/// Reads what lies below `size`; the rest of the buffer is left alone.
fn read_existing(base: Base<'_>, size: u64, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
    let there = size.saturating_sub(offset).min(buf.len() as u64) as usize;
    read_snapshot(base, offset, &mut buf[..there])
}
