//! WiredTiger's files in the cluster's memory (docs/decisions/0022-wiredtiger-file-system.md).
//!
//! A database path is one group under one owner. Each file is a dataset; the group's main dataset is the directory:
//! which name has which dataset. What is written stays in the process until it is synced, evicted or closed; a sync
//! commits what the file has by then, and syncs of several threads share a record. Creations, renames and removals are
//! records of their own and take effect when they are held by all members.
//!
//! Invariants: a sync that returned is in a commit that all members hold; so is a change of names. A name never shows
//! another file's bytes: the dataset of a removed file is empty before it is used again, in the order of commits. Who was
//! replaced as owner changes nothing and reads nothing.
//!
//! Fault model: the store fails any call. A commit whose outcome is not certainly "nothing happened" ends this file
//! system: every later call fails, and WiredTiger panics, as it does after a failed fsync.
#![deny(unsafe_code)]

pub mod abi;
mod directory;
mod failure;
mod file;
mod fs;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod names;
mod open_file;
mod queue;

pub use failure::Failure;
pub use fs::{FileKind, FileSystem, OpenFlags};
pub use names::NAME_MAX;
pub use open_file::OpenFile;
