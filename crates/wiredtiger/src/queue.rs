//! Commits, one after the other; what is asked for while one is on its way goes together with the next.
//!
//! Who finds nobody committing commits for all that wait (group commit; Hagmann, "Reimplementing the Cedar File System
//! Using Logging and Group Commit", SOSP 1987). A record takes what all of them ask for, divided only where it is more
//! than a member takes: file contents first, changes of names last, each whole in one record.

use crate::directory::Edit;
use crate::failure::Failure;
use crate::file::{File, Taken};
use dspm_proto::{DatasetId, Error, PageNo};
use dspm_txn::dataset::{Change, PageBuf};
use dspm_txn::volume::Volume;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most pages of a record, 16 MiB: a large sync does not keep a small one waiting for longer than that takes.
const RECORD_PAGES: usize = 4096;
/// Most datasets of a record.
const RECORD_FILES: usize = 1024;

/// What somebody waits for.
pub(crate) enum Work {
    /// What these files have by now.
    Sync(Vec<Arc<File>>),
    /// A file's new size, and what it has by then.
    Resize(Arc<File>, u64),
    /// A change of names, behind what one file has by now; what the others have is of no interest any more.
    Edit(Arc<Edit>, Option<Arc<File>>, Vec<Arc<File>>),
}

/// The commits of a volume.
pub(crate) struct Queue {
    volume: Arc<dyn Volume>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Work>,
    /// The number of the batch that is gathered, and of the last that is over.
    gathered: u64,
    over: u64,
    /// Batches that failed and left nothing behind, until all their askers know.
    failures: HashMap<u64, (Failure, usize)>,
    /// How many wait for the batch that is gathered.
    askers: usize,
    busy: bool,
    /// Nothing goes any more.
    ended: Option<Failure>,
}

impl Queue {
    pub(crate) fn new(volume: Arc<dyn Volume>) -> Queue {
        let state = State { gathered: 1, ..State::default() };
        Queue { volume, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once the file system has ended.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.lock().ended.clone().map_or(Ok(()), Err)
    }

    /// Ends the file system where the failure says that this process is not the owner any more.
    pub(crate) fn note(&self, failure: &Error) {
        if matches!(failure, Error::Conflict(_) | Error::OutcomeUnknown(_) | Error::TooOld(_)) {
            self.lock().ended.get_or_insert_with(|| ended(failure));
        }
    }

    /// Nothing is committed from here on.
    pub(crate) fn end(&self) {
        self.lock().ended.get_or_insert_with(|| Failure::new(libc::EIO, "the file system was closed"));
    }

    /// Commits the work, with what others ask for at the time.
    pub(crate) fn commit(&self, work: Work) -> Result<(), Failure> {
        let mut state = self.lock();
        let mine = state.gathered;
        state.waiting.push(work);
        state.askers += 1;
        loop {
            if state.over >= mine {
                return state.answer(mine);
            }
            if state.busy {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.busy = true;
            let (batch, askers) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.askers));
            state.gathered += 1;
            let ended = state.ended.clone();
            drop(state);
            let result = ended.map_or_else(|| self.run(batch), Err);
            state = self.lock();
            state.busy = false;
            state.over = mine;
            if let Err(failure) = result {
                state.failures.insert(mine, (failure, askers));
            }
            self.changed.notify_all();
        }
    }

    /// Commits a batch. Where that fails and the file system goes on, files have everything for the next one.
    fn run(&self, batch: Vec<Work>) -> Result<(), Failure> {
        let (mut files, mut edits, mut removed) = (BTreeMap::new(), Vec::new(), Vec::new());
        for work in batch {
            match work {
                Work::Sync(all) => files.extend(all.into_iter().map(|f| (f.dataset, f))),
                Work::Resize(file, size) => {
                    file.resize(&*self.volume, size)?;
                    files.insert(file.dataset, file);
                }
                Work::Edit(edit, carried, gone) => {
                    files.extend(carried.map(|f| (f.dataset, f)));
                    removed.extend(gone);
                    edits.push(edit);
                }
            }
        }
        let taken: Vec<Taken> = files.values().filter_map(File::take).collect();
        let result = self.commit_all(&taken, &edits);
        match result {
            Ok(()) => {
                taken.into_iter().for_each(Taken::landed);
                removed.iter().for_each(|f| f.forget()); // before the next batch could commit what they have
                Ok(())
            }
            Err(e) => {
                taken.into_iter().for_each(Taken::failed);
                self.note(&e);
                Err(e.into())
            }
        }
    }

    /// What was taken, in as few records as it takes, and the edits with the last of them.
    fn commit_all(&self, taken: &[Taken], edits: &[Arc<Edit>]) -> Result<(), Error> {
        let most = RECORD_PAGES.min(self.volume.pages_max());
        let mut record = Record::default();
        for t in taken {
            if let Some(size) = t.cut {
                record.resize(t.file.dataset, size);
                record.commit(&*self.volume)?;
            }
            record.resize(t.file.dataset, t.size);
            for (number, content) in t.pages.iter() {
                if record.count >= most {
                    record.commit(&*self.volume)?;
                    record.resize(t.file.dataset, t.size);
                }
                record.add(t.file.dataset, PageNo(*number), content);
            }
            if record.changes.len() >= RECORD_FILES {
                record.commit(&*self.volume)?;
            }
        }
        for edit in edits {
            let touched = |dataset| record.changes.contains_key(dataset);
            if record.count + edit.pages.len() > most || edit.emptied.iter().chain([&self.volume.main()]).any(touched) {
                record.commit(&*self.volume)?;
            }
            record.resize(self.volume.main(), edit.size);
            edit.pages.iter().for_each(|(page, content)| record.add(self.volume.main(), *page, content));
            edit.emptied.iter().for_each(|dataset| record.resize(*dataset, 0));
        }
        record.commit(&*self.volume)
    }
}

impl State {
    fn answer(&mut self, batch: u64) -> Result<(), Failure> {
        let Some((failure, askers)) = self.failures.get_mut(&batch) else { return Ok(()) };
        let failure = failure.clone();
        *askers -= 1;
        if *askers == 0 {
            self.failures.remove(&batch);
        }
        Err(failure)
    }
}

/// A record that is put together.
#[derive(Default)]
struct Record<'a> {
    changes: BTreeMap<DatasetId, Content<'a>>,
    count: usize,
}

/// A dataset's size and pages.
type Content<'a> = (u64, Vec<(PageNo, &'a PageBuf)>);

impl<'a> Record<'a> {
    fn resize(&mut self, dataset: DatasetId, size: u64) {
        self.changes.entry(dataset).or_default().0 = size;
    }

    /// Pages of a dataset come in ascending order.
    fn add(&mut self, dataset: DatasetId, page: PageNo, content: &'a PageBuf) {
        self.changes.entry(dataset).or_default().1.push((page, content));
        self.count += 1;
    }

    fn commit(&mut self, volume: &dyn Volume) -> Result<(), Error> {
        let changes = std::mem::take(&mut self.changes);
        self.count = 0;
        if changes.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = changes.iter().map(|(d, (size, pages))| (*d, Change { pages, size: *size })).collect();
        volume.commit(&changes).map(|_| ())
    }
}

fn ended(e: &Error) -> Failure {
    let failure = Failure::from(e.clone());
    Failure { errno: libc::EIO, text: format!("the file system has ended: {}", failure.text) }
}

#[cfg(test)]
mod tests;
