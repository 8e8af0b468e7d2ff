//! Writing base files.
//!
//! Order: pages and sizes into base files and sidecars, sync, CHECKPOINT into the log, sync, then the sidecars'
//! headers, sync, and only then are segments freed. A crash before the log's sync leaves the old checkpoint, and
//! replaying from it writes everything again that this one may have torn.

use dspm_proto::{Error, Lsn, PAGE_SIZE, checksum};

use crate::flush::{DatasetWork, GroupWork};

/// Steps (2) and (3) of a checkpoint: data and sidecars, synced.
pub(crate) fn write_base(work: &GroupWork) -> Result<(), Error> {
    for d in work.datasets.iter().filter(|d| d.changed) {
        write_dataset(d)?;
    }
    Ok(())
}

fn write_dataset(w: &DatasetWork) -> Result<(), Error> {
    let h = w.file.handles()?;
    if w.is_new {
        // A file of an earlier life (a checkpoint that the log never heard of) has nothing to say.
        w.file.truncate(&h, 0, Lsn(0))?;
        w.file.sync_names()?;
    } else if let Some(first) = w.truncate {
        w.file.truncate(&h, first, w.checkpoint.at.lsn)?;
    }
    let size = w.checkpoint.size;
    let zeros = [0u8; PAGE_SIZE];
    for (page, lsn) in &w.zeros {
        w.file.write(&h, *page, *lsn, &zeros, checksum(&zeros))?;
    }
    for (page, lsn, sum, frame) in &w.pages {
        let rest = size - page * PAGE_SIZE as u64;
        if rest >= PAGE_SIZE as u64 {
            w.file.write(&h, *page, *lsn, frame, *sum)?;
            continue;
        }
        // The file ends inside the page: what is beyond the end reads as zeros.
        let mut last = zeros;
        last[..rest as usize].copy_from_slice(&frame[..rest as usize]);
        w.file.write(&h, *page, *lsn, &last, checksum(&last))?;
    }
    w.file.finish(&h, size)
}

/// After step (4): the sidecars name the checkpoint, so that its log entry may go with its segment.
pub(crate) fn name_checkpoint(work: &GroupWork) -> Result<(), Error> {
    for d in &work.datasets {
        if d.changed {
            let h = d.file.handles()?;
            d.file.set_checkpoint(&h, &d.checkpoint)?;
            d.file.sync(&h)?;
            d.file.close();
        }
        d.file.set_size(d.checkpoint.size);
    }
    Ok(())
}
