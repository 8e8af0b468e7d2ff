//! Limits of the wire. Everything has one; docs/limits.md lists them with their tests.

use crate::header::Kind;

/// Most bytes of a record's metadata, and of a group's state in a ring: 262 144 pages of 32 bytes, 4096 datasets of 24.
pub const RECORD_META_MAX: u32 = 16 << 20;
/// Most bytes of a record's page data. A node's memory usually says less.
pub const RECORD_DATA_MAX: u32 = 1 << 30;
/// Most pages of one record, zeros and deltas included: a settle sends it with every page in full.
pub const RECORD_PAGES_MAX: usize = RECORD_DATA_MAX as usize / crate::PAGE_SIZE;
/// Most bytes of the deltas of one record: a receiver holds them beside its frames.
pub const RECORD_DELTAS_MAX: usize = 64 << 20;
/// Most bytes of metadata of any other message.
pub const META_MAX: u32 = 4 << 20;
/// Most bytes of page data of any other message.
pub const DATA_MAX: u32 = (READ_PAGES_MAX * crate::PAGE_SIZE) as u32;
/// Every node takes records of so many pages, however small its memory.
pub const RECORD_PAGES_MIN: usize = 15;
/// Most pages of one READ.
pub const READ_PAGES_MAX: usize = 1024;
/// Most datasets of one group that one record changes.
pub const DATASETS_MAX: usize = 4096;
/// Most prepared records that one decides.
pub const LINKS_MAX: usize = 128;
/// Most bytes of a dataset's name.
pub const NAME_MAX: usize = 1024;
/// Most entries of one page of a listing, and most groups that one Status asks about.
pub const LISTED_MAX: usize = 1000;
/// A page of a listing ends with the entry that brings its text to this.
pub const LISTED_BYTES: usize = 1 << 20;
/// Most pages that a list of changes names before "drop your maps".
pub const CHANGES_MAX: usize = 65_536;
/// Most bytes of a dataset.
pub const DATASET_MAX: u64 = 8 << 40;
/// Highest LSN that a node is believed: a million commits a second reach it in 146,000 years.
pub const LSN_MAX: u64 = 1 << 62;
/// Longest lease that a node is believed.
pub const LEASE_MS_MAX: u64 = 60_000;

/// Most bytes of metadata and of page data that a message or an entry of that kind has.
pub fn of_kind(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::Commit | Kind::Replicate | Kind::Checkpoint => (RECORD_META_MAX, RECORD_DATA_MAX),
        _ => (META_MAX, DATA_MAX),
    }
}
