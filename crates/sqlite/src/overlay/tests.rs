//! The overlay against a plain vector of bytes.

use super::*;
use crate::memory::MemoryStore;
use dspm_txn::dataset::{Change, Intent, Reserved};

const P: u64 = PAGE_SIZE as u64;

/// A dataset with three and a half pages of ones to fours.
fn with_base(test: impl Fn(Base<'_>, &[u8])) {
    let store = MemoryStore::default();
    let dataset = store.dataset("overlay");
    let mut snapshot = dataset.snapshot(Intent::Read).unwrap();
    assert_eq!(dataset.reserve(&snapshot, None).unwrap(), Reserved::Granted);
    let mut last = [0; PAGE_SIZE];
    last[..PAGE_SIZE / 2].fill(4);
    let pages = [[1; PAGE_SIZE], [2; PAGE_SIZE], [3; PAGE_SIZE], last];
    let changes: Vec<_> = pages.iter().enumerate().map(|(n, p)| (PageNo(n as u64), p)).collect();
    let size = 3 * P + P / 2;
    dataset.commit(&mut snapshot, &Change { pages: &changes, size }).unwrap();
    let model: Vec<u8> = pages.concat()[..size as usize].to_vec();
    test(Base { dataset: &*dataset, snapshot: &snapshot }, &model);
}

/// What the dataset holds when the overlay was committed, if that is done at all.
fn stored(overlay: &Overlay, base: Base<'_>) -> Vec<u8> {
    let mut all = vec![0; base.snapshot.size as usize];
    read_snapshot(base, 0, &mut all).unwrap();
    if !overlay.is_written() {
        return all;
    }
    all.resize(overlay.size() as usize, 0);
    for (page, content) in overlay.pages() {
        let start = page.0 as usize * PAGE_SIZE;
        let end = all.len().min(start + PAGE_SIZE);
        all[start..end].copy_from_slice(&content[..end - start]);
    }
    all
}

fn check(overlay: &Overlay, base: Base<'_>, model: &[u8]) {
    assert_eq!(overlay.size(), model.len() as u64);
    let mut all = vec![0xee; model.len() + 100];
    overlay.read(base, 0, &mut all).unwrap();
    assert!(all[..model.len()] == *model, "content differs");
    assert!(all[model.len()..].iter().all(|b| *b == 0), "zeros beyond the size");
    assert!(stored(overlay, base) == *model, "a commit stores something else");
    for (page, content) in overlay.pages() {
        let start = (page.0 * P) as usize;
        assert!(start < model.len(), "no page beyond the size");
        let end = model.len().min(start + PAGE_SIZE);
        assert!(content[end - start..].iter().all(|b| *b == 0), "zeros beyond the size in page {page}");
    }
}

#[test]
fn any_sequence_reads_as_a_file_would() {
    // A small generator: the sequences only have to be many and the same each time.
    let mut seed = 12345u64;
    let mut next = |n: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    for _ in 0..50 {
        let steps: Vec<(u64, u64, u64)> = (0..20).map(|_| (next(4), next(6 * P), 1 + next(2 * P))).collect();
        with_base(|base, model| {
            let mut model = model.to_vec();
            let mut overlay = Overlay::new(model.len() as u64, u64::MAX);
            for (n, &(what, at, len)) in steps.iter().enumerate() {
                if what == 0 {
                    overlay.truncate(base, at).unwrap();
                    model.resize(at as usize, 0);
                } else {
                    let data = vec![100 + n as u8; len as usize];
                    overlay.write(base, at, &data).unwrap();
                    model.resize(model.len().max((at + len) as usize), 0);
                    model[at as usize..(at + len) as usize].copy_from_slice(&data);
                }
                check(&overlay, base, &model);
            }
        });
    }
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    with_base(|base, model| {
        let mut overlay = Overlay::new(model.len() as u64, u64::MAX);
        overlay.truncate(base, 100).unwrap();
        overlay.truncate(base, 3 * P).unwrap();
        let mut model = model[..100].to_vec();
        model.resize(3 * PAGE_SIZE, 0);
        check(&overlay, base, &model);
        overlay.truncate(base, 0).unwrap();
        overlay.truncate(base, base.snapshot.size).unwrap();
        check(&overlay, base, &vec![0; base.snapshot.size as usize]);
    });
}

#[test]
fn it_has_a_limit_and_knows_whether_it_was_written() {
    with_base(|base, model| {
        let mut overlay = Overlay::new(model.len() as u64, 2 * P);
        assert!(!overlay.is_written());
        overlay.write(base, 0, &[9; 2 * PAGE_SIZE]).unwrap();
        overlay.write(base, 10, &[8; 10]).unwrap();
        assert!(matches!(overlay.write(base, 3 * P, &[9; 1]), Err(Error::Full(_))));
        overlay.restart(5 * P);
        assert!(!overlay.is_written());
        overlay.truncate(base, 4 * P).unwrap();
        assert!(overlay.is_written());
    });
}
