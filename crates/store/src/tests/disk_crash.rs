//! The machine loses power: memory is gone, and of the disk's unsynced sectors any set is left.
//! Fault guarded against: losing what was reported as flushed, torn batches, half checkpoints, old records that come
//! back.

use dspm_proto::*;

use super::simdisk::{SimDisk, Unsynced};
use super::support::*;

const MEMORY: u64 = 1 << 20;
const D: DatasetId = DatasetId(1);
const PAGES: u64 = 16;

/// Opens the disk after a crash: everything that was flushed is there, exact, and the log is not called damaged.
fn check(w: &World, flushed: Lsn, op: usize, bytes: usize, unsynced: Unsynced) {
    let again = World::open(w.disk.crashed(op, bytes, unsynced), MEMORY, Model::default());
    let what = format!("op {op} byte {bytes} {unsynced:?}: {:?}", again.opened.reason);
    assert!(again.opened.log_intact, "{what}");
    let tail = again.with(|g| g.tail().lsn);
    assert!(tail >= flushed && tail <= w.model.tail(), "{what}: {tail} of {flushed}");
    let mut again = again;
    again.model = w.model.upto(tail);
    again.check(1, PAGES);
    // Life goes on, and a second crash finds it.
    again.append(&[(D, PAGES * 4096)], &[(D, 1, Some(200))]).unwrap();
    again.flush();
    World::open(again.disk.copy(), MEMORY, again.model.clone()).check(1, PAGES);
}

/// Every operation on the disk since the mark, torn at its borders and at some places inside.
fn crash_everywhere(w: &World, flushed: &[(usize, Lsn)]) {
    for op in 0..=w.disk.ops() {
        let held = flushed.iter().rev().find(|f| f.0 <= op).map_or(Lsn(0), |f| f.1);
        let len = w.disk.write_len(op).unwrap_or(0);
        let mut cuts = vec![0, 1, 7, 8, 63, 64, 65, 100, len / 3, len / 2, len.saturating_sub(1), len];
        cuts.retain(|c| *c <= len);
        cuts.dedup();
        for bytes in cuts {
            check(w, held, op, bytes, Unsynced::Kept);
        }
        check(w, held, op, 0, Unsynced::Lost);
        for seed in 0..3 {
            check(w, held, op, len, Unsynced::Mixed(seed * 77 + op as u64));
        }
    }
}

fn write(w: &mut World, n: u64) {
    let size = if n % 7 == 6 { 5 } else { PAGES };
    let writes: Vec<Write> =
        [(D, n % size, Some(n as u8 + 1)), (D, (n * 5 + 2) % size, (n % 3 > 0).then_some(n as u8))]
            .into_iter()
            .collect();
    let writes = if writes[0].1 == writes[1].1 { &writes[..1] } else { &writes[..] };
    w.append(&[(D, size * 4096)], writes).unwrap();
}

#[test]
fn torn_batches() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    write(&mut w, 0);
    w.flush();
    w.disk.mark();
    let mut flushed = vec![(0, Lsn(1))];
    for n in 1..7 {
        write(&mut w, n);
        if n % 2 == 0 {
            w.flush();
            flushed.push((w.disk.ops(), w.flushed()));
        }
    }
    crash_everywhere(&w, &flushed);
}

#[test]
fn torn_checkpoints() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    let settle = |w: &World| {
        w.with(|g| {
            g.set_committed(g.tail().lsn);
            g.set_horizon(g.tail().lsn);
        });
        w.flush();
        w.with(|g| g.set_horizon(g.tail().lsn));
    };
    for round in 0..3 {
        for n in 0..5 {
            write(&mut w, round * 5 + n);
        }
        settle(&w);
        w.disk.mark();
        let flushed = [(0, w.flushed())];
        w.store.checkpoint_all(&*w.source).unwrap();
        crash_everywhere(&w, &flushed);
    }
}

#[test]
fn a_cut_that_the_log_knows_holds() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    for n in 0..5 {
        write(&mut w, n);
    }
    w.flush();
    w.with(|g| g.cut(Lsn(2)).unwrap());
    w.model.records.truncate(2);
    w.with(|g| {
        let generation = Generation(4);
        g.set_fence(crate::Fence { generation, token: Token { generation, boot: 1, n: 1 } });
    });
    write(&mut w, 50);
    w.flush();
    assert_eq!(w.flushed(), Lsn(3));
    World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, PAGES);
}

/// After the process alone ended, what the next one calls flushed outlives a power cut that follows.
fn check_killed(w: &World, memory: u64, op: usize, go_on: impl Fn(&mut World)) {
    let mut again = World::open(w.disk.killed(op), memory, Model::default());
    let tail = again.with(|g| g.tail().lsn);
    again.model = w.model.upto(tail);
    go_on(&mut again);
    let flushed = again.with(|g| g.flushed());
    let last = World::open(again.disk.crashed(again.disk.ops(), 0, Unsynced::Lost), memory, Model::default());
    assert!(last.opened.log_intact, "op {op}: {:?}", last.opened.reason);
    let tail = last.with(|g| g.tail().lsn);
    assert!(tail >= flushed, "op {op}: {tail}, though {flushed} was called flushed");
}

#[test]
fn a_batch_that_a_killed_process_did_not_sync() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    write(&mut w, 0);
    w.flush();
    w.disk.mark();
    for n in 1..4 {
        write(&mut w, n);
        w.flush();
    }
    for op in 0..w.disk.ops() {
        check_killed(&w, MEMORY, op, |_| {});
    }
}

#[test]
fn a_checkpoint_that_a_killed_process_did_not_sync() {
    let mut w = World::open(SimDisk::default(), 4 << 20, Model::default());
    for round in 0..2 {
        for n in 0..5 {
            write(&mut w, round * 5 + n);
        }
        w.with(|g| g.set_committed(g.tail().lsn));
        w.flush();
        w.with(|g| g.set_horizon(g.tail().lsn));
        w.disk.mark();
        w.store.checkpoint_all(&*w.source).unwrap();
    }
    for op in 0..w.disk.ops() {
        // The log goes on in another segment; the one that says what the base files hold is freed, and used again.
        check_killed(&w, 4 << 20, op, |again| {
            for fill in [8, 9] {
                let writes: Vec<Write> = (0..230).map(|p| (D, p, Some(fill))).collect();
                again.append(&[(D, 230 * 4096)], &writes).unwrap();
                again.flush();
                again.store.checkpoint_all(&*again.source).unwrap();
            }
        });
    }
}

#[test]
fn a_segment_that_was_cut_short_is_damage() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    for n in 0..5 {
        write(&mut w, n);
        w.flush();
    }
    let (path, bytes) = w.disk.files("log/").into_iter().find(|f| f.1.starts_with(b"DSPMLOG1")).unwrap();
    for len in [64, 4096, 8192, 20480, bytes.len() - 1] {
        let again = World::open(w.disk.cut_short(&path, len), MEMORY, Model::default());
        assert!(!again.opened.log_intact, "{len} of {} bytes", bytes.len());
    }
}
