//! What the flusher takes from a group, and what it tells it afterwards.
//!
//! Invariant: a ticket's pages are pinned, so they are written without the group's lock; a cut meanwhile changes the
//! epoch, and the ticket then says nothing about the records that are there now.

use std::collections::BTreeMap;
use std::sync::Arc;

use dspm_proto::record::Payload;
use dspm_proto::{DatasetId, GroupId, Lsn, PageNo, Part, RecordId};

use crate::base::{BaseFile, Checkpoint};
use crate::frames::PinnedFrame;
use crate::group::GroupStore;
use crate::index::Base;
use crate::log::entry_len;
use crate::read::StoredRecord;

/// Records of one group that are to be written.
pub(crate) struct Ticket {
    pub(crate) group: GroupId,
    epoch: u64,
    lives: u64,
    /// Everything of the group that the log has so far is void: its history begins behind this record.
    pub(crate) rebase: Option<RecordId>,
    pub(crate) cut: Option<Lsn>,
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) upto: Lsn,
    /// More records wait.
    pub(crate) more: bool,
}

/// One dataset's part of a checkpoint.
pub(crate) struct DatasetWork {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) file: Arc<BaseFile>,
    pub(crate) is_new: bool,
    /// Pages from here on become zeros first.
    pub(crate) truncate: Option<u64>,
    pub(crate) zeros: Vec<(u64, Lsn)>,
    /// What the base file holds already.
    from: Lsn,
    /// Where to look for pages, some at a time ([`GroupStore::checkpoint_pages`]).
    pub(crate) leaves: Vec<u64>,
    pub(crate) changed: bool,
}

/// A page that a checkpoint writes.
pub(crate) struct PageWork {
    pub(crate) page: u64,
    pub(crate) lsn: Lsn,
    pub(crate) sum: u64,
    pub(crate) frame: PinnedFrame,
}

/// One group's checkpoint.
pub(crate) struct GroupWork {
    pub(crate) group: GroupId,
    pub(crate) lives: u64,
    pub(crate) at: RecordId,
    pub(crate) datasets: Vec<DatasetWork>,
}

impl GroupStore {
    /// Unflushed records, up to about `bytes` of log. None when there is nothing to write.
    pub(crate) fn ticket(&mut self, bytes: u64) -> Option<Ticket> {
        let mut t = Ticket {
            group: self.id(),
            epoch: self.epoch,
            lives: self.lives,
            rebase: self.rebased_to().filter(|_| self.rebase_to_log),
            cut: self.cut_to_log,
            records: Vec::new(),
            upto: self.flushed(),
            more: false,
        };
        let mut room = bytes as i64;
        while t.upto < self.tail.lsn {
            let Some(r) = self.record(t.upto.next()).filter(StoredRecord::is_complete) else { break };
            let images = r.record.pages.iter().filter(|p| p.payload != Payload::Zero).count();
            room -= entry_len(r.meta.len(), images) as i64;
            if room < 0 && !t.records.is_empty() {
                t.more = true;
                break;
            }
            t.upto = t.upto.next();
            t.records.push(r);
        }
        (t.rebase.is_some() || t.cut.is_some() || !t.records.is_empty()).then_some(t)
    }

    /// True when unflushed records are no longer whole (they were dropped while no log ran): only a checkpoint can
    /// make the log complete again.
    pub(crate) fn has_log_gap(&self) -> bool {
        let next = self.flushed().next();
        next <= self.tail.lsn && !self.record(next).is_some_and(|r| r.is_complete())
    }

    /// The ticket is in the synced log. Returns the LSN that is flushed now.
    pub(crate) fn ticket_done(&mut self, t: &Ticket) -> Option<Lsn> {
        self.rebase_to_log &= t.rebase.is_none() || t.lives != self.lives;
        if self.cut_to_log == t.cut && self.epoch == t.epoch {
            self.cut_to_log = None;
        }
        self.owe();
        if self.epoch != t.epoch {
            // What was written is void; the log hears of it with the next ticket.
            return None;
        }
        self.set_flushed(t.upto);
        Some(t.upto)
    }

    /// What a checkpoint has to write. None when it would not move, while a page is damaged here, or when what it
    /// would write is no longer all there (a group rebuilt from disk keeps its tail only).
    pub(crate) fn checkpoint_work(
        &mut self,
        new_file: &dyn Fn(DatasetId) -> BaseFile,
        bridge_gap: bool,
    ) -> Option<GroupWork> {
        if !self.is_whole() {
            return None;
        }
        let synced = if bridge_gap { self.tail.lsn } else { self.flushed() };
        let c = synced.min(self.committed()).min(self.horizon()).min(self.forgettable());
        // Whether a prepared record counts is said by the one behind it: the base must not stand between them.
        let c = if self.part(c) == Part::Prepared { Lsn(c.0 - 1) } else { c };
        let at = self.record_id(c).filter(|_| c > self.checkpointed() && c >= self.base.lsn.max(self.horizon()))?;
        if self.datasets.values().any(|d| d.lost.keys().any(|k| k.1 <= c)) {
            return None;
        }
        let group = self.id();
        self.prune_superseded(); // the marks that hide old versions go with the checkpoint
        self.checkpoint_at = Some(c);
        let ids: Vec<_> = self.datasets.keys().copied().collect();
        let datasets = ids.into_iter().filter_map(|id| self.dataset_work(id, at, new_file)).collect();
        Some(GroupWork { group, lives: self.lives, at, datasets })
    }

    /// The LSN that all base files of the group hold.
    pub(crate) fn checkpointed(&self) -> Lsn {
        self.checkpointed
    }

    fn dataset_work(
        &mut self,
        id: DatasetId,
        at: RecordId,
        new_file: &dyn Fn(DatasetId) -> BaseFile,
    ) -> Option<DatasetWork> {
        let group = self.id();
        let d = self.datasets.get(&id)?;
        if d.sizes.first().is_none_or(|s| s.0 > at.lsn) && d.base.is_none() {
            return None; // made after the checkpoint
        }
        let from = d.base.as_ref().map_or(Lsn(0), |b| b.lsn);
        let within = |lsn: Lsn| lsn > from && lsn <= at.lsn;
        let is_new = d.base.is_none();
        let file = d.base.as_ref().map_or_else(|| Arc::new(new_file(id)), |b| b.file.clone());
        let size = d.size(at.lsn);
        let truncate = d.truncations.iter().filter(|t| within(t.0)).map(|t| t.1).min();
        let zeros: BTreeMap<u64, Lsn> = d.zeros.iter().filter(|z| within(z.1)).copied().collect();
        let shows = |(page, lsn): &(u64, Lsn)| {
            let newer = d.frame_at(&self.arena, *page, at.lsn).is_some_and(|f| f.1 > *lsn);
            *page < PageNo::count(size) && !newer && d.zero_at(*page, at.lsn) == Some(*lsn)
        };
        let zeros: Vec<_> = zeros.into_iter().filter(shows).collect();
        let changed = is_new || truncate.is_some() || !zeros.is_empty() || d.sizes.iter().any(|s| within(s.0));
        let checkpoint = Checkpoint { group, dataset: id, at, size };
        Some(DatasetWork { checkpoint, file, is_new, truncate, zeros, from, leaves: d.leaf_numbers(), changed })
    }

    /// The pages of some leaves that a checkpoint has to write. The horizon does not pass it meanwhile.
    pub(crate) fn checkpoint_pages(&self, w: &DatasetWork, leaves: &[u64]) -> Vec<PageWork> {
        let Some(d) = self.datasets.get(&w.checkpoint.dataset) else { return Vec::new() };
        let (at, end) = (w.checkpoint.at.lsn, PageNo::count(w.checkpoint.size));
        let pages = leaves.iter().flat_map(|l| d.leaf_pages(*l)).filter(|p| *p < end);
        let newest = pages.filter_map(|page| {
            let (frame, lsn) = d.frame_at(&self.arena, page, at)?;
            let shows = lsn > w.from && Some(lsn) > d.zero_at(page, at);
            shows.then(|| PageWork { page, lsn, sum: self.arena.sum(frame), frame: self.pin(frame) })
        });
        newest.collect()
    }

    /// The checkpoint could not be finished. What it wrote is written again by the next one.
    pub(crate) fn checkpoint_given_up(&mut self) {
        self.checkpoint_at = None;
        self.set_horizon(self.wanted);
    }

    /// The checkpoint is in the synced log and in the base files.
    pub(crate) fn checkpoint_done(&mut self, work: &GroupWork) {
        for w in &work.datasets {
            if let Some(d) = self.datasets.get_mut(&w.checkpoint.dataset) {
                d.set_base(Base { lsn: work.at.lsn, file: w.file.clone() });
            }
        }
        self.checkpointed = self.checkpointed.max(work.at.lsn);
        self.checkpoint_at = None;
        self.set_flushed(work.at.lsn);
        self.set_horizon(self.wanted);
    }
}
