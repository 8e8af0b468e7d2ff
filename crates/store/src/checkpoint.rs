//! Writing base files.
//!
//! Order: pages and sizes into base files and sidecars, sync, CHECKPOINT into the log, sync, then the sidecars'
//! headers, sync, and only then are segments freed. A crash before the log's sync leaves the old checkpoint, and
//! replaying from it writes everything again that this one may have torn.

use std::borrow::Cow;
use std::sync::Arc;

use dspm_proto::{Error, Lsn, PAGE_SIZE, checksum};

use crate::base::Handles;
use crate::flush::{DatasetWork, GroupWork, PageWork};

/// Leaves of 16 pages that are looked at under one hold of the group's lock.
const LEAVES: usize = 256;

/// Takes the pages of some leaves from the group, under its lock.
pub(crate) type TakePages<'a> = dyn FnMut(&DatasetWork, &[u64]) -> Vec<PageWork> + 'a;

/// Steps (2) and (3) of a checkpoint: data and sidecars, synced.
pub(crate) fn write_base(work: &mut GroupWork, take: &mut TakePages<'_>) -> Result<(), Error> {
    work.datasets.iter_mut().try_for_each(|d| write_dataset(d, take))?;
    // Once for all: a group may have thousands, and most of what a sync of the directory costs is the sync.
    work.datasets.iter().find(|d| d.is_new).map_or(Ok(()), |d| d.file.sync_names())
}

fn write_dataset(w: &mut DatasetWork, take: &mut TakePages<'_>) -> Result<(), Error> {
    let mut begun = None;
    if w.changed {
        begun = Some(begin(w)?);
    }
    for leaves in w.leaves.chunks(LEAVES) {
        let pages = take(w, leaves);
        if pages.is_empty() {
            continue;
        }
        let h = match &begun {
            Some(h) => h,
            None => begun.insert(begin(w)?),
        };
        for page in &pages {
            write_page(w, h, page)?;
        }
    }
    w.changed = begun.is_some();
    let Some(h) = begun else { return Ok(()) };
    w.file.finish(&h, w.checkpoint.size)?;
    w.file.close(); // until it gets its name: so that few are open at a time
    Ok(())
}

fn begin(w: &DatasetWork) -> Result<Arc<Handles>, Error> {
    let h = w.file.handles()?;
    if w.is_new {
        // A file of an earlier life (a checkpoint that the log never heard of) has nothing to say.
        w.file.truncate(&h, 0, Lsn(0))?;
    } else if let Some(first) = w.truncate {
        w.file.truncate(&h, first, w.checkpoint.at.lsn)?;
    }
    let zeros = [0u8; PAGE_SIZE];
    for (page, lsn) in &w.zeros {
        w.file.write(&h, *page, *lsn, &zeros, checksum(&zeros))?;
    }
    Ok(h)
}

fn write_page(w: &DatasetWork, h: &Handles, p: &PageWork) -> Result<(), Error> {
    match clipped(&p.frame, w.checkpoint.size, p.page) {
        Cow::Borrowed(whole) => w.file.write(h, p.page, p.lsn, whole, p.sum),
        Cow::Owned(last) => w.file.write(h, p.page, p.lsn, &last, checksum(&last)),
    }
}

/// A page of a dataset of that size. Where it ends inside the page, what is beyond the end reads as zeros.
pub(crate) fn clipped(page: &[u8; PAGE_SIZE], size: u64, number: u64) -> Cow<'_, [u8; PAGE_SIZE]> {
    let rest = size.saturating_sub(number * PAGE_SIZE as u64);
    if rest >= PAGE_SIZE as u64 {
        return Cow::Borrowed(page);
    }
    let mut last = [0u8; PAGE_SIZE];
    last[..rest as usize].copy_from_slice(&page[..rest as usize]);
    Cow::Owned(last)
}

/// After step (4): the sidecars name the checkpoint, so that its log entry may go with its segment.
pub(crate) fn name_checkpoint(work: &GroupWork) -> Result<(), Error> {
    for d in &work.datasets {
        if d.changed {
            d.file.name(&d.checkpoint)?;
        }
        d.file.set_size(d.checkpoint.size);
    }
    Ok(())
}
