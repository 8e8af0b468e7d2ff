//! A crash in a rebase, while the base comes, and when it has come: at every store of the arena, and at every operation
//! on the disk. Fault guarded against: a mixture of two histories, and a group that calls itself whole and is not.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use dspm_proto::*;

use super::joining::*;
use super::simdisk::Unsynced;
use super::support::*;
use crate::step::HOOK;
use crate::{GroupStore, Store};

const A: DatasetId = DatasetId(1);

fn size(pages: u64) -> u64 {
    pages * PAGE_SIZE as u64
}

fn write(p: &mut Pair, n: u64) {
    let pages = if n % 5 == 4 { 9 } else { 20 };
    p.commit(
        &[(A, size(pages))],
        &[(A, n % 9, Some(n as u8 + 1)), (A, (n + 4) % 9, (n % 3 > 0).then_some(n as u8 + 100))],
    );
}

/// A member with a checkpoint and records behind it; the history goes on without it, or went another way.
fn member(diverged: bool) -> Pair {
    let mut p = Pair::new();
    for n in 0..6 {
        write(&mut p, n);
    }
    assert!(p.catch_up());
    p.member.with(|g| g.set_committed(Lsn(4)));
    p.member.flush();
    p.member.with(|g| g.set_horizon(Lsn(4)));
    p.member.store.checkpoint_all(&*p.member.source).unwrap();
    if diverged {
        p.lose(Lsn(2));
    }
    for n in 20..24 {
        write(&mut p, n);
    }
    p
}

/// What counts of a group.
#[derive(Debug, PartialEq)]
struct Facts {
    tail: RecordId,
    committed: Lsn,
    whole: bool,
    pages: Vec<Option<(Lsn, u8)>>,
}

fn facts(g: &GroupStore) -> Facts {
    let pages = (0..PAGES).map(|p| read(g, A, p, g.tail().lsn)).collect();
    Facts { tail: g.tail(), committed: g.committed(), whole: g.is_whole(), pages }
}

/// Runs an operation; at each step of it arena and disk are opened as another start would find them.
fn at_every_step(p: &Pair, op: impl FnOnce(), mut look: impl FnMut(&'static str, &World)) -> usize {
    let images = Rc::new(RefCell::new(Vec::new()));
    let (arena, disk, sink) = (p.member.dir.0.join("arena"), p.member.disk.clone(), images.clone());
    let hook = move |name| sink.borrow_mut().push((name, std::fs::read(&arena).unwrap(), disk.copy()));
    HOOK.with(|h| *h.borrow_mut() = Some(Box::new(hook)));
    op();
    HOOK.with(|h| *h.borrow_mut() = None);
    let images = images.take();
    let points = images.len();
    for (name, image, disk) in images {
        let dir = Dir::new();
        std::fs::write(dir.0.join("arena"), image).unwrap();
        let w = World::open_in(dir, disk, 2 << 20, Model::default());
        assert!(w.opened.memory_kept, "{name}: {:?}", w.opened.reason);
        let frames = w.store.arena.layout;
        let used = (0..frames.frames as usize).filter(|i| w.store.arena.meta(frames.frame(*i)).unwrap().is_some());
        assert_eq!(used.count() + w.store.arena.free_all(), frames.frames as usize, "{name}: a frame is lost");
        look(name, &w);
    }
    points
}

#[test]
fn a_rebase_is_all_or_nothing_in_memory() {
    for diverged in [false, true] {
        let p = member(diverged);
        for again in [false, true] {
            let before = p.member.with(|g| facts(g));
            let mut seen = Vec::new();
            let points = at_every_step(&p, || p.rebase(), |name, w| seen.push((name, w.with(|g| facts(g)))));
            let after = p.member.with(|g| facts(g));
            assert!(points >= 7 && !after.whole && before.whole != again, "{points} crash points");
            for (name, found) in seen {
                assert!(found == before || found == after, "{name}: {found:#?}");
            }
        }
    }
}

#[test]
fn a_group_that_never_had_a_record_is_rebased() {
    let mut p = Pair::new();
    write(&mut p, 0);
    let before = p.member.with(|g| facts(g));
    let mut seen = Vec::new();
    at_every_step(&p, || p.rebase(), |name, w| seen.push((name, w.with(|g| facts(g)))));
    let after = p.member.with(|g| facts(g));
    assert!(seen.iter().all(|(_, f)| *f == before || *f == after), "{seen:#?}");
}

#[test]
fn a_base_is_taken_or_still_to_come() {
    let mut p = member(false);
    p.rebase();
    p.member.flush();
    let at = p.tail().lsn;
    write(&mut p, 30);
    assert!(p.catch_up());
    let (mut whole, mut lacking) = (0, 0);
    let finish = || p.bring_base(at).unwrap();
    at_every_step(&p, finish, |name, w| {
        w.with(|g| check_member(g, &p.model));
        if w.with(|g| g.is_whole()) {
            whole += 1
        } else {
            lacking += 1
        }
        // It goes on from there, and its disk alone says the same.
        w.flush();
        let again = World::open(w.disk.copy(), 2 << 20, Model::default());
        assert_eq!(again.with(|g| g.is_whole()), w.with(|g| g.is_whole()), "{name}");
        again.with(|g| check_member(g, &p.model));
    });
    assert!(whole > 0, "{whole} and {lacking}");
    p.check();
}

/// The disk after a crash: the member is as it was before the rebase, or is on the new history; whole or not, it never
/// shows what it does not have. Then it gets its base, and power goes again.
fn look(p: &Pair, old: &Model, op: usize, bytes: usize, unsynced: Unsynced) -> bool {
    let what = || format!("op {op} byte {bytes} {unsynced:?}");
    let w = World::open(p.member.disk.crashed(op, bytes, unsynced), 2 << 20, Model::default());
    assert!(w.opened.log_intact, "{}: {:?}", what(), w.opened.reason);
    let tail = w.with(|g| g.tail());
    let holds = |m: &Model| tail.lsn <= m.tail() && m.records[..tail.lsn.0 as usize].last().is_none_or(|r| r.0 == tail);
    let model = [&p.model, old].into_iter().find(|m| holds(m)).unwrap_or_else(|| panic!("{}: {tail:?}", what()));
    w.with(|g| check_member(g, &model.upto(tail.lsn)));
    let is_new = w.with(|g| g.rebased_to().is_some() || tail.lsn > old.tail());
    // It joins again.
    w.with(|g| g.rebase(p.primary.tail()).unwrap());
    w.flush();
    let (sizes, pages) = p.base_at(p.primary.tail().lsn);
    let begun = w.with(|g| w.store.begin_base(g, p.primary.tail(), &sizes));
    let mut writer = begun.unwrap_or_else(|e| panic!("{}: {e}", what()));
    p.write(&mut writer, &pages).unwrap();
    writer.finish(&*w.source).unwrap();
    w.with(|g| check_member(g, &p.model));
    let last = World::open(w.disk.crashed(w.disk.ops(), 0, Unsynced::Lost), 2 << 20, Model::default());
    assert!(last.with(|g| g.is_whole()), "{}", what());
    last.with(|g| check_member(g, &p.model));
    is_new
}

fn everywhere(p: &Pair, old: &Model) -> (usize, usize) {
    let (mut new, mut all) = (0, 0);
    for op in 0..=p.member.disk.ops() {
        let len = p.member.disk.write_len(op).unwrap_or(0);
        let mut cuts = vec![0, 64, len / 2, len];
        cuts.retain(|c| *c <= len);
        cuts.dedup();
        let kept = cuts.into_iter().map(|c| (c, Unsynced::Kept));
        let mixed = (0..2).map(|seed| (len, Unsynced::Mixed(seed * 77 + op as u64)));
        for (bytes, unsynced) in kept.chain([(0, Unsynced::Lost)]).chain(mixed) {
            new += usize::from(look(p, old, op, bytes, unsynced));
            all += 1;
        }
    }
    (new, all)
}

#[test]
fn power_goes_while_a_member_joins() {
    for diverged in [false, true] {
        let mut p = member(false);
        let mut old = p.model.clone();
        old.records.truncate(6);
        if diverged {
            p.lose(Lsn(2));
            (24..28).for_each(|n| write(&mut p, n));
        }
        p.member.disk.mark();
        p.rebase();
        let at = p.tail().lsn;
        write(&mut p, 40);
        assert!(p.catch_up());
        p.member.flush();
        let (_, pages) = p.base_at(at);
        let mut w = p.begin(at).unwrap();
        p.write(&mut w, &pages).unwrap();
        write(&mut p, 41);
        assert!(p.catch_up());
        p.member.flush();
        w.finish(&*p.member.source).unwrap();
        p.member.with(|g| g.set_committed(g.tail().lsn));
        p.member.with(|g| g.set_horizon(g.tail().lsn));
        p.member.store.checkpoint_all(&*p.member.source).unwrap();
        let (new, all) = everywhere(&p, &old);
        assert!(new > 20 && all - new > 2, "{new} of {all}");
    }
}

/// The flush of what was appended before was under way: it stands in the log in front of the rebase, never behind.
#[test]
fn records_of_before_do_not_come_back() {
    let p = member(true);
    let ticket = p.member.with(|g| {
        g.cut(Lsn(5)).unwrap();
        g.ticket(1 << 20).unwrap()
    });
    p.rebase();
    p.member.with(|g| assert_eq!(g.ticket_done(&ticket), None, "what it wrote is void"));
    p.member.flush();
    let again = World::open(p.member.disk.copy(), 2 << 20, Model::default());
    again.with(|g| assert_eq!((g.tail(), g.is_whole()), (p.primary.tail(), false)));
}

/// A checkpoint of before was under way when the group was rebased.
#[test]
fn a_checkpoint_of_before_does_not_count() {
    let p = member(false);
    p.member.with(|g| {
        g.set_committed(Lsn(6));
        g.set_horizon(Lsn(6));
    });
    let dir = p.member.store.base_dir();
    let disk: Arc<dyn crate::Disk> = Arc::new(p.member.disk.clone());
    let new_file = |d| crate::base::BaseFile::new(disk.clone(), &dir, d);
    let work = p.member.with(|g| g.checkpoint_work(&new_file, false)).expect("there is something to write");
    p.rebase();
    let store: &Store = &p.member.store;
    let mut batch = crate::log::Batch::default();
    batch.checkpoint(GROUP, work.at, &[]);
    assert!(!store.write_of_life(&*p.member.source, GROUP, work.lives, batch).unwrap());
    p.member.flush();
    p.bring_base(p.tail().lsn).unwrap();
    p.check();
}
