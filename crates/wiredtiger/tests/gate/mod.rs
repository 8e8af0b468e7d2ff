//! A store whose commits wait until they are let through, and short ways to files.
#![allow(dead_code, clippy::unwrap_used)] // each test uses its part

use dspm_proto::{DatasetId, Error, Lsn};
use dspm_txn::dataset::{Change, DatasetStatus};
use dspm_txn::volume::{ReadAhead, Volume};
use dspm_wiredtiger::memory::MemoryVolume;
use dspm_wiredtiger::{Failure, FileKind, FileSystem, OpenFile, OpenFlags};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How many commits may pass, and how many stand before it.
#[derive(Default)]
struct Passing {
    let_through: Option<u64>,
    standing: u64,
}

/// Passes all, until it is closed.
#[derive(Default)]
pub struct Gate {
    pub volume: MemoryVolume,
    passing: Mutex<Passing>,
    changed: Condvar,
}

impl Gate {
    /// That many more commits pass.
    pub fn let_through(&self, n: u64) {
        self.passing.lock().unwrap().let_through = Some(n);
        self.changed.notify_all();
    }

    /// All pass.
    pub fn open(&self) {
        self.passing.lock().unwrap().let_through = None;
        self.changed.notify_all();
    }

    /// Waits until a commit stands before it.
    pub fn wait_for_one(&self) {
        let mut passing = self.passing.lock().unwrap();
        while passing.standing == 0 || passing.let_through != Some(0) {
            passing = self.changed.wait(passing).unwrap();
        }
    }

    fn pass(&self) {
        let mut passing = self.passing.lock().unwrap();
        passing.standing += 1;
        self.changed.notify_all();
        while passing.let_through == Some(0) {
            passing = self.changed.wait(passing).unwrap();
        }
        passing.standing -= 1;
        if let Some(n) = &mut passing.let_through {
            *n -= 1;
        }
        self.changed.notify_all();
    }
}

impl Volume for Gate {
    fn main(&self) -> DatasetId {
        self.volume.main()
    }

    fn claim(&self, wait: Duration) -> Result<(), Error> {
        self.volume.claim(wait)
    }

    fn check(&self) -> Result<(), Error> {
        self.volume.check()
    }

    fn sizes(&self) -> Result<Vec<(DatasetId, u64)>, Error> {
        self.volume.sizes()
    }

    fn read(&self, d: DatasetId, size: u64, at: u64, buf: &mut [u8], ahead: &ReadAhead) -> Result<(), Error> {
        self.volume.read(d, size, at, buf, ahead)
    }

    fn commit(&self, changes: &[(DatasetId, Change<'_>)]) -> Result<Lsn, Error> {
        self.pass();
        self.volume.commit(changes)
    }

    fn pages_max(&self) -> usize {
        self.volume.pages_max()
    }

    fn disown(&self) {
        self.volume.disown();
    }

    fn status(&self) -> DatasetStatus {
        self.volume.status()
    }
}

/// Opens the path that the store holds.
pub fn open(volume: &Arc<impl Volume + 'static>) -> Arc<FileSystem> {
    FileSystem::open(volume.clone(), Duration::ZERO).unwrap()
}

/// What the next owner finds if this one is gone now.
pub fn crashed(volume: &MemoryVolume) -> Arc<FileSystem> {
    open(&Arc::new(volume.after(volume.commits())))
}

/// Opens a file, made if it is missing.
pub fn file(fs: &Arc<FileSystem>, path: &str) -> OpenFile {
    fs.open_file(path, FileKind::Log, OpenFlags { create: true, ..OpenFlags::default() }).unwrap()
}

/// All bytes of a file.
pub fn content(fs: &Arc<FileSystem>, path: &str) -> Vec<u8> {
    let handle = fs.open_file(path, FileKind::Log, OpenFlags { read_only: true, ..OpenFlags::default() }).unwrap();
    let mut bytes = vec![0xee; handle.size().unwrap() as usize];
    handle.read(0, &mut bytes).unwrap();
    bytes
}

/// The errno of a call that fails.
pub fn errno<T>(result: Result<T, Failure>) -> i32 {
    result.err().expect("it fails").errno
}
