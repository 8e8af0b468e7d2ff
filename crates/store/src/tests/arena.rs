//! Arena and pool: limits, sharing, locks, restarts.

use std::os::unix::fs::PermissionsExt;

use dspm_proto::*;

use super::support::*;
use crate::layout::ArenaHeader;
use crate::{GroupStore, Lookup, Store};

const D: DatasetId = DatasetId(1);

fn fill(store: &Store, g: &mut GroupStore) -> u64 {
    for i in 0.. {
        let (tail, free) = (g.tail(), store.usage().free);
        match append(store, g, &[(D, 1 << 30)], &[(D, i % 50, Some(i as u8))]) {
            Ok(_) => {}
            Err(Error::Full(_)) => {
                assert_eq!((g.tail(), store.usage().free), (tail, free), "nothing changed");
                return i;
            }
            Err(e) => panic!("{e}"),
        }
    }
    0
}

#[test]
fn a_full_arena_says_so_and_recovers_with_the_horizon() {
    let dir = Dir::new();
    let (store, _) = dir.open(1 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    let n = fill(&store, &mut g);
    assert!(n > 150, "{n}");
    g.set_horizon(g.tail().lsn);
    assert_eq!(fill(&store, &mut g), 0, "unconfirmed versions stay");
    // What settles and cuts has a reserve.
    g.set_session(Session { client: ClientId(3), number: 8 }).unwrap();
    g.set_committed(g.tail().lsn);
    g.set_horizon(g.tail().lsn);
    assert!(fill(&store, &mut g) > 100);
    g.cut(g.committed()).unwrap();
    assert!(fill(&store, &mut g) > 0);
}

#[test]
fn two_nodes_never_share_an_arena() {
    let dir = Dir::new();
    let (store, _) = dir.open(1 << 20);
    let e = Store::open(dir.options(1 << 20)).map(drop).unwrap_err();
    assert!(matches!(e, Error::Unavailable(ref t) if t.contains("in use")), "{e}");
    let mut other = dir.options(1 << 20);
    other.data_dir = dir.0.join("other");
    assert!(matches!(Store::open(other).map(drop), Err(Error::Unavailable(_))));
    let mode = std::fs::metadata(dir.0.join("arena")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
    dir.open(1 << 20);
}

/// A stopped node's memory may be all that is left of what was committed.
#[test]
fn a_new_node_takes_no_file_that_holds_something() {
    let dir = Dir::new();
    let (store, opened) = dir.open(1 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    append(&store, &mut g, &[(D, 4096)], &[(D, 0, Some(7))]).unwrap();
    drop((g, store));
    let mut other = dir.options(2 << 20);
    other.data_dir = dir.0.join("other");
    for _ in 0..2 {
        let e = Store::open(other.clone()).map(drop).unwrap_err();
        let whose = format!("is the memory of store {}, and", opened.store);
        assert!(matches!(e, Error::Usage(ref t) if t.contains(&whose) && t.contains("delete the file")), "{e}");
    }
    let (store, again) = dir.open(1 << 20);
    assert!(again.memory_kept && store.recovered_groups() == [GROUP]);
    drop(store);
    other.arena = dir.0.join("notes");
    std::fs::write(&other.arena, "what somebody wrote").unwrap();
    let e = Store::open(other.clone()).map(drop).unwrap_err();
    assert!(matches!(e, Error::Usage(ref t) if t.contains("no arena")), "{e}");
    assert_eq!(std::fs::read(&other.arena).unwrap(), b"what somebody wrote");
    std::fs::write(&other.arena, vec![0; 1 << 20]).unwrap(); // what a start that was cut short leaves
    assert!(Store::open(other).is_ok());
}

/// After a restart of the machine nothing can keep it, whosever it was.
#[test]
fn an_arena_of_before_the_machine_was_started_is_taken() {
    let dir = Dir::new();
    drop(dir.open(1 << 20));
    let path = dir.0.join("arena");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = ArenaHeader::decode(&bytes[..PAGE_SIZE]).unwrap();
    let (at, copy) = ArenaHeader { sequence: header.sequence + 1, kernel_boot: [9; 16], ..header }.encode();
    bytes[at..at + copy.len()].copy_from_slice(&copy);
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_dir_all(dir.0.join("data")).unwrap();
    assert!(!dir.open(1 << 20).1.memory_kept);
}

#[test]
fn boots_rise_and_the_store_id_stays_with_the_memory() {
    let dir = Dir::new();
    let (store, first) = dir.open(1 << 20);
    assert!(!first.memory_kept);
    assert_eq!(store.boot(), 1);
    drop(store);
    let (store, second) = dir.open(1 << 20);
    assert!(second.memory_kept);
    assert_eq!((second.boot, second.store), (2, first.store));
    drop(store);
    let (_, third) = dir.open(2 << 20);
    assert!(!third.memory_kept && third.store != first.store && third.previous == first.store);
}

#[test]
fn no_room_for_the_arena_is_an_error_at_start() {
    let dir = Dir::new();
    let e = Store::open(dir.options(1 << 50)).map(drop).unwrap_err();
    assert!(matches!(e, Error::Usage(_) | Error::Full(_) | Error::Unavailable(_)), "{e}");
    assert!(matches!(Store::open(dir.options(4096)).map(drop), Err(Error::Usage(_))));
}

#[test]
fn pinned_pages_outlive_their_version() {
    let dir = Dir::new();
    let (store, _) = dir.open(1 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    append(&store, &mut g, &[(D, 4096)], &[(D, 0, Some(7))]).unwrap();
    let Lookup::Frame { frame, .. } = g.lookup(D, PageNo(0), Lsn(1)) else { panic!() };
    let pinned = g.pin(frame);
    for i in 0..400u64 {
        append(&store, &mut g, &[(D, 4096)], &[(D, 0, Some(8))]).unwrap();
        g.set_committed(Lsn(i + 2));
        g.set_horizon(Lsn(i + 2));
        assert!(pinned.iter().all(|b| *b == 7));
    }
    let used = store.usage().used;
    drop(pinned);
    assert_eq!(store.usage().used, used - 1);
}

#[test]
fn a_dropped_group_leaves_nothing() {
    let dir = Dir::new();
    let (store, _) = dir.open(1 << 20);
    let mut g = store.open_group(GroupId(1)).unwrap();
    let empty = store.usage();
    for id in 2..20 {
        let mut g = store.open_group(GroupId(id)).unwrap();
        for i in 0..5 {
            append(&store, &mut g, &[(D, 1 << 20)], &[(D, i, Some(1)), (D, 9, None)]).unwrap();
        }
        store.drop_group(g);
    }
    let after = store.usage();
    assert!(after.used <= empty.used + 1, "{} {}", after.used, empty.used);
    assert_eq!((after.dirty, after.groups), (0, 1));
    append(&store, &mut g, &[(D, 1 << 20)], &[(D, 1, Some(1))]).unwrap();
    assert!(matches!(store.open_group(GroupId(1)).map(drop), Err(Error::Busy(_))));
}

#[test]
fn groups_are_used_from_different_threads_at_once() {
    let dir = Dir::new();
    let (store, _) = dir.open(4 << 20);
    std::thread::scope(|s| {
        for id in 1..5 {
            let store = &store;
            s.spawn(move || {
                let mut g = store.open_group(GroupId(id)).unwrap();
                for i in 0..2000u64 {
                    append(store, &mut g, &[(D, 1 << 20)], &[(D, i % 20, Some(i as u8))]).unwrap();
                    g.set_committed(Lsn(i + 1));
                    g.set_horizon(Lsn(i));
                    assert_eq!(read(&g, D, i % 20, Lsn(i + 1)), Some((Lsn(i + 1), i as u8)));
                }
            });
        }
    });
    drop(store);
    let (store, opened) = dir.open(4 << 20);
    assert!(opened.memory_kept);
    assert_eq!(store.recovered_groups().len(), 4);
}

#[test]
fn records_that_do_not_follow_are_refused() {
    let dir = Dir::new();
    let (store, _) = dir.open(1 << 20);
    let mut g = store.open_group(GROUP).unwrap();
    let writes = [(D, 0, Some(7))];
    let (r, meta) = record(&g, &[(D, 4096)], &writes);
    append(&store, &mut g, &[(D, 4096)], &writes).unwrap();
    let again = frames(&store, &r, &writes).unwrap();
    assert_eq!(g.append(&r, &meta, again), Err(Error::Refused(Refusal::NotNext)));
    let (r, meta) = record(&g, &[(D, 4096)], &writes);
    assert!(matches!(g.append(&r, &meta, vec![None]), Err(Error::Usage(_))));
    let twice = [(D, 0, Some(7)), (D, 0, Some(8))];
    assert!(matches!(append(&store, &mut g, &[(D, 4096)], &twice), Err(Error::Corrupt(_))));
}
