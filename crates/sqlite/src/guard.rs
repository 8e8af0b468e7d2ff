//! The border to C: no panic crosses it.

use crate::report;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an entry point; a panic becomes `failed` and a line on stderr.
///
/// Asserting unwind safety is right because a handle that panicked in a transaction publishes nothing: SQLite rolls
/// back on the error, and what the handle gathered is thrown away when the lock is dropped.
pub fn guard(entry: &'static str, failed: c_int, body: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        report::bug(entry);
        failed
    })
}
