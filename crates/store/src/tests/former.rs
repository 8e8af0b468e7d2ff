//! Names of a store over losses of its memory, and removals over restarts.
//!
//! Fault model: the arena is lost between starts; a start is cut short at any read of the disk; a log is damaged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dspm_proto::*;

use super::support::*;
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::{Opened, Store};

const MEMORY: u64 = 4 << 20;
const GROUPS: [GroupId; 3] = [GroupId(5), GroupId(6), GroupId(7)];

fn dataset(g: GroupId) -> DatasetId {
    DatasetId(g.0 + 100)
}

/// Three groups with a record each, in three batches of the log.
fn written(dir: &Dir) -> Opened {
    let (store, opened) = dir.open(MEMORY);
    let source = Arc::new(Groups::default());
    for id in GROUPS {
        let mut g = store.open_group(id).unwrap();
        let d = dataset(id);
        append(&store, &mut g, &[(d, 4096)], &[(d, 0, Some(id.0 as u8))]).unwrap();
        source.groups.lock().unwrap().insert(id, g);
        drop(store.start_flusher(source.clone()).unwrap()); // a batch of its own
    }
    opened
}

fn held(store: &Store) -> Vec<GroupId> {
    let all = store.recovered_groups();
    for id in &all {
        let g = store.open_group(*id).unwrap();
        assert_eq!(read(&g, dataset(*id), 0, g.tail().lsn), Some((Lsn(1), id.0 as u8)));
    }
    all
}

fn lose_memory(dir: &Dir) {
    std::fs::remove_file(dir.0.join("arena")).unwrap();
}

/// A disk whose reads fail from the nth on.
struct CutShort(Arc<AtomicI64>);

struct File(Box<dyn DiskFile>, Arc<AtomicI64>);

impl Disk for CutShort {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File(RealDisk.open(path, create)?, self.0.clone())))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
}

impl DiskFile for File {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        match self.1.fetch_sub(1, Ordering::Relaxed) > 0 {
            true => self.0.read_at(out, at),
            false => Err(io::Error::other("cut short")),
        }
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

#[test]
fn a_start_that_did_not_finish_leaves_nothing_to_trust() {
    let dir = Dir::new();
    let first = written(&dir);
    lose_memory(&dir);
    let mut failed = 0;
    for reads in 0.. {
        let disk = CutShort(Arc::new(AtomicI64::new(reads)));
        match Store::open_on(dir.options(MEMORY), Arc::new(disk)) {
            Err(_) => failed += 1,
            Ok((store, opened)) => {
                assert!(!opened.memory_kept, "after {reads} reads");
                assert_eq!((held(&store), opened.former), (GROUPS.to_vec(), vec![first.store]), "after {reads} reads");
                break;
            }
        }
    }
    assert!(failed > 3, "the start was cut short at {failed} places only");
}

#[test]
fn former_names_are_those_whose_log_is_wholly_held() {
    let dir = Dir::new();
    let first = written(&dir);
    assert_eq!(first.former, []);
    lose_memory(&dir);
    let second = dir.open(MEMORY).1;
    let kept = dir.open(MEMORY).1;
    assert_eq!((kept.store, kept.previous, &kept.former), (second.store, second.store, &vec![first.store]));
    lose_memory(&dir);
    let (store, third) = dir.open(MEMORY);
    assert_eq!(third.former, [second.store, first.store]);
    assert_eq!(held(&store), GROUPS);
}

#[test]
fn a_damaged_log_ends_the_line() {
    let dir = Dir::new();
    written(&dir);
    let log = std::fs::read_dir(dir.0.join("data/log")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[4096 + 100] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    lose_memory(&dir);
    let damaged = dir.open(MEMORY).1;
    assert!(!damaged.log_intact && damaged.former.is_empty(), "{damaged:?}");
    let after = dir.open(MEMORY).1;
    assert!(after.memory_kept && after.log_intact && after.former.is_empty(), "{after:?}");
}

/// What it had synced may be gone as well. The mark is in the identity file, or, where that failed too, in the arena alone;
/// starts that do not finish do not lose it.
#[test]
fn a_failed_log_ends_the_line() {
    for identity_failed in [false, true] {
        let dir = Dir::new();
        written(&dir);
        lose_memory(&dir);
        let (store, second) = dir.open(MEMORY);
        assert_eq!(second.former.len(), 1);
        if identity_failed {
            store.arena.set_suspect()
        } else {
            store.become_suspect("injected")
        }
        drop(store);
        let mut failed = 0;
        for reads in 0.. {
            let disk = CutShort(Arc::new(AtomicI64::new(reads)));
            let Ok((store, o)) = Store::open_on(dir.options(MEMORY), Arc::new(disk)) else {
                failed += 1;
                continue;
            };
            assert!(!o.memory_kept && !o.log_intact && o.former.is_empty(), "{o:?}");
            assert!(o.previous == second.store && o.store != second.store, "{o:?}");
            assert_eq!(held(&store), GROUPS, "what the log has is there, under a new name");
            break;
        }
        assert!(failed > 3, "the start was cut short at {failed} places only");
        let again = dir.open(MEMORY).1;
        assert!(again.memory_kept && again.log_intact && again.former.is_empty(), "{again:?}");
    }
}

#[test]
fn a_removal_in_the_log_is_not_found_again() {
    let dir = Dir::new();
    written(&dir);
    lose_memory(&dir);
    let (store, _) = dir.open(MEMORY);
    let gone = store.take_recovered(GROUPS[1]).unwrap();
    assert!(store.take_recovered(GROUPS[1]).is_none());
    store.drop_group(gone);
    store.sync_drops(&Groups::default()).unwrap();
    drop(store);
    lose_memory(&dir);
    let (store, _) = dir.open(MEMORY);
    assert_eq!(held(&store), [GROUPS[0], GROUPS[2]]);
}

/// The log forgets a removal one day. Until the base files are gone it is not done.
#[test]
fn a_removal_waits_for_its_base_files() {
    let dir = Dir::new();
    written(&dir);
    lose_memory(&dir);
    let (store, _) = dir.open(MEMORY);
    let source = Groups::default();
    let mut g = store.open_group(GROUPS[1]).unwrap();
    g.set_committed(Lsn(1));
    g.set_horizon(Lsn(1));
    source.groups.lock().unwrap().insert(GROUPS[1], g);
    store.checkpoint_all(&source).unwrap();
    let data = dir.0.join(format!("data/base/{:016x}.db", dataset(GROUPS[1]).0));
    let gone = source.groups.lock().unwrap().remove(&GROUPS[1]).unwrap();
    std::fs::remove_file(&data).unwrap();
    std::fs::create_dir(&data).unwrap(); // that cannot be removed as a file
    store.drop_group(gone);
    for _ in 0..2 {
        let said = store.sync_drops(&source).unwrap_err().to_string();
        assert!(said.contains("cannot be removed") && said.contains(data.to_str().unwrap()), "{said}");
    }
    std::fs::remove_dir(&data).unwrap();
    std::fs::write(&data, b"pages").unwrap();
    store.sync_drops(&source).unwrap();
    assert!(!data.exists());
}

/// The group is held again before its first removal is done, and removed again: until the log says so a later start finds
/// it, and is to find its pages too.
#[test]
fn base_files_of_a_second_life_stay_until_the_log_has_its_removal() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    let (source, id) = (Groups::default(), GROUPS[0]);
    let (d, data) = (dataset(id), dir.0.join(format!("data/base/{:016x}.db", dataset(id).0)));
    let lives = || {
        let mut g = store.open_group(id).unwrap();
        append(&store, &mut g, &[(d, 4096)], &[(d, 0, Some(1))]).unwrap();
        source.groups.lock().unwrap().insert(id, g);
    };
    let settle = || {
        source.groups.lock().unwrap().get_mut(&id).map(|g| (g.set_committed(Lsn(1)), g.set_horizon(Lsn(1))));
        store.flush_round(&source);
        store.checkpoint_all(&source).unwrap();
    };
    let end = || {
        let g = source.groups.lock().unwrap().remove(&id).unwrap();
        store.drop_group(g);
    };
    lives();
    settle();
    end();
    lives();
    store.sync_drops(&source).unwrap(); // the files stay: they may be the second life's by now
    settle();
    end();
    store.remove_dropped().unwrap();
    assert!(data.exists(), "the flusher's round came in between");
    store.sync_drops(&source).unwrap();
    assert!(!data.exists());
}
