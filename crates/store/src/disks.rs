//! Log and base files at start, and how they are joined with the arena.
//!
//! Invariant: afterwards every group's `flushed` is what the log really holds, and everything above it is written
//! again by the flusher. The arena wins over the log where both are intact.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dspm_proto::{DatasetId, Error, GroupId, Lsn, RecordId};

use crate::arena::Arena;
use crate::base::BaseFile;
use crate::disk::Disk;
use crate::group::GroupStore;
use crate::incoming::Arrived;
use crate::log::{Log, Scan};
use crate::options::StoreOptions;
use crate::replay::{DiskGroup, DiskState, rebuild};

/// Base files and whose they are.
type Files = HashMap<DatasetId, (GroupId, Arc<BaseFile>)>;

const SEGMENT_MIN: u64 = 1 << 20;
const SEGMENT_MAX: u64 = 64 << 20;

/// What the data directory holds.
pub(crate) struct Disks {
    log: Log,
    pub(crate) scan: Scan,
    pub(crate) state: DiskState,
}

/// Everything that a store begins with.
pub(crate) struct Joined {
    pub(crate) groups: BTreeMap<GroupId, GroupStore>,
    pub(crate) log: Log,
    pub(crate) damage: Option<String>,
    pub(crate) log_tails: Vec<(GroupId, RecordId)>,
    pub(crate) drops: Vec<(GroupId, Vec<Arc<BaseFile>>)>,
}

impl Disks {
    /// Reads log and sidecars.
    pub(crate) fn load(disk: &Arc<dyn Disk>, options: &StoreOptions) -> Result<Disks, Error> {
        let segment = (options.memory / 16).clamp(SEGMENT_MIN, SEGMENT_MAX).next_multiple_of(4096);
        let (log, scan) = Log::open(disk.clone(), options.data_dir.join("log"), segment)?;
        let state = DiskState::load(disk, &options.data_dir.join("base"), &scan)?;
        Ok(Disks { log, scan, state })
    }

    /// Compares the groups of an intact arena with the log, or rebuilds them.
    pub(crate) fn join(
        mut self,
        arena: &Arc<Arena>,
        mut groups: BTreeMap<GroupId, GroupStore>,
        kept: bool,
    ) -> Result<Joined, Error> {
        if !self.scan.entries.is_empty() || !self.state.files.is_empty() {
            arena.disk.store(true, Ordering::Release);
        }
        if kept {
            for g in groups.values_mut() {
                g.compare(self.state.groups.get(&g.id()).unwrap_or(&DiskGroup::default()), &self.state.files);
            }
        } else {
            for (id, d) in &self.state.groups {
                let g = rebuild(arena, *id, d, &self.state.files, &self.log, &self.scan)?;
                groups.insert(*id, g);
            }
        }
        if self.scan.damage.is_some() {
            // What the log held behind the checkpoints is in the arena now; the flusher writes it again.
            self.log.reset()?;
            groups.values_mut().for_each(GroupStore::write_again);
        }
        let log_tails = self.state.groups.iter().map(|(id, d)| (*id, d.tail)).collect();
        let drops = self.removed(&groups);
        Ok(Joined { groups, log: self.log, damage: self.scan.damage, log_tails, drops })
    }

    /// Groups that only the disk knows although the memory is whole, or that the log says are gone.
    fn removed(&self, groups: &BTreeMap<GroupId, GroupStore>) -> Vec<(GroupId, Vec<Arc<BaseFile>>)> {
        let on_disk =
            self.state.groups.keys().chain(&self.state.dropped).chain(self.state.files.values().map(|f| &f.0));
        let mut gone: Vec<GroupId> = on_disk.copied().filter(|g| !groups.contains_key(g)).collect();
        gone.sort_unstable();
        gone.dedup();
        let files =
            |g: GroupId| self.state.files.values().filter(|f| f.0 == g).map(|f| f.1.clone()).collect::<Vec<_>>();
        let known = gone.into_iter().map(|g| (g, files(g)));
        known.filter(|(g, files)| !files.is_empty() || self.state.groups.contains_key(g)).collect()
    }
}

impl GroupStore {
    /// The arena wins: `flushed` becomes what the log holds of this history.
    fn compare(&mut self, disk: &DiskGroup, files: &Files) {
        if let Some(id) = self.rebased_to() {
            self.compare_rebased(id, disk, files);
            if self.rebase_to_log {
                return;
            }
        }
        let held = disk.tail.lsn.min(self.tail.lsn);
        // The log may hold more of this history than the arena had heard of, or another history.
        let same = self.record_id(disk.tail.lsn).is_some_and(|r| r.hash == disk.tail.hash);
        let flushed = if same { held } else { held.min(self.slot.flushed) };
        if disk.tail.lsn > flushed {
            self.cut_to_log = Some(flushed);
            self.owe();
        }
        if flushed < self.slot.flushed {
            self.lower_flushed(flushed);
        } else {
            self.set_flushed(flushed);
        }
    }

    /// The group is not whole here: the log knows that, or the base came, or the log has to be told.
    fn compare_rebased(&mut self, id: RecordId, disk: &DiskGroup, files: &Files) {
        let own = || files.iter().filter(|(_, f)| f.0 == self.id());
        let of_this = disk.rebased == Some(id);
        let held = disk.at.lsn < self.base.lsn || self.record_id(disk.at.lsn) == Some(disk.at);
        if of_this && !disk.lacks && held {
            let file = |d: &DatasetId, size: &u64| files.get(d).map(|f| (*d, *size, f.1.clone()));
            let datasets = disk.sizes.iter().filter_map(|(d, size)| file(d, size)).collect();
            // Of which snapshots its pages are is not known any more: what the log has, they are at most.
            let upto = self.committed().min(self.flushed());
            self.arrived = Some(Arrived { at: disk.at, upto, datasets });
            if self.take_base().is_err() {
                self.owe(); // maintenance tries again when there is room
            }
            return;
        }
        let old: Vec<_> = own().map(|(_, f)| f.1.clone()).collect();
        if !(of_this && disk.lacks) {
            self.log_rebase();
        }
        self.retire(old);
    }

    /// Nothing of the log counts any more.
    fn write_again(&mut self) {
        if self.rebased_to().is_some() && self.arrived.is_none() {
            return self.log_rebase();
        }
        self.cut_to_log = None;
        self.lower_flushed(self.checkpointed());
    }

    fn lower_flushed(&mut self, lsn: Lsn) {
        self.slot.flushed = lsn;
        self.place.write(&self.arena, &mut self.slot);
    }
}
