//! One entry of the frame table: what a frame holds.
//!
//! Invariant: the state word is stored last when a frame is published and first when it is freed, so an entry whose
//! state is not "free" is whole; if its checksum is wrong all the same, the memory is damaged.

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{DatasetId, Error, Generation, GroupId, Lsn, PageNo, checksum};

use crate::layout::{FrameNo, META_SIZE};

/// Offset of the state word in an entry.
pub(crate) const STATE_AT: usize = 56;
const SUMMED: usize = 48;

/// What a frame is used for. The words differ in many bits: one flipped bit is never another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Use {
    /// Nothing.
    Free = 0,
    /// A page's version.
    Page = u32::from_le_bytes(*b"PAGE"),
    /// A part of a group's record ring; `page` is the number of the part.
    Ring = u32::from_le_bytes(*b"RING"),
    /// Group slots.
    Slots = u32::from_le_bytes(*b"SLOT"),
}

/// A decoded entry. Clean or dirty is no field: a page is dirty while its LSN is above the group's flushed LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameMeta {
    pub(crate) used: Use,
    pub(crate) group: GroupId,
    pub(crate) dataset: DatasetId,
    pub(crate) page: PageNo,
    pub(crate) generation: Generation,
    pub(crate) lsn: Lsn,
    pub(crate) checksum: u64,
}

impl FrameMeta {
    /// Offset of the LSN in an entry.
    pub(crate) const LSN_AT: usize = 32;
    /// Offset of the content's checksum in an entry.
    pub(crate) const SUM_AT: usize = 40;

    /// An entry for a frame that holds no page.
    pub(crate) fn plain(used: Use, group: GroupId, number: u64) -> FrameMeta {
        let (dataset, generation, lsn) = (DatasetId(0), Generation(0), Lsn(0));
        FrameMeta { used, group, dataset, page: PageNo(number), generation, lsn, checksum: 0 }
    }

    /// The entry's bytes before the state word.
    pub(crate) fn encode(&self, frame: FrameNo) -> [u8; STATE_AT] {
        let mut b = [0u8; STATE_AT];
        let words = [self.group.0, self.dataset.0, self.page.0, self.generation.0, self.lsn.0, self.checksum];
        for (at, w) in words.iter().enumerate() {
            b[at * 8..at * 8 + 8].copy_from_slice(&w.to_le_bytes());
        }
        let sum = checksum(&b[..SUMMED]) as u32 ^ frame.0;
        b[SUMMED..SUMMED + 4].copy_from_slice(&sum.to_le_bytes());
        b[SUMMED + 4..].copy_from_slice(&(self.used as u32).to_le_bytes());
        b
    }

    /// Reads an entry; None when the frame is free.
    pub(crate) fn decode(b: &[u8; META_SIZE], frame: FrameNo) -> Result<Option<FrameMeta>, Error> {
        let state = get_u32(b, STATE_AT);
        let used = match state {
            0 => return Ok(None),
            s if s == Use::Page as u32 => Use::Page,
            s if s == Use::Ring as u32 => Use::Ring,
            s if s == Use::Slots as u32 => Use::Slots,
            s => return Err(Error::Corrupt(format!("state {s:#x} of frame {}", frame.0))),
        };
        let whole = get_u32(b, SUMMED) == checksum(&b[..SUMMED]) as u32 ^ frame.0 && get_u32(b, SUMMED + 4) == state;
        if !whole || get_u32(b, STATE_AT + 4) != 0 {
            return Err(Error::Corrupt(format!("table entry of frame {}", frame.0)));
        }
        Ok(Some(FrameMeta {
            used,
            group: GroupId(get_u64(b, 0)),
            dataset: DatasetId(get_u64(b, 8)),
            page: PageNo(get_u64(b, 16)),
            generation: Generation(get_u64(b, 24)),
            lsn: Lsn(get_u64(b, 32)),
            checksum: get_u64(b, 40),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let m = FrameMeta {
            used: Use::Page,
            group: GroupId(1),
            dataset: DatasetId(2),
            page: PageNo(3),
            generation: Generation(4),
            lsn: Lsn(5),
            checksum: 6,
        };
        let mut b = [0u8; META_SIZE];
        b[..STATE_AT].copy_from_slice(&m.encode(FrameNo(77)));
        b[STATE_AT..STATE_AT + 4].copy_from_slice(&(Use::Page as u32).to_le_bytes());
        assert_eq!(FrameMeta::decode(&b, FrameNo(77)).unwrap(), Some(m));
        for bit in 0..META_SIZE * 8 {
            let mut c = b;
            c[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameMeta::decode(&c, FrameNo(77)).is_err(), "bit {bit}");
        }
    }
}
