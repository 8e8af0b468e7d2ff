//! A group against a model: random histories of appends, horizons, shrinking, cuts and restarts.

use dspm_proto::*;
use proptest::prelude::*;

use super::support::*;
use crate::{Fence, GroupStore, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGES: u64 = 40;
const MEMORY: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u64, u64, Option<u8>)>, Option<u64>),
    Commit(u64),
    Horizon(u64),
    Cut(u64),
    Session(u64, u64),
    Shrink,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let write = (1u64..3, 0..PAGES, prop_oneof![4 => (1u8..=255).prop_map(Some), 1 => Just(None)]);
    prop_oneof![
        8 => (proptest::collection::vec(write, 0..6), proptest::option::weighted(0.3, 0..PAGES))
            .prop_map(|(w, s)| Op::Append(w, s)),
        3 => (0u64..4).prop_map(Op::Commit),
        2 => (0u64..6).prop_map(Op::Horizon),
        1 => (0u64..4).prop_map(Op::Cut),
        1 => (1u64..5, 1u64..5).prop_map(|(c, n)| Op::Session(c, n)),
        1 => Just(Op::Shrink),
        1 => Just(Op::Reopen),
    ]
}

struct World {
    dir: Dir,
    store: Arc<Store>,
    g: Option<GroupStore>,
    model: Model,
    sessions: BTreeMap<u64, u64>,
    generation: u64,
}

impl World {
    fn append(&mut self, mut writes: Vec<(u64, u64, Option<u8>)>, resize: Option<u64>) {
        writes.sort();
        writes.dedup_by_key(|w| (w.0, w.1));
        let mut sizes = self.model.sizes(self.model.tail());
        for d in 1..3 {
            let size = sizes.entry(DatasetId(d)).or_default();
            let top = writes.iter().filter(|w| w.0 == d).map(|w| w.1 + 1).max().unwrap_or(0) * 4096;
            *size = if let (Some(r), 1) = (resize, d) { (r * 4096).max(top) } else { (*size).max(top) };
        }
        let sizes: Vec<_> = sizes.into_iter().collect();
        let writes: Vec<_> = writes.into_iter().map(|w| (DatasetId(w.0), w.1, w.2)).collect();
        let g = self.g.as_mut().unwrap();
        let before = (g.tail(), self.store.usage().free);
        match append(&self.store, g, &sizes, &writes) {
            Ok(r) => self.model.push(&r, &sizes, &writes),
            Err(Error::Full(_)) => assert_eq!(g.tail(), before.0),
            Err(e) => panic!("{e}"),
        }
    }

    /// A record of another process than the usual one.
    fn append_of(&mut self, session: Session, fill: u8) -> RecordId {
        let (sizes, writes) = (vec![(DatasetId(1), 4096), (DatasetId(2), 0)], vec![(DatasetId(1), 0, Some(fill))]);
        let g = self.g.as_mut().unwrap();
        let (mut r, _) = record(g, &sizes, &writes);
        r.session = session;
        let meta = r.seal();
        g.append(&r, &meta, frames(&self.store, &r, &writes).unwrap()).unwrap();
        self.model.push(&r, &sizes, &writes);
        r.id
    }

    fn apply(&mut self, op: Op) {
        let tail = self.model.tail().0;
        let g = self.g.as_mut().unwrap();
        match op {
            Op::Append(writes, resize) => self.append(writes, resize),
            Op::Commit(back) => g.set_committed(Lsn(tail.saturating_sub(back))),
            Op::Horizon(back) => g.set_horizon(Lsn(tail.saturating_sub(back))),
            Op::Shrink => g.shrink(),
            Op::Cut(back) => self.cut(Lsn(tail.saturating_sub(back))),
            Op::Session(client, number) => {
                g.set_session(Session { client: ClientId(client), number }).unwrap();
                let s = self.sessions.entry(client).or_default();
                *s = number.max(*s);
            }
            Op::Reopen => self.reopen(),
        }
    }

    fn cut(&mut self, to: Lsn) {
        let g = self.g.as_mut().unwrap();
        if g.cut(to).is_err() {
            assert!(to < g.committed());
            return;
        }
        self.model.records.truncate(to.0 as usize);
        self.generation += 1;
        let generation = Generation(self.generation);
        g.set_fence(Fence { generation, token: Token { generation, boot: 1, n: 9 } });
    }

    fn reopen(&mut self) {
        let g = self.g.take().unwrap();
        let facts = (g.committed(), g.fence(), g.horizon(), g.oldest_record());
        let used = self.store.usage().used;
        drop(g);
        let options = self.dir.options(MEMORY);
        let empty = Store::open(Dir::new().options(MEMORY)).unwrap().0;
        self.store = empty; // the old one must be gone before its files are opened again
        let (store, opened) = Store::open(options).unwrap();
        assert!(opened.memory_kept, "{:?}", opened.reason);
        self.store = store;
        let g = self.store.open_group(GROUP).unwrap();
        assert_eq!((g.committed(), g.fence(), g.oldest_record()), (facts.0, facts.1, facts.3));
        assert!(g.horizon() >= facts.2 && g.horizon() <= g.committed());
        assert!(self.store.usage().used <= used, "frames leak");
        self.g = Some(g);
    }

    fn check(&self) {
        let g = self.g.as_ref().unwrap();
        self.model.check(g, 2, PAGES);
        for (client, number) in &self.sessions {
            assert_eq!(g.session_number(ClientId(*client)), *number);
        }
        let last = self.model.records.last().map(|r| r.0);
        assert!(g.newest_of(ClientId(1)).is_none_or(|id| Some(id) == last), "one writer: its newest is the newest");
        self.check_changes(g);
        for lsn in g.oldest_record().0..=self.model.tail().0 {
            let r = g.record(Lsn(lsn)).expect("kept");
            assert_eq!(r.record.id, self.model.records[lsn as usize - 1].0);
            assert!(r.is_complete() || lsn <= g.horizon().0);
        }
    }

    fn check_changes(&self, g: &GroupStore) {
        let tail = self.model.tail();
        let known = Lsn(tail.0.saturating_sub(5)).max(Lsn(g.oldest_record().0 - 1));
        let Some(changes) = g.changes(known, tail) else { return };
        let sizes = self.model.sizes(tail);
        let listed: BTreeMap<_, _> = changes.pages.iter().map(|(d, p, l)| ((*d, p.0), *l)).collect();
        for d in [DatasetId(1), DatasetId(2)] {
            for page in 0..PAGES {
                let (lsn, _) = self.model.page(d, page, tail);
                let cut = changes.truncations.iter().rev().find(|t| t.0 == d && t.1.0 <= page).map(|t| t.2);
                let newest = listed.get(&(d, page)).copied().max(cut);
                assert_eq!(newest, Some(lsn).filter(|l| *l > known), "page {page} of {d}");
            }
        }
        assert!(changes.sizes.iter().all(|(d, s)| sizes[d] == *s));
    }
}

proptest! {
    #[test]
    fn a_group_equals_its_model(ops in proptest::collection::vec(op(), 1..60)) {
        let dir = Dir::new();
        let (store, _) = dir.open(MEMORY);
        let g = Some(store.open_group(GROUP).unwrap());
        let mut w = World { dir, store, g, model: Model::default(), sessions: BTreeMap::new(), generation: 0 };
        for op in ops {
            w.apply(op);
            w.check();
        }
    }
}

#[test]
fn a_long_history_folds_its_records_and_survives_restarts() {
    let dir = Dir::new();
    let (store, _) = dir.open(MEMORY);
    let g = Some(store.open_group(GROUP).unwrap());
    let mut w = World { dir, store, g, model: Model::default(), sessions: BTreeMap::new(), generation: 0 };
    let once = Session { client: ClientId(9), number: 4 };
    let first = w.append_of(once, 7);
    w.sessions.insert(9, 4);
    for i in 1..2000u64 {
        w.append(vec![(1, i % 7, Some(i as u8)), (2, i % 11, (i % 5 != 0).then_some(3))], (i % 50 == 0).then_some(3));
        w.g.as_mut().unwrap().set_committed(Lsn(i));
        w.g.as_mut().unwrap().set_horizon(Lsn(i.saturating_sub(3)));
        if i % 300 == 0 {
            w.reopen();
        }
    }
    assert_eq!(w.model.tail(), Lsn(2000));
    let g = w.g.as_ref().unwrap();
    assert!(g.oldest_record() > Lsn(1000) && g.record_id(first.lsn).is_none(), "the ring is bounded");
    assert_eq!(g.newest_of(once.client), Some(first), "who wrote it long ago can still be told so");
    assert_eq!(g.newest_of(ClientId(1)), Some(g.tail()));
    w.check();
}
