//! What one flush writes: entries, and a BatchEnd that covers them all.

use std::io;

use dspm_proto::header::HEADER_SIZE;
use dspm_proto::record::{Payload, Record};
use dspm_proto::{Checksum, GroupId, Header, Kind, Lsn, PAGE_SIZE, RecordId, StoreId, checksum};

use super::ALIGN;
use super::marks::Mark;
use crate::base::Checkpoint;
use crate::disk::Aligned;
use crate::frames::PinnedFrame;
use crate::read::{StoredPage, StoredRecord};

/// Bytes of a BatchEnd's metadata.
pub(crate) const END_META: usize = 32;
/// Bytes that are written at once.
const PIECE: usize = 1 << 20;
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

/// A batch being put together. Pages stay where they lie until they are written: a record may be as large as a third of
/// the memory.
#[derive(Default)]
pub(crate) struct Batch {
    parts: Vec<Part>,
    len: u64,
    marks: Vec<(GroupId, Mark)>,
}

enum Part {
    /// Header, metadata, padding. The header gets salt and batch number when it is written.
    Entry(Vec<u8>),
    Page(PinnedFrame),
}

impl Batch {
    /// True when there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes with BatchEnd and padding.
    pub(crate) fn len_max(&self) -> u64 {
        (self.len() + (HEADER_SIZE + END_META) as u64).next_multiple_of(ALIGN)
    }

    /// What keeps segments, and what lets them go, in its order.
    pub(crate) fn marks(&self) -> &[(GroupId, Mark)] {
        &self.marks
    }

    fn push(&mut self, header: Header, meta: &[u8]) {
        let mut entry = header.encode().to_vec();
        entry.extend_from_slice(meta);
        entry.resize(entry.len().next_multiple_of(8), 0);
        self.len += entry.len() as u64;
        self.parts.push(Part::Entry(entry));
    }

    /// Adds a record with its pages.
    pub(crate) fn record(&mut self, r: StoredRecord) {
        self.push(r.record.header(Kind::Commit, &r.meta, StoreId(0), 0), &r.meta);
        for page in r.pages {
            if let StoredPage::Frame(frame) = page {
                self.len += PAGE_SIZE as u64;
                self.parts.push(Part::Page(frame));
            }
        }
        self.marks.push((r.record.group, Mark::Record(r.record.id.lsn)));
    }

    /// Says that the group's records above `to` are void.
    pub(crate) fn cut(&mut self, group: GroupId, to: Lsn) {
        let mut h = Header::new(Kind::Complete).for_meta(&[]);
        (h.group, h.lsn) = (group, to);
        self.push(h, &[]);
        self.marks.push((group, Mark::Cut(to)));
    }

    /// Says that all of the group that stands before is void, and its history begins behind a record.
    pub(crate) fn rebase(&mut self, group: GroupId, to: RecordId) {
        let meta = to.hash.to_le_bytes();
        let mut h = Header::new(Kind::Rebase).for_meta(&meta);
        (h.group, h.generation, h.lsn) = (group, to.generation, to.lsn);
        self.push(h, &meta);
        self.marks.push((group, Mark::Rebase));
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
        self.marks.push((group, Mark::Checkpoint));
    }

    /// Writes everything in pieces, salt and number in every entry, and the BatchEnd behind them. Returns the bytes.
    pub(crate) fn write(
        self,
        [salt, number, oldest]: [u64; 3],
        mut to: impl FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let entries = self.parts.iter().filter(|p| matches!(p, Part::Entry(_))).count();
        let mut out =
            Pieces { buffer: Aligned::new(self.len_max().min(PIECE as u64) as usize), written: 0, to: &mut to };
        let mut sum = Checksum::default();
        for part in self.parts {
            match part {
                Part::Entry(mut entry) => {
                    stamp(&mut entry[..HEADER_SIZE], salt, number);
                    sum.add(&entry);
                    out.push(&entry)?;
                }
                Part::Page(frame) => {
                    sum.add(&frame[..]);
                    out.push(&frame[..])?;
                }
            }
        }
        let mut meta = [0u8; END_META];
        let fields = [entries as u64, self.len, oldest, sum.value()];
        meta.chunks_exact_mut(8).zip(fields).for_each(|(m, f)| m.copy_from_slice(&f.to_le_bytes()));
        let mut end = Header::new(Kind::BatchEnd).for_meta(&meta);
        (end.request, end.store) = (number, StoreId(salt));
        out.push(&end.encode())?;
        out.push(&meta)?;
        out.end()
    }
}

/// Writes through an aligned buffer.
struct Pieces<'a> {
    buffer: Aligned,
    written: u64,
    to: &'a mut dyn FnMut(&[u8], u64) -> io::Result<()>,
}

impl Pieces<'_> {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.buffer.room() == 0 {
                self.flush()?;
            }
            bytes = self.buffer.push(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.to)(self.buffer.filled(), self.written)?;
        self.written += self.buffer.filled().len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<u64> {
        self.buffer.pad();
        self.flush()?;
        Ok(self.written)
    }
}

fn stamp(header: &mut [u8], salt: u64, number: u64) {
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[48..56].copy_from_slice(&salt.to_le_bytes());
    let sum = checksum(&header[..56]) as u32;
    header[56..60].copy_from_slice(&sum.to_le_bytes());
}
