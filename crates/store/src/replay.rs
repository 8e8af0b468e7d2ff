//! What log and base files know, brought together with the arena at start.
//!
//! With an intact arena the arena wins: the log is only compared with it. Without, groups are rebuilt from the last
//! CHECKPOINT and the records behind it, up to each group's first gap. Versions below a rebuilt group's tail are not
//! kept as snapshots: a checkpoint that the crash cut short may have torn what only they would see.
//!
//! Invariant: when the log may be written again, the sidecars name every checkpoint that the log does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use dspm_proto::codec::get_u64;
use dspm_proto::record::{Payload, Record, verify_page};
use dspm_proto::{DatasetId, Error, GroupId, Kind, Lsn, PAGE_SIZE, Part, RecordId};

use crate::arena::Arena;
use crate::base::{BaseFile, Checkpoint};
use crate::disk::Disk;
use crate::frames::FrameBuf;
use crate::group::GroupStore;
use crate::index::{Base, Dataset};
use crate::log::{FLAG_DROP, Log, LogEntry, Scan};
use crate::room::Draw;
use crate::slot::{Fence, Rebased};

/// One group as the disk knows it.
#[derive(Default)]
pub(crate) struct DiskGroup {
    /// What the base files hold.
    pub(crate) at: RecordId,
    pub(crate) sizes: BTreeMap<DatasetId, u64>,
    /// Newest record of the log, or the checkpoint.
    pub(crate) tail: RecordId,
    /// The history behind the checkpoint: the log's entries, and what they are.
    records: Vec<(usize, RecordId)>,
    /// The record that the log's last rebase names.
    pub(crate) rebased: Option<RecordId>,
    /// The base behind it has not come.
    pub(crate) lacks: bool,
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
    /// Reads the sidecars' headers and sorts the log's entries; afterwards the sidecars name what the log does.
    pub(crate) fn load(disk: &Arc<dyn Disk>, dir: &Path, scan: &Scan) -> Result<DiskState, Error> {
        let mut state = DiskState::default();
        let mut headers = HashMap::new();
        for path in disk.list(dir)? {
            let Some(id) = BaseFile::dataset_of(&path) else { continue };
            let file = Arc::new(BaseFile::new(disk.clone(), dir, id));
            let named = file.load()?;
            file.close();
            if let Some(c) = named.filter(|c| c.dataset == id) {
                headers.insert(id, c);
                state.note_file(c, file);
            }
        }
        for (i, entry) in scan.entries.iter().enumerate() {
            state.note_entry(i, entry, disk, dir)?;
        }
        let last = scan.entries.iter().rev().find(|e| e.header.kind == Kind::Checkpoint).map(|e| e.header.group);
        state.name_checkpoints(&headers, last)?;
        Ok(state)
    }

    /// Finishes the checkpoint that a crash cut short behind its log entry. It has to be now: once the records are covered
    /// their segments are freed, and the entry goes with its segment. The entry is synced: the log was opened.
    ///
    /// Checkpoints follow each other, so it can only be the last one of the log. Its headers are always written: those
    /// that can be read may stand in the page cache alone.
    fn name_checkpoints(&self, headers: &HashMap<DatasetId, Checkpoint>, last: Option<GroupId>) -> Result<(), Error> {
        for (group, g) in &self.groups {
            let named_at = |d| headers.get(d).is_some_and(|c: &Checkpoint| c.at == g.at);
            let is_named = last != Some(*group) && g.sizes.keys().any(named_at);
            for (dataset, size) in &g.sizes {
                let right = is_named && headers.get(dataset).is_some_and(|c| c.size == *size);
                if let Some((_, file)) = self.files.get(dataset).filter(|_| !right) {
                    file.name(&Checkpoint { group: *group, dataset: *dataset, at: g.at, size: *size })?;
                }
            }
        }
        Ok(())
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
            Kind::Rebase => {
                let at = RecordId { generation: h.generation, lsn: h.lsn, hash: get_u64(&entry.meta, 0) };
                let rebased = DiskGroup { at, tail: at, rebased: Some(at), lacks: true, ..DiskGroup::default() };
                self.groups.insert(id, rebased);
            }
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
        let Some(keep) = to.0.checked_sub(self.at.lsn.0) else { return };
        self.records.truncate(keep as usize);
        self.tail = self.records.last().map_or(self.at, |r| r.1);
    }

    /// The record of that LSN, or the checkpoint.
    fn id_at(&self, lsn: u64) -> Option<RecordId> {
        match lsn.checked_sub(self.at.lsn.0)? {
            0 => Some(self.at),
            n => self.records.get(n as usize - 1).map(|r| r.1),
        }
    }

    /// Adds a record where its predecessor is. What follows nothing is behind a gap, or of a history that was cut
    /// before the checkpoint: it does not count.
    fn add(&mut self, i: usize, record: &Record) {
        let before = Lsn(record.id.lsn.0 - 1);
        if self.id_at(before.0).is_some_and(|r| r.hash == record.predecessor) {
            self.cut(before);
            self.records.push((i, record.id));
            self.tail = record.id;
        }
    }

    fn checkpoint(&mut self, at: RecordId, mut datasets: &[u8]) {
        if at.lsn < self.at.lsn {
            return;
        }
        // Behind another record of that LSN than the checkpoint's nothing counts.
        let same = self.id_at(at.lsn.0).is_some_and(|r| r.hash == at.hash);
        let covered = if same { (at.lsn.0 - self.at.lsn.0) as usize } else { self.records.len() };
        self.records.drain(..covered);
        (self.at, self.lacks) = (at, false);
        if self.records.is_empty() {
            self.tail = at;
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
    if disk.lacks {
        g.slot.rebased = Rebased::Lacks(disk.at);
    }
    g.begin_at(disk.at)?;
    for (i, _) in &disk.records {
        let entry = &scan.entries[*i];
        let record = Record::decode(&entry.header, &entry.meta)?;
        let frames = read_frames(&mut g, &record, log, entry)?;
        g.append_settled(&record, &entry.meta, frames)?;
        g.slot.fence = Fence { generation: record.token.generation, token: record.token };
        g.slot.flushed = record.id.lsn;
    }
    g.rebuilt();
    if disk.lacks {
        g.retire(files.values().filter(|f| f.0 == id).map(|f| f.1.clone()));
    }
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

    /// A frame; when the arena is short, versions below the tail are given up for it (and with them, that those
    /// records can be sent to a member whose log ends earlier).
    fn frame_for_replay(&mut self) -> Result<FrameBuf, Error> {
        if let Some(f) = FrameBuf::new(&self.arena, Draw::Settle) {
            return Ok(f);
        }
        self.slot.horizon = self.tail.lsn;
        self.place.write(&self.arena, &mut self.slot);
        self.prune_superseded_at(self.tail.lsn);
        FrameBuf::new(&self.arena, Draw::Settle).ok_or_else(|| {
            Error::Full("`memory` is too small for what the log holds: raise it to what it was before".into())
        })
    }

    fn rebuilt(&mut self) {
        // A prepared tail is shown to nobody: what is before it has to be readable. No checkpoint passed that.
        let shown = if self.part(self.tail.lsn) == Part::Prepared { Lsn(self.tail.lsn.0 - 1) } else { self.tail.lsn };
        self.slot.horizon = shown;
        self.wanted = shown;
        self.place.write(&self.arena, &mut self.slot);
        self.count_clean();
        self.prune_superseded();
    }
}
