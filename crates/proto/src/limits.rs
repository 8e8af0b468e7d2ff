//! Limits of the wire. Everything has one; docs/limits.md lists them with their tests.

/// Most bytes of metadata of one message.
pub const META_MAX: u32 = 4 << 20;
/// Most bytes of page data of one message.
pub const DATA_MAX: u32 = 64 << 20;
/// Every node takes records of so many pages, however small its memory.
pub const RECORD_PAGES_MIN: usize = 15;
/// Most pages of one READ.
pub const READ_PAGES_MAX: usize = 1024;
/// Most datasets of one group that one record changes.
pub const DATASETS_MAX: usize = 4096;
/// Most bytes of a dataset's name.
pub const NAME_MAX: usize = 1024;
/// Most pages that a list of changes names before "drop your maps".
pub const CHANGES_MAX: usize = 65_536;
/// Most bytes of a dataset.
pub const DATASET_MAX: u64 = 8 << 40;
/// Highest LSN that a node is believed: a million commits a second reach it in 146,000 years.
pub const LSN_MAX: u64 = 1 << 62;
/// Longest lease that a node is believed.
pub const LEASE_MS_MAX: u64 = 60_000;
