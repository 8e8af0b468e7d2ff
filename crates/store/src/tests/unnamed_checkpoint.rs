//! Power goes, or the process ends, between a CHECKPOINT entry of the log and the sidecars that name it; power goes again
//! when other groups have made the log leave the entry's segment behind.
//! Fault guarded against: records that were freed because the log said that base files hold them, which nothing says any
//! more.

use dspm_proto::*;

use super::simdisk::{SimDisk, Unsynced};
use super::support::*;

const MEMORY: u64 = 4 << 20;
const OTHER: GroupId = GroupId(78);
const A: DatasetId = DatasetId(1);
const B: DatasetId = DatasetId(2);
const C: DatasetId = DatasetId(3);
const PAGES: u64 = 8;

fn open(disk: SimDisk, model: Model) -> World {
    let w = World::open(disk, MEMORY, model);
    let other = w.store.open_group(OTHER).unwrap();
    w.source.groups.lock().unwrap().insert(OTHER, other);
    w
}

/// Everything so far may go into base files.
fn settle(w: &World) {
    for g in w.source.groups.lock().unwrap().values_mut() {
        g.set_committed(g.tail().lsn);
    }
    w.flush();
    for g in w.source.groups.lock().unwrap().values_mut() {
        g.set_horizon(g.tail().lsn);
    }
}

/// The other group fills segments until those of before are used again.
fn fill_log(w: &World) {
    let used = w.store.log.lock().unwrap().segments();
    for round in 0..8u8 {
        let writes: Vec<Write> = (0..200).map(|p| (C, p, Some(round + 1))).collect();
        let mut groups = w.source.groups.lock().unwrap();
        append(&w.store, groups.get_mut(&OTHER).unwrap(), &[(C, 200 * 4096)], &writes).unwrap();
        drop(groups);
        settle(w);
        w.store.checkpoint_all(&*w.source).unwrap();
    }
    assert!(w.store.log.lock().unwrap().segments() <= used.max(2), "the log was not shortened");
}

/// A group of two datasets; the disk's journal holds its second checkpoint, which changes the size of one.
fn two_checkpoints() -> World {
    let mut w = open(SimDisk::default(), Model::default());
    w.append(&[(A, 2 * 4096), (B, PAGES * 4096)], &[(A, 1, Some(1)), (B, 0, Some(2))]).unwrap();
    settle(&w);
    w.store.checkpoint_all(&*w.source).unwrap();
    w.append(&[(A, 5 * 4096), (B, PAGES * 4096)], &[(A, 4, Some(3)), (B, 1, Some(4))]).unwrap();
    w.append(&[(A, 5 * 4096)], &[(A, 0, Some(5))]).unwrap();
    settle(&w);
    w.disk.mark();
    w.store.checkpoint_all(&*w.source).unwrap();
    w
}

/// A crash at every operation since the mark, and another one later; `go_on` is what the group does in between.
fn crash_twice(w: &World, datasets: u64, go_on: impl Fn(&mut World)) {
    for op in 0..=w.disk.ops() {
        for disk in [w.disk.crashed(op, usize::MAX, Unsynced::Lost), w.disk.killed(op)] {
            let mut again = open(disk, w.model.clone());
            go_on(&mut again);
            fill_log(&again);
            let last = open(again.disk.crashed(again.disk.ops(), 0, Unsynced::Lost), again.model.clone());
            assert!(last.opened.log_intact, "op {op}: {:?}", last.opened.reason);
            assert_eq!(last.with(|g| g.tail()), again.with(|g| g.tail()), "op {op}: flushed records are gone");
            last.check(datasets, PAGES);
        }
    }
}

#[test]
fn of_a_group_that_rests_afterwards() {
    crash_twice(&two_checkpoints(), 2, |_| {});
}

/// Its next checkpoint names itself in the sidecars of what changed since only.
#[test]
fn of_a_dataset_that_rests_while_its_group_goes_on() {
    crash_twice(&two_checkpoints(), 2, |w| {
        w.append(&[(B, PAGES * 4096)], &[(B, 2, Some(6))]).unwrap();
        settle(w);
    });
}

/// The first checkpoint of a dataset: without a header its files would be nobody's.
#[test]
fn of_a_group_that_had_none_before() {
    let mut w = open(SimDisk::default(), Model::default());
    w.append(&[(A, 2 * 4096)], &[(A, 1, Some(1))]).unwrap();
    settle(&w);
    w.disk.mark();
    w.store.checkpoint_all(&*w.source).unwrap();
    crash_twice(&w, 1, |_| {});
}
