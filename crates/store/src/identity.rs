//! The node's identity in its data directory: the boot number and the store id. Drawn in docs/formats/arena.md.
//!
//! Invariant: a boot number is durable before it is used, and never used twice. The file is replaced as a whole.

use std::path::Path;

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{Error, StoreId, checksum};

use crate::disk::Disk;

const MAGIC: [u8; 8] = *b"DSPMNODE";
const VERSION: u32 = 1;
const SUMMED: usize = 40;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) boot: u32,
    pub(crate) store: StoreId,
    /// A write or sync of the log failed: what the log lacks was perhaps acknowledged.
    pub(crate) suspect: bool,
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
        Ok(Identity { boot: get_u32(&b, 12), store: StoreId(get_u64(&b, 16)), suspect: b[24] != 0 })
    }

    /// Replaces it, durably.
    pub(crate) fn save(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut b = [0u8; SUMMED + 8];
        b[..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[12..16].copy_from_slice(&self.boot.to_le_bytes());
        b[16..24].copy_from_slice(&self.store.0.to_le_bytes());
        b[24] = u8::from(self.suspect);
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
