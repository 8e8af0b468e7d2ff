//! The one place where errors of the store become SQLite's result codes.
//!
//! Rules: inside a write transaction a failed read is of the IOERR family or FULL, because SQLite rolls back for these
//! and leaves the transaction open for others. At a commit a lost race is BUSY_SNAPSHOT, never BUSY, because SQLite
//! would let the program retry COMMIT without its pages.

use crate::ffi;
use dspm_proto::Error;
use std::ffi::c_int;

/// A result code other than OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub c_int);

/// What was being done when the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// Opening a database.
    Open,
    /// Beginning to read.
    Lock,
    /// Asking for the write lease.
    Reserve,
    /// Reading, outside of a write transaction.
    Read,
    /// Reading or gathering pages inside of a write transaction.
    Write,
    /// Committing.
    Commit,
    /// Committing while other statements of the connection are open: only IOERR and FULL stop those.
    CommitBesideReaders,
    /// Asking for the size.
    Size,
    /// Asking whether a dataset exists.
    Exists,
    /// Deleting a dataset.
    Delete,
}

/// The result code for an error.
pub fn code(error: &Error, during: During) -> Code {
    Code(match during {
        During::Open => match error {
            Error::Busy(_) => ffi::BUSY,
            other => named(other).unwrap_or(ffi::CANTOPEN),
        },
        During::Lock | During::Reserve => match error {
            Error::Busy(_) => ffi::BUSY,
            Error::TooOld(_) | Error::Conflict(_) => ffi::BUSY_SNAPSHOT,
            Error::Corrupt(_) => ffi::IOERR_DATA,
            other => named(other).unwrap_or(ffi::IOERR_LOCK),
        },
        During::Read => match error {
            Error::TooOld(_) | Error::Conflict(_) => ffi::BUSY_SNAPSHOT,
            Error::Corrupt(_) => ffi::IOERR_DATA,
            other => named(other).unwrap_or(ffi::IOERR_READ),
        },
        During::Write => match error {
            Error::Corrupt(_) => ffi::IOERR_DATA,
            Error::Full(_) => ffi::FULL,
            _ => ffi::IOERR_READ,
        },
        During::Commit => match error {
            Error::Conflict(_) | Error::TooOld(_) => ffi::BUSY_SNAPSHOT,
            Error::Full(_) => ffi::FULL,
            _ => ffi::IOERR,
        },
        During::CommitBesideReaders => match error {
            Error::Full(_) => ffi::FULL,
            _ => ffi::IOERR,
        },
        During::Size => ffi::IOERR_FSTAT,
        During::Exists => ffi::IOERR_ACCESS,
        During::Delete => match error {
            Error::NotFound(_) => ffi::IOERR_DELETE_NOENT,
            _ => ffi::IOERR_DELETE,
        },
    })
}

/// Errors that have a result code of their own wherever SQLite copes with it.
fn named(error: &Error) -> Option<c_int> {
    match error {
        Error::Full(_) => Some(ffi::FULL),
        Error::Auth(_) => Some(ffi::AUTH),
        Error::Permission(_) => Some(ffi::PERM),
        Error::Protocol(_) => Some(ffi::PROTOCOL),
        _ => None,
    }
}

/// True for what a program meets in daily work and retries: not worth a line on stderr.
pub fn is_ordinary(code: Code) -> bool {
    code.0 == ffi::BUSY || code.0 == ffi::IOERR_DELETE_NOENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use dspm_proto::Refusal;

    fn all() -> Vec<Error> {
        let t = String::new;
        vec![
            Error::Failed(t()),
            Error::Usage(t()),
            Error::Unavailable(t()),
            Error::Corrupt(t()),
            Error::Busy(t()),
            Error::Conflict(t()),
            Error::TooOld(t()),
            Error::OutcomeUnknown(t()),
            Error::Full(t()),
            Error::Auth(t()),
            Error::Permission(t()),
            Error::Protocol(t()),
            Error::NotFound(t()),
            Error::Refused(Refusal::Fenced),
        ]
    }

    #[test]
    fn a_failure_inside_a_write_transaction_rolls_it_back() {
        for e in all() {
            let primary = code(&e, During::Write).0 & 0xff;
            assert!(primary == ffi::IOERR || primary == ffi::FULL, "{e:?}");
        }
    }

    #[test]
    fn a_commit_never_answers_plain_busy() {
        for e in all() {
            let c = code(&e, During::Commit).0;
            assert!([ffi::BUSY_SNAPSHOT, ffi::FULL, ffi::IOERR].contains(&c), "{e:?}: {c}");
            let beside = code(&e, During::CommitBesideReaders).0;
            assert!([ffi::FULL, ffi::IOERR].contains(&beside), "{e:?}: {beside}");
        }
    }

    #[test]
    fn outages_and_the_named_errors() {
        let t = String::new;
        assert_eq!(code(&Error::Unavailable(t()), During::Read).0, ffi::IOERR_READ);
        assert_eq!(code(&Error::Unavailable(t()), During::Lock).0, ffi::IOERR_LOCK);
        assert_eq!(code(&Error::Unavailable(t()), During::Reserve).0, ffi::IOERR_LOCK);
        assert_eq!(code(&Error::Unavailable(t()), During::Commit).0, ffi::IOERR);
        assert_eq!(code(&Error::Unavailable(t()), During::Open).0, ffi::CANTOPEN);
        assert_eq!(code(&Error::NotFound(t()), During::Open).0, ffi::CANTOPEN);
        assert_eq!(code(&Error::TooOld(t()), During::Read).0, ffi::BUSY_SNAPSHOT);
        assert_eq!(code(&Error::Auth(t()), During::Open).0, ffi::AUTH);
        assert_eq!(code(&Error::Permission(t()), During::Open).0, ffi::PERM);
        assert_eq!(code(&Error::Protocol(t()), During::Lock).0, ffi::PROTOCOL);
        assert_eq!(code(&Error::Full(t()), During::Commit).0, ffi::FULL);
    }
}
