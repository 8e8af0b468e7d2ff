//! Base files: byte for byte the dataset, and never served when damaged.

use dspm_proto::*;

use super::simdisk::SimDisk;
use super::support::*;
use crate::Lookup;

const MEMORY: u64 = 1 << 20;
const D: DatasetId = DatasetId(1);

fn settled(w: &World) {
    w.with(|g| {
        g.set_committed(g.tail().lsn);
        g.set_horizon(g.tail().lsn);
    });
    w.flush();
    w.with(|g| g.set_horizon(g.tail().lsn));
    w.store.checkpoint_all(&*w.source).unwrap();
}

fn content(model: &Model) -> Vec<u8> {
    let at = model.tail();
    let size = model.sizes(at)[&D];
    let mut bytes: Vec<u8> = (0..PageNo::count(size)).flat_map(|p| [model.page(D, p, at).1; PAGE_SIZE]).collect();
    bytes.truncate(size as usize);
    bytes
}

#[test]
fn a_base_file_is_the_dataset_byte_for_byte() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    let histories: [(u64, &[Write]); 6] = [
        (10 * 4096, &[(D, 0, Some(1)), (D, 9, Some(2)), (D, 4, Some(3))]),
        (12 * 4096, &[(D, 4, None), (D, 11, Some(4))]),
        (3 * 4096, &[(D, 1, Some(5))]),
        (8 * 4096, &[(D, 7, Some(6))]),
        (8 * 4096, &[]),
        (5 * 4096 + 100, &[(D, 5, Some(7))]),
    ];
    for (size, writes) in histories {
        w.append(&[(D, size)], writes).unwrap();
        settled(&w);
        let base = w.disk.files(".db").pop().unwrap().1;
        assert!(base == content(&w.model), "at {}", w.model.tail());
        World::open(w.disk.copy(), MEMORY, w.model.clone());
    }
}

/// A page had content at commit 1, was cut off at 2, and is zeros in the file of 3: another member may still show what
/// it was.
#[test]
fn zeros_of_a_base_file_say_nothing_of_before_the_horizon() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    for (n, pages) in [(1, 2), (2, 1), (3, 2)] {
        let writes = [(D, 0, Some(n)), (D, 1, Some(n))];
        w.append(&[(D, pages * 4096)], if n == 1 { &writes } else { &writes[..1] }).unwrap();
        settled(&w);
    }
    let again = World::open(w.disk.copy(), MEMORY, Model::default());
    let read = |page| {
        again.with(|g| {
            assert!(matches!(g.lookup(D, PageNo(page), g.tail().lsn), Lookup::Disk { .. }));
            read(g, D, page, g.tail().lsn)
        })
    };
    assert_eq!(again.with(|g| g.horizon()), Lsn(3));
    assert_eq!((read(0), read(1)), (Some((Lsn(3), 3)), Some((Lsn(3), 0))));
}

#[test]
fn flipped_bits_of_base_and_sidecar_are_never_served() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    let all: Vec<Write> = (0..8).map(|p| (D, p, Some(p as u8 + 1))).collect();
    w.append(&[(D, 10 * 4096)], &all).unwrap();
    settled(&w);
    for (part, size, page_of) in [(".db", 40960, 4096), (".idx", 160, 16)] {
        for n in (0..size).step_by((size / 80).max(1)) {
            let path = w.disk.files(part).pop().unwrap().0;
            let at = if part == ".idx" { 4096 + n } else { n };
            let again = World::open(w.disk.flipped(&path, at, (n % 8) as u8), MEMORY, Model::default());
            let mut out = [0; PAGE_SIZE];
            let page = PageNo((n / page_of) as u64);
            let tail = again.with(|g| g.tail().lsn);
            assert!(matches!(again.with(|g| g.lookup(D, page, tail)), Lookup::Disk { .. }));
            let reader = again.with(|g| g.base_reader(D)).unwrap();
            let read = reader.read(page, tail, &mut out);
            assert!(matches!(read, Err(Error::Corrupt(_))), "bit {} of byte {n} of {part}: {read:?}", n % 8);
            assert_eq!(again.store.usage().checksum_errors, 1);
        }
    }
}
