//! A store in this process, for tests: every commit is kept, so that a crash can be had behind any of them.

use dspm_proto::{DatasetId, Error, Lsn, PAGE_SIZE};
use dspm_txn::dataset::{Change, DatasetStatus, PageBuf};
use dspm_txn::volume::{ReadAhead, Volume};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const MAIN: DatasetId = DatasetId(1);

/// A commit, as it was asked for: dataset, size, pages.
type Commit = Vec<(DatasetId, u64, Vec<(u64, Arc<PageBuf>)>)>;

/// What all processes share.
#[derive(Default)]
struct Store {
    commits: Vec<Commit>,
    sizes: BTreeMap<DatasetId, u64>,
    pages: BTreeMap<(DatasetId, u64), Arc<PageBuf>>,
    owner: Option<u64>,
    processes: u64,
    reads: u64,
    /// How many more commits go well, and how the ones behind them fail.
    failure: Option<(u64, Error)>,
}

impl Store {
    fn apply(&mut self, commit: Commit) {
        for (dataset, size, pages) in &commit {
            if self.sizes.insert(*dataset, *size).is_some_and(|before| *size < before) {
                let gone = (*dataset, size.div_ceil(PAGE_SIZE as u64))..=(*dataset, u64::MAX);
                let gone: Vec<_> = self.pages.range(gone).map(|(key, _)| *key).collect();
                gone.iter().for_each(|key| drop(self.pages.remove(key)));
            }
            self.pages.extend(pages.iter().map(|(n, content)| ((*dataset, *n), content.clone())));
        }
        self.commits.push(commit);
    }
}

/// One process's view of the store.
pub struct MemoryVolume {
    store: Arc<Mutex<Store>>,
    process: u64,
    pages_max: usize,
}

impl Default for MemoryVolume {
    fn default() -> MemoryVolume {
        MemoryVolume { store: Arc::default(), process: 0, pages_max: usize::MAX }
    }
}

impl MemoryVolume {
    /// The view of another process.
    pub fn process(&self) -> MemoryVolume {
        let mut store = self.lock();
        store.processes += 1;
        MemoryVolume { store: self.store.clone(), process: store.processes, pages_max: self.pages_max }
    }

    /// Another store, as this one was after its first `n` commits; its owner is gone.
    pub fn after(&self, n: usize) -> MemoryVolume {
        let volume = MemoryVolume { pages_max: self.pages_max, ..MemoryVolume::default() };
        self.lock().commits[..n].iter().for_each(|c| volume.lock().apply(c.clone()));
        volume
    }

    /// The same, whose members take that many pages in a record.
    pub fn with_pages_max(mut self, most: usize) -> MemoryVolume {
        self.pages_max = most;
        self
    }

    /// The owner is gone, whatever it did.
    pub fn crash(&self) {
        self.lock().owner = None;
    }

    /// After `good` more commits all fail.
    pub fn fail(&self, good: u64, error: Error) {
        self.lock().failure = Some((good, error));
    }

    /// Commits go well again.
    pub fn heal(&self) {
        self.lock().failure = None;
    }

    /// Commits so far.
    pub fn commits(&self) -> usize {
        self.lock().commits.len()
    }

    /// Pages that each of the commits from the `n`th on had.
    pub fn pages_from(&self, n: usize) -> Vec<usize> {
        self.lock().commits[n..].iter().map(|c| c.iter().map(|d| d.2.len()).sum()).collect()
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Datasets that hold something.
    pub fn filled(&self) -> usize {
        self.lock().sizes.values().filter(|size| **size > 0).count()
    }

    /// Datasets that there ever were.
    pub fn datasets(&self) -> usize {
        self.lock().sizes.len()
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> Result<MutexGuard<'_, Store>, Error> {
        let store = self.lock();
        match store.owner == Some(self.process) {
            true => Ok(store),
            false => Err(Error::Conflict("another process is the owner".into())),
        }
    }
}

impl Volume for MemoryVolume {
    fn main(&self) -> DatasetId {
        MAIN
    }

    fn claim(&self, _wait: Duration) -> Result<(), Error> {
        let mut store = self.lock();
        match store.owner {
            Some(owner) if owner != self.process => Err(Error::Busy("another process is the owner".into())),
            _ => {
                store.owner = Some(self.process);
                Ok(())
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.owned().map(|_| ())
    }

    fn sizes(&self) -> Result<Vec<(DatasetId, u64)>, Error> {
        Ok(self.owned()?.sizes.iter().map(|(d, s)| (*d, *s)).collect())
    }

    fn read(&self, dataset: DatasetId, size: u64, at: u64, buf: &mut [u8], _: &ReadAhead) -> Result<(), Error> {
        let mut store = self.owned()?;
        store.reads += 1;
        let inside = size.saturating_sub(at).min(buf.len() as u64) as usize;
        let (mut rest, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        let mut offset = at;
        while !rest.is_empty() {
            let from = offset as usize % PAGE_SIZE;
            let (here, behind) = rest.split_at_mut(rest.len().min(PAGE_SIZE - from));
            match store.pages.get(&(dataset, offset / PAGE_SIZE as u64)) {
                Some(page) => here.copy_from_slice(&page[from..from + here.len()]),
                None => here.fill(0),
            }
            (offset, rest) = (offset + here.len() as u64, behind);
        }
        Ok(())
    }

    fn commit(&self, changes: &[(DatasetId, Change<'_>)]) -> Result<Lsn, Error> {
        let mut store = self.owned()?;
        match &mut store.failure {
            Some((0, error)) => return Err(error.clone()),
            Some((good, _)) => *good -= 1,
            None => {}
        }
        let pages: usize = changes.iter().map(|c| c.1.pages.len()).sum();
        assert!(pages <= self.pages_max, "no member takes a record of {pages} pages");
        let copy = |(dataset, change): &(DatasetId, Change<'_>)| {
            let inside = |page: u64| page * (PAGE_SIZE as u64) < change.size;
            assert!(change.pages.iter().all(|p| inside(p.0.0)), "a page beyond the size");
            assert!(change.pages.windows(2).all(|p| p[0].0 < p[1].0), "pages ascend");
            (*dataset, change.size, change.pages.iter().map(|(n, p)| (n.0, Arc::new(**p))).collect())
        };
        store.apply(changes.iter().map(copy).collect());
        Ok(Lsn(store.commits.len() as u64))
    }

    fn pages_max(&self) -> usize {
        self.pages_max
    }

    fn disown(&self) {
        let mut store = self.lock();
        store.owner = store.owner.filter(|o| *o != self.process);
    }

    fn status(&self) -> DatasetStatus {
        DatasetStatus { mode: "memory".into(), ..DatasetStatus::default() }
    }
}
