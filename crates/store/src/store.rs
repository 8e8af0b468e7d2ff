//! The store of a node: one arena, its groups, its log and base files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dspm_proto::{Error, GroupId, Lsn, PAGE_SIZE, StoreId};

use crate::arena::{Arena, lock};
use crate::base::BaseFile;
use crate::disk::{Disk, RealDisk};
use crate::disks::Disks;
use crate::frames::FrameBuf;
use crate::group::GroupStore;
use crate::identity::Identity;
use crate::layout::Layout;
use crate::log::Log;
use crate::open::{check_nobodys, context, create, keep, log_failed, open_locked};
use crate::options::{Opened, StoreOptions, Usage};
use crate::random::random;
use crate::room::{Draw, Stalls};

/// A node's store. Shared by its threads; groups are handed out one by one and locked by the node.
pub struct Store {
    pub(crate) options: StoreOptions,
    pub(crate) arena: Arc<Arena>,
    pub(crate) disk: Arc<dyn Disk>,
    identity: Mutex<Identity>,
    /// Groups found at the start that were not opened yet.
    waiting: Mutex<BTreeMap<GroupId, GroupStore>>,
    pub(crate) known: Mutex<BTreeSet<GroupId>>,
    pub(crate) log: Mutex<Log>,
    /// Each group's checkpoint; 0 for none yet.
    pub(crate) covered: Mutex<HashMap<GroupId, Lsn>>,
    /// Groups that only a checkpoint can make whole on disk.
    pub(crate) gaps: Mutex<BTreeSet<GroupId>>,
    /// Removed groups that the log has not heard of.
    pub(crate) drops: Mutex<Vec<(GroupId, Vec<Arc<BaseFile>>)>>,
    /// Base files of groups that the log says are gone.
    pub(crate) dropped: Mutex<Vec<(GroupId, Arc<BaseFile>)>>,
    /// Held for a round of the flusher.
    pub(crate) flushing: Mutex<()>,
    /// Held for a round of maintenance.
    pub(crate) maintaining: Mutex<()>,
    pub(crate) log_bytes: AtomicU64,
    /// Bytes of the largest record that found no room in the log.
    pub(crate) log_wanted: AtomicU64,
    /// Bytes that the log can take before a segment has to be made, in all and in one piece.
    pub(crate) log_room: [AtomicU64; 2],
    pub(crate) stalled: AtomicBool,
    pub(crate) stalled_next: AtomicBool,
    pub(crate) stalls: Stalls,
    pub(crate) suspect: AtomicBool,
    _lock: File,
}

impl Store {
    /// Opens the store: keeps the arena if it can be trusted, else makes a new one under a new store id and fills it
    /// from log and base files.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when another node uses arena or directory; [`Error::Full`] without room for the arena;
    /// [`Error::Usage`] for sizes that make no sense, and for a new directory with a file that holds something else.
    pub fn open(options: StoreOptions) -> Result<(Arc<Store>, Opened), Error> {
        Store::open_on(options, Arc::new(RealDisk))
    }

    /// [`Store::open`] with another implementation of files, for tests of failing disks.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(options: StoreOptions, disk: Arc<dyn Disk>) -> Result<(Arc<Store>, Opened), Error> {
        let layout = Layout::new(options.memory)?;
        std::fs::create_dir_all(&options.data_dir).map_err(|e| context(&e, &options.data_dir))?;
        let dir_lock = open_locked(&options.data_dir.join("lock"))?;
        let file = open_locked(&options.arena)?;
        let mut identity = Identity::load(&*disk, &options.data_dir)?;
        if identity == Identity::default() {
            check_nobodys(&file, &options.arena, &options.data_dir)?; // before a second try finds the directory used
        }
        let previous = identity.store;
        identity.boot = identity.boot.checked_add(1).ok_or_else(|| Error::Full("boot numbers are used up".into()))?;
        identity.save(&*disk, &options.data_dir)?;

        let disk_parts = Disks::load(&disk, &options)?;
        let kept = if identity.suspect {
            Err(log_failed())
        } else {
            keep(&file, layout, identity.store, &mut disk_parts.state.bases())
        };
        let mut reason = kept.as_ref().err().map(ToString::to_string);
        if matches!(kept, Err(Error::Failed(_))) && !identity.suspect {
            // The arena alone knew, and is about to be made anew: this start may be cut short.
            identity.suspect = true;
            identity.save(&*disk, &options.data_dir)?;
        }
        let failed = identity.suspect;
        let (arena, groups) = match kept {
            Ok(kept) => kept,
            // Under a name that nobody has until it is filled: a start that does not finish leaves nothing to trust.
            Err(_) => (create(&file, &options.arena, layout, StoreId(random()?))?, BTreeMap::new()),
        };
        let memory_kept = reason.is_none();
        if let Some(damage) = &disk_parts.scan.damage {
            identity.lose_log(StoreId(random()?));
            identity.save(&*disk, &options.data_dir)?;
            if memory_kept {
                arena.rename(identity.store);
            }
            reason = reason.or_else(|| Some(damage.clone()));
        }
        let joined = disk_parts.join(&arena, groups, memory_kept)?;
        if !memory_kept {
            if joined.damage.is_none() {
                match failed {
                    true => identity.lose_log(StoreId(random()?)),
                    false => identity.lose_memory(StoreId(random()?)),
                }
                identity.save(&*disk, &options.data_dir)?;
            }
            arena.rename(identity.store);
        }
        let opened = Opened {
            store: identity.store,
            previous,
            former: identity.former.clone(),
            boot: identity.boot,
            memory_kept,
            log_intact: joined.damage.is_none() && !failed,
            reason,
            groups: joined.groups.len(),
            log_tails: joined.log_tails,
        };
        let store = Store {
            known: Mutex::new(joined.groups.keys().copied().collect()),
            covered: Mutex::new(joined.groups.iter().map(|(id, g)| (*id, g.checkpointed())).collect()),
            options,
            arena,
            disk,
            identity: Mutex::new(identity),
            waiting: Mutex::new(joined.groups),
            gaps: Mutex::default(),
            drops: Mutex::new(joined.drops),
            dropped: Mutex::default(),
            flushing: Mutex::new(()),
            maintaining: Mutex::new(()),
            log_bytes: AtomicU64::new(joined.log.bytes()),
            log_wanted: AtomicU64::new(0),
            log_room: <[u64; 2]>::from(joined.log.room()).map(AtomicU64::new),
            log: Mutex::new(joined.log),
            stalled: AtomicBool::new(false),
            stalled_next: AtomicBool::new(false),
            stalls: Stalls::default(),
            suspect: AtomicBool::new(false),
            _lock: dir_lock,
        };
        Ok((Arc::new(store), opened))
    }

    /// Takes the name of before again, although the memory was lost: the caller knows that everything acknowledged
    /// under it is in the log (durability disk), and [`Opened::log_intact`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the name cannot be made durable.
    pub fn keep_name(&self, previous: StoreId) -> Result<(), Error> {
        let mut identity = lock(&self.identity);
        let renamed = Identity { store: previous, ..identity.clone() };
        renamed.save(&*self.disk, &self.options.data_dir)?;
        *identity = renamed;
        self.arena.rename(previous);
        Ok(())
    }

    /// The log failed: the next start must not trust this memory, nor this name.
    pub(crate) fn become_suspect(&self, _reason: &str) {
        self.suspect.store(true, Ordering::Release);
        self.arena.set_suspect();
        let mut identity = lock(&self.identity);
        identity.suspect = true;
        // The disk just failed; the arena says it, too, and without it the log ends where it was last synced.
        let _ = identity.save(&*self.disk, &self.options.data_dir);
    }

    /// Where the next batch goes, in its segment.
    #[cfg(test)]
    pub(crate) fn log_end(&self) -> u64 {
        lock(&self.log).end()
    }

    pub(crate) fn base_dir(&self) -> PathBuf {
        self.options.data_dir.join("base")
    }

    /// The store's name.
    pub fn id(&self) -> StoreId {
        self.arena.store_id()
    }

    /// Number of this start.
    pub fn boot(&self) -> u32 {
        lock(&self.identity).boot
    }

    /// A free frame to fill; None when pages fill the arena.
    #[inline]
    pub fn alloc(&self) -> Option<FrameBuf> {
        FrameBuf::new(&self.arena, Draw::Commit)
    }

    /// [`Store::alloc`] for a record that another member holds already: from the reserve if need be.
    pub fn alloc_settled(&self) -> Option<FrameBuf> {
        FrameBuf::new(&self.arena, Draw::Settle)
    }

    /// Groups that were found at the start and not opened yet.
    pub fn recovered_groups(&self) -> Vec<GroupId> {
        lock(&self.waiting).keys().copied().collect()
    }

    /// A group as it was found, or a new one.
    ///
    /// # Errors
    /// [`Error::Busy`] when it was opened before; [`Error::Full`] without a frame for its slot.
    pub fn open_group(&self, id: GroupId) -> Result<GroupStore, Error> {
        if let Some(group) = lock(&self.waiting).remove(&id) {
            return Ok(group);
        }
        if !lock(&self.known).insert(id) {
            return Err(Error::Busy(format!("group {id} is open already")));
        }
        let group = GroupStore::create(&self.arena, id).inspect_err(|_| {
            lock(&self.known).remove(&id);
        })?;
        lock(&self.covered).insert(id, Lsn(0));
        Ok(group)
    }

    /// A group as it was found, to be dropped; None for one that was never found, or opened since.
    pub fn take_recovered(&self, id: GroupId) -> Option<GroupStore> {
        lock(&self.waiting).remove(&id)
    }

    /// The group's datasets were removed: frees everything, on disk too. A later start may find the group again until
    /// [`Store::sync_drops`] returned.
    pub fn drop_group(&self, group: GroupStore) {
        let id = group.id();
        let files = group.destroy();
        lock(&self.drops).push((id, files));
        lock(&self.known).remove(&id);
        self.arena.kick.now();
    }

    /// True while `dirty_max` bytes of pages are in memory only: commits should wait.
    pub fn is_dirty_full(&self) -> bool {
        self.arena.dirty.load(Ordering::Relaxed) * PAGE_SIZE as u64 >= self.options.dirty_max
    }

    /// Numbers for status and metrics.
    pub fn usage(&self) -> Usage {
        let frames = u64::from(self.arena.layout.frames);
        Usage {
            frames,
            used: frames - self.arena.free_all() as u64,
            free: self.arena.free_pages() as u64,
            dirty: self.arena.dirty.load(Ordering::Relaxed),
            ring: self.arena.ring_frames.load(Ordering::Relaxed) as u64,
            groups: self.arena.groups.load(Ordering::Relaxed) as u64,
            checksum_errors: self.arena.checksum_errors.load(Ordering::Relaxed),
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
        }
    }
}
