//! What SQLite may assume of a dataset.

use std::ffi::c_int;

/// A write never damages its neighbours: no sector needs to be journalled as a whole.
const POWERSAFE_OVERWRITE: c_int = 0x1000;
/// A journal's size never grows before its content is there: one journal header is enough.
const SAFE_APPEND: c_int = 0x200;
/// Writes reach the store in order, since all of them reach it in one commit: no journal needs a sync.
const SEQUENTIAL: c_int = 0x400;
/// Parts of a page may be read.
const SUBPAGE_READ: c_int = 0x8000;

/// Of databases and journals. Not BATCH_ATOMIC, because few builds know it and commits are atomic anyway; not
/// UNDELETABLE_WHEN_OPEN, because a journal belongs to its name and not to who has it open.
pub const CHARACTERISTICS: c_int = POWERSAFE_OVERWRITE | SAFE_APPEND | SEQUENTIAL | SUBPAGE_READ;

/// The store's page size.
pub const SECTOR_SIZE: c_int = dspm_proto::PAGE_SIZE as c_int;
