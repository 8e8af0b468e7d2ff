//! What the tests share: a directory, records made by hand, and the model that a group is compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dspm_proto::record::{DatasetChange, PageChange, Payload, Record};
use dspm_proto::*;

use crate::slot::Rebased;
use crate::{FrameBuf, GroupStore, Lookup, Opened, Store, StoreOptions};

/// A directory of its own, removed at the end.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new() -> Dir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let root = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("dspm-store-test-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub(super) fn options(&self, memory: u64) -> StoreOptions {
        StoreOptions {
            arena: self.0.join("arena"),
            memory,
            data_dir: self.0.join("data"),
            flush_interval: Duration::from_millis(20),
            dirty_max: memory / 2,
            history_max: memory / 4,
            outcome_retention: Duration::from_secs(3600),
        }
    }

    pub(super) fn open(&self, memory: u64) -> (Arc<Store>, Opened) {
        Store::open(self.options(memory)).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) const GROUP: GroupId = GroupId(77);

/// One change of a page: its new fill, or zeros.
pub(super) type Write = (DatasetId, u64, Option<u8>);

/// A record behind the group's tail, sealed.
pub(super) fn record(g: &GroupStore, sizes: &[(DatasetId, u64)], writes: &[Write]) -> (Record, Vec<u8>) {
    record_of(g, sizes, writes, Part::Alone)
}

/// The same with a part in a transaction over several groups.
pub(super) fn record_of(g: &GroupStore, sizes: &[(DatasetId, u64)], writes: &[Write], part: Part) -> (Record, Vec<u8>) {
    let tail = g.tail();
    let link = |hash| vec![Link { group: GroupId(g.id().0 + 1), lsn: Lsn(9), hash, token: g.fence().token }];
    let place = |d: DatasetId| sizes.iter().position(|s| s.0 == d).unwrap() as u16;
    let pages = writes.iter().map(|(d, page, fill)| PageChange {
        dataset: place(*d),
        page: PageNo(*page),
        payload: if fill.is_some() { Payload::Full } else { Payload::Zero },
        bytes: if fill.is_some() { PAGE_SIZE as u32 } else { 0 },
        checksum: fill.map_or(0, |f| checksum(&[f; PAGE_SIZE])),
        base: Lsn(0),
    });
    let mut pages: Vec<_> = pages.collect();
    pages.sort_by_key(|p| p.payload as u8);
    let mut r = Record {
        group: g.id(),
        id: RecordId { generation: g.fence().generation, lsn: tail.lsn.next(), hash: 0 },
        token: g.fence().token,
        session: Session { client: ClientId(1), number: 1 },
        transaction: tail.lsn.0,
        predecessor: tail.hash,
        floor: Lsn(0),
        part,
        datasets: sizes.iter().map(|s| DatasetChange { dataset: s.0, size: s.1 }).collect(),
        links: match part {
            Part::Prepared => link(5),
            Part::Decides => link(0),
            Part::Alone | Part::Aborts => Vec::new(),
        },
        pages,
    };
    let meta = r.seal();
    (r, meta)
}

/// Frames filled for a record. None when the arena is full.
pub(super) fn frames(store: &Store, r: &Record, writes: &[Write]) -> Option<Vec<Option<FrameBuf>>> {
    let fill = |p: &PageChange| {
        let d = r.datasets[p.dataset as usize].dataset;
        writes.iter().find(|w| w.0 == d && w.1 == p.page.0).and_then(|w| w.2)
    };
    r.pages
        .iter()
        .map(|p| match fill(p) {
            None => Some(None),
            Some(f) => {
                let mut frame = store.alloc()?;
                frame.fill(f);
                Some(Some(frame))
            }
        })
        .collect()
}

pub(super) fn append(
    store: &Store,
    g: &mut GroupStore,
    sizes: &[(DatasetId, u64)],
    writes: &[Write],
) -> Result<Record, Error> {
    append_of(store, g, sizes, writes, Part::Alone)
}

pub(super) fn append_of(
    store: &Store,
    g: &mut GroupStore,
    sizes: &[(DatasetId, u64)],
    writes: &[Write],
    part: Part,
) -> Result<Record, Error> {
    let (r, meta) = record_of(g, sizes, writes, part);
    let frames = frames(store, &r, writes).ok_or_else(|| Error::Full("arena".into()))?;
    g.append(&r, &meta, frames)?;
    Ok(r)
}

/// What a page reads as: (LSN, fill). Zeros that nobody wrote have LSN 0.
pub(super) fn read(g: &GroupStore, d: DatasetId, page: u64, at: Lsn) -> Option<(Lsn, u8)> {
    match g.lookup(d, PageNo(page), at) {
        Lookup::Frame { lsn, frame, checksum: sum } => {
            let content = g.page(frame);
            assert_eq!(checksum(content), sum);
            Some((lsn, content[17]))
        }
        Lookup::Zero { lsn } => Some((lsn, 0)),
        Lookup::Disk { .. } => {
            let mut out = [0; PAGE_SIZE];
            let lsn = g.base_reader(d).unwrap().read(PageNo(page), at, &mut out).unwrap();
            Some((lsn, out[17]))
        }
        Lookup::Lost { .. } => panic!("lost"),
        Lookup::TooOld => None,
    }
}

/// A record as the model keeps it: identity, sizes, writes.
pub(super) type Past = (RecordId, Vec<(DatasetId, u64)>, Vec<Write>);

/// A history of versions.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) records: Vec<Past>,
    /// Of records with a part in a transaction over several groups.
    pub(super) parts: BTreeMap<Lsn, Part>,
    /// The decision that nobody will ask about.
    pub(super) closed: Lsn,
}

impl Model {
    pub(super) fn push(&mut self, r: &Record, sizes: &[(DatasetId, u64)], writes: &[Write]) {
        self.parts.insert(r.id.lsn, r.part);
        self.records.push((r.id, sizes.to_vec(), writes.to_vec()));
    }

    /// Records above are gone. Behind a decision there was one only because nobody asks about it any more.
    pub(super) fn truncate(&mut self, to: Lsn) {
        if to < self.tail() && self.part(to) == Part::Decides {
            self.closed = to;
        }
        self.records.truncate(to.0 as usize);
        self.parts.retain(|l, _| *l <= to);
        self.closed = self.closed.min(to);
    }

    /// The model as it was.
    pub(super) fn upto(&self, to: Lsn) -> Model {
        let mut model = self.clone();
        model.truncate(to);
        model
    }

    pub(super) fn part(&self, lsn: Lsn) -> Part {
        self.parts.get(&lsn).copied().unwrap_or_default()
    }

    /// What counts at a snapshot.
    fn past(&self, at: Lsn) -> impl Iterator<Item = &Past> {
        self.records[..at.0 as usize].iter().filter(|r| self.part(r.0.lsn.next()) != Part::Aborts)
    }

    pub(super) fn tail(&self) -> Lsn {
        Lsn(self.records.len() as u64)
    }

    pub(super) fn sizes(&self, at: Lsn) -> BTreeMap<DatasetId, u64> {
        self.past(at).flat_map(|r| r.1.iter().copied()).collect()
    }

    /// (LSN, fill) of a page at a snapshot.
    pub(super) fn page(&self, d: DatasetId, page: u64, at: Lsn) -> (Lsn, u8) {
        let mut state = (Lsn(0), 0);
        let mut size = 0;
        for (id, sizes, writes) in self.past(at) {
            if let Some((_, s)) = sizes.iter().find(|s| s.0 == d) {
                if PageNo::count(*s) < PageNo::count(size) && page >= PageNo::count(*s) {
                    state = (id.lsn, 0);
                }
                size = *s;
            }
            if let Some(w) = writes.iter().find(|w| w.0 == d && w.1 == page) {
                state = (id.lsn, w.2.unwrap_or(0));
            }
        }
        state
    }

    /// Compares everything that the group must know, for every snapshot that it keeps. The LSN of zeros is a bound
    /// only: who forgot them may say 0, or the horizon; who had to await a base, the first commit that it saw of a dataset.
    pub(super) fn check(&self, g: &GroupStore, datasets: u64, pages: u64) {
        let tail = self.records.last().map_or(RecordId::default(), |r| r.0);
        assert_eq!(g.tail(), tail);
        if self.part(tail.lsn) == Part::Prepared || self.part(tail.lsn) == Part::Decides && self.closed < tail.lsn {
            assert_eq!(
                (g.part(tail.lsn), g.links(tail.lsn).len()),
                (self.part(tail.lsn), 1),
                "who may ask is not known"
            );
        }
        for at in g.horizon().0..=self.tail().0 {
            let at = Lsn(at);
            let sizes = self.sizes(at);
            for d in (1..=datasets).map(DatasetId) {
                assert_eq!(g.size(d, at), sizes.get(&d).copied().unwrap_or(0), "size of {d} at {at}");
                for page in 0..pages {
                    let (lsn, fill) = self.page(d, page, at);
                    let bound = if g.slot.rebased == Rebased::Never { lsn.max(g.horizon()) } else { at };
                    let (l, f) = read(g, d, page, at).expect("kept");
                    assert_eq!(f, fill, "page {page} of {d} at {at}: {l} for {lsn}");
                    assert!(l == lsn || (fill == 0 && l <= bound), "LSN of page {page} of {d} at {at}: {l} for {lsn}");
                }
            }
        }
        if g.horizon().0 > 0 {
            assert_eq!(g.lookup(DatasetId(1), PageNo(0), Lsn(g.horizon().0 - 1)), Lookup::TooOld);
        }
    }
}

/// The node's side of the flusher: groups under one lock, and what was reported.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) groups: std::sync::Mutex<BTreeMap<GroupId, GroupStore>>,
    pub(super) flushed: std::sync::Mutex<BTreeMap<GroupId, Lsn>>,
    pub(super) suspect: std::sync::Mutex<Option<String>>,
}

impl crate::FlushSource for Groups {
    fn dirty_groups(&self) -> Vec<GroupId> {
        self.groups.lock().unwrap().keys().copied().collect()
    }
    fn with_group(&self, group: GroupId, f: &mut dyn FnMut(&mut GroupStore)) {
        if let Some(g) = self.groups.lock().unwrap().get_mut(&group) {
            f(g);
        }
    }
    fn flushed(&self, group: GroupId, lsn: Lsn) {
        self.flushed.lock().unwrap().insert(group, lsn);
    }
    fn suspect(&self, reason: &str) {
        *self.suspect.lock().unwrap() = Some(reason.to_owned());
    }
}

/// A store on a simulated disk, with one group and its model.
pub(super) struct World {
    pub(super) dir: Dir,
    pub(super) disk: super::simdisk::SimDisk,
    pub(super) store: Arc<Store>,
    pub(super) opened: Opened,
    pub(super) source: Arc<Groups>,
    pub(super) model: Model,
}

impl World {
    /// Opens what is on the disk, with an arena of its own (the memory is lost).
    pub(super) fn open(disk: super::simdisk::SimDisk, memory: u64, model: Model) -> World {
        World::open_in(Dir::new(), disk, memory, model)
    }

    /// Opens with the memory that is in the directory.
    pub(super) fn open_in(dir: Dir, disk: super::simdisk::SimDisk, memory: u64, model: Model) -> World {
        let options = dir.options(memory);
        let (store, opened) = Store::open_on(options, Arc::new(disk.clone())).unwrap();
        store.arena.disk.store(true, Ordering::Relaxed);
        let source = Arc::new(Groups::default());
        let g = store.open_group(GROUP).unwrap();
        source.groups.lock().unwrap().insert(GROUP, g);
        World { dir, disk, store, opened, source, model }
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut GroupStore) -> T) -> T {
        f(self.source.groups.lock().unwrap().get_mut(&GROUP).unwrap())
    }

    pub(super) fn append(&mut self, sizes: &[(DatasetId, u64)], writes: &[Write]) -> Result<(), Error> {
        self.append_of(sizes, writes, Part::Alone)
    }

    pub(super) fn append_of(&mut self, sizes: &[(DatasetId, u64)], writes: &[Write], part: Part) -> Result<(), Error> {
        let store = self.store.clone();
        let r = self.with(|g| append_of(&store, g, sizes, writes, part))?;
        self.model.push(&r, sizes, writes);
        Ok(())
    }

    pub(super) fn flush(&self) {
        self.store.flush_round(&*self.source);
    }

    pub(super) fn flushed(&self) -> Lsn {
        self.source.flushed.lock().unwrap().get(&GROUP).copied().unwrap_or_default()
    }

    pub(super) fn check(&self, datasets: u64, pages: u64) {
        self.with(|g| self.model.check(g, datasets, pages));
    }
}
