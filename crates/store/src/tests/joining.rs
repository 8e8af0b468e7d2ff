//! A member that joins, and the primary whose history it takes: records as they come, the base as a snapshot is read.

use std::sync::Arc;

use dspm_proto::*;

use super::simdisk::SimDisk;
use super::support::*;
use crate::{BaseWriter, Fence, FrameBuf, GroupStore, Store, StoredPage};

pub(super) const DATASETS: u64 = 2;
pub(super) const PAGES: u64 = 24;
const MEMORY: u64 = 2 << 20;

/// The primary keeps every version in memory; its model is the history that counts.
pub(super) struct Pair {
    _dir: Dir,
    store: Arc<Store>,
    pub(super) primary: GroupStore,
    pub(super) model: Model,
    pub(super) member: World,
}

/// A page and what it holds at a snapshot.
pub(super) type BasePage = (DatasetId, u64, Lsn, u8);

impl Pair {
    pub(super) fn new() -> Pair {
        let dir = Dir::new();
        let (store, _) = dir.open(8 << 20);
        let primary = store.open_group(GROUP).unwrap();
        let member = World::open(SimDisk::default(), MEMORY, Model::default());
        let mut pair = Pair { _dir: dir, store, primary, model: Model::default(), member };
        pair.raise(1);
        pair
    }

    /// A higher generation at both.
    pub(super) fn raise(&mut self, generation: u64) {
        let generation = Generation(generation);
        let fence = Fence { generation, token: Token { generation, boot: 1, n: 1 } };
        self.primary.set_fence(fence);
        self.member.with(|g| g.set_fence(fence));
    }

    /// A commit of the primary that the member does not hear of.
    pub(super) fn commit(&mut self, sizes: &[(DatasetId, u64)], writes: &[Write]) {
        self.commit_of(sizes, writes, Part::Alone);
    }

    /// The same with a part in a transaction over several groups.
    pub(super) fn commit_of(&mut self, sizes: &[(DatasetId, u64)], writes: &[Write], part: Part) {
        let r = append_of(&self.store, &mut self.primary, sizes, writes, part).unwrap();
        self.model.push(&r, sizes, writes);
    }

    /// The primary goes back, as it would after a loss was accepted.
    pub(super) fn lose(&mut self, to: Lsn) {
        self.primary.cut(to).unwrap();
        self.model.records.truncate(to.0 as usize);
        self.raise(self.primary.fence().generation.0 + 1);
    }

    /// Sends the member what it lacks. False when it has no room.
    pub(super) fn catch_up(&self) -> bool {
        loop {
            let next = self.tail().lsn.next();
            let Some(r) = self.primary.record(next) else { return true };
            let copy = |p: &StoredPage| match p {
                StoredPage::Frame(page) => {
                    let mut f: FrameBuf = self.member.store.alloc()?;
                    f.copy_from_slice(&page[..]);
                    Some(Some(f))
                }
                StoredPage::Zero => Some(None),
                StoredPage::Gone => panic!("the primary keeps everything"),
            };
            let Some(frames) = r.pages.iter().map(copy).collect::<Option<Vec<_>>>() else { return false };
            match self.member.with(|g| g.append(&r.record, &r.meta, frames)) {
                Ok(()) => {}
                Err(Error::Full(_)) => return false,
                Err(e) => panic!("record {next}: {e}"),
            }
        }
    }

    pub(super) fn tail(&self) -> RecordId {
        self.member.with(|g| g.tail())
    }

    /// The primary's tail becomes the member's.
    pub(super) fn rebase(&self) {
        let tail = self.primary.tail();
        self.member.with(|g| g.rebase(tail).unwrap());
    }

    pub(super) fn record_at(&self, lsn: Lsn) -> RecordId {
        self.primary.record_id(lsn).unwrap()
    }

    /// The snapshot at `at`, as a client would read it.
    pub(super) fn base_at(&self, at: Lsn) -> (Vec<(DatasetId, u64)>, Vec<BasePage>) {
        let sizes: Vec<_> = self.model.sizes(at).into_iter().collect();
        let pages = sizes.iter().flat_map(|(d, size)| (0..PageNo::count(*size)).map(|p| (*d, p)));
        let read = |(d, p)| read(&self.primary, d, p, at).map(|(lsn, fill)| (d, p, lsn, fill));
        let pages = pages.filter_map(read).collect();
        (sizes, pages)
    }

    pub(super) fn begin(&self, at: Lsn) -> Result<BaseWriter, Error> {
        let (sizes, _) = self.base_at(at);
        let store = self.member.store.clone();
        self.member.with(|g| store.begin_base(g, self.record_at(at), &sizes))
    }

    pub(super) fn write(&self, w: &mut BaseWriter, pages: &[BasePage]) -> Result<(), Error> {
        pages.iter().try_for_each(|(d, p, lsn, fill)| w.write(*d, PageNo(*p), *lsn, &[*fill; PAGE_SIZE]))
    }

    /// The whole base, as of `at`.
    pub(super) fn bring_base(&self, at: Lsn) -> Result<(), Error> {
        let mut w = self.begin(at)?;
        self.write(&mut w, &self.base_at(at).1)?;
        w.finish(&*self.member.source)
    }

    /// What the member holds is of the primary's history; when it is whole, all of it.
    pub(super) fn check(&self) {
        let model = self.model.upto(self.tail().lsn);
        self.member.with(|g| check_member(g, &model));
    }

    /// The same pair, with the member's store as another start finds it.
    pub(super) fn restarted(self) -> Pair {
        let Pair { _dir, store, primary, model, member } = self;
        let World { dir, disk, store: old, source, .. } = member;
        drop((old, source));
        let member = World::open_in(dir, disk, MEMORY, Model::default());
        assert!(member.opened.memory_kept && member.opened.log_intact, "{:?}", member.opened.reason);
        Pair { _dir, store, primary, model, member }
    }

    /// The same pair, with the member's memory lost and its disk as given.
    pub(super) fn with_disk(self, disk: SimDisk) -> Pair {
        let Pair { _dir, store, primary, model, .. } = self;
        let mut pair = Pair { _dir, store, primary, model, member: World::open(disk, MEMORY, Model::default()) };
        assert!(pair.member.opened.log_intact, "{:?}", pair.member.opened.reason);
        pair.raise(pair.primary.fence().generation.0);
        pair
    }
}

/// A member's group against the history up to its tail.
pub(super) fn check_member(g: &GroupStore, model: &Model) {
    if g.is_whole() {
        return model.check(g, DATASETS, PAGES);
    }
    assert_eq!(g.tail(), model.records.last().map_or(RecordId::default(), |r| r.0));
    let tail = g.tail().lsn;
    for d in (1..=DATASETS).map(DatasetId) {
        for page in 0..PAGES {
            if let Some((lsn, fill)) = read(g, d, page, tail) {
                let (l, f) = model.page(d, page, tail);
                assert!(fill == f && (lsn == l || fill == 0), "page {page} of {d}: {fill} of {lsn}, not {f} of {l}");
            }
        }
    }
}
