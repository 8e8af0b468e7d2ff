//! A member that comes back goes back to what it knows to be committed, then takes what the set went on with.
//! Fault guarded against: records that were void coming back from the log, whole or under others of their LSNs.

use dspm_proto::*;

use super::simdisk::{SimDisk, Unsynced};
use super::support::*;
use crate::{Fence, Lookup};

const MEMORY: u64 = 1 << 20;
const D: DatasetId = DatasetId(1);
const PAGES: u64 = 12;

fn write(w: &mut World, n: u64) {
    let size = if n % 10 == 4 { 7 } else { PAGES };
    let writes = [(D, n % 7, Some(n as u8 + 1)), (D, (n + 3) % 7, (n % 3 > 0).then_some(n as u8 + 100))];
    w.append(&[(D, size * 4096)], &writes).unwrap();
}

fn cut(w: &mut World, to: Lsn) {
    w.with(|g| g.cut(to).unwrap());
    w.model.records.truncate(to.0 as usize);
    let generation = Generation(w.with(|g| g.fence()).generation.0 + 1);
    w.with(|g| g.set_fence(Fence { generation, token: Token { generation, boot: 1, n: 1 } }));
}

/// Records 1 to 3 are committed and in a checkpoint or not, 4 to 6 are in the synced log, 7 is in memory only. Where it
/// shrinks, the fifth does.
fn member(checkpoint: bool, shrinks: bool) -> World {
    let from = if shrinks { 0 } else { 10 + 5 };
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    (0..3).for_each(|n| write(&mut w, from + n));
    w.with(|g| g.set_committed(Lsn(3)));
    w.flush();
    if checkpoint {
        w.with(|g| g.set_horizon(Lsn(3)));
        w.store.checkpoint_all(&*w.source).unwrap();
    }
    (3..6).for_each(|n| write(&mut w, from + n));
    w.flush();
    write(&mut w, from + 6);
    w
}

fn restarted(w: World) -> World {
    let World { dir, disk, store, source, model, .. } = w;
    drop((store, source));
    let w = World::open_in(dir, disk, MEMORY, model);
    assert!(w.opened.memory_kept && w.opened.log_intact, "{:?}", w.opened.reason);
    w
}

/// The disk alone, after a crash at every operation since the mark: one of these histories, the new one where it was
/// flushed, and nothing of two.
fn power_goes(w: &World, old: &Model, flushed: &[(usize, Lsn)]) {
    for op in 0..=w.disk.ops() {
        let len = w.disk.write_len(op).unwrap_or(0);
        let held = flushed.iter().rev().find(|f| f.0 <= op).map(|f| f.1);
        let kept = [0, 64, len / 2, len].map(|b| (b.min(len), Unsynced::Kept));
        let other = [(0, Unsynced::Lost), (len, Unsynced::Mixed(op as u64)), (len, Unsynced::Mixed(op as u64 + 99))];
        for (bytes, unsynced) in kept.into_iter().chain(other) {
            let what = format!("op {op} byte {bytes} {unsynced:?}");
            let again = World::open(w.disk.crashed(op, bytes, unsynced), MEMORY, Model::default());
            assert!(again.opened.log_intact, "{what}");
            let tail = again.with(|g| g.tail());
            let is = |m: &&Model| {
                m.records[..(tail.lsn.0 as usize).min(m.records.len())].last().is_some_and(|r| r.0 == tail)
            };
            let new = [&w.model].into_iter().find(is);
            let model = new.or([old].into_iter().find(is)).unwrap_or_else(|| panic!("{what}: {tail:?}"));
            assert!(held.is_none_or(|h| new.is_some() && tail.lsn >= h), "{what}: {tail:?} of {held:?}");
            let records = model.records[..tail.lsn.0 as usize].to_vec();
            again.with(|g| Model { records, ..Model::default() }.check(g, 1, PAGES));
        }
    }
}

#[test]
fn back_to_what_is_committed_and_on_with_others() {
    for (checkpoint, restart, upto) in
        [(false, false, 3), (false, true, 3), (true, false, 3), (true, true, 3), (true, true, 6), (false, false, 6)]
    {
        let mut w = member(checkpoint, true);
        w.with(|g| g.set_committed(Lsn(upto))); // 6: committed, flushed and the cut are one
        if restart {
            w = restarted(w);
        }
        let old = w.model.clone();
        w.disk.mark();
        cut(&mut w, Lsn(upto));
        w.check(1, PAGES);
        // Nothing follows for a while, and the log hears of it all the same.
        w.flush();
        let mut flushed = vec![(w.disk.ops(), Lsn(upto))];
        let alone = World::open(w.disk.copy(), MEMORY, w.model.clone());
        alone.check(1, PAGES);
        for n in 22..26 {
            write(&mut w, n);
            w.flush();
            flushed.push((w.disk.ops(), w.with(|g| g.flushed())));
        }
        w.check(1, PAGES);
        power_goes(&w, &old, &flushed);
        let w = restarted(w);
        w.check(1, PAGES);
        w.with(|g| g.set_committed(g.tail().lsn));
        w.with(|g| g.set_horizon(g.tail().lsn));
        w.store.checkpoint_all(&*w.source).unwrap();
        World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, PAGES);
    }
}

/// With the memory lost only the checkpoint is known to be committed.
#[test]
fn back_to_the_checkpoint_when_the_memory_is_lost() {
    for checkpoint in [false, true] {
        let w = member(checkpoint, !checkpoint);
        let mut model = w.model.clone();
        model.records.truncate(6);
        let mut w = World::open(w.disk.copy(), MEMORY, model);
        let to = w.with(|g| g.committed());
        assert_eq!(to, Lsn(if checkpoint { 3 } else { 0 }));
        let old = w.model.clone();
        w.disk.mark();
        cut(&mut w, to);
        assert_eq!(w.with(|g| g.horizon()), to, "its tail can be read");
        w.check(1, PAGES);
        for n in 33..36 {
            write(&mut w, n);
        }
        w.flush();
        w.check(1, PAGES);
        power_goes(&w, &old, &[(w.disk.ops(), w.model.tail())]);
        restarted(w).check(1, PAGES);
    }
}

/// A checkpoint was under way when the power went: its base file has, or may have cut off, what is void now.
#[test]
fn not_behind_what_a_checkpoint_began_to_write() {
    let mut w = member(true, false);
    w.with(|g| {
        g.set_committed(Lsn(6));
        g.set_horizon(Lsn(6));
    });
    w.model.records.truncate(6);
    w.disk.mark();
    w.store.checkpoint_all(&*w.source).unwrap();
    let (mut refused, mut done) = (0, 0);
    for op in 0..=w.disk.ops() {
        for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Mixed(op as u64)] {
            let mut again = World::open(w.disk.crashed(op, usize::MAX, unsynced), MEMORY, w.model.clone());
            let to = again.with(|g| g.committed());
            if to == Lsn(6) {
                continue; // it was finished
            }
            match again.with(|g| g.cut(to)) {
                Err(Error::TooOld(_)) => refused += 1,
                Err(e) => panic!("{e}"),
                Ok(()) => {
                    done += 1;
                    again.model.records.truncate(to.0 as usize);
                    check_unless_damaged(&again);
                }
            }
        }
    }
    assert!(refused > 0, "{refused} refused, {done} done");
}

/// A checkpoint that was under way may have cut the base file off where a record did: that leaves no trace in it.
#[test]
fn not_behind_what_a_record_cut_off() {
    let w = World::open(member(true, true).disk.copy(), MEMORY, Model::default());
    assert!(matches!(w.with(|g| g.cut(Lsn(3))), Err(Error::TooOld(_))));
}

/// A torn page of the base file is found by its checksum, and is another member's to repair.
fn check_unless_damaged(w: &World) {
    let at = w.model.tail();
    for page in 0..PAGES {
        let found = w.with(|g| match g.lookup(D, PageNo(page), at) {
            Lookup::Disk { .. } => {
                let mut out = [0; PAGE_SIZE];
                g.base_reader(D).unwrap().read(PageNo(page), at, &mut out).map(|_| out[17]).ok()
            }
            _ => read(g, D, page, at).map(|r| r.1),
        });
        assert!(found.is_none_or(|f| f == w.model.page(D, page, at).1), "page {page} at {at}: {found:?}");
    }
}
