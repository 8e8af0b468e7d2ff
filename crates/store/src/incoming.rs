//! The base of a group that was rebased: pages as of one record, written straight into new base files.
//!
//! Order, as of a checkpoint: pages and sidecars' entries, sync, CHECKPOINT into the log, sync, the sidecars' headers,
//! sync, and then the group has its base. A crash before the log's sync leaves a group that is not whole and files that
//! nothing names; one behind it leaves a base that the next start takes.
//!
//! Pages may be of newer snapshots than the base's: then the files are what a crash leaves of a base and a checkpoint behind
//! it that was not finished. What is newer stands in the log too before CHECKPOINT does, and no snapshot of before is kept.
//!
//! Invariant: a group has one writer, and none while files of before its rebase are there or the log has not heard of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dspm_proto::{DatasetId, Error, GroupId, Lsn, PAGE_SIZE, PageNo, RecordId, checksum};

use crate::arena::lock;
use crate::base::{BaseFile, Checkpoint, Handles};
use crate::checkpoint::clipped;
use crate::flusher::FlushSource;
use crate::group::GroupStore;
use crate::index::{Base, Dataset};
use crate::log::{Batch, LogError};
use crate::slot::Rebased;
use crate::store::Store;

/// A base that log and sidecars name, to be taken by its group.
pub(crate) struct Arrived {
    pub(crate) at: RecordId,
    /// No page in the files is newer; snapshots below are not kept.
    pub(crate) upto: Lsn,
    pub(crate) datasets: Vec<(DatasetId, u64, Arc<BaseFile>)>,
}

impl Arrived {
    pub(crate) fn files(self) -> impl Iterator<Item = Arc<BaseFile>> {
        self.datasets.into_iter().map(|d| d.2)
    }
}

/// Writes the base of a group that is not whole; needs no lock of the group. Dropped before [`BaseWriter::finish`], what
/// it wrote is thrown away, and another may begin.
#[must_use = "the base is thrown away when this is dropped"]
pub struct BaseWriter {
    store: Arc<Store>,
    group: GroupId,
    lives: u64,
    at: RecordId,
    /// The snapshot that is read now.
    upto: Lsn,
    files: BTreeMap<DatasetId, (u64, Arc<BaseFile>)>,
    begun: BTreeSet<DatasetId>,
    open: Option<(DatasetId, Arc<Handles>)>,
    /// The log names the files: they are the group's.
    logged: bool,
    /// Something failed: nothing is known about what the disk holds.
    broken: bool,
    _alive: Arc<()>,
}

impl Store {
    /// Begins the base of a group that is not whole, under the group's lock: its pages as of record `at`, of these datasets
    /// and sizes, which are all that the group has there. `at` is committed, and is the rebased tail or one behind it that
    /// this group holds. Nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Usage`] when the group is whole, or `at` is not of it; [`Error::Corrupt`] when sizes contradict its records;
    /// [`Error::Busy`] while another writer lives, or files of before the rebase are still there: try again shortly.
    pub fn begin_base(
        self: &Arc<Self>,
        group: &mut GroupStore,
        at: RecordId,
        sizes: &[(DatasetId, u64)],
    ) -> Result<BaseWriter, Error> {
        group.check_base(at, sizes)?;
        if group.incoming.strong_count() > 0 || group.arrived.is_some() {
            return Err(Error::Busy(format!("the base of group {} is being written", group.id())));
        }
        if at.lsn > group.forgettable() {
            return Err(Error::Busy(format!("group {}: the decision {at} may still be asked for", group.id())));
        }
        if group.rebase_to_log || group.clearing {
            self.arena.kick.now();
            self.arena.short.now();
            return Err(Error::Busy(format!("group {}: its old base files are not removed yet", group.id())));
        }
        group.set_committed(at.lsn); // it is read as a snapshot: the group does not go back behind it
        let alive = Arc::new(());
        group.incoming = Arc::downgrade(&alive);
        let dir = self.base_dir();
        let file = |id| Arc::new(BaseFile::new(self.disk.clone(), &dir, id));
        Ok(BaseWriter {
            store: self.clone(),
            group: group.id(),
            lives: group.lives,
            at,
            upto: at.lsn,
            files: sizes.iter().map(|(id, size)| (*id, (*size, file(*id)))).collect(),
            begun: BTreeSet::new(),
            open: None,
            logged: false,
            broken: false,
            _alive: alive,
        })
    }

    /// Lets a group take the base that the log names. False when there was none.
    pub(crate) fn take_arrived(&self, source: &dyn FlushSource, group: GroupId) -> Result<bool, Error> {
        let mut taken = Ok(false);
        source.with_group(group, &mut |g| {
            taken = g.take_base();
            if let Ok(true) = taken {
                lock(&self.covered).insert(group, g.checkpointed());
            }
        });
        taken
    }
}

impl BaseWriter {
    /// Of which record the pages are.
    pub fn at(&self) -> RecordId {
        self.at
    }

    /// The snapshot is no longer kept, or costs too much: what is not written yet comes as of `to`, under the group's lock.
    /// What is written stays: who changed it since is a record here.
    ///
    /// # Errors
    /// [`Error::Usage`] when `to` is older than the last one, or not of this group; [`Error::NotFound`] when that was rebased
    /// again.
    pub fn go_on(&mut self, group: &mut GroupStore, to: RecordId) -> Result<(), Error> {
        if group.lives != self.lives {
            return Err(self.over());
        }
        if to.lsn < self.upto || self.logged || !group.holds(to) {
            return Err(Error::Usage(format!("commit {to} does not follow {} in group {}", self.upto, self.group)));
        }
        group.set_committed(to.lsn);
        self.upto = to.lsn;
        Ok(())
    }

    /// Writes a page as the snapshot sees it that is read now; `lsn` is its version. A page that is not written is
    /// zeros. The caller has checked the content.
    ///
    /// # Errors
    /// [`Error::Usage`] for a page that is not of this base; [`Error::Full`] without room on the disk: try again later;
    /// others: the disk fails, begin again.
    pub fn write(
        &mut self,
        dataset: DatasetId,
        page: PageNo,
        lsn: Lsn,
        content: &[u8; PAGE_SIZE],
    ) -> Result<(), Error> {
        let size = self.files.get(&dataset).map_or(0, |f| f.0);
        if page.0 >= PageNo::count(size) || lsn > self.upto || self.logged {
            let at = self.upto;
            return Err(Error::Usage(format!(
                "page {page} of dataset {dataset} at LSN {lsn} is not of the base at {at}"
            )));
        }
        if content.iter().all(|b| *b == 0) {
            return Ok(()); // a hole, as of a page that nobody wrote
        }
        if lsn == Lsn(0) {
            return Err(Error::Usage(format!("page {page} of dataset {dataset}: LSN 0 is of pages that nobody wrote")));
        }
        let content = clipped(content, size, page.0);
        self.guarded(|w| {
            let handles = w.handles(dataset)?;
            w.files[&dataset].1.write(&handles, page.0, lsn, &content, checksum(&*content))
        })
    }

    /// All pages are written: syncs them, and gives the group its base.
    ///
    /// # Errors
    /// [`Error::Full`] without room on the disk or in the arena, and [`Error::Busy`] while the log does not have all that pages
    /// are of: call it again later; [`Error::NotFound`] when the group was rebased again or removed meanwhile; others: the
    /// disk fails, begin again.
    pub fn finish(&mut self, source: &dyn FlushSource) -> Result<(), Error> {
        if !self.logged {
            self.is_in_log(source)?;
            self.guarded(BaseWriter::sync)?;
            let store = self.store.clone();
            let _no_checkpoint = lock(&store.maintaining);
            self.name(source).map_err(|e| store.told(e, source))?;
        }
        let mut whole = false;
        let taken = self.store.take_arrived(source, self.group);
        source.with_group(self.group, &mut |g| whole = g.is_whole() && g.lives == self.lives);
        match taken {
            Err(e) => Err(e),
            Ok(_) if whole => Ok(()),
            Ok(_) => Err(self.over()),
        }
    }

    fn over(&self) -> Error {
        Error::NotFound(format!("group {} was rebased again, or removed", self.group))
    }

    /// Recovery replays what is newer than the base onto it.
    fn is_in_log(&self, source: &dyn FlushSource) -> Result<(), Error> {
        let mut lacks = false;
        source.with_group(self.group, &mut |g| {
            lacks = g.lives == self.lives && self.upto > self.at.lsn && g.clean().min(g.committed()) < self.upto;
        });
        if lacks {
            self.store.arena.kick.now();
            return Err(Error::Busy(format!("group {}: the log does not have commit {} yet", self.group, self.upto)));
        }
        Ok(())
    }

    /// A full disk changes nothing; after any other failure only a new writer helps.
    fn guarded(&mut self, f: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Failed(format!("base of group {}: its disk failed, begin again", self.group)));
        }
        let done = f(self);
        self.broken = done.as_ref().is_err_and(|e| !matches!(e, Error::Full(_)));
        done
    }

    /// The open files of a dataset. Few are open at a time: a group may have thousands.
    fn handles(&mut self, dataset: DatasetId) -> Result<Arc<Handles>, Error> {
        if let Some((id, h)) = &self.open {
            if *id == dataset {
                return Ok(h.clone());
            }
        }
        self.close()?;
        let file = self.files[&dataset].1.clone();
        let handles = file.handles()?;
        if !self.begun.contains(&dataset) {
            file.truncate(&handles, 0, self.at.lsn)?; // of an earlier try
            self.begun.insert(dataset);
        }
        self.open = Some((dataset, handles.clone()));
        Ok(handles)
    }

    fn close(&mut self) -> Result<(), Error> {
        if let Some((id, h)) = &self.open {
            let (size, file) = &self.files[id];
            file.finish(h, *size)?;
            file.close();
        }
        self.open = None;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        let all: Vec<_> = self.files.keys().copied().collect();
        for dataset in all.iter().filter(|d| !self.begun.contains(d)).copied().collect::<Vec<_>>() {
            self.handles(dataset)?;
        }
        self.close()?;
        self.files.values().next().map_or(Ok(()), |f| f.1.sync_names())
    }

    fn checkpoints(&self) -> Vec<Checkpoint> {
        let of =
            |(id, f): (&DatasetId, &(u64, _))| Checkpoint { group: self.group, dataset: *id, at: self.at, size: f.0 };
        self.files.iter().map(of).collect()
    }

    /// CHECKPOINT into the log, then into the sidecars; then the base is the group's.
    fn name(&mut self, source: &dyn FlushSource) -> Result<(), LogError> {
        if self.store.is_suspect() {
            return Err(LogError::Failed("the log failed".into()));
        }
        let checkpoints = self.checkpoints();
        let mut batch = Batch::default();
        batch.checkpoint(self.group, self.at, &checkpoints);
        if !self.store.write_of_life(source, self.group, self.lives, batch)? {
            return Ok(());
        }
        self.logged = true;
        let named = checkpoints.iter().try_for_each(|c| self.files[&c.dataset].1.name(c));
        named.map_err(|e| LogError::Failed(format!("base file: {e}")))?;
        let datasets: Vec<_> = self.files.iter().map(|(id, f)| (*id, f.0, f.1.clone())).collect();
        datasets.iter().for_each(|d| d.2.says_nothing_below(self.upto));
        let mut arrived = Some(Arrived { at: self.at, upto: self.upto, datasets });
        source.with_group(self.group, &mut |g| {
            let Some(base) = arrived.take() else { return };
            if g.lives == self.lives {
                g.arrived = Some(base);
                g.owe();
            } else {
                g.retire(base.files());
            }
        });
        if let Some(base) = arrived {
            // The group was removed behind the log's back.
            lock(&self.store.drops).push((self.group, base.files().collect()));
        }
        Ok(())
    }
}

impl Drop for BaseWriter {
    fn drop(&mut self) {
        if !self.logged {
            let begun = self.begun.iter().filter_map(|d| self.files.get(d));
            begun.for_each(|f| drop(f.1.remove())); // what stays is thrown away by the next try
        }
    }
}

impl GroupStore {
    /// True when a record that is committed is the one that a base is missing up to, or is behind it here.
    fn holds(&self, at: RecordId) -> bool {
        let Some(rebased) = self.rebased_to() else { return false };
        match at.lsn {
            l if l == rebased.lsn => at == rebased,
            // Records that the ring gave up were committed, and so is `at`: they are of one history.
            l if l > rebased.lsn && l < self.base.lsn => true,
            l => l > rebased.lsn && l <= self.tail.lsn && self.record_id(l) == Some(at),
        }
    }

    fn check_base(&self, at: RecordId, sizes: &[(DatasetId, u64)]) -> Result<(), Error> {
        let id = self.id();
        let Some(rebased) = self.rebased_to() else {
            return Err(Error::Usage(format!("group {id} is whole: a base is for one that was rebased")));
        };
        if !self.holds(at) {
            let tail = self.tail.lsn;
            return Err(Error::Usage(format!(
                "group {id} has records {} to {tail}, and not this {}",
                rebased.lsn, at.lsn
            )));
        }
        for (dataset, size) in sizes {
            let known = self.datasets.get(dataset).and_then(|d| d.sizes.iter().rev().find(|s| s.0 <= at.lsn));
            if known.is_some_and(|k| k.1 != *size) {
                return Err(Error::Corrupt(format!("dataset {dataset} has another size at LSN {}", at.lsn)));
            }
        }
        let lacks = |d: &&Dataset| d.sizes.first().is_some_and(|s| s.0 <= at.lsn) && sizes.iter().all(|s| s.0 != d.id);
        match self.datasets.values().find(lacks) {
            Some(d) => Err(Error::Corrupt(format!("dataset {} is missing in the base at LSN {}", d.id, at.lsn))),
            None => Ok(()),
        }
    }

    /// Takes the base that the log names: the group is whole. False when there is none.
    ///
    /// # Errors
    /// [`Error::Full`] without a frame for the ring, [`Error::Busy`] while something keeps older snapshots: it stays to be taken.
    pub(crate) fn take_base(&mut self) -> Result<bool, Error> {
        let (Some(base), Some(rebased)) = (self.arrived.take(), self.rebased_to()) else { return Ok(false) };
        let at = base.at.lsn;
        // What the base hides must be gone before its marks go.
        self.set_committed(at);
        self.set_flushed(at);
        self.set_horizon(base.upto.max(at));
        if self.floor() < base.upto {
            let floor = self.floor();
            self.arrived = Some(base);
            return Err(Error::Busy(format!("group {}: snapshots from {floor} on are kept yet", self.id())));
        }
        self.prune_superseded(); // a group rebuilt from disk had its horizon there already
        let arena = self.arena.clone();
        for (id, size, file) in &base.datasets {
            file.set_size(*size);
            let d = self.datasets.entry(*id).or_insert_with(|| Dataset::new(*id));
            if d.sizes.first().is_none_or(|s| s.0 > at) {
                d.sizes.insert(0, (at, *size));
            }
            d.drop_lost(&arena, at);
            d.set_base(Base { lsn: at, file: file.clone() });
        }
        let stated = self.push_state(self.base).and_then(|s| {
            s.map(|_| ()).ok_or_else(|| Error::Full(format!("group {}: its state is too long for the ring", self.id())))
        });
        if let Err(e) = stated {
            self.arrived = Some(base);
            return Err(e);
        }
        self.datasets.values_mut().for_each(|d| d.awaits = false);
        self.checkpointed = at;
        self.slot.rebased = Rebased::Whole(rebased);
        self.place.write(&self.arena, &mut self.slot);
        self.owe();
        Ok(true)
    }
}
