//! A group changes while the disk works without its lock. Fault guarded against: believing that what was written is
//! what is there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dspm_proto::*;

use super::simdisk::SimDisk;
use super::support::*;
use crate::{Fence, FlushSource, GroupStore, Store};

const MEMORY: u64 = 1 << 20;
const D: DatasetId = DatasetId(1);
const PAGES: u64 = 600;

type Change<'a> = Box<dyn FnOnce(&Groups) + Send + 'a>;

/// Changes the group, or all of them, just before the n-th time that its lock is taken.
struct Meddler<'a> {
    inner: &'a Groups,
    left: AtomicUsize,
    change: Mutex<Option<Change<'a>>>,
}

impl<'a> Meddler<'a> {
    fn new(inner: &'a Groups, n: usize, change: impl FnOnce(&mut GroupStore) + Send + 'a) -> Meddler<'a> {
        Meddler::of_all(inner, n, |all| change(all.groups.lock().unwrap().get_mut(&GROUP).unwrap()))
    }

    fn of_all(inner: &'a Groups, n: usize, change: impl FnOnce(&Groups) + Send + 'a) -> Meddler<'a> {
        Meddler { inner, left: AtomicUsize::new(n), change: Mutex::new(Some(Box::new(change))) }
    }
}

impl FlushSource for Meddler<'_> {
    fn dirty_groups(&self) -> Vec<GroupId> {
        self.inner.dirty_groups()
    }
    fn with_group(&self, group: GroupId, f: &mut dyn FnMut(&mut GroupStore)) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let change = self.change.lock().unwrap().take().unwrap();
            change(self.inner);
        }
        self.inner.with_group(group, f);
    }
    fn flushed(&self, group: GroupId, lsn: Lsn) {
        self.inner.flushed(group, lsn);
    }
    fn suspect(&self, reason: &str) {
        self.inner.suspect(reason);
    }
}

fn world() -> World {
    World::open(SimDisk::default(), MEMORY, Model::default())
}

fn settle(w: &World) {
    w.with(|g| {
        g.set_committed(g.tail().lsn);
        g.set_horizon(g.tail().lsn);
    });
    w.flush();
    w.with(|g| g.set_horizon(g.tail().lsn));
}

#[test]
fn records_cut_while_they_are_flushed_are_not_flushed() {
    let mut w = world();
    for n in 0..3 {
        w.append(&[(D, 4096)], &[(D, 0, Some(n + 1))]).unwrap();
    }
    let (sizes, writes) = ([(D, 4096)], [(D, 0, Some(99))]);
    let mut made = None;
    let store = w.store.clone();
    let meddler = Meddler::new(&w.source, 1, |g| {
        g.cut(Lsn(1)).unwrap();
        let generation = Generation(2);
        g.set_fence(Fence { generation, token: Token { generation, boot: 1, n: 1 } });
        made = Some(append(&store, g, &sizes, &writes).unwrap());
    });
    store.flush_round(&meddler);
    drop(meddler);
    w.model.records.truncate(1);
    w.model.push(&made.unwrap(), &sizes, &writes);
    let flushed = w.with(|g| g.flushed());
    let again = World::open(w.disk.copy(), MEMORY, w.model.clone());
    assert!(flushed <= Lsn(1) || again.with(|g| g.tail()) == w.with(|g| g.tail()), "{flushed}");
    w.flush();
    assert_eq!(w.with(|g| g.flushed()), Lsn(2));
    World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, 1);
}

/// Its removal is said to be carried out while a checkpoint of it is under way; then the power goes.
#[test]
fn a_group_removed_during_its_checkpoint_is_not_found_again() {
    for n in 1..3 {
        let mut w = world();
        w.append(&[(D, 4096)], &[(D, 0, Some(1))]).unwrap();
        settle(&w);
        let store = w.store.clone();
        std::thread::scope(|scope| {
            let meddler = Meddler::of_all(&w.source, n, |all| {
                let gone = all.groups.lock().unwrap().remove(&GROUP).unwrap();
                store.drop_group(gone);
                let said = scope.spawn(|| store.sync_drops(&Groups::default()).unwrap());
                // Time for it to be wrong: right is to wait for the checkpoint, which waits here.
                (0..200).take_while(|_| !said.is_finished()).for_each(|_| std::thread::sleep(Duration::from_millis(1)));
            });
            store.checkpoint_all(&meddler).unwrap();
        });
        assert!(w.source.groups.lock().unwrap().is_empty(), "its checkpoint was over before step {n}");
        let dir = Dir::new();
        let (again, _) = Store::open_on(dir.options(MEMORY), Arc::new(w.disk.copy())).unwrap();
        assert_eq!(again.recovered_groups(), [], "removed before step {n}");
    }
}

#[test]
fn a_checkpoint_is_one_state_whatever_happens_meanwhile() {
    for n in 1..5 {
        for fill in [Some(77), None] {
            let mut w = world();
            let pages: Vec<Write> = (0..80).map(|p| (D, p * 7, Some(p as u8 + 1))).collect();
            w.append(&[(D, PAGES * 4096)], &pages).unwrap();
            settle(&w);
            let (sizes, writes) = ([(D, 500 * 4096)], [(D, 7, fill), (D, 490, fill)]);
            let mut made = None;
            let store = w.store.clone();
            let meddler = Meddler::new(&w.source, n, |g| {
                made = Some(append(&store, g, &sizes, &writes).unwrap());
                g.set_committed(Lsn(2));
                g.set_flushed(Lsn(2));
                g.set_horizon(Lsn(2));
            });
            store.checkpoint_all(&meddler).unwrap();
            drop(meddler);
            let base = w.disk.files(".db").pop().unwrap().1;
            for page in 0..PAGES {
                let at = page as usize * 4096;
                assert!(base[at..at + 4096] == [w.model.page(D, page, Lsn(1)).1; 4096], "page {page}, change {n}");
            }
            let Some(made) = made else { continue };
            w.model.push(&made, &sizes, &writes);
            w.check(1, PAGES);
            w.store.evict(&*w.source, usize::MAX);
            w.check(1, PAGES);
        }
    }
}
