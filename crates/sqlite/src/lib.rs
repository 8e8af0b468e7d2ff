//! The SQLite VFS `dspm`: a database is a dataset, a transaction is one commit of it.
//!
//! Shape: [`register`] puts one VFS into one copy of SQLite (a process may hold several copies; each has its own API
//! table). `vfs` and `database_file` are the C entry points; `handle` is one open database, in safe Rust: `lock` says
//! what each SQLite lock means, `asof` how it reads the past, `overlay` gathers a transaction's writes, `publish` turns them into a commit. Journals
//! live in the process (`journal`), because the store is never changed before the commit: a crash leaves nothing to
//! roll back. Where datasets come from is the embedder's [`Opener`].
//!
//! Invariants: the store changes only in `publish`, once a transaction; a transaction that SQLite reports as failed
//! left nothing in the store unless the error says that the outcome is unknown; what a pager cached of such a
//! transaction is never taken for the store's content; no panic crosses the C boundary; no SQLite is linked.
//!
//! Fault model: every call of the [`dspm_txn::dataset::Dataset`] may fail at any time; processes fork; programs close
//! connections in any state. `unsafe` is allowed only in the modules that face C and says why it holds.
#![deny(unsafe_code)]

mod api;
mod asof;
mod attach;
mod base;
mod characteristics;
mod connection;
mod control;
mod database_file;
mod errors;
mod ffi;
mod fork;
mod guard;
mod handle;
mod header;
mod holds;
mod journal;
mod journal_file;
mod journals;
mod lock;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod names;
mod opener;
mod overlay;
mod pragma;
mod process;
mod publish;
mod register;
mod report;
mod vfs;

pub use fork::{PerProcess, run_in_children};
pub use names::clean;
pub use opener::{Access, OpenRequest, Opener};
pub use register::{RegisterError, Registered, VFS_NAME, extension_init, register};

/// What was last reported to have gone wrong in this process; empty if nothing did.
pub fn last_error() -> String {
    fork::process().reporter.last()
}
