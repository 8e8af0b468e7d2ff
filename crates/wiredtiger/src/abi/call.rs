//! What every method of the file system does around its work.
//!
//! A panic becomes EIO and never crosses into C. A failure answers its number, and its sentence goes to the program's
//! log. A forked child has its parent's tables and nothing behind them: its calls fail and touch nothing.

use super::connection::Api;
use super::layout::Layout;
use super::paths::Home;
use super::program::text;
use super::structs::Session;
use crate::{Failure, FileSystem};
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a file system and its handles share.
pub struct Core {
    pub files: Arc<FileSystem>,
    pub home: Home,
    pub layout: &'static Layout,
    pub api: Api,
    pub process: u32,
}

impl Core {
    /// False in a forked child.
    pub fn is_own(&self) -> bool {
        std::process::id() == self.process
    }

    /// The body of a method: 0 or an errno.
    pub fn run(&self, session: *mut Session, body: impl FnOnce() -> Result<(), Failure>) -> c_int {
        if !self.is_own() {
            return libc::EPERM;
        }
        let failure = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => return 0,
            Ok(Err(failure)) => failure,
            Err(_) => Failure { errno: libc::EIO, text: "a bug in dspm; its message is on stderr".into() },
        };
        self.api.report(session, &failure.text);
        failure.errno
    }

    /// A path as WiredTiger passes it, from the home on.
    ///
    /// # Safety
    /// `path` is null or a string that ends with a zero byte.
    pub unsafe fn path(&self, path: *const c_char) -> Result<String, Failure> {
        // SAFETY: the caller's promise.
        self.home.relative(unsafe { text(path) }.ok_or_else(|| invalid("a path that is not UTF-8"))?)
    }
}

/// EINVAL.
pub fn invalid(text: &str) -> Failure {
    Failure { errno: libc::EINVAL, text: text.into() }
}

/// A position in a file.
pub fn unsigned(offset: i64) -> Result<u64, Failure> {
    u64::try_from(offset).map_err(|_| invalid("a position before the beginning of a file"))
}

/// A size as C has it.
pub fn signed(size: u64) -> Result<i64, Failure> {
    i64::try_from(size).map_err(|_| Failure { errno: libc::EFBIG, text: "a file is too large".into() })
}
