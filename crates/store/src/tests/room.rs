//! Who gets the last frames. Faults guarded against: a settle that waits for a commit's room, a commit that is refused
//! for room that nobody is going to make.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dspm_proto::*;

use super::simdisk::SimDisk;
use super::support::*;
use crate::{GroupStore, Store, StoreOptions};

const D: DatasetId = DatasetId(1);
const SIZE: u64 = 1 << 30;

/// Commits until there is no room; answers how many pages were written.
fn fill(store: &Store, g: &mut GroupStore) -> u64 {
    let pages = (0..).take_while(|i| append(store, g, &[(D, SIZE)], &[(D, *i, Some(1))]).is_ok());
    pages.count() as u64
}

fn settled(store: &Store, g: &mut GroupStore, writes: &[Write]) -> Result<(), Error> {
    let (r, meta) = record(g, &[(D, SIZE)], writes);
    let full = || Error::Full("arena".into());
    let frames = writes.iter().map(|_| store.alloc_settled().map(Some)).collect::<Option<Vec<_>>>().ok_or_else(full)?;
    g.append_settled(&r, &meta, frames)
}

#[test]
fn a_settle_finds_room_where_commits_do_not() {
    let dir = Dir::new();
    let (store, _) = dir.open(4 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    let n = fill(&store, &mut g);
    assert!(store.alloc().is_none() && store.usage().free == 0);
    settled(&store, &mut g, &[(D, n, Some(2))]).unwrap();
    assert_eq!(g.tail().lsn, Lsn(n + 1));
    // What keeps the store going has room still.
    g.set_session(Session { client: ClientId(3), number: 8 }).unwrap();
    while settled(&store, &mut g, &[(D, 0, Some(2))]).is_ok() {}
    g.set_session(Session { client: ClientId(3), number: 9 }).unwrap();
}

#[test]
fn frames_that_a_settle_claimed_are_not_given_to_commits() {
    let dir = Dir::new();
    let (store, _) = dir.open(4 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    let before = store.usage().free;
    store.claim(100);
    let held: Vec<_> = std::iter::from_fn(|| store.alloc()).collect();
    assert_eq!(held.len() as u64, before - 100);
    settled(&store, &mut g, &[(D, 1, Some(2))]).unwrap();
    assert!(store.alloc().is_some(), "the claim ends when it was served");
    drop(held);
}

#[test]
fn a_record_whose_pages_found_room_is_not_refused_for_its_entry() {
    let dir = Dir::new();
    let (store, _) = dir.open(8 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    let free = store.usage().free;
    let writes: Vec<Write> = (0..free).map(|p| (D, p, Some(3))).collect();
    append(&store, &mut g, &[(D, SIZE)], &writes).unwrap();
    assert_eq!((g.tail().lsn, store.usage().free), (Lsn(1), 0));
}

#[test]
fn history_is_what_readers_pin_and_nothing_else() {
    let dir = Dir::new();
    let (store, _) = dir.open(4 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    for n in 0..10 {
        append(&store, &mut g, &[(D, SIZE)], &[(D, 0, Some(n))]).unwrap();
    }
    assert_eq!(g.history_bytes(), 0, "not committed: no reader is to blame");
    g.set_committed(Lsn(10));
    assert_eq!(g.history_bytes(), 9 * 4096);
    assert!(store.is_history_full(store.options.history_max + 1) && !store.is_history_full(store.options.history_max));
    g.set_horizon(Lsn(10));
    assert_eq!(g.history_bytes(), 0);
}

/// Appends until the flusher, which nobody but the store wakes, has brought something to the log.
fn flushed_by_itself(fill: Option<u8>, most: u64) {
    let dir = Dir::new();
    let options = StoreOptions { flush_interval: Duration::from_secs(3600), ..dir.options(4 << 20) };
    let (store, _) = Store::open(options).unwrap();
    let source = Arc::new(Groups::default());
    source.groups.lock().unwrap().insert(GROUP, store.open_group(GROUP).unwrap());
    let flusher = store.start_flusher(source.clone()).unwrap();
    for n in 0..most {
        let mut groups = source.groups.lock().unwrap();
        let g = groups.get_mut(&GROUP).unwrap();
        append(&store, g, &[(D, SIZE)], &[(D, n, fill)]).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    while source.flushed.lock().unwrap().is_empty() {
        assert!(Instant::now() < until, "nobody woke the flusher");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(flusher);
}

#[test]
fn half_of_dirty_max_is_flushed_at_once() {
    flushed_by_itself(Some(1), (2 << 20) / 2 / PAGE_SIZE as u64);
}

#[test]
fn half_of_a_ring_is_flushed_at_once() {
    flushed_by_itself(None, 400); // zeros take no page, only the ring
}

#[test]
fn commits_wait_for_an_old_record() {
    let mut w = World::open(SimDisk::default(), 4 << 20, Model::default());
    w.append(&[(D, SIZE)], &[(D, 1, Some(1))]).unwrap();
    w.flush();
    assert_eq!(w.store.shortage(1), None);
    w.append(&[(D, SIZE)], &[(D, 2, Some(1))]).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while w.store.shortage(1).is_none() {
        assert!(Instant::now() < until, "an old record bothers nobody");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(w.store.shortage(1).is_some_and(|t| t.contains("flush_interval")));
    w.flush();
    assert_eq!(w.store.shortage(1), None);
}
