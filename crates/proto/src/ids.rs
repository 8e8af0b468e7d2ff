//! Newtypes: one for every quantity, so that a page number is never taken for an LSN.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype!(
    /// Number of a 4 KiB page in its dataset, from 0.
    PageNo
);
newtype!(
    /// A group's commit number; 0 is the empty group, commit n makes LSN n.
    Lsn
);
newtype!(
    /// Number of a replica set's configuration.
    Generation
);
newtype!(
    /// Random id of a dataset, never used again.
    DatasetId
);
newtype!(
    /// Random id of a group of datasets that commit together.
    GroupId
);
newtype!(
    /// Random id of a replica set.
    SetId
);
newtype!(
    /// Random name of what a node remembers; it changes whenever something acknowledged may be missing.
    StoreId
);
newtype!(
    /// Random id of a client process.
    ClientId
);

impl Lsn {
    /// The LSN of the commit that follows. No group lives to see the last one, but a peer may name it.
    pub fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }
}

impl PageNo {
    /// Pages that `bytes` take.
    pub fn count(bytes: u64) -> u64 {
        bytes.div_ceil(crate::PAGE_SIZE as u64)
    }
}

/// One client process at one node. A higher number kills the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// The process.
    pub client: ClientId,
    /// Counts the process's sessions; starts with 1.
    pub number: u64,
}

/// The fencing number of a group's current writer. Ordered by generation, then boot, then n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Generation of the replica set it was made in.
    pub generation: Generation,
    /// The primary's boot number: raised and made durable at each start of the node.
    pub boot: u32,
    /// Counts the primary's settles since its start.
    pub n: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.generation, self.boot, self.n)
    }
}

/// Identity of a record within its group. `hash` covers content, session, transaction number and predecessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// Generation that it was first sent in.
    pub generation: Generation,
    /// Its place in the group.
    pub lsn: Lsn,
    /// Hash of the record.
    pub hash: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@g{}#{:016x}", self.lsn, self.generation, self.hash)
    }
}

/// Milliseconds-precision is not enough for leases: nanoseconds of CLOCK_BOOTTIME, or of the simulator's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// This long after.
    pub fn after(self, d: std::time::Duration) -> Instant {
        Instant(self.0.saturating_add(d.as_nanos() as u64))
    }

    /// Time from `earlier` to this, zero if it is later.
    pub fn since(self, earlier: Instant) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
