//! Bits of the memory flip while the process is away. Fault guarded against: serving them.

use dspm_proto::*;

use super::support::*;
use crate::layout::{FrameNo, Layout};
use crate::{Lookup, Store};

const MEMORY: u64 = 512 << 10;
const D: DatasetId = DatasetId(1);

/// An arena with some history, closed; its bytes, and where the newest frame lies.
fn history(dir: &Dir, flushed: u64) -> (Vec<u8>, FrameNo) {
    let (store, _) = dir.open(MEMORY);
    let mut g = store.open_group(GROUP).unwrap();
    for i in 0..8u64 {
        append(&store, &mut g, &[(D, 1 << 20)], &[(D, i, Some(i as u8 + 1))]).unwrap();
    }
    g.set_committed(Lsn(8));
    g.set_flushed(Lsn(flushed));
    let Lookup::Frame { frame, .. } = g.lookup(D, PageNo(3), Lsn(8)) else { panic!() };
    drop((g, store));
    (std::fs::read(dir.0.join("arena")).unwrap(), frame)
}

fn flipped(dir: &Dir, image: &[u8], at: usize, bit: u8) -> (std::sync::Arc<Store>, crate::Opened, StoreId) {
    let mut bytes = image.to_vec();
    bytes[at] ^= 1 << bit;
    // A failed start gives the directory a new name; the image's own name comes back with it.
    std::fs::write(dir.0.join("arena"), bytes).unwrap();
    std::fs::copy(dir.0.join("node.kept"), dir.0.join("data/node")).unwrap();
    let (store, opened) = dir.open(MEMORY);
    let previous = opened.previous;
    (store, opened, previous)
}

#[test]
fn table_slots_rings_and_header_are_verified() {
    let dir = Dir::new();
    let (image, _) = history(&dir, 0);
    std::fs::copy(dir.0.join("data/node"), dir.0.join("node.kept")).unwrap();
    let layout = Layout::new(MEMORY).unwrap();
    let mut places: Vec<usize> = (128..224).step_by(5).collect(); // the first copy written is the second
    for i in 0..layout.frames as usize {
        let frame = layout.frame(i);
        let entry = &image[layout.meta_at(frame)..][..64];
        let used = &entry[56..60];
        if used != [0; 4] {
            places.extend((0..64).step_by(7).map(|b| layout.meta_at(frame) + b));
        }
        let content = layout.page_at(frame);
        match used {
            b"RING" => places.extend((0..1700).step_by(37).map(|b| content + b)),
            b"PAGE" => places.push(content + 100),
            _ => {}
        }
    }
    for (i, at) in places.iter().enumerate() {
        let (store, opened, previous) = flipped(&dir, &image, *at, (i % 8) as u8);
        assert!(!opened.memory_kept, "byte {at} was not missed");
        assert!(opened.store != previous && store.recovered_groups().is_empty());
    }
    let (_, opened, previous) = flipped(&dir, &image, image.len() - 1, 0);
    assert!(opened.memory_kept && opened.store == previous, "a free frame does not matter");
}

#[test]
fn a_damaged_page_that_the_log_holds_is_asked_for_elsewhere() {
    let dir = Dir::new();
    let (image, frame) = history(&dir, 8);
    std::fs::copy(dir.0.join("data/node"), dir.0.join("node.kept")).unwrap();
    let (store, opened, _) = flipped(&dir, &image, frame.0 as usize * 4096 + 5, 1);
    assert!(opened.memory_kept);
    assert_eq!(store.usage().checksum_errors, 1);
    let mut g = store.open_group(GROUP).unwrap();
    let sum = checksum(&[4; PAGE_SIZE]);
    assert_eq!(g.lookup(D, PageNo(3), Lsn(8)), Lookup::Lost { lsn: Lsn(4), checksum: sum });
    assert!(g.heal(D, PageNo(3), Lsn(4), &[5; PAGE_SIZE]).is_err());
    g.heal(D, PageNo(3), Lsn(4), &[4; PAGE_SIZE]).unwrap();
    assert_eq!(read(&g, D, 3, Lsn(8)), Some((Lsn(4), 4)));
    drop((g, store));
    let (store, opened) = dir.open(MEMORY);
    assert!(opened.memory_kept);
    assert_eq!(store.usage().checksum_errors, 0, "healed in the arena too");
}
