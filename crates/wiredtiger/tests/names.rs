//! Names: what is made, renamed, removed and listed, and every refusal.

#![allow(clippy::unwrap_used)]

mod gate;

use dspm_proto::{DatasetId, PAGE_SIZE, PageNo};
use dspm_txn::dataset::Change;
use dspm_txn::volume::Volume;
use dspm_wiredtiger::memory::MemoryVolume;
use dspm_wiredtiger::{FileKind, FileSystem, NAME_MAX, OpenFlags};
use gate::{content, crashed, errno, file, open};
use std::sync::Arc;
use std::time::Duration;

const CREATE: OpenFlags = OpenFlags { create: true, exclusive: false, read_only: false, durable: false };

fn start() -> (Arc<MemoryVolume>, Arc<FileSystem>) {
    let volume = Arc::new(MemoryVolume::default());
    let fs = open(&volume);
    (volume, fs)
}

#[test]
fn opening() {
    let (_, fs) = start();
    let with = |path: &str, kind, flags| errno(fs.open_file(path, kind, flags));
    assert_eq!(with("a", FileKind::Data, OpenFlags::default()), libc::ENOENT);
    file(&fs, "d/a");
    assert_eq!(with("d/a", FileKind::Data, OpenFlags { exclusive: true, ..CREATE }), libc::EEXIST);
    assert!(fs.open_file("d/a", FileKind::Data, OpenFlags { exclusive: true, ..OpenFlags::default() }).is_ok());
    assert_eq!(with("d", FileKind::Data, CREATE), libc::EISDIR);
    assert_eq!(with("journal", FileKind::Log, CREATE), libc::EISDIR);
    assert_eq!(with("d/a", FileKind::Directory, CREATE), libc::ENOTDIR);
    assert_eq!(with("e", FileKind::Directory, CREATE), libc::ENOENT);
    assert_eq!(with("d/a/b", FileKind::Data, CREATE), libc::ENOTDIR);
    assert_eq!(with("d/a/b/c", FileKind::Data, CREATE), libc::ENOTDIR);
    for bad in ["/a", "a/", "a//b", "../a", "d/./b", "a\0"] {
        assert_eq!(with(bad, FileKind::Data, CREATE), libc::EINVAL, "{bad}");
    }
    assert_eq!(with(&"x".repeat(NAME_MAX + 1), FileKind::Data, CREATE), libc::ENAMETOOLONG);
    assert_eq!(fs.list("", "").unwrap(), ["d"]);
}

#[test]
fn directories_have_no_bytes_and_can_be_synced() {
    let (_, fs) = start();
    for path in ["", "journal"] {
        let handle = fs.open_file(path, FileKind::Directory, OpenFlags::default()).unwrap();
        handle.sync().unwrap();
        assert_eq!(errno(handle.read(0, &mut [0])), libc::EISDIR);
        assert_eq!(errno(handle.write(0, &[0])), libc::EISDIR);
        assert_eq!(errno(handle.truncate(0)), libc::EISDIR);
        assert_eq!(errno(handle.size()), libc::EISDIR);
        handle.close().unwrap();
    }
    assert_eq!(errno(fs.list("none", "")), libc::ENOENT);
    assert_eq!(errno(fs.size("journal")), libc::ENOENT);
    assert!(fs.exists("journal").unwrap() && fs.exists("").unwrap() && !fs.exists("none").unwrap());
}

#[test]
fn removing() {
    let (volume, fs) = start();
    let handle = file(&fs, "a");
    assert_eq!(errno(fs.remove("a")), libc::EBUSY);
    let other = file(&fs, "a");
    drop(handle);
    assert_eq!(errno(fs.remove("a")), libc::EBUSY);
    drop(other);
    fs.remove("a").unwrap();
    assert_eq!(errno(fs.remove("a")), libc::ENOENT);
    assert_eq!(errno(fs.size("a")), libc::ENOENT);
    assert!(!fs.exists("a").unwrap() && !crashed(&volume).exists("a").unwrap());
}

#[test]
fn renaming() {
    let (volume, fs) = start();
    assert_eq!(errno(fs.rename("a", "b")), libc::ENOENT);
    let a = file(&fs, "a");
    a.write(0, b"unsynced").unwrap();
    file(&fs, "d/e");
    assert_eq!(errno(fs.rename("a", "d")), libc::EISDIR);
    assert_eq!(errno(fs.rename("a", "../a")), libc::EINVAL);
    assert_eq!(errno(fs.rename("a", &"x".repeat(NAME_MAX + 1))), libc::ENAMETOOLONG);
    for below in ["a/b", "d/e/f", "d/e/f/g"] {
        assert_eq!(errno(fs.rename("a", below)), libc::ENOTDIR, "{below}");
    }
    let b = file(&fs, "b");
    assert_eq!(errno(fs.rename("a", "b")), libc::EBUSY);
    fs.rename("a", "a").unwrap();
    drop(b);
    fs.rename("a", "b").unwrap(); // open itself, and what it has goes with it
    assert!(!fs.exists("a").unwrap());
    assert_eq!(content(&crashed(&volume), "b"), b"unsynced");
    a.write(8, b", more").unwrap();
    a.close().unwrap();
    assert_eq!(content(&crashed(&volume), "b"), b"unsynced, more");
}

#[test]
fn a_rename_is_in_one_commit_with_what_it_replaces() {
    let (volume, fs) = start();
    let write = |path: &str, bytes: &[u8]| {
        let handle = file(&fs, path);
        handle.write(0, bytes).unwrap();
        handle.close().unwrap();
    };
    (0..7).for_each(|i| write(&format!("{i}"), b"x")); // so that the two names stand in two pages
    write("turtle", b"old");
    write("turtle.set", b"new");
    let before = volume.commits();
    fs.rename("turtle.set", "turtle").unwrap();
    assert_eq!(volume.pages_from(before), [2]);
    let earlier = open(&Arc::new(volume.after(before)));
    assert_eq!((content(&earlier, "turtle"), content(&earlier, "turtle.set")), (b"old".to_vec(), b"new".to_vec()));
    let now = crashed(&volume);
    assert_eq!(content(&now, "turtle"), b"new");
    assert!(!now.exists("turtle.set").unwrap());
}

#[test]
fn a_dataset_that_is_used_again_shows_nothing_of_before() {
    let (volume, fs) = start();
    for round in 0..5_u8 {
        for name in ["a", "b"] {
            let handle = file(&fs, name);
            assert_eq!(handle.size().unwrap(), 0);
            handle.write(9_000, &[round; 5_000]).unwrap();
            assert_eq!(content(&fs, name)[..9_000], [0; 9_000]);
            handle.close().unwrap();
            assert_eq!(content(&crashed(&volume), name)[..9_000], [0; 9_000]);
        }
        fs.rename("a", "b").unwrap();
        assert_eq!(volume.filled(), 2, "the directory and one file");
        fs.remove("b").unwrap();
        assert_eq!(volume.filled(), 1);
    }
    assert_eq!(volume.datasets(), 3, "never more than there were files at a time");
}

#[test]
fn one_owner() {
    let (volume, fs) = start();
    file(&fs, "a").write(0, b"a").unwrap();
    let second: Arc<dyn Volume> = Arc::new(volume.process());
    assert_eq!(errno(FileSystem::open(second.clone(), Duration::ZERO)), libc::EBUSY);
    fs.close().unwrap();
    let next = FileSystem::open(second, Duration::ZERO).unwrap();
    assert_eq!(content(&next, "a"), b"a");
}

#[test]
fn what_is_no_directory_is_refused_and_given_back() {
    let page = |first: &[u8]| {
        let mut page = Box::new([0; PAGE_SIZE]);
        page[..first.len()].copy_from_slice(first);
        page
    };
    let volume = MemoryVolume::default();
    volume.claim(Duration::ZERO).unwrap();
    let foreign = page(b"SQLite format 3\0");
    let change = Change { pages: &[(PageNo(0), &*foreign)], size: PAGE_SIZE as u64 };
    volume.commit(&[(DatasetId(1), change)]).unwrap();
    volume.disown();
    let again: Arc<dyn Volume> = Arc::new(volume.process());
    assert_eq!(errno(FileSystem::open(again, Duration::ZERO)), libc::EINVAL);
    volume.claim(Duration::ZERO).unwrap(); // nobody owns what could not be opened

    let (volume, fs) = start();
    file(&fs, "a");
    let nonsense = page(&[7; 64]);
    let change = Change { pages: &[(PageNo(1), &*nonsense)], size: 2 * PAGE_SIZE as u64 };
    volume.commit(&[(DatasetId(1), change)]).unwrap();
    let harmed: Arc<dyn Volume> = Arc::new(volume.after(volume.commits()));
    assert_eq!(errno(FileSystem::open(harmed, Duration::ZERO)), libc::EIO);
}
