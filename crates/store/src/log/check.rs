//! Reading the log's segments again while it is written: scrub, and the search for one image.
//!
//! Invariants: only what was synced when the look began is judged; the log is not held meanwhile, so what is found to be
//! damaged counts only if its segment is still in use afterwards.

use std::collections::HashMap;
use std::path::PathBuf;

use dspm_proto::record::{Payload, Record};
use dspm_proto::{DatasetId, GroupId, Kind, Lsn, PAGE_SIZE, PageNo, checksum};

use super::batch::Batch;
use super::scan::{LogEntry, ReadBatch, read_batch};
use super::segment::{FIRST, Segment, SegmentHeader};
use super::window::Window;
use super::{ALIGN, Log, LogError};
use crate::disk::Disk;

/// The segments in use, and where the last one ends.
pub(crate) struct LogView {
    segments: Vec<SegmentView>,
    end: u64,
}

struct SegmentView {
    id: u64,
    salt: u64,
    path: PathBuf,
    len: u64,
}

/// What looks at the entries of a good batch, in their segment; false ends the look.
pub(crate) type Visit<'a> = dyn FnMut(&[LogEntry], &mut Window<'_>) -> bool + 'a;

impl Log {
    /// What is there to be checked now.
    pub(crate) fn view(&self) -> LogView {
        let view = |s: &Segment| SegmentView { id: s.id, salt: s.salt, path: s.path.clone(), len: s.len };
        LogView { segments: self.live.iter().map(view).collect(), end: self.at }
    }

    #[cfg(test)]
    pub(crate) fn view_ids(&self) -> Vec<u64> {
        self.live.iter().map(|s| s.id).collect()
    }

    /// True while a segment is in use.
    pub(crate) fn has_segment(&self, id: u64) -> bool {
        self.live.iter().any(|s| s.id == id)
    }

    /// A damaged segment that is not in use any more is not found to be damaged by the next start.
    pub(crate) fn erase(&self, id: u64) -> std::io::Result<()> {
        self.pool
            .iter()
            .filter(|s| s.id == id)
            .try_for_each(|s| s.file.write_at(&[0; 64], 0).and_then(|()| s.file.sync()))
    }

    /// What is written from here on goes to another segment than that one. Returns the groups whose records keep it, or an
    /// older one, and how far.
    pub(crate) fn leave(&mut self, id: u64) -> Result<HashMap<GroupId, Lsn>, LogError> {
        if self.live.back().is_some_and(|s| s.id == id) {
            let batch = Batch::default();
            self.next_segment(batch.len_max())?;
            self.write(batch)?;
        }
        let mut groups = HashMap::new();
        for (group, lsn) in self.live.iter().filter(|s| s.id <= id).flat_map(|s| &s.groups) {
            let newest = groups.entry(*group).or_insert(*lsn);
            *newest = (*newest).max(*lsn);
        }
        Ok(groups)
    }
}

impl LogView {
    /// Reads every batch. Returns the ids of segments that are damaged, or could not be read.
    pub(crate) fn check(&self, disk: &dyn Disk, visit: &mut Visit<'_>) -> Vec<u64> {
        let mut bad = Vec::new();
        let mut expected = None;
        for (i, segment) in self.segments.iter().enumerate() {
            let last = i + 1 == self.segments.len();
            let stop = if last { self.end } else { segment.len };
            let mut found = Walk { expected, ..Walk::default() };
            let read = found.segment(disk, segment, stop, visit);
            if found.skipped && i > 0 {
                bad.push(self.segments[i - 1].id);
            }
            // How far an older one was written shows in the number that the next one begins with.
            if !read || (last && found.at < stop) || (!last && found.at == FIRST) {
                bad.push(segment.id);
            }
            if found.ended {
                break;
            }
            expected = found.expected.filter(|_| read);
        }
        bad.dedup();
        bad
    }

    /// The image of a page in a record of the log, if one is there that has that checksum.
    pub(crate) fn image(
        &self,
        disk: &dyn Disk,
        (group, lsn): (GroupId, Lsn),
        (dataset, page, sum): (DatasetId, PageNo, u64),
    ) -> Option<Vec<u8>> {
        let mut image = None;
        self.check(disk, &mut |entries, window| {
            let of = |e: &&LogEntry| (e.header.kind, e.header.group, e.header.lsn) == (Kind::Commit, group, lsn);
            for entry in entries.iter().filter(of) {
                image = image.take().or_else(|| read_image(entry, window, dataset, page, sum));
            }
            image.is_none()
        });
        image
    }
}

#[derive(Default)]
struct Walk {
    /// Number of the next batch, when one was read.
    expected: Option<u64>,
    at: u64,
    /// The first batch has a higher number than the one before says.
    skipped: bool,
    /// The visitor wants no more.
    ended: bool,
}

impl Walk {
    /// False when the segment's header does not check, or it cannot be read.
    fn segment(&mut self, disk: &dyn Disk, s: &SegmentView, stop: u64, visit: &mut Visit<'_>) -> bool {
        self.at = FIRST;
        let Ok(file) = disk.open_direct(&s.path, false) else { return false };
        let mut header = [0; 64];
        if file.read_at(&mut header, 0).is_err() {
            return false;
        }
        let whole =
            matches!(Segment::header(&header, s.len), SegmentHeader::Used(id, salt) if (id, salt) == (s.id, s.salt));
        let mut window = Window::new(&*file, s.len);
        while whole && !self.ended && self.at < stop {
            let Some(batch) = self.batch(&mut window, s.salt) else { break };
            self.ended = !visit(&batch.entries, &mut window);
            (self.at, self.expected) = (batch.end.next_multiple_of(ALIGN), Some(batch.number + 1));
        }
        whole && window.end().is_ok()
    }

    fn batch(&mut self, window: &mut Window<'_>, salt: u64) -> Option<ReadBatch> {
        let first = self.at == FIRST;
        let batch = read_batch(window, self.at, salt, self.expected.unwrap_or(0), !first, 0)?;
        self.skipped = first && self.expected.is_some_and(|e| e != batch.number);
        Some(batch)
    }
}

fn read_image(entry: &LogEntry, window: &mut Window<'_>, d: DatasetId, page: PageNo, sum: u64) -> Option<Vec<u8>> {
    let record = Record::decode(&entry.header, &entry.meta).ok()?;
    let mut images = record.pages.iter().filter(|p| p.payload != Payload::Zero);
    let index = images.position(|p| p.page == page && record.datasets[p.dataset as usize].dataset == d)?;
    let bytes = window.get(entry.data_at + (index * PAGE_SIZE) as u64, PAGE_SIZE)?;
    (checksum(bytes) == sum).then(|| bytes.to_vec())
}
