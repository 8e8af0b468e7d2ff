//! Random lives of a group on a disk: appends, flushes, checkpoints, eviction, cuts, process and power failures,
//! compared with the model after each step. Fault guarded against: one of them undoing what another relies on.

use dspm_proto::*;
use proptest::prelude::*;

use super::simdisk::{SimDisk, Unsynced};
use super::support::*;
use crate::Fence;

const MEMORY: u64 = 1 << 20;
const PAGES: u64 = 30;

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u64, u64, Option<u8>)>, Option<u64>, Part),
    /// The prepared tail is committed, or not.
    Resolve(bool),
    /// Nobody will ask about the decision at the tail.
    Close,
    Commit(u64),
    Horizon(u64),
    Cut(u64),
    Flush,
    Checkpoint,
    Evict,
    Shrink,
    Restart,
    /// With what becomes of unsynced sectors.
    PowerLoss(u64),
    /// In the middle of a checkpoint.
    PowerLossIn(u8, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let write = (1u64..3, 0..PAGES, prop_oneof![4 => (1u8..=255).prop_map(Some), 1 => Just(None)]);
    let write2 = write.clone();
    prop_oneof![
        10 => (proptest::collection::vec(write, 0..6), proptest::option::weighted(0.2, 0..PAGES))
            .prop_map(|(w, s)| Op::Append(w, s, Part::Alone)),
        4 => (proptest::collection::vec(write2, 0..6), proptest::option::weighted(0.3, 0..PAGES), any::<bool>())
            .prop_map(|(w, s, d)| Op::Append(w, s, if d { Part::Decides } else { Part::Prepared })),
        4 => any::<bool>().prop_map(Op::Resolve),
        1 => Just(Op::Close),
        4 => (0u64..3).prop_map(Op::Commit),
        3 => (0u64..4).prop_map(Op::Horizon),
        1 => (0u64..4).prop_map(Op::Cut),
        4 => Just(Op::Flush),
        3 => Just(Op::Checkpoint),
        2 => Just(Op::Evict),
        1 => Just(Op::Shrink),
        1 => Just(Op::Restart),
        1 => any::<u64>().prop_map(Op::PowerLoss),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(a, b)| Op::PowerLossIn(a, b)),
    ]
}

fn append(w: &mut World, mut writes: Vec<(u64, u64, Option<u8>)>, resize: Option<u64>, part: Part) {
    if w.model.part(w.model.tail()) == Part::Prepared {
        return; // nothing but its resolution may follow
    }
    writes.sort();
    writes.dedup_by_key(|w| (w.0, w.1));
    let mut sizes = w.model.sizes(w.model.tail());
    for d in 1..3 {
        let size = sizes.entry(DatasetId(d)).or_default();
        let top = writes.iter().filter(|w| w.0 == d).map(|w| w.1 + 1).max().unwrap_or(0) * 4096;
        *size = if let (Some(r), 1) = (resize, d) { (r * 4096).max(top) } else { (*size).max(top) };
    }
    let sizes: Vec<_> = sizes.into_iter().collect();
    let writes: Vec<_> = writes.into_iter().map(|w| (DatasetId(w.0), w.1, w.2)).collect();
    match w.append_of(&sizes, &writes, part) {
        Ok(()) | Err(Error::Full(_)) => {}
        Err(e) => panic!("{e}"),
    }
}

/// One that aborts is refused before the log has what it takes back.
fn resolve(w: &mut World, committed: bool) {
    if w.model.part(w.model.tail()) != Part::Prepared {
        return;
    }
    let part = if committed { Part::Alone } else { Part::Aborts };
    let unlogged = w.with(|g| g.flushed() < g.tail().lsn);
    match w.append_of(&[], &[], part) {
        Err(Error::Full(_)) if part == Part::Aborts => assert!(unlogged),
        done => done.unwrap(),
    }
}

/// A prepared record is never the newest committed one: replicas see to it.
fn committable(w: &World, lsn: Lsn) -> Lsn {
    if w.model.part(lsn) == Part::Prepared { Lsn(lsn.0 - 1) } else { lsn }
}

fn cut(w: &mut World, to: Lsn) {
    let done = w.with(|g| {
        g.cut(to).is_ok().then(|| {
            let generation = Generation(g.fence().generation.0 + 1);
            g.set_fence(Fence { generation, token: Token { generation, boot: 1, n: 1 } });
        })
    });
    if done.is_some() {
        w.model.truncate(to);
    }
}

/// The memory is gone, and the disk is this one.
fn power_loss(w: World, disk: SimDisk) -> World {
    let least = w.with(|g| g.flushed());
    let mut again = World::open(disk, MEMORY, w.model.clone());
    assert!(again.opened.log_intact, "{:?}", again.opened.reason);
    let tail = again.with(|g| g.tail().lsn);
    assert!(tail >= least, "{tail} is left of {least}");
    again.model.truncate(tail);
    if again.model.part(tail) == Part::Prepared {
        assert!(again.with(|g| g.horizon()) < tail, "what is before a prepared record cannot be read");
    }
    again
}

fn apply(mut w: World, op: Op) -> World {
    let tail = w.model.tail().0;
    let back = |n: u64| Lsn(tail.saturating_sub(n));
    match op {
        Op::Append(writes, resize, part) => append(&mut w, writes, resize, part),
        Op::Resolve(committed) => resolve(&mut w, committed),
        Op::Close => {
            if w.model.part(back(0)) == Part::Decides {
                w.with(|g| g.close(back(0)));
                w.model.closed = back(0);
            }
        }
        Op::Commit(n) => w.with(|g| g.set_committed(committable(&w, back(n)))),
        Op::Horizon(n) => w.with(|g| g.set_horizon(back(n))),
        Op::Cut(n) => cut(&mut w, back(n)),
        Op::Flush => w.flush(),
        Op::Checkpoint => w.store.checkpoint_all(&*w.source).unwrap(),
        Op::Evict => drop(w.store.evict(&*w.source, usize::MAX)),
        Op::Shrink => w.with(|g| g.shrink()),
        Op::Restart => {
            let World { dir, disk, store, source, model, .. } = w;
            drop((store, source));
            let w = World::open_in(dir, disk, MEMORY, model);
            assert!(w.opened.memory_kept && w.opened.log_intact, "{:?}", w.opened.reason);
            return w;
        }
        Op::PowerLoss(seed) => {
            w.flush();
            let (disk, ops) = (w.disk.clone(), w.disk.ops());
            return power_loss(w, disk.crashed(ops, 0, Unsynced::Mixed(seed)));
        }
        Op::PowerLossIn(part, seed) => {
            w.flush();
            w.disk.mark();
            w.store.checkpoint_all(&*w.source).unwrap();
            let op = w.disk.ops() * part as usize / 256;
            let cut = seed as usize % (w.disk.write_len(op).unwrap_or(0) + 1);
            let disk = w.disk.crashed(op, cut, Unsynced::Mixed(seed));
            return power_loss(w, disk);
        }
    }
    w
}

proptest! {
    #[test]
    fn a_life_on_disk_equals_its_model(ops in proptest::collection::vec(op(), 1..70)) {
        let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
        for op in ops {
            w = apply(w, op);
            w.check(2, PAGES);
        }
    }
}

#[test]
fn shrinking_survives_a_checkpoint_behind_a_power_loss() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    let lives = [
        Op::Append(vec![(1, 13, Some(1))], None, Part::Alone),
        Op::Append(vec![], Some(0), Part::Alone),
        Op::PowerLoss(0),
        Op::Commit(0),
        Op::Checkpoint,
    ];
    for op in lives {
        w = apply(w, op);
        w.check(2, PAGES);
    }
}

#[test]
fn records_that_another_member_may_lack_can_be_sent_after_a_power_loss() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    for fill in 1..5 {
        append(&mut w, vec![(1, 3, Some(fill))], None, Part::Alone);
    }
    for op in [Op::PowerLoss(0), Op::Restart] {
        w = apply(w, op);
        w.check(2, PAGES);
        for lsn in 1..5 {
            assert!(w.with(|g| g.record(Lsn(lsn))).is_some_and(|r| r.is_complete()), "record {lsn}");
        }
    }
    for op in [Op::Commit(0), Op::Horizon(0), Op::Checkpoint, Op::Evict, Op::PowerLoss(1)] {
        w = apply(w, op);
        w.check(2, PAGES);
    }
}
