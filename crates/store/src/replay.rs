//! What log and base files know, brought together with the arena at start.
//!
//! With an intact arena the arena wins: the log is only compared with it. Without, groups are rebuilt from the last
//! CHECKPOINT and the records behind it, up to each group's first gap. Versions below a rebuilt group's tail are not
//! kept as snapshots: a checkpoint that the crash cut short may have torn what only they would see.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use dspm_proto::codec::get_u64;
use dspm_proto::record::{Payload, Record, verify_page};
use dspm_proto::{DatasetId, Error, Generation, GroupId, Kind, Lsn, PAGE_SIZE, RecordId};

use crate::arena::Arena;
use crate::base::{BaseFile, Checkpoint};
use crate::disk::Disk;
use crate::frames::FrameBuf;
use crate::group::GroupStore;
use crate::index::{Base, Dataset};
use crate::log::{FLAG_DROP, Log, LogEntry, Scan};
use crate::slot::Fence;

/// One group as the disk knows it.
#[derive(Default)]
pub(crate) struct DiskGroup {
    /// What the base files hold.
    pub(crate) at: RecordId,
    pub(crate) sizes: BTreeMap<DatasetId, u64>,
    /// Newest record of the log, or the checkpoint.
    pub(crate) tail: RecordId,
    /// Indices of the log's entries behind the checkpoint that make up the history.
    records: Vec<usize>,
    gap: bool,
}

/// Everything that the disk knows.
#[derive(Default)]
pub(crate) struct DiskState {
    pub(crate) groups: BTreeMap<GroupId, DiskGroup>,
    pub(crate) files: HashMap<DatasetId, (GroupId, Arc<BaseFile>)>,
    /// Groups that the log says are gone.
    pub(crate) dropped: HashSet<GroupId>,
}

impl DiskState {
    /// Reads the sidecars' headers and sorts the log's entries.
    pub(crate) fn load(disk: &Arc<dyn Disk>, dir: &Path, scan: &Scan) -> Result<DiskState, Error> {
        let mut state = DiskState::default();
        for path in disk.list(dir)? {
            let Some(id) = BaseFile::dataset_of(&path) else { continue };
            let file = Arc::new(BaseFile::new(disk.clone(), dir, id));
            let named = file.load()?;
            file.close();
            if let Some(c) = named.filter(|c| c.dataset == id) {
                state.note_file(c, file);
            }
        }
        for (i, entry) in scan.entries.iter().enumerate() {
            state.note_entry(i, entry, disk, dir)?;
        }
        Ok(state)
    }

    fn note_file(&mut self, c: Checkpoint, file: Arc<BaseFile>) {
        let g = self.groups.entry(c.group).or_default();
        if c.at.lsn > g.at.lsn {
            (g.at, g.tail) = (c.at, c.at);
        }
        g.sizes.insert(c.dataset, c.size);
        self.files.insert(c.dataset, (c.group, file));
    }

    fn note_entry(&mut self, i: usize, entry: &LogEntry, disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), Error> {
        let (h, id) = (&entry.header, entry.header.group);
        match h.kind {
            Kind::Complete if h.flags & FLAG_DROP != 0 => {
                self.groups.remove(&id);
                self.dropped.insert(id);
            }
            Kind::Complete => self.groups.entry(id).or_default().cut(h.lsn),
            Kind::Commit => {
                let record = Record::decode(h, &entry.meta)?;
                self.groups.entry(id).or_default().add(i, &record);
            }
            Kind::Checkpoint => {
                let at = RecordId { generation: h.generation, lsn: h.lsn, hash: get_u64(&entry.meta, 0) };
                let g = self.groups.entry(id).or_default();
                g.checkpoint(at, &entry.meta[8..]);
                for d in g.sizes.keys() {
                    let new = || (id, Arc::new(BaseFile::new(disk.clone(), dir, *d)));
                    self.files.entry(*d).or_insert_with(new);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Base files for the datasets of intact groups.
    pub(crate) fn bases(&self) -> HashMap<DatasetId, Base> {
        let with_group = self.files.iter().filter_map(|(d, (g, f))| {
            let group = self.groups.get(g)?;
            f.set_size(*group.sizes.get(d)?);
            Some((*d, Base { lsn: group.at.lsn, file: f.clone() }))
        });
        with_group.collect()
    }
}

impl DiskGroup {
    fn cut(&mut self, to: Lsn) {
        if to >= self.tail.lsn || to < self.at.lsn {
            return;
        }
        // The tail's identity is found when the next record is compared; its hash is the record's predecessor.
        let gone = (self.tail.lsn.0 - to.0) as usize;
        self.records.truncate(self.records.len().saturating_sub(gone));
        self.tail = RecordId { lsn: to, hash: 0, generation: Generation(0) };
    }

    fn add(&mut self, i: usize, record: &Record) {
        let lsn = record.id.lsn;
        if self.gap || lsn <= self.at.lsn {
            return;
        }
        if lsn <= self.tail.lsn {
            self.cut(Lsn(lsn.0 - 1));
        }
        let follows = self.tail.lsn.next() == lsn && (self.tail.hash == 0 || self.tail.hash == record.predecessor);
        if !follows {
            self.gap = true;
            return;
        }
        self.records.push(i);
        self.tail = record.id;
    }

    fn checkpoint(&mut self, at: RecordId, mut datasets: &[u8]) {
        if at.lsn < self.at.lsn {
            return;
        }
        let covered = at.lsn.0.saturating_sub(self.at.lsn.0) as usize;
        self.records.drain(..covered.min(self.records.len()));
        self.at = at;
        if at.lsn >= self.tail.lsn {
            self.tail = at;
            self.gap = false;
        }
        while datasets.len() >= 16 {
            self.sizes.insert(DatasetId(get_u64(datasets, 0)), get_u64(datasets, 8));
            datasets = &datasets[16..];
        }
    }
}

/// Rebuilds one group in an empty arena.
pub(crate) fn rebuild(
    arena: &Arc<Arena>,
    id: GroupId,
    disk: &DiskGroup,
    files: &HashMap<DatasetId, (GroupId, Arc<BaseFile>)>,
    log: &Log,
    scan: &Scan,
) -> Result<GroupStore, Error> {
    let mut g = GroupStore::create(arena, id)?;
    for (d, size) in &disk.sizes {
        let mut dataset = Dataset::new(*d);
        dataset.sizes.push((disk.at.lsn, *size));
        if let Some((_, file)) = files.get(d) {
            file.set_size(*size);
            dataset.base = Some(Base { lsn: disk.at.lsn, file: file.clone() });
        }
        g.datasets.insert(*d, dataset);
    }
    g.begin_at(disk.at)?;
    for i in &disk.records {
        let entry = &scan.entries[*i];
        let record = Record::decode(&entry.header, &entry.meta)?;
        let frames = read_frames(&mut g, &record, log, entry)?;
        g.append(&record, &entry.meta, frames)?;
        g.slot.fence = Fence { generation: record.token.generation, token: record.token };
        g.slot.flushed = record.id.lsn;
    }
    g.rebuilt();
    Ok(g)
}

fn read_frames(
    g: &mut GroupStore,
    record: &Record,
    log: &Log,
    entry: &LogEntry,
) -> Result<Vec<Option<FrameBuf>>, Error> {
    let mut image = 0;
    let mut frames = Vec::with_capacity(record.pages.len());
    for p in &record.pages {
        if p.payload == Payload::Zero {
            frames.push(None);
            continue;
        }
        let mut frame = g.frame_for_replay()?;
        log.read_image(entry, image, &mut frame[..PAGE_SIZE])?;
        verify_page(&frame[..], p.checksum)?;
        image += 1;
        frames.push(Some(frame));
    }
    Ok(frames)
}

impl GroupStore {
    /// The group's history begins behind a checkpoint.
    fn begin_at(&mut self, at: RecordId) -> Result<(), Error> {
        (self.base, self.tail, self.checkpointed) = (at, at, at.lsn);
        (self.slot.committed, self.slot.flushed, self.slot.horizon) = (at.lsn, at.lsn, at.lsn);
        (self.counted_clean, self.wanted) = (at.lsn, at.lsn);
        if at.lsn.0 > 0 {
            self.push_state(at)?;
        }
        self.place.write(&self.arena, &mut self.slot);
        Ok(())
    }

    /// A frame; when the arena is short, versions that only old snapshots see are given up for it.
    fn frame_for_replay(&mut self) -> Result<FrameBuf, Error> {
        if let Some(f) = FrameBuf::new(&self.arena) {
            return Ok(f);
        }
        self.slot.committed = self.tail.lsn;
        self.set_horizon(self.tail.lsn);
        FrameBuf::new(&self.arena).ok_or_else(|| {
            Error::Full("`memory` is too small for what the log holds: raise it to what it was before".into())
        })
    }

    fn rebuilt(&mut self) {
        self.slot.horizon = self.tail.lsn;
        self.wanted = self.tail.lsn;
        self.place.write(&self.arena, &mut self.slot);
        self.count_clean();
        self.prune_superseded();
    }
}
