//! The process dies between any two stores. Fault guarded against: half of a record, of a fence, of a cut.
//!
//! The arena's file is copied at every crash point of an operation, and each copy is recovered: the group must be as
//! before the operation or as after it, and every frame must be accounted for.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use dspm_proto::*;

use super::support::*;
use crate::GroupStore;
use crate::layout::Layout;
use crate::open::keep;
use crate::step::HOOK;
use crate::{Fence, Store};

const MEMORY: u64 = 512 << 10;
const PAGES: u64 = 12;
const D: DatasetId = DatasetId(1);

type Seen = BTreeMap<(Lsn, u64), (Lsn, u8)>;

#[derive(Clone, Debug, PartialEq)]
struct View {
    tail: RecordId,
    committed: Lsn,
    fence: Fence,
    session: u64,
    horizon: Lsn,
    pages: Seen,
    sizes: BTreeMap<Lsn, u64>,
}

fn view(g: &GroupStore) -> View {
    let snapshots = || (g.horizon().0..=g.tail().lsn.0).map(Lsn);
    let pages = snapshots().flat_map(|at| (0..PAGES).map(move |p| ((at, p), read(g, D, p, at).unwrap()))).collect();
    View {
        tail: g.tail(),
        committed: g.committed(),
        fence: g.fence(),
        session: g.session_number(ClientId(5)),
        horizon: g.horizon(),
        pages,
        sizes: snapshots().map(|at| (at, g.size(D, at))).collect(),
    }
}

/// Equal, and right in every snapshot that it claims to keep, those included that only the state before had. The LSN
/// of forgotten zeros does not matter.
fn same(found: &View, wanted: &View, before: Option<&View>) -> bool {
    let facts = |v: &View| (v.tail, v.committed, v.fence, v.session);
    let plain = |p: &(Lsn, u8)| if p.1 == 0 { (Lsn(0), 0) } else { *p };
    let past = |k: &(Lsn, u64)| before.and_then(|b| b.pages.get(k));
    let size = |l: &Lsn| wanted.sizes.get(l).or(before.and_then(|b| b.sizes.get(l)));
    facts(found) == facts(wanted)
        && found.pages.iter().all(|(k, p)| wanted.pages.get(k).or(past(k)).map(plain) == Some(plain(p)))
        && found.sizes.iter().all(|(l, s)| size(l) == Some(s))
        && found.horizon <= wanted.horizon.max(wanted.committed)
}

/// Recovers a copy of the arena; None when the group is not in it.
fn recovered(dir: &Dir, name: &str, image: &[u8], store: &Store) -> Option<View> {
    let path = dir.0.join("copy");
    std::fs::write(&path, image).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let layout = Layout::new(MEMORY).unwrap();
    let kept = keep(&file, layout, store.id(), &mut HashMap::new());
    let (arena, groups) = kept.unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut used = 0;
    for i in 0..layout.frames as usize {
        used += usize::from(arena.meta(layout.frame(i)).unwrap().is_some());
    }
    assert_eq!(used + arena.free_all(), layout.frames as usize, "a frame is lost");
    groups.get(&GROUP).map(view)
}

/// Runs an operation and recovers from every crash point in it. Returns how many there were.
fn crash_everywhere(
    dir: &Dir,
    store: &Store,
    g: Option<GroupStore>,
    op: impl FnOnce(Option<GroupStore>) -> Option<GroupStore>,
) -> (usize, Option<GroupStore>) {
    let before = g.as_ref().map(view);
    let images = Rc::new(RefCell::new(Vec::new()));
    let (path, sink) = (dir.0.join("arena"), images.clone());
    HOOK.with(|h| {
        *h.borrow_mut() = Some(Box::new(move |name| sink.borrow_mut().push((name, std::fs::read(&path).unwrap()))));
    });
    let g = op(g);
    HOOK.with(|h| *h.borrow_mut() = None);
    let after = g.as_ref().map(view);
    let images = images.take();
    for (i, (name, image)) in images.iter().enumerate() {
        let found = recovered(dir, name, image, store);
        let fits = |wanted: &Option<View>| match (&found, wanted) {
            (Some(f), Some(w)) => same(f, w, before.as_ref()),
            (None, None) => true,
            // A new group appears with its slot, empty.
            (f, w) => f.as_ref().or(w.as_ref()).is_some_and(|v| v.tail.lsn.0 == 0 && v.session == 0),
        };
        assert!(
            fits(&before) || fits(&after),
            "crash point {i} ({name}): {found:#?}\nbefore {before:#?}\nafter {after:#?}"
        );
    }
    (images.len(), g)
}

fn fence(n: u32) -> Fence {
    Fence { generation: Generation(3), token: Token { generation: Generation(3), boot: 1, n } }
}

#[test]
fn every_operation_is_all_or_nothing() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    pollute(&store);
    let mut points = 0;
    let mut run = |g, op: &mut dyn FnMut(&mut GroupStore)| {
        let (n, g) = crash_everywhere(&dir, &store, Some(g), |mut g| {
            op(g.as_mut().unwrap());
            g
        });
        points += n;
        g.unwrap()
    };
    let mut g = store.open_group(GROUP).unwrap();
    let write = |n: u8| vec![(D, u64::from(n) % PAGES, Some(n + 1)), (D, u64::from(n + 5) % PAGES, None)];
    for n in 0..40u8 {
        let size = if n % 9 == 8 { 3 } else { PAGES };
        let writes: Vec<_> = write(n).into_iter().filter(|w| w.1 < size).collect();
        g = run(g, &mut |g| drop(append(&store, g, &[(D, size * 4096)], &writes).unwrap()));
        g = run(g, &mut |g| g.set_committed(Lsn(u64::from(n / 2))));
        match n % 4 {
            0 => g = run(g, &mut |g| g.set_horizon(Lsn(u64::from(n.saturating_sub(6))))),
            1 => g = run(g, &mut |g| g.set_fence(fence(n.into()))),
            2 => g = run(g, &mut |g| g.set_session(Session { client: ClientId(5), number: n.into() }).unwrap()),
            _ => g = run(g, &mut |g| g.shrink()),
        }
    }
    g = run(g, &mut |g| g.cut(Lsn(25)).unwrap());
    g = run(g, &mut |g| drop(append(&store, g, &[(D, PAGES * 4096)], &write(99)).unwrap()));
    let (n, none) = crash_everywhere(&dir, &store, Some(g), |g| {
        store.drop_group(g.unwrap());
        None
    });
    assert!(none.is_none() && n > 0 && points > 400, "{points} crash points");
}

#[test]
fn a_prepared_record_is_taken_back_whole_or_not_at_all() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    pollute(&store);
    let mut g = store.open_group(GROUP).unwrap();
    let all: Vec<Write> = (0..PAGES).map(|p| (D, p, Some(9))).collect();
    append(&store, &mut g, &[(D, PAGES * 4096)], &all).unwrap();
    g.set_committed(Lsn(1));
    let before = store.usage();
    // Pages, zeros, a shrinking and a dataset of its own.
    let (new, writes) = (DatasetId(2), [(D, 1, Some(7)), (D, 2, None), (DatasetId(2), 0, Some(8))]);
    let sizes = [(D, 5 * 4096), (new, 4096)];
    let (points, g) = crash_everywhere(&dir, &store, Some(g), |mut g| {
        append_of(&store, g.as_mut().unwrap(), &sizes, &writes, Part::Prepared).unwrap();
        g
    });
    let (more, g) = crash_everywhere(&dir, &store, g, |mut g| {
        append_of(&store, g.as_mut().unwrap(), &[], &[], Part::Aborts).unwrap();
        g
    });
    assert!(points > 3 && more > 5, "{points} and {more} crash points");
    let mut g = g.unwrap();
    for at in 1..=3 {
        assert_eq!((g.size(D, Lsn(at)), g.size(new, Lsn(at))), (PAGES * 4096, 0), "at {at}");
        assert!((0..PAGES).all(|p| read(&g, D, p, Lsn(at)) == Some((Lsn(1), 9))), "at {at}");
    }
    let after = store.usage();
    assert_eq!((after.used, after.dirty), (before.used, before.dirty), "its frames are back");
    assert_eq!(g.changes(Lsn(1), Lsn(3)), Some(crate::Changes::default()), "nothing changed");
    assert_eq!(g.newest_of(ClientId(1)).map(|id| (id.lsn, id.hash)), Some((Lsn(2), 0)), "its writer may ask");
    assert!(matches!(g.cut(Lsn(2)), Err(Error::TooOld(_))), "its pages do not come again");
    assert!(append_of(&store, &mut g, &[], &[], Part::Aborts).is_err(), "nothing is prepared");
    // The names and places are free for others.
    append(&store, &mut g, &sizes, &writes).unwrap();
    assert_eq!((g.size(D, Lsn(4)), read(&g, new, 0, Lsn(4))), (5 * 4096, Some((Lsn(4), 8))));
    g.cut(Lsn(1)).unwrap();
    assert_eq!((g.tail().lsn, read(&g, D, 1, Lsn(1))), (Lsn(1), Some((Lsn(1), 9))));
}

#[test]
fn a_record_is_taken_back_only_when_the_log_has_it() {
    let mut w = World::open(super::simdisk::SimDisk::default(), 1 << 20, Model::default());
    w.append_of(&[(D, PAGES * 4096)], &[(D, 1, Some(3))], Part::Prepared).unwrap();
    assert!(matches!(w.append_of(&[], &[], Part::Aborts), Err(Error::Full(_))), "the log does not have it");
    w.flush();
    w.append_of(&[], &[], Part::Aborts).unwrap();
    w.check(1, PAGES);
    w.flush();
    World::open(w.disk.copy(), 1 << 20, w.model.clone()).check(1, PAGES);
}

/// Frames have a past.
fn pollute(store: &Store) {
    let all: Vec<_> = std::iter::from_fn(|| store.alloc()).collect();
    all.into_iter().for_each(|mut f| f.fill(0xAB));
}

#[test]
fn an_entry_at_the_very_border_of_a_part() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    pollute(&store);
    let mut g = store.open_group(GROUP).unwrap();
    // 256 entries of 80 bytes fill five parts exactly.
    for client in 0..256 {
        g.set_session(Session { client: ClientId(1000 + client), number: 1 }).unwrap();
    }
    let next = Session { client: ClientId(5), number: 1 };
    let (points, _) = crash_everywhere(&dir, &store, Some(g), |mut g| {
        g.as_mut().unwrap().set_session(next).unwrap();
        g
    });
    assert!(points > 3);
}

#[test]
fn a_group_is_made_whole_or_not_at_all() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    let (n, _) = crash_everywhere(&dir, &store, None, |_| Some(store.open_group(GROUP).unwrap()));
    assert!(n >= 3);
}

#[test]
fn a_crash_while_recovering_changes_nothing() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    let mut g = store.open_group(GROUP).unwrap();
    for n in 0..10u8 {
        append(&store, &mut g, &[(D, PAGES * 4096)], &[(D, u64::from(n) % 3, Some(n + 1))]).unwrap();
    }
    g.set_committed(Lsn(9));
    let wanted = view(&g);
    let image = std::fs::read(dir.0.join("arena")).unwrap();
    for _ in 0..3 {
        let found = recovered(&dir, "", &image, &store).unwrap();
        assert!(same(&found, &wanted, None));
        assert_eq!(recovered(&dir, "", &std::fs::read(dir.0.join("copy")).unwrap(), &store).unwrap(), found);
    }
}
