//! What a call answers that failed: the number that WiredTiger understands, and a sentence for people.

use dspm_proto::Error;
use std::fmt;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As in errno.h.
    pub errno: i32,
    /// One sentence.
    pub text: String,
}

impl Failure {
    pub(crate) fn new(errno: i32, text: impl Into<String>) -> Failure {
        Failure { errno, text: text.into() }
    }

    pub(crate) fn missing(path: &str) -> Failure {
        Failure::new(libc::ENOENT, format!("{path}: no such file"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let errno = match e {
            Error::NotFound(_) => libc::ENOENT,
            Error::Full(_) => libc::ENOSPC,
            Error::Busy(_) => libc::EBUSY,
            Error::Usage(_) => libc::EINVAL,
            Error::Permission(_) => libc::EACCES,
            _ => libc::EIO,
        };
        Failure { errno, text: e.to_string() }
    }
}
