//! Reading the log back.
//!
//! A batch counts only with its BatchEnd. The first bad place ends the log: it is a torn last batch if nothing of a
//! later batch is found behind it, otherwise damage, and the log is not intact. Either way nothing behind it is used.
//! What is in memory meanwhile are the entries found so far, without their pages, and about one window of one segment.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use dspm_proto::codec::get_u64;
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::record::Record;
use dspm_proto::{Checksum, Error, Header, Kind, PAGE_SIZE};

use super::batch::{END_META, images};
use super::marks::{Mark, note};
use super::segment::{FIRST, Segment, SegmentHeader};
use super::window::{PIECE, Window};
use super::{ALIGN, entry_len};
use crate::disk::Disk;

/// One entry that a whole batch holds.
pub(crate) struct LogEntry {
    /// Index among the live segments.
    pub(crate) segment: usize,
    /// Where its page images begin.
    pub(crate) data_at: u64,
    pub(crate) header: Header,
    pub(crate) meta: Vec<u8>,
}

/// What a log holds.
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<LogEntry>,
    /// Why the log is not intact.
    pub(crate) damage: Option<String>,
    pub(crate) last_segment: usize,
    pub(crate) end: u64,
    pub(crate) next_batch: u64,
    oldest: u64,
}

/// Files of the directory.
pub(crate) struct FoundSegments {
    pub(crate) live: Vec<Segment>,
    pub(crate) unused: Vec<Segment>,
    pub(crate) next_name: u64,
}

/// Opens the segments, in the order of their ids.
pub(crate) fn find(disk: &dyn Disk, dir: &Path, scan: &mut Scan) -> Result<FoundSegments, Error> {
    let (mut live, mut unused, mut next_name) = (Vec::new(), Vec::new(), 1);
    for path in disk.list(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".seg"));
        let Some(number) = name.and_then(|n| n.parse::<u64>().ok()) else { continue };
        next_name = next_name.max(number + 1);
        let file = disk.open_direct(&path, false)?;
        let mut b = [0u8; 64];
        file.read_at(&mut b, 0)?;
        let len = file.size()?;
        let mut segment = Segment { id: 0, salt: 0, path, file, len, groups: HashMap::new(), rebases: HashSet::new() };
        match Segment::header(&b, len) {
            SegmentHeader::Used(id, salt) => {
                (segment.id, segment.salt) = (id, salt);
                live.push(segment);
            }
            SegmentHeader::Unused => unused.push(segment),
            SegmentHeader::Damaged => {
                scan.damage = Some(format!("header of {}", segment.path.display()));
                unused.push(segment);
            }
        }
    }
    live.sort_by_key(|s| s.id);
    // Segments that were freed keep their header until they are used again: only the unbroken run up to the newest counts.
    let run = live.windows(2).rposition(|w| w[0].id + 1 != w[1].id).map_or(0, |i| i + 1);
    unused.extend(live.drain(..run));
    Ok(FoundSegments { live, unused, next_name })
}

/// Reads every batch. Returns the segments with their groups noted.
pub(crate) fn read_all(mut live: Vec<Segment>, scan: &mut Scan) -> Result<Vec<Segment>, Error> {
    (scan.end, scan.next_batch) = (FIRST, 1);
    let mut started = false;
    for i in 0..live.len() {
        let (segment, mut marks) = (&live[i], Vec::new());
        let mut window = Window::new(&*segment.file, segment.len);
        let mut at = FIRST;
        while let Some(batch) = read_batch(&mut window, at, segment.salt, scan.next_batch, started, i) {
            marks.extend(batch.entries.iter().filter_map(|e| Mark::of(&e.header)));
            scan.entries.extend(batch.entries);
            at = batch.end.next_multiple_of(ALIGN);
            (started, scan.next_batch, scan.oldest) = (true, batch.number + 1, batch.oldest);
            (scan.last_segment, scan.end) = (i, at);
        }
        // A torn batch may have been written again in the next segment; a synced one never is.
        let later = later_batch(&mut window, at, segment.salt, scan.next_batch);
        window.end()?;
        if later {
            scan.damage.get_or_insert(format!("batch {} in segment {}", scan.next_batch, segment.id));
        }
        note(&mut live[..=i], &marks);
        if later {
            break;
        }
    }
    if started && live.first().is_none_or(|s| s.id > scan.oldest) {
        scan.damage.get_or_insert(format!("segment {} is missing", scan.oldest));
    }
    Ok(live)
}

pub(super) struct ReadBatch {
    pub(super) entries: Vec<LogEntry>,
    pub(super) number: u64,
    oldest: u64,
    pub(super) end: u64,
}

fn header_at(window: &mut Window<'_>, at: u64, salt: u64) -> Option<Header> {
    let mut b = [0u8; HEADER_SIZE];
    b.copy_from_slice(window.get(at, HEADER_SIZE)?);
    Header::decode(&b).ok().filter(|h| h.store.0 == salt)
}

/// True when an entry of a batch after `number` is anywhere from `from` on.
fn later_batch(window: &mut Window<'_>, from: u64, salt: u64, number: u64) -> bool {
    let mut at = from;
    while at < window.len() {
        let n = PIECE.min((window.len() - at) as usize);
        let Some(bytes) = window.get(at, n) else { return false };
        let marks = (0..n.saturating_sub(3)).step_by(8).filter(|i| bytes[*i..*i + 4] == *b"DSPM");
        let marks: Vec<u64> = marks.map(|i| at + i as u64).collect();
        if marks.into_iter().any(|m| header_at(window, m, salt).is_some_and(|h| h.request > number)) {
            return true;
        }
        at += n as u64;
    }
    false
}

/// The batch that begins at `from`, if it is whole and the expected one (the log's first may have any number).
pub(super) fn read_batch(
    window: &mut Window<'_>,
    from: u64,
    salt: u64,
    expected: u64,
    started: bool,
    segment: usize,
) -> Option<ReadBatch> {
    let (mut entries, mut sum) = (Vec::new(), Checksum::default());
    let mut at = from;
    let number = header_at(window, at, salt)?.request;
    if started && number != expected {
        return None;
    }
    loop {
        let header = header_at(window, at, salt).filter(|h| h.request == number)?;
        let meta = window.get(at + HEADER_SIZE as u64, header.meta_len as usize)?.to_vec();
        header.verify_meta(&meta).ok()?;
        if header.kind == Kind::BatchEnd {
            let fits = meta.len() == END_META
                && get_u64(&meta, 0) == entries.len() as u64
                && get_u64(&meta, 8) == at - from
                && get_u64(&meta, 24) == sum.value();
            let end = at + (HEADER_SIZE + END_META) as u64;
            return fits.then(|| ReadBatch { entries, number, oldest: get_u64(&meta, 16), end });
        }
        let pages = if header.kind == Kind::Commit { images(&Record::decode(&header, &meta).ok()?) } else { 0 };
        let next = at + entry_len(meta.len(), pages);
        if !window.sum(&mut sum, at..next) {
            return None;
        }
        let data_at = next - (pages * PAGE_SIZE) as u64;
        entries.push(LogEntry { segment, data_at, header, meta });
        at = next;
    }
}

impl super::Log {
    /// A page image of an entry that the scan found.
    pub(crate) fn read_image(&self, entry: &LogEntry, index: usize, out: &mut [u8]) -> Result<(), Error> {
        let gone = || Error::Corrupt("a log segment is gone".into());
        let segment = self.live.get(entry.segment).ok_or_else(gone)?;
        segment.file.read_at(out, entry.data_at + (index * PAGE_SIZE) as u64)?;
        Ok(())
    }
}
