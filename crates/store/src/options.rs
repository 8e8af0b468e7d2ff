//! What a node chooses for its store, and what it learns from it.

use dspm_proto::{GroupId, RecordId, StoreId};
use std::path::PathBuf;
use std::time::Duration;

/// Choices of the node.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The arena's file, on tmpfs or a DAX device.
    pub arena: PathBuf,
    /// Bytes of the whole arena file.
    pub memory: u64,
    /// Directory of identity, log and base files.
    pub data_dir: PathBuf,
    /// A record is in the synced log at the latest after this.
    pub flush_interval: Duration,
    /// Bytes of unflushed pages at which commits wait; at half of it the flusher begins at once.
    pub dirty_max: u64,
    /// Most bytes that one reader may pin.
    pub history_max: u64,
    /// A client's newest record is remembered this long, if no more than 1024 clients write.
    pub outcome_retention: Duration,
}

/// What opening found; the node reports it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The store's name now.
    pub store: StoreId,
    /// Its name before, 0 if it had none. The same as `store` when the memory was kept.
    pub previous: StoreId,
    /// Names before, the latest first, whose synced log is wholly held under the present one.
    pub former: Vec<StoreId>,
    /// Number of this start.
    pub boot: u32,
    /// The arena verified and is of this kernel boot.
    pub memory_kept: bool,
    /// Why the memory was not kept.
    pub reason: Option<String>,
    /// Every batch of the log is whole, but for a torn last one that was never acknowledged, and no write or sync of it
    /// failed in the life before.
    pub log_intact: bool,
    /// Groups found, in memory or in the log.
    pub groups: usize,
    /// Newest record of each group in the log.
    pub log_tails: Vec<(GroupId, RecordId)>,
}

/// Numbers for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Frames of the arena.
    pub frames: u64,
    /// Frames in use: pages, rings, slots, and buffers being filled.
    pub used: u64,
    /// Frames that pages can still take.
    pub free: u64,
    /// Pages that only memory holds.
    pub dirty: u64,
    /// Frames of records rings.
    pub ring: u64,
    /// Groups.
    pub groups: u64,
    /// Copies found damaged since the start, none of them served.
    pub checksum_errors: u64,
    /// Bytes of log segments that hold something.
    pub log_bytes: u64,
}
