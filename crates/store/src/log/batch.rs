//! What one flush writes: entries, and a BatchEnd that covers them all.

use dspm_proto::header::HEADER_SIZE;
use dspm_proto::record::{Payload, Record};
use dspm_proto::{GroupId, Header, Kind, Lsn, PAGE_SIZE, RecordId, StoreId, checksum};

use super::ALIGN;
use crate::base::Checkpoint;
use crate::frames::PinnedFrame;
use crate::read::{StoredPage, StoredRecord};

/// Bytes of a BatchEnd's metadata.
pub(crate) const END_META: usize = 32;
/// Flag of a Complete entry: the group was removed.
pub(crate) const FLAG_DROP: u16 = 0x100;

/// Bytes that an entry takes: header, metadata, and a full image of every page that is not zeros.
pub(crate) fn entry_len(meta_len: usize, pages: usize) -> u64 {
    (HEADER_SIZE + meta_len.next_multiple_of(8) + pages * PAGE_SIZE) as u64
}

/// Pages of a record whose content stands in the log.
pub(crate) fn images(record: &Record) -> usize {
    record.pages.iter().filter(|p| p.payload != Payload::Zero).count()
}

/// A batch being put together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where entries begin: their headers get salt and batch number at the end.
    entries: Vec<usize>,
    newest: Vec<(GroupId, Lsn)>,
}

impl Batch {
    /// True when there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes with BatchEnd and padding.
    pub(crate) fn len_max(&self) -> u64 {
        (self.len() + (HEADER_SIZE + END_META) as u64).next_multiple_of(ALIGN)
    }

    /// Newest LSN of each group in it.
    pub(crate) fn newest(&self) -> &[(GroupId, Lsn)] {
        &self.newest
    }

    fn push(&mut self, header: Header, meta: &[u8]) {
        self.entries.push(self.bytes.len());
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(meta);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Adds a record with its pages.
    pub(crate) fn record(&mut self, r: &StoredRecord) {
        self.push(r.record.header(Kind::Commit, &r.meta, StoreId(0), 0), &r.meta);
        for page in &r.pages {
            if let StoredPage::Frame(frame) = page {
                let frame: &PinnedFrame = frame;
                self.bytes.extend_from_slice(&frame[..]);
            }
        }
        self.newest.push((r.record.group, r.record.id.lsn));
    }

    /// Says that the group's records above `to` are void.
    pub(crate) fn cut(&mut self, group: GroupId, to: Lsn) {
        let mut h = Header::new(Kind::Complete).for_meta(&[]);
        (h.group, h.lsn) = (group, to);
        self.push(h, &[]);
    }

    /// Says that the group is gone.
    pub(crate) fn drop_group(&mut self, group: GroupId) {
        let mut h = Header::new(Kind::Complete).for_meta(&[]);
        (h.group, h.flags) = (group, FLAG_DROP);
        self.push(h, &[]);
    }

    /// Says that the base files of these datasets, all that the group has, hold everything up to a record.
    pub(crate) fn checkpoint(&mut self, group: GroupId, at: RecordId, datasets: &[Checkpoint]) {
        let mut meta = at.hash.to_le_bytes().to_vec();
        for d in datasets {
            meta.extend_from_slice(&d.dataset.0.to_le_bytes());
            meta.extend_from_slice(&d.size.to_le_bytes());
        }
        let mut h = Header::new(Kind::Checkpoint).for_meta(&meta);
        (h.group, h.generation, h.lsn) = (group, at.generation, at.lsn);
        self.push(h, &meta);
    }

    /// Puts salt and number into every entry and the BatchEnd behind them.
    pub(crate) fn seal(&mut self, salt: u64, number: u64, oldest: u64) -> &[u8] {
        for at in &self.entries {
            let header = &mut self.bytes[*at..*at + HEADER_SIZE];
            header[16..24].copy_from_slice(&number.to_le_bytes());
            header[48..56].copy_from_slice(&salt.to_le_bytes());
            let sum = checksum(&header[..56]) as u32;
            header[56..60].copy_from_slice(&sum.to_le_bytes());
        }
        let mut meta = [0u8; END_META];
        meta[..8].copy_from_slice(&(self.entries.len() as u64).to_le_bytes());
        meta[8..16].copy_from_slice(&self.len().to_le_bytes());
        meta[16..24].copy_from_slice(&oldest.to_le_bytes());
        meta[24..].copy_from_slice(&checksum(&self.bytes).to_le_bytes());
        let mut end = Header::new(Kind::BatchEnd).for_meta(&meta);
        (end.request, end.store) = (number, StoreId(salt));
        self.bytes.extend_from_slice(&end.encode());
        self.bytes.extend_from_slice(&meta);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN as usize), 0);
        &self.bytes
    }
}
