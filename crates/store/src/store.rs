//! The store of a node: one arena, its groups, its log and base files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use dspm_proto::{Error, GroupId, StoreId};

use crate::arena::{Arena, lock};
use crate::disk::{Disk, RealDisk};
use crate::frames::FrameBuf;
use crate::group::GroupStore;
use crate::identity::Identity;
use crate::layout::Layout;
use crate::open::{context, create, keep, open_locked};
use crate::options::{Opened, StoreOptions, Usage};
use crate::random::random;

/// A node's store. Shared by its threads; groups are handed out one by one and locked by the node.
pub struct Store {
    pub(crate) options: StoreOptions,
    pub(crate) arena: Arc<Arena>,
    pub(crate) disk: Arc<dyn Disk>,
    identity: Mutex<Identity>,
    /// Groups found at the start that were not opened yet.
    waiting: Mutex<BTreeMap<GroupId, GroupStore>>,
    known: Mutex<BTreeSet<GroupId>>,
    _lock: File,
}

impl Store {
    /// Opens the store: keeps the arena if it can be trusted, else makes a new one under a new store id and fills it
    /// from log and base files.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when another node uses arena or directory; [`Error::Full`] without room for the arena;
    /// [`Error::Usage`] for sizes that make no sense.
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
        let previous = identity.store;
        identity.boot = identity.boot.checked_add(1).ok_or_else(|| Error::Full("boot numbers are used up".into()))?;
        identity.save(&*disk, &options.data_dir)?;

        let mut bases = HashMap::new();
        let kept = if identity.suspect {
            Err(Error::NotFound("the log failed while it was in use".into()))
        } else {
            keep(&file, layout, identity.store, &mut bases)
        };
        let (arena, groups, reason) = match kept {
            Ok((arena, groups)) => (arena, groups, None),
            Err(e) => {
                identity = Identity { store: StoreId(random()?), suspect: false, ..identity };
                identity.save(&*disk, &options.data_dir)?;
                (create(&file, &options.arena, layout, identity.store)?, BTreeMap::new(), Some(e.to_string()))
            }
        };
        let opened = Opened {
            store: identity.store,
            previous,
            boot: identity.boot,
            memory_kept: reason.is_none(),
            reason,
            log_intact: true,
            groups: groups.len(),
            log_tails: Vec::new(),
        };
        let known = Mutex::new(groups.keys().copied().collect());
        let (identity, waiting) = (Mutex::new(identity), Mutex::new(groups));
        let store = Store { options, arena, disk, identity, waiting, known, _lock: dir_lock };
        Ok((Arc::new(store), opened))
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
        FrameBuf::new(&self.arena)
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
        GroupStore::create(&self.arena, id).inspect_err(|_| {
            lock(&self.known).remove(&id);
        })
    }

    /// The group's datasets were removed: frees everything, on disk too.
    pub fn drop_group(&self, group: GroupStore) {
        let id = group.id();
        group.destroy();
        lock(&self.known).remove(&id);
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
            log_bytes: 0,
        }
    }
}
