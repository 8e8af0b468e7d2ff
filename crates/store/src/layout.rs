//! Where things lie in the arena file, and its header page. Drawn in docs/formats/arena.md.
//!
//! Invariant: frame n lies at byte n × 4096 of the file, so nothing in the file is an address. Frame 0 is the header,
//! so 0 also means "no frame".

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{Error, PAGE_SIZE, StoreId, checksum};

/// Number of a 4 KiB frame: its place in the arena file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u32);

impl FrameNo {
    /// No frame.
    pub(crate) const NONE: FrameNo = FrameNo(0);
}

/// Bytes of one entry of the frame table.
pub(crate) const META_SIZE: usize = 64;
const MAGIC: [u8; 8] = *b"DSPMAREN";
const VERSION: u32 = 1;
const SUMMED: usize = 88;
/// The word that says "do not trust this memory after a restart".
pub(crate) const SUSPECT_AT: usize = 256;
const COPIES: [usize; 2] = [0, 128];

/// Places derived from the file's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes of the file that are used.
    pub(crate) len: usize,
    /// The first frame behind header and frame table.
    pub(crate) first: u32,
    /// Number of frames.
    pub(crate) frames: u32,
}

impl Layout {
    /// The most frames that fit into `memory` bytes.
    pub(crate) fn new(memory: u64) -> Result<Layout, Error> {
        let pages = memory / PAGE_SIZE as u64;
        if pages < 64 {
            return Err(Error::Usage(format!("memory of {memory} bytes: an arena needs at least 256 KiB")));
        }
        if pages > u64::from(u32::MAX) {
            return Err(Error::Usage(format!("memory of {memory} bytes: an arena holds at most 16 TiB")));
        }
        let table = (pages - 1).div_ceil(1 + (PAGE_SIZE / META_SIZE) as u64);
        let frames = (pages - 1 - table).min(table * (PAGE_SIZE / META_SIZE) as u64);
        Ok(Layout { len: (pages as usize) * PAGE_SIZE, first: 1 + table as u32, frames: frames as u32 })
    }

    /// Where a frame's content lies.
    pub(crate) fn page_at(&self, frame: FrameNo) -> usize {
        frame.0 as usize * PAGE_SIZE
    }

    /// Where a frame's entry of the frame table lies.
    pub(crate) fn meta_at(&self, frame: FrameNo) -> usize {
        PAGE_SIZE + self.index(frame) * META_SIZE
    }

    /// A frame's place in tables that have one entry a frame.
    pub(crate) fn index(&self, frame: FrameNo) -> usize {
        let i = frame.0.wrapping_sub(self.first);
        assert!(i < self.frames, "frame {} is none of this arena", frame.0);
        i as usize
    }

    /// The frame of that place.
    pub(crate) fn frame(&self, index: usize) -> FrameNo {
        FrameNo(self.first + index as u32)
    }
}

/// The header page's content. Two copies, so that a rewrite cut short leaves one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArenaHeader {
    pub(crate) sequence: u64,
    pub(crate) layout: Layout,
    pub(crate) store: StoreId,
    /// Stands in every record of the rings, so that bytes of an earlier arena are never taken for records of this.
    pub(crate) salt: u64,
    /// The kernel boot that the memory belongs to; zeros where it outlives boots.
    pub(crate) kernel_boot: [u8; 16],
}

impl ArenaHeader {
    /// Place and bytes of the copy that this sequence number is written to.
    pub(crate) fn encode(&self) -> (usize, [u8; SUMMED + 8]) {
        let mut b = [0u8; SUMMED + 8];
        b[0..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        b[24..32].copy_from_slice(&(self.layout.len as u64).to_le_bytes());
        b[32..36].copy_from_slice(&self.layout.first.to_le_bytes());
        b[36..40].copy_from_slice(&self.layout.frames.to_le_bytes());
        b[40..48].copy_from_slice(&self.store.0.to_le_bytes());
        b[48..56].copy_from_slice(&self.salt.to_le_bytes());
        b[56..72].copy_from_slice(&self.kernel_boot);
        let sum = checksum(&b[..SUMMED]);
        b[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        (COPIES[(self.sequence % 2) as usize], b)
    }

    fn decode_copy(b: &[u8]) -> Result<Option<ArenaHeader>, Error> {
        if b[..8] == [0; 8] {
            return Ok(None);
        }
        if b[..8] != MAGIC || get_u64(b, SUMMED) != checksum(&b[..SUMMED]) {
            return Err(Error::Corrupt("the arena's header".into()));
        }
        if get_u32(b, 8) != VERSION {
            return Err(Error::Protocol(format!("arena of version {} where {VERSION} is known", get_u32(b, 8))));
        }
        let mut kernel_boot = [0; 16];
        kernel_boot.copy_from_slice(&b[56..72]);
        let layout = Layout { len: get_u64(b, 24) as usize, first: get_u32(b, 32), frames: get_u32(b, 36) };
        let (sequence, store, salt) = (get_u64(b, 16), StoreId(get_u64(b, 40)), get_u64(b, 48));
        Ok(Some(ArenaHeader { sequence, layout, store, salt, kernel_boot }))
    }

    /// The newest copy of a header page. A copy whose first word is zero was being written.
    pub(crate) fn decode(page: &[u8]) -> Result<ArenaHeader, Error> {
        let mut best: Option<ArenaHeader> = None;
        for at in COPIES {
            if let Some(h) = Self::decode_copy(&page[at..at + SUMMED + 8])? {
                best = Some(best.filter(|b| b.sequence > h.sequence).unwrap_or(h));
            }
        }
        best.ok_or_else(|| Error::NotFound("no arena in this file".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_fit_and_cost_little() {
        for memory in [256 << 10, 1 << 20, 256 << 20, 5_000_000_000u64] {
            let l = Layout::new(memory).unwrap();
            assert!((l.first as usize + l.frames as usize) * PAGE_SIZE <= memory as usize);
            assert!(l.meta_at(l.frame(l.frames as usize - 1)) + META_SIZE <= l.first as usize * PAGE_SIZE);
            if memory >= 1 << 20 {
                assert!((memory - u64::from(l.frames) * 4096) * 100 < memory * 2, "{l:?}");
            }
        }
        assert!(Layout::new(1000).is_err());
    }

    #[test]
    fn every_bit_of_the_header_counts() {
        let l = Layout::new(1 << 20).unwrap();
        let h = ArenaHeader { sequence: 2, layout: l, store: StoreId(7), salt: 9, kernel_boot: [3; 16] };
        let mut page = vec![0; 4096];
        let (at, b) = h.encode();
        page[at..at + b.len()].copy_from_slice(&b);
        assert_eq!(ArenaHeader::decode(&page).unwrap(), h);
        for bit in 0..b.len() * 8 {
            let mut p = page.clone();
            p[at + bit / 8] ^= 1 << (bit % 8);
            assert!(ArenaHeader::decode(&p).is_err(), "bit {bit}");
        }
    }
}
