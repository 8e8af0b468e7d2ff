//! A transaction becomes one commit: of its dataset, or of the datasets of all databases that it wrote.
//!
//! Invariant: one change counter an LSN. Where SQLite left the counter as it was (it does from the second commit on in
//! its own exclusive locking mode), the counter becomes the snapshot's + 1, so that no snapshot reader takes old pages
//! for current ones. A failed publish leaves every handle at its snapshot, with nothing gathered, and the pagers are made
//! to drop their caches: the counter of a lost transaction and of the one that won are the same number.
//!
//! A lost race is BUSY_SNAPSHOT only where no other statement of the connection is open. SQLite ends a failed commit's
//! pager in an error state for the IOERR family and FULL alone; after any other code a statement that stays open goes
//! on in the cache, and would show the rows of the transaction that lost.

use crate::connection;
use crate::errors::{Code, During, code};
use crate::handle::Handle;
use crate::header;
use crate::lock::Lock;
use crate::overlay::{Base, Overlay, read_snapshot};
use dspm_proto::{Error, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Change, Dataset, Other, PageBuf, Snapshot};

/// What tells the size after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeFrom {
    /// The size as SQLite has set it: at COMMIT_PHASETWO it is final.
    File,
    /// The database header: at the end of a super-journal SQLite still has to cut the file.
    Header,
}

/// A handle of the transaction, and what tells its size.
pub type Publishing<'a> = (&'a mut Handle, SizeFrom);

/// Commits what the handles gathered, in all of their datasets or in none. If that is nothing there is no commit and no
/// LSN, but a write transaction still asks whether it was the group's writer to the end.
pub fn publish(group: &mut [Publishing<'_>]) -> Result<(), Code> {
    for (handle, _) in group.iter_mut().filter(|(handle, _)| !handle.is_written()) {
        let confirmed = match &handle.snapshot {
            Some(snapshot) if handle.lock >= Lock::Reserved => handle.dataset.confirm(snapshot),
            _ => Ok(()),
        };
        if let Err(e) = confirmed {
            return Err(fail(group, &e));
        }
    }
    let mut written: Vec<&mut Publishing<'_>> = group.iter_mut().filter(|(handle, _)| handle.is_written()).collect();
    match commit(&mut written) {
        Ok(()) => Ok(()),
        Err(e) => Err(fail(group, &e)),
    }
}

/// None of them goes on with what it gathered; all can tell why.
fn fail(group: &mut [Publishing<'_>], e: &Error) -> Code {
    for (handle, _) in group.iter_mut() {
        handle.distrust_cache |= handle.is_written();
        if let (Some(snapshot), Some(overlay)) = (&handle.snapshot, &mut handle.overlay) {
            overlay.restart(snapshot.size);
        }
    }
    let beside = group.first().is_some_and(|(first, _)| connection::has_other_statements(first));
    let during = if beside { During::CommitBesideReaders } else { During::Commit };
    let Some(((first, _), others)) = group.split_first_mut() else { return code(e, during) };
    let code = first.fail(e, during);
    others.iter_mut().for_each(|(other, _)| other.last_error.clone_from(&first.last_error));
    code
}

fn commit(written: &mut [&mut Publishing<'_>]) -> Result<(), Error> {
    let mut hidden = Vec::with_capacity(written.len());
    for (handle, size_from) in written.iter_mut().map(|p| &mut **p) {
        hidden.push(handle.prepare(*size_from)?);
    }
    let parts: Option<Vec<_>> = written.iter_mut().map(|p| p.0.part()).collect();
    let (states, changes): (Vec<State<'_>>, Vec<Pages<'_>>) = parts.ok_or_else(unlocked)?.into_iter().unzip();
    let changes: Vec<_> = changes.iter().map(|(pages, size)| Change { pages, size: *size }).collect();
    let mut parts = states.into_iter().zip(&changes);
    let Some(((first, snapshot), change)) = parts.next() else { return Ok(()) };
    let mut others: Vec<Other<'_>> =
        parts.map(|((dataset, snapshot), change)| Other { dataset, snapshot, change }).collect();
    first.commit_with(snapshot, change, &mut others)?;
    for ((handle, _), hidden) in written.iter_mut().map(|p| &mut **p).zip(hidden) {
        handle.committed(hidden);
    }
    Ok(())
}

/// A dataset, and the snapshot that its change is based on.
type State<'a> = (&'a dyn Dataset, &'a mut Snapshot);

/// What a commit changes: pages, and the size afterwards.
type Pages<'a> = (Vec<(PageNo, &'a PageBuf)>, u64);

fn unlocked() -> Error {
    Error::Failed("a commit without a write lock".into())
}

impl Handle {
    /// Makes what was gathered what it has to be as a commit; true if the header now differs from what the pager has.
    fn prepare(&mut self, size_from: SizeFrom) -> Result<bool, Error> {
        let (Some(snapshot), Some(overlay)) = (&self.snapshot, &mut self.overlay) else {
            return Err(unlocked());
        };
        let base = Base { dataset: &*self.dataset, snapshot };
        if size_from == SizeFrom::Header {
            cut_to_header(overlay, base)?;
        }
        prepare_header(overlay, base)
    }

    fn part(&mut self) -> Option<(State<'_>, Pages<'_>)> {
        let (Some(snapshot), Some(overlay)) = (&mut self.snapshot, &self.overlay) else { return None };
        Some(((&*self.dataset, snapshot), (overlay.pages(), overlay.size())))
    }

    fn committed(&mut self, hidden: bool) {
        if let Some(overlay) = &mut self.overlay {
            let size = overlay.size();
            overlay.restart(size);
        }
        self.distrust_cache |= hidden;
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
