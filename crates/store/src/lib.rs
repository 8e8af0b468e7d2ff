//! A node's memory and disk: arena, frame table, page index, record rings, disk log, base files and recovery.
//!
//! A [`Store`] is one arena file with the data directory behind it. A [`GroupStore`] is one group's part: records in
//! the order of their LSNs, and every version of every page that a reader may still ask for. The node puts each
//! `GroupStore` beside the group's replica state under one lock of its own.
//!
//! Invariants: what a method has returned from is in the arena, and survives the death of the process at any
//! instruction; a page's frame is never written once published; a copy whose checksum does not fit is counted and
//! never served. Fault model: docs/decisions/0002-arena.md and 0003-disk-log.md.
//!
//! `unsafe` lives in `mapping` and `frames` only.

mod append;
mod arena;
mod base;
mod checkpoint;
mod disk;
mod disks;
mod flush;
mod flusher;
mod frames;
mod group;
mod horizon;
mod identity;
mod incoming;
mod index;
mod layout;
mod log;
mod maintain;
mod mapping;
mod meta;
mod open;
mod options;
mod random;
mod read;
mod rebase;
mod recover;
mod replay;
mod ring;
mod room;
mod sessions;
mod slot;
mod step;
mod store;
#[cfg(test)]
mod tests;
mod twophase;

pub use base::BaseReader;
pub use disk::{Disk, DiskFile, RealDisk};
pub use flusher::{FlushSource, Flusher};
pub use frames::{FrameBuf, PinnedFrame};
pub use group::GroupStore;
pub use incoming::BaseWriter;
pub use layout::FrameNo;
pub use options::{Opened, StoreOptions, Usage};
pub use read::{Changes, Lookup, StoredPage, StoredRecord};
pub use slot::Fence;
pub use store::Store;
