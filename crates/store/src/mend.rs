//! Copies that turned out to be damaged: kept off the readers, and put right from a good copy.
//!
//! Invariants: content replaces a damaged copy only when its checksum is the one that the version has; a frame is written
//! only under its group's lock and while nobody has it pinned; a base page only while no checkpoint is under way. Each
//! is damaged until it is whole, so a crash in the middle leaves what was there before, or the good copy. What has no good
//! copy anywhere is carried along, to the log and to base files, under the checksum that it should have: nothing waits for
//! it, and it is never taken for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dspm_proto::record::verify_page;
use dspm_proto::{DatasetId, Error, Lsn, PAGE_SIZE, PageNo};

use crate::base::BaseFile;
use crate::frames::PinnedFrame;
use crate::group::GroupStore;
use crate::layout::FrameNo;

/// A version of a page whose copy here is damaged, and how to ask another member for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which dataset.
    pub dataset: DatasetId,
    /// Which page.
    pub page: PageNo,
    /// The version; in a base file it is at or below this.
    pub lsn: Lsn,
    /// Checksum of its content; None in a base file, where the entry that says it may be what is damaged.
    pub checksum: Option<u64>,
    /// A snapshot that sees it.
    pub at: Lsn,
}

/// What became of a frame that does not check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condemned {
    /// It is no page of the group any more, or known.
    Gone,
    /// A checkpoint is under way that may have taken it.
    Later,
    /// The base file has that version.
    OnDisk,
    /// Readers are told that it is damaged here.
    Lost,
}

/// What a damaged page of a base file stands for.
pub(crate) enum BaseNeed {
    /// Nothing: what it should hold is replaced by the next checkpoint, or of no use.
    Nothing,
    /// The version that the arena has.
    Own(PinnedFrame, Lsn, u64),
    /// What other members show at a snapshot.
    Others(Loss),
}

impl GroupStore {
    /// Pages with a version that is damaged here.
    pub fn damaged_pages(&self) -> Vec<(DatasetId, PageNo)> {
        let of = |d: &crate::index::Dataset| d.lost.keys().map(|k| (d.id, PageNo(k.0))).collect::<Vec<_>>();
        let mut pages: Vec<_> = self.datasets.values().flat_map(of).collect();
        pages.dedup();
        pages
    }

    /// Base files of the group: dataset, and pages that they have a place for.
    pub fn base_files(&self) -> Vec<(DatasetId, u64)> {
        let of = |d: &crate::index::Dataset| d.base.as_ref().map(|b| (d.id, b.file.pages()));
        self.datasets.values().filter_map(of).collect()
    }

    /// Every version of a page that has a frame, to be checked without the group's lock.
    pub(crate) fn versions(&self, dataset: DatasetId, page: PageNo) -> Vec<(FrameNo, PinnedFrame, u64)> {
        let Some(d) = self.datasets.get(&dataset) else { return Vec::new() };
        let mut found = Vec::new();
        let mut frame = d.newest(page.0);
        while frame != FrameNo::NONE {
            found.push((frame, self.pin(frame), self.arena.sum(frame)));
            frame = self.arena.older(frame);
        }
        found
    }

    /// A frame's content does not check: no reader gets it any more.
    pub(crate) fn condemn(&mut self, frame: FrameNo) -> Condemned {
        let arena = self.arena.clone();
        let mut content = [0; PAGE_SIZE];
        if !arena.is_page_of(frame, self.id()) || arena.actual_sum(frame, &mut content) == arena.sum(frame) {
            return Condemned::Gone;
        }
        let Ok(Some(m)) = arena.meta(frame) else { return Condemned::Gone };
        if self.checkpoint_at.is_some_and(|c| m.lsn <= c) {
            return Condemned::Later; // what stands behind it in the chain would be taken for the page at that commit
        }
        let Some(d) = self.datasets.get_mut(&m.dataset) else { return Condemned::Gone };
        if d.newest_upto(&arena, m.page.0, m.lsn).1 != frame {
            return Condemned::Gone;
        }
        arena.checksum_errors.fetch_add(1, Ordering::Relaxed);
        if d.base.as_ref().is_some_and(|b| m.lsn <= b.lsn) {
            d.drop_from(&arena, m.page.0, m.lsn);
            return Condemned::OnDisk;
        }
        d.lose(&arena, m.page.0, frame);
        Condemned::Lost
    }

    /// The version that was just put in from the log is damaged.
    pub(crate) fn lose_newest(&mut self, dataset: DatasetId, page: PageNo) {
        let arena = self.arena.clone();
        if let Some(d) = self.datasets.get_mut(&dataset) {
            arena.checksum_errors.fetch_add(1, Ordering::Relaxed);
            d.lose(&arena, page.0, d.newest(page.0));
        }
    }

    /// Versions of a page that are damaged in the arena, and that a snapshot still sees.
    pub(crate) fn losses(&self, dataset: DatasetId, page: PageNo) -> Vec<Loss> {
        let Some(d) = self.datasets.get(&dataset) else { return Vec::new() };
        let versions = d.lost.range((page.0, Lsn(0))..=(page.0, Lsn(u64::MAX)));
        let losses = versions.filter_map(|((_, lsn), lost)| {
            let last = d.newer_than(&self.arena, page.0, *lsn).map_or(Lsn(u64::MAX), |l| Lsn(l.0 - 1));
            let at = last.min(self.committed().max(*lsn));
            (last >= self.floor()).then_some(Loss { dataset, page, lsn: *lsn, checksum: Some(lost.sum), at })
        });
        losses.collect()
    }

    /// Puts the content of a page back that was found damaged ([`crate::Lookup::Lost`]).
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the content is not that version's; [`Error::NotFound`] when nothing is lost there;
    /// [`Error::Busy`] while the damaged copy is being written to the disk: try again.
    pub fn heal(&mut self, dataset: DatasetId, page: PageNo, lsn: Lsn, content: &[u8]) -> Result<(), Error> {
        let gone = || Error::NotFound(format!("no damaged version {lsn} of page {page}"));
        let d = self.datasets.get_mut(&dataset).ok_or_else(gone)?;
        let lost = *d.lost.get(&(page.0, lsn)).ok_or_else(gone)?;
        if content.len() != PAGE_SIZE {
            return Err(Error::Usage(format!("a page of {} bytes", content.len())));
        }
        verify_page(content, lost.sum)?;
        if self.arena.is_pinned(lost.frame) {
            return Err(Error::Busy(format!("version {lsn} of page {page} is being written")));
        }
        self.arena.map.write(self.arena.layout.page_at(lost.frame), content);
        crate::step::step("frame healed");
        d.lost.remove(&(page.0, lsn));
        d.insert_sorted(&self.arena, page.0, lost.frame);
        // Versions that were out of sight behind it, or it behind a newer one, had nobody to name them.
        d.prune(&self.arena, page.0, self.slot.horizon.min(self.slot.committed));
        Ok(())
    }

    /// No good copy was found: log and base files take the damaged one.
    pub(crate) fn give_up(&mut self, loss: &Loss) {
        let lost = self.datasets.get_mut(&loss.dataset).and_then(|d| d.lost.get_mut(&(loss.page.0, loss.lsn)));
        if let Some(lost) = lost {
            lost.given_up = true;
        }
    }

    /// A dataset's base file, and the LSN of its checkpoint.
    pub(crate) fn base_file(&self, dataset: DatasetId) -> Option<(Arc<BaseFile>, Lsn)> {
        self.datasets.get(&dataset)?.base.as_ref().map(|b| (b.file.clone(), b.lsn))
    }

    /// What a page of the base file that does not check should hold.
    pub(crate) fn base_need(&self, dataset: DatasetId, page: PageNo) -> BaseNeed {
        let Some(d) = self.datasets.get(&dataset) else { return BaseNeed::Nothing };
        let Some(base) = d.base.as_ref().filter(|b| b.file.has_page(page.0)) else { return BaseNeed::Nothing };
        if let Some((frame, lsn)) = d.frame_at(&self.arena, page.0, base.lsn) {
            return BaseNeed::Own(self.pin(frame), lsn, self.arena.sum(frame));
        }
        let last = d.newer_than(&self.arena, page.0, base.lsn).map_or(Lsn(u64::MAX), |l| Lsn(l.0 - 1));
        if last < self.floor() {
            return BaseNeed::Nothing;
        }
        let at = last.min(self.committed().max(base.lsn));
        BaseNeed::Others(Loss { dataset, page, lsn: base.lsn, checksum: None, at })
    }
}
