//! The VFS under a real SQLite, over a store in memory that keeps the contract of `Dataset`.
//!
//! SQLite is loaded at run time: `libsqlite3.so.0`, or what `DSPM_TEST_SQLITE` names, so that the same tests run under
//! any version. No test asserts a time.
#![allow(clippy::unwrap_used, missing_docs)]

mod asof;
mod attach;
mod backup;
mod copies;
mod counter;
mod epochs;
mod faults;
mod golden;
mod harness;
mod locks;
mod misuse;
mod opening;
mod pragmas;
mod threads;
