//! A transaction becomes one commit of the dataset.
//!
//! Invariant: one change counter an LSN. Where SQLite left the counter as it was (it does from the second commit on in
//! its own exclusive locking mode), the counter becomes the snapshot's + 1, so that no snapshot reader takes old pages
//! for current ones. A failed publish leaves the handle at its snapshot, with nothing gathered, and the pager is made to
//! drop its cache: the counter of a lost transaction and of the one that won are the same number.
//!
//! A lost race is BUSY_SNAPSHOT only where no other statement of the connection is open. SQLite ends a failed commit's
//! pager in an error state for the IOERR family and FULL alone; after any other code a statement that stays open goes
//! on in the cache, and would show the rows of the transaction that lost.

use crate::connection;
use crate::errors::{Code, During};
use crate::handle::Handle;
use crate::header;
use crate::lock::Lock;
use crate::overlay::{Base, Overlay, read_snapshot};
use dspm_proto::{Error, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Change, Snapshot};

/// What tells the size after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeFrom {
    /// The size as SQLite has set it: at COMMIT_PHASETWO it is final.
    File,
    /// The database header: at the end of a super-journal SQLite still has to cut the file.
    Header,
}

impl Handle {
    /// Commits what was gathered. If that is nothing there is no commit and no LSN, but a write transaction still asks
    /// whether it was the group's writer to the end.
    pub fn publish(&mut self, size_from: SizeFrom) -> Result<(), Code> {
        if !self.is_written() {
            let confirmed = match &self.snapshot {
                Some(snapshot) if self.lock >= Lock::Reserved => self.dataset.confirm(snapshot),
                _ => Ok(()),
            };
            return confirmed.map_err(|e| self.fail(&e, During::Commit));
        }
        match self.try_publish(size_from) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.distrust_cache = true;
                if let (Some(snapshot), Some(overlay)) = (&self.snapshot, &mut self.overlay) {
                    overlay.restart(snapshot.size);
                }
                let during =
                    if connection::has_other_statements(self) { During::CommitBesideReaders } else { During::Commit };
                Err(self.fail(&e, during))
            }
        }
    }

    fn try_publish(&mut self, size_from: SizeFrom) -> Result<(), Error> {
        let (Some(snapshot), Some(overlay)) = (&mut self.snapshot, &mut self.overlay) else {
            return Err(Error::Failed("a commit without a write lock".into()));
        };
        let base = Base { dataset: &*self.dataset, snapshot };
        if size_from == SizeFrom::Header {
            cut_to_header(overlay, base)?;
        }
        let hidden = prepare_header(overlay, base)?;
        let size = overlay.size();
        self.dataset.commit(snapshot, &Change { pages: &overlay.pages(), size })?;
        overlay.restart(size);
        self.distrust_cache |= hidden;
        Ok(())
    }
}

/// Cuts the database to the size that its header tells.
fn cut_to_header(overlay: &mut Overlay, base: Base<'_>) -> Result<(), Error> {
    let mut bytes = [0; header::SIZE];
    overlay.read(base, 0, &mut bytes)?;
    match header::database_size(&bytes) {
        Some(size) if size < overlay.size() => overlay.truncate(base, size),
        _ => Ok(()),
    }
}

/// Makes the header of the new state what it has to be; true if it now differs from what the pager has cached.
fn prepare_header(overlay: &mut Overlay, base: Base<'_>) -> Result<bool, Error> {
    let mut new = [0; header::SIZE];
    if overlay.size() < new.len() as u64 {
        return Ok(false);
    }
    overlay.read(base, 0, &mut new)?;
    if !header::is_plain(&new) {
        return Ok(false);
    }
    let hidden = header::show_no_wal(&mut new);
    let before = counter_before(base)?;
    let counted = header::counter(&new) != before;
    if !counted {
        header::set_counter(&mut new, before.wrapping_add(1));
    }
    if hidden || !counted {
        overlay.page_mut(base, PageNo(0))?[..new.len()].copy_from_slice(&new);
    }
    Ok(hidden)
}

/// The snapshot's change counter; 0 for an empty database.
fn counter_before(base: Base<'_>) -> Result<u32, Error> {
    let Snapshot { size, .. } = base.snapshot;
    let mut bytes = [0; header::SIZE];
    const { assert!(header::SIZE <= PAGE_SIZE) };
    if *size >= bytes.len() as u64 {
        read_snapshot(base, 0, &mut bytes)?;
    }
    Ok(header::counter(&bytes))
}
