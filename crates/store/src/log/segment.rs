//! One file of the log.
//!
//! Invariant: the header is written when nothing of the segment is used yet, and synced before anything is. It fits
//! one sector, so it is never torn: a header that is neither whole nor zero is damage.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{GroupId, Lsn, checksum};

use crate::disk::{Aligned, Disk, DiskFile};

const MAGIC: [u8; 8] = *b"DSPMLOG1";
const VERSION: u32 = 1;
const SUMMED: usize = 40;
/// Where the first batch of a segment begins.
pub(crate) const FIRST: u64 = 4096;
const CHUNK: usize = 1 << 20;

/// A segment.
pub(crate) struct Segment {
    /// Its place in the order; never used twice.
    pub(crate) id: u64,
    /// Random; stands in each entry's header, so that entries of an earlier life are never taken for new ones.
    pub(crate) salt: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) len: u64,
    /// Newest LSN of each group in it.
    pub(crate) groups: HashMap<GroupId, Lsn>,
    /// Groups whose rebase stands in it and whose base has not come.
    pub(crate) rebases: HashSet<GroupId>,
}

/// What a file's header says.
pub(crate) enum SegmentHeader {
    /// All zeros: never used.
    Unused,
    /// Id and salt.
    Used(u64, u64),
    /// Neither.
    Damaged,
}

fn random() -> io::Result<u64> {
    crate::random::random().map_err(|e| io::Error::other(e.to_string()))
}

impl Segment {
    /// A new file of zeros, to be given an id when it is used. Nothing is left behind when space is short.
    pub(crate) fn blank(disk: &dyn Disk, dir: &Path, path: PathBuf, len: u64) -> io::Result<Segment> {
        let file = disk.open_direct(&path, true)?;
        let made = fill(&*file, len).and_then(|()| disk.sync_dir(dir));
        if let Err(e) = made {
            drop(file);
            let _ = disk.remove(&path); // the error that matters is the one above
            return Err(e);
        }
        Ok(Segment { id: 0, salt: 0, path, file, len, groups: HashMap::new(), rebases: HashSet::new() })
    }

    /// Gives a segment that holds nothing any more a new id.
    pub(crate) fn reuse(mut self, id: u64) -> io::Result<Segment> {
        (self.id, self.salt) = (id, random()?);
        let mut b = [0u8; SUMMED + 8];
        b[..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[16..24].copy_from_slice(&self.id.to_le_bytes());
        b[24..32].copy_from_slice(&self.salt.to_le_bytes());
        b[32..40].copy_from_slice(&self.len.to_le_bytes());
        let sum = checksum(&b[..SUMMED]);
        b[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_at(&b, 0)?;
        self.file.sync()?;
        Ok(self)
    }

    /// Reads the header of a file of that length: one that was cut short may have lost synced batches.
    pub(crate) fn header(b: &[u8], len: u64) -> SegmentHeader {
        if b.len() < SUMMED + 8 || b[..SUMMED + 8].iter().all(|x| *x == 0) {
            return SegmentHeader::Unused;
        }
        let ours = b[..8] == MAGIC && get_u32(b, 8) == VERSION && get_u64(b, SUMMED) == checksum(&b[..SUMMED]);
        if !ours || get_u64(b, 32) != len {
            return SegmentHeader::Damaged;
        }
        SegmentHeader::Used(get_u64(b, 16), get_u64(b, 24))
    }
}

fn fill(file: &dyn DiskFile, len: u64) -> io::Result<()> {
    let mut zeros = Aligned::new(CHUNK.min(len as usize));
    let _ = zeros.push(&vec![0; zeros.room()]);
    let mut at = 0;
    while at < len {
        let n = (len - at).min(zeros.filled().len() as u64);
        file.write_at(&zeros.filled()[..n as usize], at)?;
        at += n;
    }
    file.sync()
}
