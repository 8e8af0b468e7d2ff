//! Looking for damage before somebody reads it: frames, ring entries, base files and the log, a bounded step at a time.
//!
//! Invariants: a step holds a group's lock to pin what it looks at, or for one part of a ring, never while it computes
//! checksums or reads the disk. A step names what does not check; [`Store::check_page`] looks at it once more, under the
//! lock, before anything is taken from readers. Fault model: bits flip in memory and on the disk at any time, in entries
//! as in content; the disk may fail to read.

use std::collections::HashMap;

use dspm_proto::{DatasetId, Error, GroupId, Lsn, PAGE_SIZE, PageNo, Part, checksum};
use std::sync::atomic::Ordering;

use crate::arena::lock;
use crate::flusher::FlushSource;
use crate::frames::PinnedFrame;
use crate::group::GroupStore;
use crate::layout::FrameNo;
use crate::mend::{BaseNeed, Condemned, Loss};
use crate::meta::Use;
use crate::store::Store;

/// Entries of the frame table that a step looks at, and pages that it checks.
const ENTRIES: usize = 4096;
const PAGES: usize = 64;
/// Bytes of a ring that are checked under one hold of the group's lock.
const RING_BYTES: u64 = 64 << 10;

/// What a step saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Where the next step goes on; None at the end.
    pub next: Option<u64>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Pages, or entries of a ring, that were checked.
    pub items: u64,
    /// Pages that do not check.
    pub pages: Vec<(GroupId, DatasetId, PageNo)>,
    /// Positions of ring entries that do not check.
    pub entries: Vec<u64>,
}

/// What a second look at a page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageCheck {
    /// Damaged copies that nobody knew of before.
    pub found: u64,
    /// Of those, and of others, put right from another copy here.
    pub mended: u64,
    /// A checkpoint is under way: look again.
    pub later: bool,
    /// What a good copy is needed for.
    pub losses: Vec<Loss>,
}

impl Store {
    /// Checks some frames, from the one with that index on, of the groups that are wanted.
    pub fn scrub_frames(&self, source: &dyn FlushSource, from: u64, wanted: &dyn Fn(GroupId) -> bool) -> Step {
        let end = self.arena.layout.frames as usize;
        let mut by_group: HashMap<GroupId, Vec<FrameNo>> = HashMap::new();
        let (mut i, mut found) = (from as usize, 0);
        while i < end && i < from as usize + ENTRIES && found < PAGES {
            let frame = self.arena.layout.frame(i);
            if let Ok(Some(m)) = self.arena.meta(frame) {
                if m.used == Use::Page && wanted(m.group) {
                    by_group.entry(m.group).or_default().push(frame);
                    found += 1;
                }
            }
            i += 1;
        }
        let mut step = Step { next: (i < end).then_some(i as u64), ..Step::default() };
        for (group, frames) in by_group {
            let mut pinned = Vec::new();
            source.with_group(group, &mut |g| pinned = g.pin_pages(&frames));
            step.items += pinned.len() as u64;
            step.bytes += (pinned.len() * PAGE_SIZE) as u64;
            let bad = pinned.iter().filter(|p| checksum(&p.2[..]) != p.3);
            step.pages.extend(bad.map(|p| (group, p.0, p.1)));
        }
        step
    }

    /// Checks a part of a group's ring, from that position on (0: from its head).
    pub fn scrub_ring(&self, source: &dyn FlushSource, group: GroupId, from: u64) -> Step {
        let mut step = Step::default();
        source.with_group(group, &mut |g| step = g.check_ring(from));
        self.arena.checksum_errors.fetch_add(step.entries.len() as u64, Ordering::Relaxed);
        step
    }

    /// Checks some pages of a dataset's base file.
    ///
    /// # Errors
    /// Those of the operating system, for pages that cannot be read one by one either.
    pub fn scrub_base(
        &self,
        source: &dyn FlushSource,
        group: GroupId,
        dataset: DatasetId,
        from: u64,
    ) -> Result<Step, Error> {
        let mut base = None;
        source.with_group(group, &mut |g| base = g.base_file(dataset));
        let Some((file, _)) = base.filter(|(f, _)| f.has_page(from)) else { return Ok(Step::default()) };
        let mut data = vec![0; PAGES * PAGE_SIZE];
        let (bad, items) = match file.check(from, &mut data) {
            Ok(found) => found,
            // The disk cannot read one of them: that one is damaged, the others may be sound.
            Err(_) => {
                let pages = (from..from + PAGES as u64).filter(|p| file.has_page(*p));
                let bad = pages.filter(|p| !file.check(*p, &mut data[..PAGE_SIZE]).is_ok_and(|f| f.0.is_empty()));
                (bad.collect(), PAGES as u64)
            }
        };
        let next = from + PAGES as u64;
        Ok(Step {
            next: file.has_page(next).then_some(next),
            bytes: items * PAGE_SIZE as u64,
            items,
            pages: bad.into_iter().map(|p| (group, dataset, PageNo(p))).collect(),
            entries: Vec::new(),
        })
    }

    /// Looks at all copies of a page here, in the arena and in the base file: what is damaged no reader gets any more, and
    /// what another copy here can put right is put right.
    pub fn check_page(&self, source: &dyn FlushSource, group: GroupId, dataset: DatasetId, page: PageNo) -> PageCheck {
        let mut check = PageCheck::default();
        let mut versions = Vec::new();
        source.with_group(group, &mut |g| versions = g.versions(dataset, page));
        versions.retain(|(_, content, sum)| checksum(&content[..]) != *sum);
        let bad: Vec<FrameNo> = versions.drain(..).map(|v| v.0).collect();
        source.with_group(group, &mut |g| {
            for frame in &bad {
                match g.condemn(*frame) {
                    Condemned::Gone => {}
                    Condemned::Later => check.later = true,
                    Condemned::OnDisk => (check.found, check.mended) = (check.found + 1, check.mended + 1),
                    Condemned::Lost => check.found += 1,
                }
            }
            check.losses = g.losses(dataset, page);
        });
        self.check_base_page(source, group, dataset, page, &mut check);
        check
    }

    fn check_base_page(
        &self,
        source: &dyn FlushSource,
        group: GroupId,
        dataset: DatasetId,
        page: PageNo,
        check: &mut PageCheck,
    ) {
        let mut base = None;
        source.with_group(group, &mut |g| base = g.base_file(dataset));
        let Some((file, _)) = base.filter(|(f, _)| f.has_page(page.0)) else { return };
        let mut data = [0; PAGE_SIZE];
        if file.check(page.0, &mut data).is_ok_and(|found| found.0.is_empty()) {
            file.report(page.0, false);
            return;
        }
        let mut need = BaseNeed::Nothing;
        source.with_group(group, &mut |g| need = g.base_need(dataset, page));
        if matches!(need, BaseNeed::Nothing) {
            return;
        }
        if file.report(page.0, true) {
            self.arena.checksum_errors.fetch_add(1, Ordering::Relaxed);
            check.found += 1;
        }
        match need {
            BaseNeed::Own(content, lsn, sum) if checksum(&content[..]) == sum => {
                let mended = self.mend_base(source, group, dataset, page, lsn, &content);
                check.mended += u64::from(matches!(mended, Ok(true)));
                check.later |= !matches!(mended, Ok(true));
            }
            BaseNeed::Others(loss) => check.losses.push(loss),
            _ => check.later = true,
        }
    }

    /// Puts a page in the arena right from its image in the log, which is read for that. False: it is not there.
    pub fn mend_from_log(&self, source: &dyn FlushSource, group: GroupId, loss: &Loss) -> bool {
        let Some(sum) = loss.checksum else { return false };
        let view = lock(&self.log).view();
        let image = view.image(&*self.disk, (group, loss.lsn), (loss.dataset, loss.page, sum));
        image.is_some_and(|content| self.mend(source, group, loss, loss.lsn, &content).is_ok())
    }

    /// Puts right what was found damaged. `lsn` is the version as the other member names it; 0 with zeros: nobody says who
    /// wrote them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the content is not that version's; [`Error::NotFound`] when nothing is damaged there any
    /// more; [`Error::Busy`]: try again; those of the disk.
    pub fn mend(
        &self,
        source: &dyn FlushSource,
        group: GroupId,
        loss: &Loss,
        lsn: Lsn,
        content: &[u8],
    ) -> Result<(), Error> {
        let gone = || Error::NotFound("nothing is damaged there".into());
        if loss.checksum.is_some() {
            let mut healed = Err(gone());
            source.with_group(group, &mut |g| healed = g.heal(loss.dataset, loss.page, loss.lsn, content));
            self.arena.kick.now();
            return healed;
        }
        let content = content.try_into().map_err(|_| Error::Usage(format!("a page of {} bytes", content.len())))?;
        if lsn > loss.lsn {
            return Err(Error::Corrupt(format!("commit {lsn} where the base file is at {}", loss.lsn)));
        }
        match self.mend_base(source, group, loss.dataset, loss.page, lsn, content)? {
            true => Ok(()),
            false => Err(gone()),
        }
    }

    /// False when the page moved on meanwhile.
    fn mend_base(
        &self,
        source: &dyn FlushSource,
        group: GroupId,
        dataset: DatasetId,
        page: PageNo,
        lsn: Lsn,
        content: &[u8; PAGE_SIZE],
    ) -> Result<bool, Error> {
        let _no_checkpoint = lock(&self.maintaining);
        let mut base = None;
        source.with_group(group, &mut |g| base = g.base_file(dataset));
        let Some((file, at)) = base.filter(|(f, at)| f.has_page(page.0) && *at >= lsn) else { return Ok(false) };
        let mut data = [0; PAGE_SIZE];
        if !file.check(page.0, &mut data).is_ok_and(|found| found.0.is_empty()) {
            file.mend(page.0, lsn.min(at), content)?;
        }
        file.report(page.0, false);
        Ok(true)
    }

    /// No good copy of it was found anywhere: the log and base files go on with the damaged one.
    pub fn give_up(&self, source: &dyn FlushSource, group: GroupId, loss: &Loss) {
        source.with_group(group, &mut |g| g.give_up(loss));
        self.arena.kick.now();
    }

    /// Writes a ring entry that does not check again, if it is remembered; else drops it, and all before it. False when they are not committed, or not on the disk yet:
    /// try again. What cannot be read cannot go to the log: base files take what is committed, as far as no reader is left.
    pub fn mend_ring(&self, source: &dyn FlushSource, group: GroupId, position: u64) -> bool {
        let mut mended = true;
        source.with_group(group, &mut |g| mended = g.drop_entry(position));
        self.arena.kick.now();
        mended
    }

    /// Reads the log; `pace` hears of the bytes of each batch, and ends it with false. Returns the segments that do not
    /// check.
    pub fn scrub_log(&self, pace: &mut dyn FnMut(u64) -> bool) -> Vec<u64> {
        let view = lock(&self.log).view();
        let bytes = |e: &crate::log::LogEntry| u64::from(e.header.meta_len) + u64::from(e.header.data_len);
        let bad = view.check(&*self.disk, &mut |entries, _| pace(entries.iter().map(bytes).sum()));
        let log = lock(&self.log);
        let bad: Vec<u64> = bad.into_iter().filter(|id| log.has_segment(*id)).collect();
        self.arena.checksum_errors.fetch_add(bad.len() as u64, Ordering::Relaxed);
        bad
    }

    /// Makes a damaged segment useless: base files take what stands in it, then it is freed. False when something keeps it,
    /// as a reader of an old snapshot does: try again.
    ///
    /// # Errors
    /// [`Error::Full`] without room on the disk; [`Error::Failed`] when it fails: the store is suspect then.
    pub fn mend_log(&self, source: &dyn FlushSource, segment: u64) -> Result<bool, Error> {
        let _one_at_a_time = lock(&self.maintaining);
        let left = lock(&self.log).leave(segment);
        let done = left.and_then(|groups| {
            for (group, lsn) in groups {
                if lock(&self.covered).get(&group).is_some_and(|c| *c < lsn) {
                    self.checkpoint(source, group, false)?;
                }
            }
            self.free_segments()
        });
        done.map_err(|e| self.told(e, source))?;
        let log = lock(&self.log);
        log.erase(segment)?;
        Ok(!log.has_segment(segment))
    }
}

type Pinned = (DatasetId, PageNo, PinnedFrame, u64);

impl GroupStore {
    /// Those of the frames that are pages of this group, and what they must be.
    fn pin_pages(&self, frames: &[FrameNo]) -> Vec<Pinned> {
        let page = |frame: &FrameNo| {
            let m = self.arena.meta(*frame).ok()?.filter(|m| m.used == Use::Page && m.group == self.id())?;
            let d = self.datasets.get(&m.dataset)?;
            let serves = d.newest_upto(&self.arena, m.page.0, m.lsn).1 == *frame; // not one that is known to be damaged
            serves.then(|| (m.dataset, m.page, self.pin(*frame), m.checksum))
        };
        frames.iter().filter_map(page).collect()
    }

    fn check_ring(&self, from: u64) -> Step {
        let mut at = from.max(self.slot.head);
        let stop = at + RING_BYTES;
        let mut step = Step::default();
        while at < self.ring.end().min(stop) {
            step.items += 1;
            let next = match self.ring.entry(at) {
                Ok(Some((_, _, next))) => next,
                _ => {
                    step.entries.push(at);
                    // Where the next entry begins is known of records only.
                    let record = self.records.get(self.records.partition_point(|k| k.position <= at));
                    record.map_or(self.ring.end(), |k| k.position)
                }
            };
            step.bytes += next - at;
            at = next;
        }
        step.next = (at < self.ring.end()).then_some(at);
        step
    }

    /// See [`Store::mend_ring`]. Their content stays; that they can be sent again, and named as changes, goes.
    fn drop_entry(&mut self, position: u64) -> bool {
        if position < self.slot.head || self.rewrite_open(position) {
            return true;
        }
        let least = self.records.partition_point(|k| k.position <= position);
        let most = self.droppable().0.saturating_sub(self.base.lsn.0) as usize;
        for drop in least..=most.min(self.records.len()) {
            if drop > 0 && self.records[drop - 1].part == Part::Prepared {
                continue; // it goes together with the record that says what became of it
            }
            if let Some(base) = self.record_id(Lsn(self.base.lsn.0 + drop as u64)) {
                return self.fold_to(drop, base).is_ok() && self.slot.head > position;
            }
        }
        self.bridge();
        false
    }
}
