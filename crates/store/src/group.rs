//! One group of a node: its records and pages, between `base` (the state before the first record kept) and `tail`.
//!
//! Not locked: the node keeps it beside the group's replica state under one lock. Everything that must be in the
//! arena before an answer is, when a method returns.
//!
//! Invariants: horizon ≤ committed ≤ tail; a page newer than `clean` is never freed, except by [`GroupStore::cut`] and where
//! the ring's entry is damaged;
//! a record is published by one word of the ring, after everything that it needs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use dspm_proto::record::Record;
use dspm_proto::{ClientId, DatasetId, Error, GroupId, Header, Kind, Lsn, Part, RecordId, Session};

use crate::arena::{Arena, lock};
use crate::base::BaseFile;
use crate::incoming::Arrived;
use crate::index::Dataset;
use crate::ring::Ring;
use crate::room::Draw;
use crate::sessions::Sessions;
use crate::slot::{Fence, Slot, SlotNo};

/// Why an older version is out of sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hidden {
    /// A newer version or zeros of that page.
    Page(u64),
    /// The dataset shrank to that many pages.
    From(u64),
}

/// A record in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) position: u64,
    /// Its frames, none once they were taken back.
    pub(crate) pages: u32,
    pub(crate) part: Part,
}

/// One group's records, pages and fence.
pub struct GroupStore {
    pub(crate) arena: Arc<Arena>,
    pub(crate) place: SlotNo,
    pub(crate) slot: Slot,
    pub(crate) ring: Ring,
    /// The record before the first one kept.
    pub(crate) base: RecordId,
    pub(crate) tail: RecordId,
    /// Records base.lsn + 1 ..= tail.lsn.
    pub(crate) records: VecDeque<Kept>,
    pub(crate) datasets: BTreeMap<DatasetId, Dataset>,
    pub(crate) sessions: Sessions,
    /// What may be freed once the horizon reaches the LSN; rising.
    pub(crate) superseded: VecDeque<(Lsn, DatasetId, Hidden)>,
    /// Up to here records were taken off the arena's count of dirty pages.
    pub(crate) counted_clean: Lsn,
    /// The last horizon asked for; it may wait for commit or flush.
    pub(crate) wanted: Lsn,
    /// Counts cuts, so that a flush in progress knows that its records are gone.
    pub(crate) epoch: u64,
    /// The log must say that records above are void, before any other of this group.
    pub(crate) cut_to_log: Option<Lsn>,
    /// Nobody will ask about the decision at this LSN.
    pub(crate) closed: Lsn,
    /// The newest record and its metadata, if it is prepared or decides: it is needed also where its ring entry is damaged.
    pub(crate) open: Option<(Record, Vec<u8>)>,
    /// What all base files of the group hold.
    pub(crate) checkpointed: Lsn,
    /// A checkpoint at this LSN is being written: its versions stay.
    pub(crate) checkpoint_at: Option<Lsn>,
    /// Counts rebases, so that a flush or a checkpoint in progress knows that it is of what was forgotten.
    pub(crate) lives: u64,
    /// The log must say that everything before is void, before any other of this group.
    pub(crate) rebase_to_log: bool,
    /// Base files of before the rebase; none may be left when new ones are begun.
    pub(crate) retired: Vec<Arc<BaseFile>>,
    pub(crate) clearing: bool,
    /// Lives as long as what writes the incoming base.
    pub(crate) incoming: Weak<()>,
    /// The base that the log names already.
    pub(crate) arrived: Option<Arrived>,
}

impl GroupStore {
    /// A new group with an empty history.
    pub(crate) fn create(arena: &Arc<Arena>, id: GroupId) -> Result<GroupStore, Error> {
        let place = SlotNo::take(arena)?;
        let mut slot = Slot { group: id, ..Slot::default() };
        place.write(arena, &mut slot);
        arena.groups.fetch_add(1, Ordering::Relaxed);
        Ok(GroupStore::empty(arena, place, slot))
    }

    /// A group as its slot says, without records.
    pub(crate) fn empty(arena: &Arc<Arena>, place: SlotNo, slot: Slot) -> GroupStore {
        GroupStore {
            ring: Ring::new(arena, slot.group, slot.head),
            arena: arena.clone(),
            place,
            slot,
            base: RecordId::default(),
            tail: RecordId::default(),
            records: VecDeque::new(),
            datasets: BTreeMap::new(),
            sessions: Sessions::default(),
            superseded: VecDeque::new(),
            counted_clean: slot.flushed,
            wanted: slot.horizon,
            epoch: 0,
            cut_to_log: None,
            closed: Lsn(0),
            open: None,
            checkpointed: Lsn(0),
            checkpoint_at: None,
            lives: 0,
            rebase_to_log: false,
            retired: Vec::new(),
            clearing: false,
            incoming: Weak::new(),
            arrived: None,
        }
    }

    /// Which group.
    pub fn id(&self) -> GroupId {
        self.slot.group
    }

    /// Identity of the newest record; LSN 0 and hash 0 when there was none.
    pub fn tail(&self) -> RecordId {
        self.tail
    }

    /// The fence that is in force.
    pub fn fence(&self) -> Fence {
        self.slot.fence
    }

    /// Puts a fence into force; in the arena when this returns.
    pub fn set_fence(&mut self, fence: Fence) {
        self.slot.fence = fence;
        self.place.write(&self.arena, &mut self.slot);
    }

    /// The newest LSN known to be committed.
    pub fn committed(&self) -> Lsn {
        self.slot.committed
    }

    /// Notes that everything up to `lsn` is committed. It never falls, and never passes the tail.
    pub fn set_committed(&mut self, lsn: Lsn) {
        let lsn = lsn.min(self.tail.lsn);
        if lsn > self.slot.committed {
            self.slot.committed = lsn;
            self.place.write(&self.arena, &mut self.slot);
            self.count_clean();
        }
    }

    /// The newest LSN in the synced log.
    pub fn flushed(&self) -> Lsn {
        self.slot.flushed
    }

    pub(crate) fn set_flushed(&mut self, lsn: Lsn) {
        let lsn = lsn.min(self.tail.lsn);
        if lsn > self.slot.flushed {
            self.slot.flushed = lsn;
            self.place.write(&self.arena, &mut self.slot);
            self.count_clean();
            self.set_horizon(self.wanted);
        }
    }

    /// Pages up to here are held by more than this memory.
    pub(crate) fn clean(&self) -> Lsn {
        self.arena.clean(self.slot.committed, self.slot.flushed)
    }

    /// Takes records off the arena's count of dirty pages whose pages can be given back now: known to be committed, and
    /// held by more than this memory.
    pub(crate) fn count_clean(&mut self) {
        let clean = self.clean().min(self.slot.committed);
        let mut pages = 0;
        self.counted_clean = self.counted_clean.max(self.base.lsn.min(clean));
        while self.counted_clean < clean {
            self.counted_clean = self.counted_clean.next();
            pages += self.kept(self.counted_clean).map_or(0, |k| u64::from(k.pages));
        }
        if pages > 0 {
            self.arena.dirty.fetch_sub(pages, Ordering::Relaxed);
        }
    }

    pub(crate) fn kept(&self, lsn: Lsn) -> Option<Kept> {
        let i = lsn.0.checked_sub(self.base.lsn.0 + 1)?;
        self.records.get(i as usize).copied()
    }

    /// The highest session number seen of a client, 0 if none.
    pub fn session_number(&self, client: ClientId) -> u64 {
        self.sessions.number(client)
    }

    /// The newest record of a client, if it is remembered: there is no newer one of it in the group.
    pub fn newest_of(&self, client: ClientId) -> Option<RecordId> {
        self.sessions.newest(client)
    }

    /// Notes a session; in the arena when this returns. One of 1024 is forgotten for it. A lower number than one
    /// already seen of the client changes nothing.
    ///
    /// # Errors
    /// [`Error::Full`] when the arena has no frame left, not even of the reserve.
    pub fn set_session(&mut self, session: Session) -> Result<(), Error> {
        if self.session_number(session.client) >= session.number {
            return Ok(());
        }
        let mut meta = [0u8; 16];
        meta[..8].copy_from_slice(&session.client.0.to_le_bytes());
        meta[8..].copy_from_slice(&session.number.to_le_bytes());
        self.reserve(meta.len(), Draw::Keep)?;
        let mut header = Header::new(Kind::Renew).for_meta(&meta);
        header.group = self.id();
        self.ring.push(header, &meta);
        self.sessions.note(session);
        Ok(())
    }

    /// Snapshots below are no longer kept.
    pub(crate) fn floor(&self) -> Lsn {
        self.slot.horizon
    }

    /// Frees all that the group has in the arena, the slot last, so that a crash leaves it whole or gone.
    pub(crate) fn destroy(mut self) -> Vec<Arc<BaseFile>> {
        self.place.clear(&self.arena, &self.slot);
        let files = self.forget_pages();
        lock(&self.arena.owed).remove(&self.id());
        self.ring.clear();
        self.place.release(&self.arena);
        self.arena.groups.fetch_sub(1, Ordering::Relaxed);
        files
    }

    /// Frees all pages and what was known of them; the arena says already that they do not count. Returns the base files.
    pub(crate) fn forget_pages(&mut self) -> Vec<Arc<BaseFile>> {
        self.arena.dirty.fetch_sub(self.dirty_pages(), Ordering::Relaxed);
        for d in self.datasets.values_mut() {
            for page in d.pages_from(0) {
                while let f @ crate::FrameNo(1..) = d.pop_newest(&self.arena, page) {
                    self.arena.free(f);
                }
            }
            d.cut_lists(&self.arena, Lsn(0));
        }
        let mut files = std::mem::take(&mut self.retired);
        let bases = std::mem::take(&mut self.datasets).into_values().filter_map(|d| d.base);
        files.extend(bases.map(|b| b.file));
        files.extend(self.arrived.take().into_iter().flat_map(Arrived::files));
        files
    }

    fn dirty_pages(&self) -> u64 {
        let from = (self.counted_clean.0 + 1)..=self.tail.lsn.0;
        from.filter_map(|l| self.kept(Lsn(l))).map(|k| u64::from(k.pages)).sum()
    }
}
