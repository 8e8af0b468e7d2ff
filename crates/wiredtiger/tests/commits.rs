//! When bytes are committed, in which records, and what a failed commit leaves.

#![allow(clippy::unwrap_used)]

mod gate;

use dspm_proto::Error;
use dspm_wiredtiger::memory::MemoryVolume;
use dspm_wiredtiger::{FileKind, FileSystem, OpenFile, OpenFlags};
use gate::{Gate, content, crashed, errno, file, open};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PAGE: usize = 4096;

#[test]
fn no_room_passes_and_nothing_is_lost() {
    let volume = Arc::new(MemoryVolume::default());
    let fs = open(&volume);
    let (a, b) = (file(&fs, "a"), file(&fs, "b"));
    a.write(0, &[1; 5 * PAGE]).unwrap();
    a.sync().unwrap();
    volume.fail(0, Error::Full("no room".into()));
    b.write(0, b"later").unwrap();
    assert_eq!(errno(b.sync()), libc::ENOSPC);
    assert_eq!(
        errno(fs.open_file("c", FileKind::Log, OpenFlags { create: true, ..OpenFlags::default() })),
        libc::ENOSPC
    );
    assert_eq!(errno(fs.rename("b", "d")), libc::ENOSPC);
    assert_eq!(errno(a.truncate(100)), libc::ENOSPC);
    assert_eq!(errno(a.truncate(100)), libc::ENOSPC, "it is still not durable");
    a.write(4 * PAGE as u64, &[2; PAGE]).unwrap();
    let cut = |fs: &Arc<FileSystem>| content(fs, "a")[100..4 * PAGE].iter().all(|byte| *byte == 0);
    assert!(cut(&fs) && content(&fs, "b") == b"later");
    assert!(fs.exists("b").unwrap() && !fs.exists("c").unwrap() && !fs.exists("d").unwrap());
    volume.heal();
    a.sync().unwrap();
    fs.rename("b", "d").unwrap();
    let after = crashed(&volume);
    assert!(cut(&fs) && cut(&after), "what was cut off is not back");
    assert_eq!(content(&after, "a")[4 * PAGE..], [2; PAGE]);
    assert_eq!(content(&after, "d"), b"later");
    assert_eq!(after.list("", "").unwrap(), ["a", "d"]);
}

#[test]
fn no_room_in_the_middle_of_a_large_sync() {
    let volume = Arc::new(MemoryVolume::default().with_pages_max(4));
    let fs = open(&volume);
    let a = file(&fs, "a");
    let bytes: Vec<u8> = (0..10 * PAGE).map(|i| (i / 100) as u8).collect();
    a.write(0, &bytes).unwrap();
    volume.fail(1, Error::Full("no room".into()));
    assert_eq!(errno(a.sync()), libc::ENOSPC);
    assert!(content(&fs, "a") == bytes);
    volume.heal();
    a.sync().unwrap();
    assert!(content(&crashed(&volume), "a") == bytes);
}

/// Every call on a file system that has ended.
fn all_fail(fs: &Arc<FileSystem>, handle: OpenFile) {
    let all = [
        errno(fs.exists("a")),
        errno(fs.list("", "")),
        errno(fs.size("a")),
        errno(fs.remove("a")),
        errno(fs.rename("a", "b")),
        errno(fs.open_file("a", FileKind::Log, OpenFlags::default())),
        errno(handle.read(0, &mut [0])),
        errno(handle.write(0, &[0])),
        errno(handle.truncate(0)),
        errno(handle.size()),
        errno(handle.sync()),
        errno(handle.close()),
        errno(fs.close()),
    ];
    assert_eq!(all, [libc::EIO; 13]);
}

#[test]
fn an_unknown_outcome_ends_everything() {
    for error in [Error::OutcomeUnknown("nobody answers".into()), Error::Conflict("replaced".into())] {
        let volume = Arc::new(MemoryVolume::default());
        let fs = open(&volume);
        let a = file(&fs, "a");
        a.write(0, b"a").unwrap();
        volume.fail(0, error);
        assert_eq!(errno(a.sync()), libc::EIO);
        volume.heal();
        all_fail(&fs, a);
    }
}

#[test]
fn who_was_replaced_reads_and_writes_nothing() {
    let volume = Arc::new(MemoryVolume::default());
    let fs = open(&volume);
    let a = file(&fs, "a");
    a.write(0, b"mine").unwrap();
    a.sync().unwrap();
    a.write(0, b"late").unwrap();
    volume.crash();
    let second = open(&Arc::new(volume.process()));
    file(&second, "a").write(0, b"next").unwrap();
    second.close().unwrap();
    all_fail(&fs, a);
    let third = open(&Arc::new(volume.process()));
    assert_eq!(content(&third, "a"), b"next");
    assert_eq!(third.list("", "").unwrap(), ["a"]);
}

#[test]
fn records_are_no_larger_than_members_take() {
    let volume = Arc::new(MemoryVolume::default().with_pages_max(8));
    let fs = open(&volume);
    let (a, b) = (file(&fs, "a"), file(&fs, "b"));
    a.write(0, &[1; 30 * PAGE]).unwrap();
    let before = volume.commits();
    a.sync().unwrap();
    assert_eq!(volume.pages_from(before), [8, 8, 8, 6]);
    b.write(0, &[2; 8 * PAGE]).unwrap();
    let before = volume.commits();
    fs.rename("b", "c").unwrap();
    assert_eq!(volume.pages_from(before), [8, 1], "contents first, names last");
    assert!(crashed(&volume).exists("c").unwrap() && !open(&Arc::new(volume.after(before + 1))).exists("c").unwrap());
}

#[test]
fn what_nobody_syncs_is_written_back() {
    let volume = Arc::new(MemoryVolume::default());
    let fs = open(&volume);
    let (a, b) = (file(&fs, "a"), file(&fs, "b"));
    b.write(0, b"beside").unwrap();
    let before = volume.commits();
    let chunk = vec![3; 1 << 20];
    for i in 0..63 {
        a.write(i << 20, &chunk).unwrap();
    }
    assert_eq!(volume.commits(), before, "less than 64 MiB stay in memory");
    a.write(63 << 20, &chunk).unwrap();
    let after = crashed(&volume);
    assert_eq!((after.size("a").unwrap(), content(&after, "b")), (64 << 20, b"beside".to_vec()));
    assert!(volume.pages_from(before).iter().all(|pages| *pages <= 4096), "in records that keep nobody waiting");

    let (c, d) = (file(&fs, "c"), file(&fs, "d"));
    c.write(0, b"closed").unwrap();
    c.close().unwrap();
    assert_eq!(content(&crashed(&volume), "c"), b"closed");
    d.write(0, b"left open").unwrap();
    drop(d);
    assert_eq!(content(&crashed(&volume), "d"), b"");
    fs.close().unwrap();
    assert_eq!(content(&crashed(&volume), "d"), b"left open");
    assert_eq!(errno(fs.exists("d")), libc::EIO, "closed");
}

#[test]
fn a_sync_waits_for_a_record_with_its_bytes() {
    let gate = Arc::new(Gate::default());
    let fs = open(&gate);
    let a = file(&fs, "a");
    a.write(0, b"one").unwrap();
    gate.let_through(0);
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| a.sync().unwrap());
        gate.wait_for_one();
        a.write(0, b"two").unwrap();
        s.spawn(|| {
            a.sync().unwrap();
            done.store(true, Ordering::SeqCst);
        });
        let before = gate.volume.commits();
        gate.let_through(1);
        gate.wait_for_one(); // the first record has passed, the second stands before the gate
        assert_eq!(gate.volume.commits(), before + 1);
        assert_eq!(content(&crashed(&gate.volume), "a"), b"one");
        assert!(!done.load(Ordering::SeqCst), "its bytes are in no commit");
        gate.open();
    });
    assert_eq!(content(&crashed(&gate.volume), "a"), b"two");
}

#[test]
fn syncs_that_come_while_a_record_is_on_its_way_share_the_next() {
    const THREADS: usize = 8;
    let gate = Arc::new(Gate::default());
    let fs = open(&gate);
    let first = file(&fs, "first");
    first.write(0, b"x").unwrap();
    let files: Vec<OpenFile> = (0..THREADS).map(|i| file(&fs, &format!("f{i}"))).collect();
    let before = gate.volume.commits();
    gate.let_through(0);
    let begun = std::sync::Barrier::new(THREADS + 1);
    thread::scope(|s| {
        s.spawn(|| first.sync().unwrap());
        gate.wait_for_one();
        for (i, f) in files.iter().enumerate() {
            let (begun, gate) = (&begun, &gate);
            s.spawn(move || {
                f.write(0, &[i as u8; 100]).unwrap();
                begun.wait();
                f.sync().unwrap();
                assert_eq!(content(&crashed(&gate.volume), &format!("f{i}")), [i as u8; 100]);
            });
        }
        begun.wait();
        thread::sleep(std::time::Duration::from_millis(100)); // all of them ask, or a few come later
        gate.open();
    });
    let records = gate.volume.commits() - before;
    assert!((2..=1 + THREADS / 2).contains(&records), "{records} records for {THREADS} syncs behind one");
}

#[test]
fn nothing_that_cannot_be_is_queued_with_what_others_ask_for() {
    let gate = Arc::new(Gate::default());
    let fs = open(&gate);
    let (a, b) = (file(&fs, "a"), file(&fs, "b"));
    a.write(0, b"a").unwrap();
    gate.let_through(0);
    thread::scope(|s| {
        let sync = s.spawn(|| a.sync());
        gate.wait_for_one();
        assert_eq!(errno(b.truncate(u64::MAX)), libc::EFBIG, "at once");
        gate.open();
        sync.join().unwrap().unwrap();
    });
}

#[test]
fn threads_that_write_and_sync_each_find_their_bytes_committed() {
    const ROUNDS: u32 = 60;
    let volume = Arc::new(MemoryVolume::default().with_pages_max(6));
    let fs = open(&volume);
    thread::scope(|s| {
        for t in 0..6_u64 {
            let (fs, volume) = (&fs, &volume);
            s.spawn(move || {
                let (own, shared) = (file(fs, &format!("own{t}")), file(fs, "shared"));
                for round in 1..=ROUNDS {
                    let bytes = [round.to_le_bytes(); 1000].concat();
                    own.write(u64::from(round % 3) * 1000, &bytes).unwrap();
                    shared.write(t * 5000, &bytes).unwrap();
                    own.sync().unwrap();
                    shared.sync().unwrap();
                    let name = format!("tmp{t}");
                    file(fs, &name);
                    fs.rename(&name, &format!("other{t}")).unwrap();
                    if round % 10 == 0 {
                        let after = crashed(volume);
                        let at = (round % 3) as usize * 1000;
                        assert!(content(&after, &format!("own{t}"))[at..at + 4000] == bytes[..]);
                        let at = t as usize * 5000;
                        assert!(content(&after, "shared")[at..at + 4000] == bytes[..]);
                        assert!(after.exists(&format!("other{t}")).unwrap() && !after.exists(&name).unwrap());
                    }
                }
            });
        }
    });
}

#[test]
fn a_sync_waits_for_no_durable_write_of_another_thread() {
    let volume = Arc::new(Gate::default());
    let fs = open(&volume);
    let (first, second) = (file(&fs, "log"), file(&fs, "log"));
    first.write_through(0, b"mine").unwrap();
    volume.let_through(0);
    thread::scope(|s| {
        let beside = s.spawn(|| second.write_through(4, b"theirs"));
        volume.wait_for_one();
        let (done, answer) = std::sync::mpsc::channel();
        let first = &first;
        let sync = s.spawn(move || done.send(first.sync()).unwrap());
        let returned = answer.recv_timeout(std::time::Duration::from_secs(30));
        volume.open();
        returned.expect("the sync returns while the other's write is on its way").unwrap();
        beside.join().unwrap().unwrap();
        sync.join().unwrap();
    });
    assert_eq!(content(&crashed(&volume.volume), "log"), b"minetheirs");
}

#[test]
fn durable_writes_that_wait_share_a_record() {
    let volume = Arc::new(Gate::default());
    let fs = open(&volume);
    let log = file(&fs, "log");
    let before = volume.volume.commits();
    volume.let_through(0);
    thread::scope(|s| {
        let log = &log;
        let first = s.spawn(move || log.write_through(0, &[1; 10]));
        volume.wait_for_one();
        let later: Vec<_> = (1..5).map(|n| s.spawn(move || log.write_through(n * 10, &[n as u8 + 1; 10]))).collect();
        while log.size().unwrap() < 50 || content(&fs, "log").contains(&0) {
            thread::yield_now();
        }
        volume.open();
        first.join().unwrap().unwrap();
        later.into_iter().for_each(|t| t.join().unwrap().unwrap());
    });
    assert_eq!(volume.volume.commits() - before, 2, "what is written meanwhile goes together");
    assert_eq!(content(&crashed(&volume.volume), "log").len(), 50);
}

#[test]
fn a_durable_write_that_failed_is_left_to_the_next_sync() {
    let volume = Arc::new(MemoryVolume::default());
    let fs = open(&volume);
    let log = file(&fs, "log");
    volume.fail(0, Error::Full("no room".into()));
    assert_eq!(errno(log.write_through(0, b"again")), libc::ENOSPC);
    assert_eq!(errno(log.sync()), libc::ENOSPC);
    volume.heal();
    log.sync().unwrap();
    assert_eq!(content(&crashed(&volume), "log"), b"again");
}
