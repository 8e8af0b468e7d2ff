//! Bytes: from memory, from a record on its way and from the store, and zeros where nobody wrote.

#![allow(clippy::unwrap_used)]

mod gate;

use dspm_proto::Error;
use dspm_wiredtiger::memory::MemoryVolume;
use dspm_wiredtiger::{FileKind, FileSystem, OpenFlags};
use gate::{Gate, content, crashed, errno, file, open};
use std::sync::Arc;
use std::thread;

const PAGE: usize = 4096;

fn start() -> (Arc<MemoryVolume>, Arc<FileSystem>) {
    let volume = Arc::new(MemoryVolume::default());
    let fs = open(&volume);
    (volume, fs)
}

#[test]
fn reads_go_across_dirty_flying_and_stored_pages() {
    for lands in [true, false] {
        let gate = Arc::new(Gate::default());
        let fs = open(&gate);
        let a = file(&fs, "a");
        let mut expected = vec![1; 6 * PAGE];
        a.write(0, &expected).unwrap();
        a.sync().unwrap();
        let write = |expected: &mut [u8], from: usize, length: usize, byte: u8| {
            a.write(from as u64, &vec![byte; length]).unwrap();
            expected[from..from + length].fill(byte);
        };
        write(&mut expected, PAGE + 10, 2 * PAGE, 2); // pages 1 to 3
        gate.let_through(0);
        thread::scope(|s| {
            let sync = s.spawn(|| a.sync());
            gate.wait_for_one();
            write(&mut expected, 3 * PAGE - 5, 10, 3); // over what flies
            write(&mut expected, 4 * PAGE + 1, 1, 4); // over what is stored
            let mut bytes = vec![0; 6 * PAGE - 7];
            a.read(7, &mut bytes).unwrap();
            assert!(bytes == expected[7..]);
            if !lands {
                gate.volume.fail(0, Error::Full("no room".into()));
            }
            gate.open();
            assert_eq!(sync.join().unwrap().map_err(|e| e.errno), if lands { Ok(()) } else { Err(libc::ENOSPC) });
            gate.volume.heal();
        });
        assert!(content(&fs, "a") == expected);
        a.sync().unwrap();
        assert!(content(&fs, "a") == expected);
        assert!(content(&crashed(&gate.volume), "a") == expected);
    }
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    for cut in [0, 1, 100, PAGE, PAGE + 1, 3 * PAGE - 1] {
        let (volume, fs) = start();
        let a = file(&fs, "a");
        a.write(0, &[7; 3 * PAGE]).unwrap();
        a.sync().unwrap();
        a.write(2 * PAGE as u64, &[8; PAGE]).unwrap(); // dirty when it is cut
        a.truncate(cut as u64).unwrap();
        assert_eq!(crashed(&volume).size("a").unwrap(), cut as u64, "durable at once");
        let grown = |fs: &Arc<FileSystem>| content(fs, "a")[cut..5 * PAGE].iter().all(|b| *b == 0);
        a.write(5 * PAGE as u64, &[9]).unwrap();
        assert!(grown(&fs), "cut to {cut}, grown by a write");
        a.sync().unwrap();
        assert!(grown(&fs) && grown(&crashed(&volume)));
        a.truncate(cut as u64).unwrap();
        a.truncate(5 * PAGE as u64).unwrap();
        assert!(grown(&fs) && grown(&crashed(&volume)), "cut to {cut}, grown by a truncation");
    }
}

#[test]
fn files_grow_without_being_written() {
    let (volume, fs) = start();
    let a = file(&fs, "a");
    a.write(0, b"abc").unwrap();
    a.sync().unwrap();
    let before = volume.commits();
    a.truncate(100 << 20).unwrap();
    assert_eq!(volume.pages_from(before), [0], "zeros cost nothing");
    assert_eq!(crashed(&volume).size("a").unwrap(), 100 << 20);
    let mut bytes = [1; PAGE];
    a.read((100 << 20) - PAGE as u64, &mut bytes).unwrap();
    assert_eq!(bytes, [0; PAGE]);
    a.read(0, &mut bytes).unwrap();
    assert_eq!((&bytes[..3], &bytes[3..]), (&b"abc"[..], &[0; PAGE - 3][..]));
}

#[test]
fn sparse_files_and_last_pages() {
    let (volume, fs) = start();
    let a = file(&fs, "a");
    a.write(10 * PAGE as u64 + 5, b"end").unwrap();
    a.write(3 * PAGE as u64 - 2, b"over").unwrap();
    a.sync().unwrap();
    let mut expected = vec![0; 10 * PAGE + 8];
    expected[10 * PAGE + 5..].copy_from_slice(b"end");
    expected[3 * PAGE - 2..3 * PAGE + 2].copy_from_slice(b"over");
    assert!(content(&fs, "a") == expected && content(&crashed(&volume), "a") == expected);
    assert_eq!(volume.pages_from(volume.commits() - 1), [3], "holes are not sent");
    a.write(10 * PAGE as u64 + 8, b".").unwrap();
    a.close().unwrap();
    expected.push(b'.');
    assert!(content(&crashed(&volume), "a") == expected);
}

#[test]
fn what_cannot_be_read_or_written() {
    let (volume, fs) = start();
    let a = file(&fs, "a");
    a.write(0, &[1; 100]).unwrap();
    assert_eq!(errno(a.read(0, &mut [0; 101])), libc::EIO);
    assert_eq!(errno(a.read(100, &mut [0])), libc::EIO);
    assert_eq!(errno(a.read(u64::MAX, &mut [0; 2])), libc::EIO);
    assert_eq!(errno(a.write(u64::MAX, &[0; 2])), libc::EFBIG);
    assert_eq!(errno(a.write(dspm_proto::limits::DATASET_MAX, &[0])), libc::EFBIG);
    a.write(5_000, &[]).unwrap();
    assert_eq!(a.size().unwrap(), 100, "nothing written, nothing grown");
    a.sync().unwrap();
    let reader =
        fs.open_file("a", FileKind::Checkpoint, OpenFlags { read_only: true, ..OpenFlags::default() }).unwrap();
    assert_eq!(errno(reader.write(0, &[0])), libc::EACCES);
    assert_eq!(errno(reader.truncate(0)), libc::EACCES);
    let before = volume.commits();
    a.sync().unwrap();
    a.truncate(100).unwrap();
    reader.close().unwrap();
    assert_eq!(volume.commits(), before, "nothing new, no commit");
}

#[test]
fn handles_share_a_file() {
    let (_, fs) = start();
    let (one, two) = (file(&fs, "a"), file(&fs, "a"));
    one.write(0, b"seen").unwrap();
    let mut bytes = [0; 4];
    two.read(0, &mut bytes).unwrap();
    assert_eq!((&bytes, two.size().unwrap()), (b"seen", 4));
    two.truncate(2).unwrap();
    assert_eq!(one.size().unwrap(), 2);
}
