//! The node's identity in its data directory: boot number, store id, and the store ids before it. Drawn in
//! docs/formats/arena.md.
//!
//! Invariants: a boot number is durable before it is used, and never used twice. A former name stands here only while
//! all that the log had synced under it is still held: one start that finds the log damaged, or that its disk failed
//! in the life before, forgets them all, before that log is written to again. The file is replaced as a whole.

use std::path::Path;

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{Error, StoreId, checksum};

use crate::disk::Disk;

const MAGIC: [u8; 8] = *b"DSPMNODE";
const VERSION: u32 = 1;
const FORMER_AT: usize = 40;
/// Names before the present one that are remembered: so many losses of the memory the registry may miss.
pub(crate) const FORMER_MAX: usize = 16;
const SUMMED: usize = FORMER_AT + 8 * FORMER_MAX;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) boot: u32,
    pub(crate) store: StoreId,
    /// A write or sync of the log failed: what the log lacks was perhaps acknowledged.
    pub(crate) suspect: bool,
    /// Names whose synced log is wholly held, the latest first.
    pub(crate) former: Vec<StoreId>,
}

impl Identity {
    /// Reads it; a directory without one is a new node's.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Identity, Error> {
        disk.list(dir)?;
        let file = disk.open(&dir.join("node"), true)?;
        let mut b = [0u8; SUMMED + 8];
        match file.read_at(&mut b, 0)? {
            0 => return Ok(Identity::default()),
            n if n == b.len()
                && b[..8] == MAGIC
                && get_u32(&b, 8) == VERSION
                && get_u64(&b, SUMMED) == checksum(&b[..SUMMED]) => {}
            _ => return Err(Error::Corrupt(format!("{}: not an identity file", dir.join("node").display()))),
        }
        let former = (0..FORMER_MAX).map(|i| StoreId(get_u64(&b, FORMER_AT + 8 * i))).filter(|s| s.0 != 0).collect();
        Ok(Identity { boot: get_u32(&b, 12), store: StoreId(get_u64(&b, 16)), suspect: b[24] != 0, former })
    }

    /// The memory is lost and the log is intact: the present name joins the former ones.
    pub(crate) fn lose_memory(&mut self, name: StoreId) {
        if self.store.0 != 0 {
            self.former.insert(0, self.store);
            self.former.truncate(FORMER_MAX);
        }
        (self.store, self.suspect) = (name, false);
    }

    /// The log lacks something that it had synced, or may, since its disk failed: nothing is promised of any name before.
    pub(crate) fn lose_log(&mut self, name: StoreId) {
        self.former.clear();
        (self.store, self.suspect) = (name, false);
    }

    /// Replaces it, durably.
    pub(crate) fn save(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut b = [0u8; SUMMED + 8];
        b[..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[12..16].copy_from_slice(&self.boot.to_le_bytes());
        b[16..24].copy_from_slice(&self.store.0.to_le_bytes());
        b[24] = u8::from(self.suspect);
        for (i, name) in self.former.iter().take(FORMER_MAX).enumerate() {
            b[FORMER_AT + 8 * i..][..8].copy_from_slice(&name.0.to_le_bytes());
        }
        let sum = checksum(&b[..SUMMED]);
        b[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        let (new, path) = (dir.join("node.new"), dir.join("node"));
        let file = disk.open(&new, true)?;
        file.write_at(&b, 0)?;
        file.sync()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)?;
        Ok(())
    }
}
