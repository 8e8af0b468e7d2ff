//! What this process has of a file beyond the newest commit: pages written and not committed yet.
//!
//! A page is *dirty*, or *flying* (in a record on its way), or both, the dirty one being newer; else the store has it.
//! Bytes beyond the size of a file's last page are zeros, so that a file that grows shows none of what it had before.

use crate::failure::Failure;
use dspm_proto::{DatasetId, PAGE_SIZE};
use dspm_txn::dataset::PageBuf;
use dspm_txn::volume::{ReadAhead, Volume};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: u64 = PAGE_SIZE as u64;

/// Pages by their number.
pub(crate) type Pages = BTreeMap<u64, Box<PageBuf>>;

/// A file, as all its handles share it.
pub(crate) struct File {
    pub(crate) dataset: DatasetId,
    /// Dirty pages of all files.
    dirty: Arc<AtomicUsize>,
    /// Handles that are open.
    pub(crate) opened: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    /// Bytes, as its readers see it.
    size: u64,
    /// Bytes, as the newest commit has it.
    committed: u64,
    /// Bytes of the newest commit that are still the file's: fewer than it has when the file was cut since, even if it
    /// grew again.
    kept: u64,
    dirty: Pages,
    flying: Arc<Pages>,
    /// A call has returned that changed the file and left it to a sync to commit that. What [`OpenFile::write_through`]
    /// does is not owed while it is on its way: no sync has to wait for it.
    ///
    /// [`OpenFile::write_through`]: crate::OpenFile::write_through
    owed: bool,
    /// What is flying is owed.
    flying_owed: bool,
}

/// What a commit takes of a file.
pub(crate) struct Taken {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
    pub(crate) pages: Arc<Pages>,
    /// The file was cut to that size and grew again: the store has to see the cut before the size.
    pub(crate) cut: Option<u64>,
}

impl File {
    /// A file that the newest commit has with that many bytes.
    pub(crate) fn new(dataset: DatasetId, size: u64, dirty: Arc<AtomicUsize>) -> File {
        let state = State::clean(size);
        File { dataset, dirty, opened: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.lock().size
    }

    /// True when the newest commit lacks something.
    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.lock();
        !state.flying.is_empty() || state.differs()
    }

    /// True when a sync has something to commit, or to wait for.
    pub(crate) fn is_owed(&self) -> bool {
        let state = self.lock();
        state.owed || state.flying_owed
    }

    /// A sync commits all that the file has by now.
    pub(crate) fn owe(&self) {
        self.lock().owed = true;
    }

    /// Fills the buffer from that byte on, or fails where the file is shorter.
    pub(crate) fn read(
        &self,
        volume: &dyn Volume,
        offset: u64,
        buf: &mut [u8],
        ahead: &ReadAhead,
    ) -> Result<(), Failure> {
        let state = self.lock();
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= state.size);
        let Some(end) = end else {
            let text = format!("{} bytes at {offset} are asked for, the file has {}", buf.len(), state.size);
            return Err(Failure::new(libc::EIO, text));
        };
        let kept = state.kept;
        let mut stored = Vec::new(); // what the store has, in runs
        if state.dirty.is_empty() && state.flying.is_empty() {
            stored.push(0..buf.len());
        } else {
            let mut at = offset;
            while at < end {
                let upto = end.min((at / PAGE + 1) * PAGE);
                let here = (at - offset) as usize..(upto - offset) as usize;
                match state.newest(at / PAGE) {
                    Some(page) => buf[here].copy_from_slice(&page[(at % PAGE) as usize..][..(upto - at) as usize]),
                    None => add(&mut stored, here),
                }
                at = upto;
            }
        }
        drop(state); // what is written from here on is written beside this read
        for run in stored {
            let start = offset + run.start as u64;
            volume.read(self.dataset, kept, start, &mut buf[run], ahead)?;
        }
        Ok(())
    }

    /// Writes, in memory; who calls [`File::owe`] afterwards, or else commits it, decides what a sync has to do.
    pub(crate) fn write(&self, volume: &dyn Volume, offset: u64, data: &[u8]) -> Result<(), Failure> {
        if data.is_empty() {
            return Ok(()); // nor does it grow
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= dspm_proto::limits::DATASET_MAX);
        let end = end.ok_or_else(|| too_large(offset, data.len()))?;
        let mut state = self.lock();
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let inside = (at % PAGE) as usize;
            let (here, later) = rest.split_at(rest.len().min(PAGE_SIZE - inside));
            let page = self.for_writing(&mut state, volume, at / PAGE, here.len() == PAGE_SIZE)?;
            page[inside..inside + here.len()].copy_from_slice(here);
            (at, rest) = (at + here.len() as u64, later);
        }
        state.size = state.size.max(end);
        Ok(())
    }

    /// Fails where no file is that large.
    pub(crate) fn check_size(size: u64) -> Result<(), Failure> {
        if size > dspm_proto::limits::DATASET_MAX { Err(too_large(size, 0)) } else { Ok(()) }
    }

    /// Cuts or extends the file, in memory.
    pub(crate) fn resize(&self, volume: &dyn Volume, size: u64) -> Result<(), Failure> {
        let mut state = self.lock();
        state.owed = true;
        if size < state.size {
            let inside = (size % PAGE) as usize;
            if inside > 0 {
                self.for_writing(&mut state, volume, size / PAGE, false)?[inside..].fill(0);
            }
            let cut = state.dirty.split_off(&size.div_ceil(PAGE));
            self.dirty.fetch_sub(cut.len(), Ordering::Relaxed);
            state.kept = state.kept.min(size);
        }
        state.size = size;
        Ok(())
    }

    /// The page as it can be written; `whole`: all of it will be.
    fn for_writing<'a>(
        &self,
        state: &'a mut State,
        volume: &dyn Volume,
        number: u64,
        whole: bool,
    ) -> Result<&'a mut PageBuf, Failure> {
        if !state.dirty.contains_key(&number) {
            let mut page = Box::new([0; PAGE_SIZE]);
            if let Some(newest) = state.newest(number).filter(|_| !whole) {
                page.copy_from_slice(newest);
            } else if !whole && number * PAGE < state.kept {
                volume.read(self.dataset, state.kept, number * PAGE, &mut page[..], &ReadAhead::default())?;
            }
            self.dirty.fetch_add(1, Ordering::Relaxed);
            state.dirty.insert(number, page);
        }
        state.dirty.get_mut(&number).map(|p| &mut **p).ok_or_else(|| Failure::new(libc::EIO, "no page"))
    }

    /// Everything that the newest commit lacks, to be committed by the one caller who does that. None: it lacks nothing.
    pub(crate) fn take(self: &Arc<File>) -> Option<Taken> {
        let mut state = self.lock();
        if !state.differs() {
            state.owed = false;
            return None;
        }
        let cut = Some(state.kept).filter(|kept| *kept < state.committed.min(state.size));
        state.flying = Arc::new(std::mem::take(&mut state.dirty));
        state.flying_owed = std::mem::take(&mut state.owed);
        Some(Taken { file: self.clone(), size: state.size, pages: state.flying.clone(), cut })
    }

    /// The removed file's bytes are of no interest to anybody.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        self.dirty.fetch_sub(state.dirty.len(), Ordering::Relaxed);
        *state = State::clean(0);
    }
}

impl Taken {
    /// It is committed.
    pub(crate) fn landed(self) {
        let Taken { file, size, pages, .. } = self;
        let mut state = file.lock();
        file.dirty.fetch_sub(pages.len(), Ordering::Relaxed);
        (state.flying, state.flying_owed) = (Arc::default(), false);
        (state.committed, state.kept) = (size, size);
    }

    /// It is not, and can be tried again.
    pub(crate) fn failed(self) {
        let mut state = self.file.lock();
        let flying = std::mem::take(&mut state.flying);
        (state.owed, state.flying_owed) = (true, false);
        for (number, page) in flying.iter() {
            if state.dirty.contains_key(number) {
                self.file.dirty.fetch_sub(1, Ordering::Relaxed);
            } else {
                state.dirty.insert(*number, page.clone());
            }
        }
    }
}

impl State {
    /// A file of that size that lacks nothing.
    fn clean(size: u64) -> State {
        let (dirty, flying) = (Pages::new(), Arc::default());
        State { size, committed: size, kept: size, dirty, flying, owed: false, flying_owed: false }
    }

    /// True when the newest commit is something else.
    fn differs(&self) -> bool {
        !self.dirty.is_empty() || self.size != self.committed || self.kept < self.committed
    }

    /// The page, if it is newer than the store's.
    fn newest(&self, number: u64) -> Option<&PageBuf> {
        self.dirty.get(&number).or_else(|| self.flying.get(&number)).map(|p| &**p)
    }
}

/// Adds a range behind the others, or to the last one.
fn add(runs: &mut Vec<Range<usize>>, run: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

fn too_large(offset: u64, length: usize) -> Failure {
    let most = dspm_proto::limits::DATASET_MAX;
    Failure::new(libc::EFBIG, format!("a file has at most {most} bytes; {length} at {offset} go beyond"))
}
