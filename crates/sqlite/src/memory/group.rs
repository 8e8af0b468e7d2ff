//! What all processes share of one dataset: its versions, its lease, its failures.

use super::faults::{Call, Faults};
use super::lease::Lease;
use crate::process::locked;
use dspm_proto::{Error, Lsn, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Change, PageBuf, Snapshot};
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};

/// One dataset. Every version is kept.
pub struct Group {
    name: String,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

/// A page as some commit made it.
type Version = (Lsn, Option<Box<PageBuf>>);

/// The dataset's state under its mutex.
pub(super) struct State {
    /// Size at each LSN, from 0.
    sizes: Vec<u64>,
    /// Versions of each page in ascending order; `None` where it was cut off.
    pages: HashMap<PageNo, Vec<Version>>,
    /// Raised when the newest versions are lost.
    pub epoch: u64,
    pub lease: Lease,
    pub faults: Faults,
    /// Snapshots that were not released.
    pub pins: u64,
    pub reads: u64,
}

impl Group {
    pub(super) fn new(name: &str) -> Group {
        let state = State {
            sizes: vec![0],
            pages: HashMap::new(),
            epoch: 0,
            lease: Lease::default(),
            faults: Faults::default(),
            pins: 0,
            reads: 0,
        };
        Group { name: name.into(), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The dataset's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest commit.
    pub fn lsn(&self) -> Lsn {
        self.locked().lsn()
    }

    /// Snapshots that somebody still holds.
    pub fn pins(&self) -> u64 {
        self.locked().pins
    }

    /// Calls of `read` so far.
    pub fn reads(&self) -> u64 {
        self.locked().reads
    }

    /// Writers that wait in the queue.
    pub fn waiters(&self) -> usize {
        self.locked().lease.waiters()
    }

    /// The process that has the lease.
    pub fn owner(&self) -> Option<u64> {
        self.locked().lease.owner
    }

    /// True while someone is in a write transaction.
    pub fn is_reserved(&self) -> bool {
        self.locked().lease.reserved
    }

    /// After `after` more good calls, the next `times` calls fail with that error.
    pub fn fail(&self, call: Call, error: Error, after: u64, times: u64) {
        self.locked().faults.set(call, Some(error), after, times);
    }

    /// The next such call panics.
    pub fn panic(&self, call: Call) {
        self.locked().faults.set(call, None, 0, 1);
    }

    /// No call fails any more.
    pub fn heal(&self) {
        self.locked().faults.clear();
    }

    /// The whole content at the newest commit.
    pub fn image(&self) -> Vec<u8> {
        let state = self.locked();
        let lsn = state.lsn();
        let mut bytes = vec![0; state.size_at(lsn) as usize];
        for (page, part) in bytes.chunks_mut(PAGE_SIZE).enumerate() {
            if let Some(content) = state.page_at(PageNo(page as u64), lsn) {
                part.copy_from_slice(&content[..part.len()]);
            }
        }
        bytes
    }

    /// Writes a whole image as one commit, as `dspm import` would.
    pub fn import(&self, bytes: &[u8]) {
        let pages: Vec<PageBuf> = bytes
            .chunks(PAGE_SIZE)
            .map(|part| {
                let mut page = [0; PAGE_SIZE];
                page[..part.len()].copy_from_slice(part);
                page
            })
            .collect();
        let pages: Vec<_> = pages.iter().enumerate().map(|(n, page)| (PageNo(n as u64), page)).collect();
        self.locked().apply(&Change { pages: &pages, size: bytes.len() as u64 });
    }

    /// All copies lose their memory and go on from an older version. A lease goes with it.
    pub fn lose_after(&self, lsn: Lsn) {
        let mut state = self.locked();
        state.sizes.truncate(lsn.0 as usize + 1);
        for versions in state.pages.values_mut() {
            versions.retain(|(at, _)| *at <= lsn);
        }
        state.epoch += 1;
    }

    pub(super) fn check(&self, call: Call) -> Result<(), Error> {
        self.locked().faults.check(call)
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl State {
    pub fn lsn(&self) -> Lsn {
        Lsn(self.sizes.len() as u64 - 1)
    }

    pub fn size_at(&self, lsn: Lsn) -> u64 {
        self.sizes[lsn.0 as usize]
    }

    /// The page's content in that version; `None` is zeros.
    pub fn page_at(&self, page: PageNo, lsn: Lsn) -> Option<&PageBuf> {
        let versions = self.pages.get(&page)?;
        let newest = versions.partition_point(|(at, _)| *at <= lsn).checked_sub(1)?;
        versions[newest].1.as_deref()
    }

    pub fn snapshot(&mut self) -> Snapshot {
        self.pins += 1;
        let lsn = self.lsn();
        Snapshot { lsn, size: self.size_at(lsn), pin: lsn.0, turn: 0, ticket: None, epoch: self.epoch, past: false }
    }

    /// A state of the past; every one is kept.
    pub fn snapshot_at(&mut self, lsn: Lsn) -> Result<Snapshot, Error> {
        if lsn > self.lsn() {
            return Err(Error::Usage(format!("commit {lsn} is not there yet; the newest is {}", self.lsn())));
        }
        Ok(Snapshot { lsn, size: self.size_at(lsn), pin: lsn.0, past: true, ..self.snapshot() })
    }

    /// A snapshot of before the newest versions were lost shows nothing any more.
    pub fn check_epoch(&self, snapshot: &Snapshot) -> Result<(), Error> {
        match snapshot.epoch == self.epoch {
            true => Ok(()),
            false => Err(Error::TooOld("the newest commits were lost since".into())),
        }
    }

    /// Makes the next version. The change has to be as the contract says.
    pub fn apply(&mut self, change: &Change<'_>) -> Lsn {
        let lsn = self.lsn().next();
        let before = self.size_at(self.lsn());
        let pages = PageNo::count(change.size);
        assert!(change.pages.windows(2).all(|two| two[0].0 < two[1].0), "pages in ascending order, none twice");
        assert!(change.pages.iter().all(|(page, _)| page.0 < pages), "no page at or beyond the size");
        for (page, content) in change.pages {
            self.pages.entry(*page).or_default().push((lsn, Some(Box::new(**content))));
        }
        for page in pages..PageNo::count(before) {
            self.pages.entry(PageNo(page)).or_default().push((lsn, None));
        }
        self.sizes.push(change.size);
        lsn
    }
}
