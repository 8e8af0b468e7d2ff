//! The flusher against failing, full and damaged disks. Fault guarded against: acknowledging what no disk holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dspm_proto::*;

use super::simdisk::SimDisk;
use super::support::*;
use crate::Lookup;

const MEMORY: u64 = 1 << 20;
const D: DatasetId = DatasetId(1);
const PAGES: u64 = 20;

fn write(w: &mut World, n: u64) {
    w.append(&[(D, PAGES * 4096)], &[(D, n % PAGES, Some((n % 255) as u8 + 1)), (D, (n + 3) % PAGES, None)]).unwrap();
}

fn world() -> World {
    World::open(SimDisk::default(), MEMORY, Model::default())
}

#[test]
fn what_is_flushed_comes_back_without_memory() {
    let mut w = world();
    for n in 0..10 {
        write(&mut w, n);
    }
    assert_eq!(w.store.usage().dirty, 10);
    w.flush();
    assert_eq!((w.flushed(), w.store.usage().dirty), (Lsn(10), 10), "another member may still lack them");
    w.with(|g| g.set_committed(g.tail().lsn));
    assert_eq!(w.store.usage().dirty, 0);
    write(&mut w, 10);
    let again = World::open(w.disk.copy(), MEMORY, w.model.upto(Lsn(10)));
    assert!(again.opened.log_intact && !again.opened.memory_kept);
    assert_eq!(again.opened.previous, w.opened.store);
    assert_eq!(again.opened.log_tails, vec![(GROUP, again.model.records[9].0)]);
    again.check(1, PAGES);
    let newest = w.model.records[9].0;
    again.with(|g| assert_eq!(g.newest_of(ClientId(1)), Some(newest), "of the records that the log still has"));
}

#[test]
fn the_largest_record_gets_a_segment_of_its_own() {
    const LARGE: u64 = 16 << 20;
    let mut w = World::open(SimDisk::default(), LARGE, Model::default());
    let pages = w.store.record_pages_max();
    let all: Vec<Write> = (0..pages).map(|p| (D, p, (p % 7 > 0).then_some((p % 255) as u8 + 1))).collect();
    for writes in [&all[..3], &all, &all[5..9]] {
        w.append(&[(D, pages * 4096)], writes).unwrap();
        w.flush();
    }
    let longest = w.disk.files("log/").iter().map(|f| f.1.len() as u64).max();
    assert!(longest > Some(pages * 4096 * 6 / 7), "{longest:?}");
    assert_eq!(w.flushed(), Lsn(3));
    let again = World::open(w.disk.copy(), LARGE, w.model.clone());
    assert!(again.opened.log_intact && !again.opened.memory_kept);
    again.check(1, pages);
}

#[test]
fn the_thread_flushes_in_time_and_when_asked() {
    let mut w = world();
    let flusher = w.store.start_flusher(w.source.clone()).unwrap();
    write(&mut w, 0);
    let until = Instant::now() + Duration::from_secs(10);
    while w.flushed() < Lsn(1) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(w.flushed(), Lsn(1));
    write(&mut w, 1);
    w.store.request_flush(GROUP, Lsn(2));
    drop(flusher);
    assert_eq!(w.flushed(), Lsn(2));
}

#[test]
fn a_failed_sync_makes_the_store_suspect_for_good() {
    for write_fails in [false, true] {
        let mut w = world();
        write(&mut w, 0);
        w.flush();
        if write_fails {
            w.disk.fail_write(Some("log/"))
        } else {
            w.disk.fail_sync(Some("log/"))
        };
        write(&mut w, 1);
        w.flush();
        assert!(w.store.is_suspect() && w.source.suspect.lock().unwrap().is_some());
        w.disk.fail_sync(None);
        w.disk.fail_write(None);
        w.flush();
        assert_eq!(w.flushed(), Lsn(1), "never tried again");
        let (id, World { dir, disk, store, source, .. }) = (w.store.id(), w);
        drop((store, source));
        let again = World::open_in(dir, disk, MEMORY, Model::default());
        assert!(!again.opened.memory_kept && again.opened.store != id && again.opened.former.is_empty());
    }
}

#[test]
fn a_full_disk_is_back_pressure() {
    let mut w = world();
    write(&mut w, 0);
    w.flush();
    w.disk.set_space(Some(w.disk.used() + 4096));
    let mut n = 1;
    let mut commit = |w: &mut World| {
        write(w, n);
        w.with(|g| {
            g.set_committed(g.tail().lsn);
            g.set_horizon(g.tail().lsn);
        });
        w.flush();
        n += 1;
        assert!(n < 2000, "the log never filled");
    };
    while w.store.shortage(1).is_none() {
        commit(&mut w);
    }
    assert_eq!(w.flushed(), w.model.tail(), "it shows before a record depends on it");
    assert!(w.store.shortage(1).is_some_and(|t| t.contains("disk has no room")), "{:?}", w.store.shortage(1));
    while w.flushed() == w.model.tail() {
        commit(&mut w); // of a node that does not heed it
    }
    assert!(!w.store.is_suspect());
    let image = World::open(w.disk.copy(), MEMORY, w.model.upto(w.flushed()));
    assert!(image.opened.log_intact);
    image.check(1, PAGES);
    w.disk.set_space(None);
    w.flush();
    assert!(!w.store.is_stalled());
    assert_eq!(w.flushed(), w.model.tail());
}

#[test]
fn the_arena_wins_and_the_log_follows() {
    let mut w = world();
    for n in 0..6 {
        write(&mut w, n);
    }
    w.flush();
    w.with(|g| {
        g.set_committed(Lsn(3));
        g.cut(Lsn(4)).unwrap();
    });
    w.model.records.truncate(4);
    let World { dir, disk, store, source, model, .. } = w;
    drop((store, source));
    let mut w = World::open_in(dir, disk, MEMORY, model);
    assert!(w.opened.memory_kept && w.opened.log_intact, "{:?}", w.opened);
    assert_eq!(w.with(|g| g.flushed()), Lsn(4));
    w.flush();
    World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, PAGES);
    write(&mut w, 90);
    w.flush();
    World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, PAGES);
}

#[test]
fn a_removed_group_stays_removed() {
    let mut w = world();
    write(&mut w, 0);
    w.with(|g| {
        g.set_committed(Lsn(1));
        g.set_horizon(Lsn(1));
    });
    w.flush();
    w.with(|g| g.set_horizon(Lsn(1)));
    w.store.checkpoint_all(&*w.source).unwrap();
    assert_eq!(w.disk.files("base/").len(), 2);
    let g = w.source.groups.lock().unwrap().remove(&GROUP).unwrap();
    w.store.drop_group(g);
    w.flush();
    assert!(w.disk.files("base/").is_empty());
    let (store, opened) = crate::Store::open_on(Dir::new().options(MEMORY), Arc::new(w.disk.copy())).unwrap();
    assert!(opened.groups == 0 && store.recovered_groups().is_empty());
}

#[test]
fn the_log_is_bounded_and_reused_segments_resurrect_nothing() {
    let mut w = world();
    for n in 0..3000 {
        write(&mut w, n);
        w.with(|g| {
            g.set_committed(g.tail().lsn);
            g.set_horizon(g.tail().lsn);
        });
        if n % 40 == 39 {
            w.flush();
            w.with(|g| g.set_horizon(g.tail().lsn));
        }
        if n % 120 == 119 {
            assert!(w.disk.files("log/").len() <= 8, "{} segments", w.disk.files("log/").len());
            let mut model = w.model.clone();
            model.records.truncate(w.flushed().0 as usize);
            let again = World::open(w.disk.copy(), MEMORY, model);
            assert!(again.opened.log_intact, "{:?}", again.opened.reason);
            again.check(1, PAGES);
        }
    }
}

#[test]
fn flipped_bits_of_the_log_are_never_served() {
    let mut w = world();
    let mut ends = Vec::new();
    for n in 0..6 {
        write(&mut w, n);
        w.flush();
        ends.push(w.store.log_end());
    }
    let (path, bytes) = w.disk.files("log/").into_iter().next().unwrap();
    let mut places: Vec<usize> = (4096..ends[5] as usize).step_by(211).collect();
    places.extend([0, 9, 20, 30, 35, 44]);
    for at in places.into_iter().filter(|at| *at < bytes.len()) {
        let again = World::open(w.disk.flipped(&path, at, (at % 8) as u8), MEMORY, Model::default());
        let tail = again.with(|g| g.tail().lsn).0 as usize;
        let before_last = at < ends[4] as usize;
        assert!(tail >= ends.iter().filter(|e| **e as usize <= at).count() || at < 4096);
        assert!(!before_last || !again.opened.log_intact || tail == 6, "byte {at}: damage taken for a torn tail");
        let model = w.model.upto(Lsn(tail as u64));
        again.with(|g| model.check(g, 1, PAGES));
        // What was damaged is written again, and the log is whole afterwards.
        again.flush();
        let third = World::open(again.disk.copy(), MEMORY, model);
        assert!(third.opened.log_intact, "byte {at}: {:?}", third.opened.reason);
        third.check(1, PAGES);
    }
}

#[test]
fn evicted_pages_are_read_from_the_base_file() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    let pages = 150;
    for n in 0..4 * pages {
        w.append(&[(D, pages * 4096)], &[(D, n % pages, Some(n as u8 | 1))]).unwrap();
        w.with(|g| {
            g.set_committed(g.tail().lsn);
            g.set_horizon(g.tail().lsn);
        });
        if n % 10 == 0 {
            w.flush();
        }
    }
    w.flush();
    w.with(|g| g.set_horizon(g.tail().lsn));
    w.store.checkpoint_all(&*w.source).unwrap();
    assert!(w.store.evict(&*w.source, 10_000) > 100);
    let at = w.model.tail();
    assert!(matches!(w.with(|g| g.lookup(D, PageNo(7), at)), Lookup::Disk { .. }));
    w.check(1, pages);
    w.append(&[(D, 4 * 4096)], &[(D, 1, None)]).unwrap();
    w.append(&[(D, pages * 4096)], &[(D, 100, Some(9))]).unwrap();
    w.check(1, pages);
    let World { dir, disk, store, source, model, .. } = w;
    drop((store, source));
    let w = World::open_in(dir, disk, MEMORY, model);
    assert!(w.opened.memory_kept);
    w.check(1, pages);
}

#[test]
fn real_files_bring_everything_back() {
    let dir = Dir::new();
    let (store, _) = dir.open(4 << 20);
    let source = Arc::new(Groups::default());
    source.groups.lock().unwrap().insert(GROUP, store.open_group(GROUP).unwrap());
    let flusher = store.start_flusher(source.clone()).unwrap();
    let mut model = Model::default();
    let (sizes, until) = ([(D, PAGES * 4096)], Instant::now() + Duration::from_secs(60));
    while model.tail() < Lsn(4000) {
        let n = model.tail().0;
        let writes = [(D, n % PAGES, Some((n % 251) as u8))];
        let mut groups = source.groups.lock().unwrap();
        let g = groups.get_mut(&GROUP).unwrap();
        match append(&store, g, &sizes, &writes) {
            Ok(r) => model.push(&r, &sizes, &writes),
            Err(Error::Full(_)) => {
                drop(groups);
                assert!(Instant::now() < until, "the flusher makes no room");
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(e) => panic!("{e}"),
        }
        g.set_committed(g.tail().lsn);
        g.set_horizon(g.tail().lsn);
    }
    drop(flusher);
    assert_eq!(source.flushed.lock().unwrap()[&GROUP], Lsn(4000));
    drop((store, source));
    std::fs::remove_file(dir.0.join("arena")).unwrap();
    let (store, opened) = dir.open(4 << 20);
    assert!(!opened.memory_kept && opened.log_intact, "{:?}", opened.reason);
    store.keep_name(opened.previous).unwrap();
    assert_eq!(store.id(), opened.previous);
    model.check(&store.open_group(GROUP).unwrap(), 1, PAGES);
}
