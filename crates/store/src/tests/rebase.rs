//! A group that is rebased, and the base that comes. Fault guarded against: zeros or old pages in place of what has not
//! come, records of before that come back, a log that is never shortened again.

use dspm_proto::*;

use super::joining::*;
use super::support::*;
use crate::Lookup;

const A: DatasetId = DatasetId(1);
const B: DatasetId = DatasetId(2);

fn size(pages: u64) -> u64 {
    pages * PAGE_SIZE as u64
}

/// A member that holds some of the history, partly in base files, and has missed the rest.
fn behind() -> Pair {
    let mut p = Pair::new();
    p.commit(&[(A, size(20)), (B, size(6))], &[(A, 0, Some(1)), (A, 19, Some(2)), (B, 5, Some(3))]);
    p.commit(&[(A, size(20))], &[(A, 7, Some(4))]);
    assert!(p.catch_up());
    checkpoint(&p);
    p.commit(&[(A, size(20))], &[(A, 8, Some(5))]);
    assert!(p.catch_up());
    p.member.flush();
    p.commit(&[(A, size(22)), (B, size(6))], &[(A, 7, Some(6)), (A, 21, Some(7)), (B, 5, None)]);
    p.commit(&[(A, size(22))], &[(A, 1, Some(8))]);
    p
}

fn checkpoint(p: &Pair) {
    p.member.with(|g| g.set_committed(g.tail().lsn));
    p.member.flush();
    p.member.with(|g| g.set_horizon(g.tail().lsn));
    p.member.store.checkpoint_all(&*p.member.source).unwrap();
}

fn is_whole(p: &Pair) -> bool {
    p.member.with(|g| g.is_whole())
}

/// What a base stands at is known by its hash alone: once all memories are lost nobody would know that somebody may ask.
#[test]
fn a_base_does_not_stand_at_an_open_decision() {
    let mut p = behind();
    p.rebase();
    p.member.flush();
    p.commit_of(&[(A, size(22))], &[(A, 3, Some(30))], Part::Decides);
    assert!(p.catch_up());
    let decision = p.tail();
    assert!(matches!(p.begin(decision.lsn), Err(Error::Busy(_))));
    p.bring_base(Lsn(decision.lsn.0 - 1)).unwrap();
    assert!(is_whole(&p));
    p.member.with(|g| g.set_committed(decision.lsn));
    p.member.flush();
    p.member.with(|g| g.set_horizon(decision.lsn));
    p.member.store.checkpoint_all(&*p.member.source).unwrap();
    let disk = p.member.disk.copy();
    let p = p.with_disk(disk);
    assert_eq!(p.tail(), decision);
    p.member.with(|g| assert_eq!((g.part(decision.lsn), g.links(decision.lsn).len()), (Part::Decides, 1)));
    p.check();
}

#[test]
fn a_base_may_stand_at_a_decision_that_nobody_asks_about() {
    let mut p = behind();
    p.rebase();
    p.member.flush();
    p.commit_of(&[(A, size(22))], &[(A, 3, Some(30))], Part::Decides);
    assert!(p.catch_up());
    let decision = p.tail().lsn;
    p.member.with(|g| g.close(decision));
    p.model.closed = decision;
    p.bring_base(decision).unwrap();
    assert!(is_whole(&p));
    p.check();
}

/// The primary keeps the snapshot that was begun with no longer. What it changed since is here as records; nothing between
/// the two is a state that could be shown, and nothing newer than the log may be in the base when the memory goes.
#[test]
fn a_base_goes_on_with_a_newer_snapshot() {
    for memory_lost in [false, true] {
        let mut p = behind();
        p.rebase();
        p.member.flush();
        let begun = p.tail().lsn;
        let mut w = p.begin(begun).unwrap();
        let first: Vec<_> = p.base_at(begun).1.into_iter().filter(|page| page.1 < 8).collect();
        p.write(&mut w, &first).unwrap();
        // A page that is written and two that are not, one of them to zeros; shrinking and growing again.
        p.commit(&[(A, size(20))], &[(A, 7, Some(60)), (A, 8, Some(61)), (A, 19, None)]);
        p.commit(&[(A, size(22))], &[(A, 20, Some(62))]);
        assert!(p.catch_up());
        let newer = p.tail();
        assert!(matches!(w.write(A, PageNo(8), Lsn(begun.0 + 1), &[61; PAGE_SIZE]), Err(Error::Usage(_))));
        p.member.with(|g| w.go_on(g, newer)).unwrap();
        assert!(matches!(p.member.with(|g| w.go_on(g, p.record_at(begun))), Err(Error::Usage(_))));
        let rest: Vec<_> = p.base_at(newer.lsn).1.into_iter().filter(|page| page.1 >= 8).collect();
        p.write(&mut w, &rest).unwrap();
        assert!(matches!(w.finish(&*p.member.source), Err(Error::Busy(_))), "the log does not have them yet");
        assert!(!is_whole(&p) && p.member.with(|g| g.cut(begun)).is_err());
        p.member.flush();
        w.finish(&*p.member.source).unwrap();
        assert!(is_whole(&p) && p.member.with(|g| g.horizon()) == newer.lsn);
        assert_eq!(p.member.with(|g| g.lookup(A, PageNo(0), begun)), Lookup::TooOld);
        p.check();
        drop(w);
        let disk = p.member.disk.copy();
        let mut p = if memory_lost { p.with_disk(disk) } else { p.restarted() };
        p.check();
        p.commit(&[(A, size(22))], &[(A, 9, Some(63))]);
        assert!(p.catch_up());
        checkpoint(&p);
        p.check();
    }
}

#[test]
fn a_member_joins() {
    let mut p = behind();
    p.member.with(|g| g.set_session(Session { client: ClientId(5), number: 3 }).unwrap());
    let (fence, used) = (p.member.with(|g| g.fence()), p.member.store.usage().used);
    p.rebase();
    let tail = p.primary.tail();
    p.member.with(|g| {
        assert_eq!((g.tail(), g.committed(), g.flushed(), g.is_whole()), (tail, tail.lsn, tail.lsn, false));
        assert_eq!((g.fence(), g.session_number(ClientId(5)), g.newest_of(ClientId(1))), (fence, 3, None));
        assert!((0..22).all(|n| g.lookup(A, PageNo(n), tail.lsn) == Lookup::TooOld), "nothing is zeros yet");
        assert!(g.keeps_from(tail.lsn.next()) && !g.keeps_from(tail.lsn));
    });
    assert!(p.member.store.usage().used < used && p.member.store.usage().dirty == 0);
    // Files of before have the same names: they go first, when the log knows.
    assert!(matches!(p.begin(tail.lsn), Err(Error::Busy(_))));
    assert_eq!(p.member.disk.files("base/").len(), 4);
    p.member.flush();
    assert!(p.member.disk.files("base/").is_empty());

    let (sizes, pages) = p.base_at(tail.lsn);
    let mut w = p.begin(tail.lsn).unwrap();
    assert!(matches!(p.begin(tail.lsn), Err(Error::Busy(_))), "one at a time");
    p.write(&mut w, &pages[..pages.len() / 2]).unwrap();
    // Meanwhile: a page of the base and one that is not, shrinking below the base's end, growing again, zeros.
    p.commit(&[(A, size(10))], &[(A, 7, Some(40)), (A, 8, None)]);
    p.commit(&[(A, size(22))], &[(A, 20, Some(41))]);
    assert!(p.catch_up());
    p.member.with(|g| {
        g.set_committed(g.tail().lsn);
        assert!(g.keeps_from(tail.lsn.next()));
        assert!(matches!(g.lookup(A, PageNo(7), g.tail().lsn), Lookup::Frame { .. }), "its records wrote that one");
        assert_eq!(g.lookup(A, PageNo(0), g.tail().lsn), Lookup::TooOld);
    });
    p.member.flush();
    p.member.with(|g| g.set_horizon(g.tail().lsn));
    assert_eq!(p.member.with(|g| g.flushed()), p.tail().lsn, "records go to the log as usual");
    p.member.store.checkpoint_all(&*p.member.source).unwrap();
    assert!(!is_whole(&p) && sizes.len() == 2, "that was no checkpoint");
    p.write(&mut w, &pages[pages.len() / 2..]).unwrap();
    w.finish(&*p.member.source).unwrap();
    drop(w);
    assert!(is_whole(&p));
    p.check();
    assert_eq!(p.member.with(|g| g.lookup(A, PageNo(0), Lsn(tail.lsn.0 - 1))), Lookup::TooOld);

    let mut p = p.restarted();
    p.check();
    p.commit(&[(A, size(22)), (B, size(9))], &[(A, 15, Some(50)), (B, 8, Some(51))]);
    assert!(p.catch_up());
    p.check();
    checkpoint(&p);
    p.check();
    let disk = p.member.disk.copy();
    let p = p.with_disk(disk);
    assert!(is_whole(&p) && p.tail() == p.primary.tail());
    p.check();
}

#[test]
fn it_is_not_whole_after_any_restart() {
    let mut p = behind();
    p.rebase();
    for round in 0..3u8 {
        p = p.restarted();
        assert!(!is_whole(&p), "round {round}");
        p.commit(&[(A, size(22))], &[(A, u64::from(round), Some(60 + round))]);
        assert!(p.catch_up());
        p.member.flush();
        p.check();
    }
    let disk = p.member.disk.copy();
    let mut p = p.with_disk(disk);
    assert!(!is_whole(&p));
    assert_eq!(p.tail(), p.primary.tail(), "its records were flushed");
    p.check();
    p.member.flush();
    p.commit(&[(A, size(22))], &[(A, 3, Some(70))]);
    assert!(p.catch_up());
    // A later record than the rebased tail may be the base's.
    p.bring_base(Lsn(p.tail().lsn.0 - 1)).unwrap();
    assert!(is_whole(&p));
    p.check();
    p.restarted().check();
}

#[test]
fn what_the_ring_gave_up_is_not_needed_for_the_base() {
    let mut p = behind();
    p.rebase();
    p.member.flush();
    let at = p.tail().lsn;
    for n in 0..300u64 {
        let pages = if n % 7 == 6 { 12 } else { 22 };
        p.commit(&[(A, size(pages))], &[(A, n % 12, Some(n as u8 | 1)), (A, (n + 5) % 12, None)]);
        assert!(p.catch_up());
        if n % 20 == 19 {
            p.member.with(|g| g.set_committed(g.tail().lsn));
            p.member.flush();
            p.member.with(|g| {
                g.set_horizon(g.tail().lsn);
                g.shrink();
            });
        }
    }
    assert!(p.member.with(|g| g.oldest_record()) > Lsn(at.0 + 100), "the ring is bounded");
    let p = p.restarted();
    p.check();
    p.member.flush();
    p.bring_base(at).unwrap();
    assert!(is_whole(&p));
    p.check();
    let p = p.restarted();
    p.check();
    checkpoint(&p);
    let disk = p.member.disk.copy();
    p.with_disk(disk).check();
}

#[test]
fn a_base_that_does_not_fit_is_refused() {
    let p = behind();
    let store = p.member.store.clone();
    let begin = |at: RecordId, sizes: &[(DatasetId, u64)]| p.member.with(|g| store.begin_base(g, at, sizes).err());
    assert!(matches!(begin(p.tail(), &[]), Some(Error::Usage(_))), "it is whole");
    p.rebase();
    p.member.flush();
    let tail = p.tail();
    let other = RecordId { hash: tail.hash ^ 1, ..tail };
    assert!(matches!(begin(other, &[]), Some(Error::Usage(_))));
    assert!(matches!(begin(RecordId { lsn: tail.lsn.next(), ..tail }, &[]), Some(Error::Usage(_))));
    assert!(matches!(begin(p.record_at(Lsn(2)), &[]), Some(Error::Usage(_))), "its records are gone");
    let mut w = p.begin(tail.lsn).unwrap();
    assert!(matches!(w.write(A, PageNo(22), Lsn(1), &[1; PAGE_SIZE]), Err(Error::Usage(_))));
    assert!(matches!(w.write(A, PageNo(0), tail.lsn.next(), &[1; PAGE_SIZE]), Err(Error::Usage(_))));
    assert!(matches!(w.write(DatasetId(9), PageNo(0), Lsn(1), &[1; PAGE_SIZE]), Err(Error::Usage(_))));
    assert!(matches!(w.write(A, PageNo(0), Lsn(0), &[1; PAGE_SIZE]), Err(Error::Usage(_))));
    drop(w);
    assert!(p.member.disk.files("base/").is_empty());
}

#[test]
fn records_that_contradict_the_base_are_told() {
    let mut p = behind();
    p.rebase();
    p.member.flush();
    p.commit(&[(B, size(7))], &[]);
    assert!(p.catch_up());
    let (store, at) = (p.member.store.clone(), p.tail());
    let begin = |sizes: &[(DatasetId, u64)]| p.member.with(|g| store.begin_base(g, at, sizes).err());
    assert!(matches!(begin(&[(A, size(22)), (B, size(6))]), Some(Error::Corrupt(_))));
    assert!(matches!(begin(&[(A, size(22))]), Some(Error::Corrupt(_))));
    assert!(begin(&[(A, size(22)), (B, size(7))]).is_none());
}

#[test]
fn a_full_disk_only_delays_the_base() {
    let p = behind();
    p.rebase();
    p.member.flush();
    let at = p.tail().lsn;
    let (_, pages) = p.base_at(at);
    let mut w = p.begin(at).unwrap();
    p.member.disk.set_space(Some(p.member.disk.used() + 3 * 4096));
    let full = pages.iter().find(|b| matches!(p.write(&mut w, &[**b]), Err(Error::Full(_))));
    let from = pages.iter().position(|b| Some(b) == full).expect("it never filled");
    assert!(matches!(p.write(&mut w, &pages[from..]), Err(Error::Full(_))));
    p.member.disk.set_space(None);
    p.write(&mut w, &pages[from..]).unwrap();
    w.finish(&*p.member.source).unwrap();
    assert!(is_whole(&p) && !p.member.store.is_suspect());
    p.check();
}

#[test]
fn after_a_failed_sync_only_a_new_base_helps() {
    let p = behind();
    p.rebase();
    p.member.flush();
    let at = p.tail().lsn;
    let mut w = p.begin(at).unwrap();
    p.write(&mut w, &p.base_at(at).1).unwrap();
    p.member.disk.fail_sync(Some("base/"));
    assert!(w.finish(&*p.member.source).is_err());
    p.member.disk.fail_sync(None);
    assert!(matches!(w.finish(&*p.member.source), Err(Error::Failed(_))), "never tried again");
    assert!(!is_whole(&p));
    drop(w);
    p.bring_base(at).unwrap();
    p.check();
}

#[test]
fn a_writer_of_a_base_that_is_no_longer_wanted() {
    let mut p = behind();
    p.rebase();
    p.member.flush();
    let at = p.tail().lsn;
    let mut w = p.begin(at).unwrap();
    p.write(&mut w, &p.base_at(at).1).unwrap();
    p.commit(&[(A, size(22))], &[(A, 2, Some(80))]);
    p.rebase();
    p.member.flush();
    assert!(matches!(w.finish(&*p.member.source), Err(Error::NotFound(_))));
    assert!(matches!(p.begin(p.tail().lsn), Err(Error::Busy(_))));
    drop(w);
    p.bring_base(p.tail().lsn).unwrap();
    p.check();
}

#[test]
fn a_rebased_group_is_removed_like_any_other() {
    for base in [false, true] {
        let p = behind();
        p.rebase();
        p.member.flush();
        let mut w = p.begin(p.tail().lsn).unwrap();
        p.write(&mut w, &p.base_at(p.tail().lsn).1).unwrap();
        if base {
            w.finish(&*p.member.source).unwrap();
        }
        let g = p.member.source.groups.lock().unwrap().remove(&GROUP).unwrap();
        p.member.store.drop_group(g);
        assert!(base || matches!(w.finish(&*p.member.source), Err(Error::NotFound(_))));
        drop(w);
        p.member.flush();
        assert!(p.member.disk.files("base/").is_empty());
        assert_eq!(p.member.store.usage().ring, 0);
        let again = crate::Store::open_on(Dir::new().options(2 << 20), std::sync::Arc::new(p.member.disk.copy()));
        assert_eq!(again.unwrap().1.groups, 0);
    }
}

/// Of many records the segments are freed once a rebase made them void, though the group then rests.
#[test]
fn what_a_rebase_or_a_cut_made_void_does_not_hold_the_log() {
    for rebase in [false, true] {
        let mut p = behind();
        assert!(p.catch_up());
        checkpoint(&p);
        let kept = p.tail().lsn;
        for n in 0..400u64 {
            p.commit(&[(A, size(22))], &[(A, n % 20, Some(n as u8 | 1))]);
            assert!(p.catch_up());
            if n % 20 == 0 {
                p.member.flush();
            }
        }
        p.member.flush();
        let before = p.member.store.usage().log_bytes;
        p.lose(kept);
        if rebase {
            p.rebase();
        } else {
            p.member.with(|g| g.cut(kept).unwrap());
        }
        p.member.flush();
        if rebase {
            p.bring_base(kept).unwrap();
        }
        for again in [false, true] {
            p.member.store.checkpoint_all(&*p.member.source).unwrap();
            assert!(p.member.store.usage().log_bytes < before, "{before} bytes are held, {again}");
            p.check();
            if !again {
                let disk = p.member.disk.copy();
                p = p.with_disk(disk);
                p.check();
            }
        }
    }
}

/// Other groups fill the log and shorten it; the entry that says that this one is not whole stays until its base has come.
#[test]
fn the_log_keeps_a_rebase_until_the_base_has_come() {
    const C: DatasetId = DatasetId(9);
    let fill = |p: &Pair, other: GroupId| {
        let g = p.member.store.open_group(other).unwrap();
        p.member.source.groups.lock().unwrap().insert(other, g);
        for round in 0..12u8 {
            let writes: Vec<Write> = (0..100).map(|n| (C, n, Some(round + 1))).collect();
            let mut groups = p.member.source.groups.lock().unwrap();
            let g = groups.get_mut(&other).unwrap();
            append(&p.member.store, g, &[(C, size(100))], &writes).unwrap();
            g.set_committed(g.tail().lsn);
            drop(groups);
            p.member.flush();
            p.member.source.groups.lock().unwrap().get_mut(&other).unwrap().set_horizon(Lsn(u64::from(round) + 1));
            p.member.store.checkpoint_all(&*p.member.source).unwrap();
        }
    };
    let p = behind();
    p.rebase();
    p.member.flush();
    fill(&p, GroupId(78));
    let held = p.member.store.usage().log_bytes;
    let again = World::open(p.member.disk.copy(), 2 << 20, Model::default());
    again.with(|g| assert_eq!((g.tail(), g.is_whole()), (p.primary.tail(), false)));
    p.bring_base(p.tail().lsn).unwrap();
    p.member.store.checkpoint_all(&*p.member.source).unwrap();
    assert!(p.member.store.usage().log_bytes < held, "{held} bytes stay");
    let disk = p.member.disk.copy();
    let p = p.with_disk(disk);
    assert!(is_whole(&p));
    p.check();
}
