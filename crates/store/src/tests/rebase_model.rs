//! Random lives of a member that joins, misses commits, is rebased and gets its base, over restarts and losses of power,
//! compared with the primary's history after each step. Fault guarded against: one of them undoing what another relies on.

use dspm_proto::*;
use proptest::prelude::*;

use super::joining::*;
use super::simdisk::Unsynced;
use super::support::read;
use crate::BaseWriter;

#[derive(Clone, Debug)]
enum Op {
    /// Pages, a size of the first dataset, and whether the member hears of it.
    Commit(Vec<(u64, u64, Option<u8>)>, Option<u64>, bool),
    CatchUp,
    Rebase,
    /// Some LSNs behind the member's tail.
    Begin(u64),
    /// What is not written yet comes as of so many LSNs behind the member's tail.
    GoOn(u64),
    Write(usize),
    Finish,
    /// The primary loses some commits; a member that holds them goes back, or is rebased.
    Lose(u64),
    Committed(u64),
    Horizon(u64),
    Flush,
    Checkpoint,
    Evict,
    Shrink,
    Restart,
    PowerLoss(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let write = (1..=DATASETS, 0..PAGES, prop_oneof![4 => (1u8..=255).prop_map(Some), 1 => Just(None)]);
    let writes = proptest::collection::vec(write, 0..5);
    prop_oneof![
        10 => (writes, proptest::option::weighted(0.25, 0..PAGES), proptest::bool::weighted(0.9))
            .prop_map(|(w, s, heard)| Op::Commit(w, s, heard)),
        2 => Just(Op::CatchUp),
        2 => Just(Op::Rebase),
        3 => (0u64..4).prop_map(Op::Begin),
        3 => (0u64..4).prop_map(Op::GoOn),
        4 => (1usize..40).prop_map(Op::Write),
        3 => Just(Op::Finish),
        1 => (0u64..4).prop_map(Op::Lose),
        3 => (0u64..3).prop_map(Op::Committed),
        3 => (0u64..4).prop_map(Op::Horizon),
        4 => Just(Op::Flush),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Evict),
        1 => Just(Op::Shrink),
        1 => Just(Op::Restart),
        1 => any::<u64>().prop_map(Op::PowerLoss),
    ]
}

struct Life {
    pair: Pair,
    base: Option<Copy>,
}

/// A base on its way: the snapshot that is read, and the pages that are not written.
struct Copy {
    writer: BaseWriter,
    at: Lsn,
    todo: Vec<(DatasetId, u64)>,
}

impl Copy {
    fn begin(pair: &Pair, at: Lsn) -> Option<Copy> {
        let writer = pair.begin(at).ok()?;
        let sizes = pair.base_at(at).0;
        let todo = sizes.iter().flat_map(|(d, size)| (0..PageNo::count(*size)).map(|p| (*d, p))).collect();
        Some(Copy { writer, at, todo })
    }

    fn write(&mut self, pair: &Pair, pages: usize) {
        let some: Vec<_> = self.todo.drain(..pages.min(self.todo.len())).collect();
        let read = |(d, p)| read(&pair.primary, d, p, self.at).map(|(lsn, fill)| (d, p, lsn, fill));
        pair.write(&mut self.writer, &some.into_iter().filter_map(read).collect::<Vec<_>>()).unwrap();
    }

    fn go_on(&mut self, pair: &Pair, to: Lsn) {
        let id = pair.record_at(to);
        let (committed, lives) = pair.member.with(|g| (g.committed(), g.lives));
        let done = pair.member.with(|g| self.writer.go_on(g, id));
        match done {
            Ok(()) => self.at = to,
            Err(Error::Usage(_)) => assert!(to < self.at),
            Err(Error::NotFound(_)) => assert!(pair.member.with(|g| (g.committed(), g.lives)) == (committed, lives)),
            Err(e) => panic!("{e}"),
        }
    }
}

impl Life {
    fn commit(&mut self, mut writes: Vec<(u64, u64, Option<u8>)>, resize: Option<u64>) {
        writes.sort();
        writes.dedup_by_key(|w| (w.0, w.1));
        let mut sizes = self.pair.model.sizes(self.pair.model.tail());
        for d in 1..=DATASETS {
            let size = sizes.entry(DatasetId(d)).or_default();
            let top = writes.iter().filter(|w| w.0 == d).map(|w| w.1 + 1).max().unwrap_or(0) * 4096;
            *size = if let (Some(r), 1) = (resize, d) { (r * 4096).max(top) } else { (*size).max(top) };
        }
        let sizes: Vec<_> = sizes.into_iter().collect();
        let writes: Vec<_> = writes.into_iter().map(|w| (DatasetId(w.0), w.1, w.2)).collect();
        self.pair.commit(&sizes, &writes);
    }

    /// The primary's history goes another way above `to`; the member follows it.
    fn lose(&mut self, to: Lsn) {
        let p = &mut self.pair;
        let behind = p.member.with(|g| (g.committed(), g.tail().lsn));
        if to >= p.model.tail() {
            return;
        }
        p.lose(to);
        let follows = behind.1 <= to || (behind.0 <= to && p.member.with(|g| g.cut(to)).is_ok());
        if !follows {
            p.rebase();
        }
    }

    fn apply(mut self, op: Op) -> Life {
        let tail = self.pair.tail().lsn.0;
        let back = |n: u64| Lsn(tail.saturating_sub(n));
        let member = &self.pair.member;
        match op {
            Op::Commit(writes, resize, heard) => {
                let current = self.pair.tail() == self.pair.primary.tail();
                self.commit(writes, resize);
                if heard && current {
                    self.pair.catch_up();
                }
            }
            Op::CatchUp => drop(self.pair.catch_up()),
            Op::Rebase => self.pair.rebase(),
            Op::Begin(n) => {
                self.base = None;
                let at = back(n);
                self.base = Copy::begin(&self.pair, at);
                let ready = member.with(|g| !g.is_whole() && !g.clearing && g.rebased_to().unwrap().lsn <= at);
                assert_eq!(self.base.is_some(), ready);
            }
            Op::GoOn(n) => {
                if let Some(copy) = &mut self.base {
                    copy.go_on(&self.pair, back(n));
                }
            }
            Op::Write(n) => {
                if let Some(copy) = &mut self.base {
                    copy.write(&self.pair, n);
                }
            }
            Op::Finish => self.finish(),
            Op::Lose(n) => self.lose(Lsn(self.pair.model.tail().0.saturating_sub(n))),
            Op::Committed(n) => member.with(|g| g.set_committed(back(n))),
            Op::Horizon(n) => member.with(|g| g.set_horizon(back(n))),
            Op::Flush => member.flush(),
            Op::Checkpoint => member.store.checkpoint_all(&*member.source).unwrap(),
            Op::Evict => drop(member.store.evict(&*member.source, usize::MAX)),
            Op::Shrink => member.with(|g| g.shrink()),
            Op::Restart => {
                self.base = None;
                return Life { pair: self.pair.restarted(), base: None };
            }
            Op::PowerLoss(seed) => return self.power_loss(seed),
        }
        self
    }

    fn finish(&mut self) {
        let Some(mut copy) = self.base.take() else { return };
        copy.write(&self.pair, usize::MAX);
        let member = &self.pair.member;
        let mut done = copy.writer.finish(&*member.source);
        if let Err(Error::Busy(_)) = done {
            assert!(member.with(|g| g.flushed() < copy.at));
            member.flush();
            done = copy.writer.finish(&*member.source);
        }
        match done {
            Ok(()) => assert!(member.with(|g| g.is_whole() && g.horizon() >= copy.at)),
            Err(Error::NotFound(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }

    fn power_loss(mut self, seed: u64) -> Life {
        self.base = None;
        let member = &self.pair.member;
        member.flush();
        let (whole, flushed) = member.with(|g| (g.is_whole(), g.flushed()));
        let disk = member.disk.crashed(member.disk.ops(), 0, Unsynced::Mixed(seed));
        let pair = self.pair.with_disk(disk);
        assert_eq!(pair.member.with(|g| g.is_whole()), whole);
        assert!(pair.tail().lsn >= flushed, "{} is left of {flushed}", pair.tail().lsn);
        Life { pair, base: None }
    }
}

proptest! {
    #[test]
    fn a_member_equals_its_primary(ops in proptest::collection::vec(op(), 1..80)) {
        let mut life = Life { pair: Pair::new(), base: None };
        for op in ops {
            life = life.apply(op);
            life.pair.check();
        }
    }
}

#[test]
fn a_base_behind_a_power_loss_shows_nothing_that_its_records_cut_off() {
    let mut life = Life { pair: Pair::new(), base: None };
    let commit = |writes, resize| Op::Commit(writes, resize, true);
    let lives = [
        Op::Rebase,
        commit(vec![(1, 15, Some(1))], None),
        commit(vec![], Some(0)),
        commit(vec![], None),
        Op::PowerLoss(0),
        Op::Flush,
        Op::Begin(0),
        Op::Finish,
    ];
    for op in lives {
        life = life.apply(op);
        life.pair.check();
    }
    assert!(life.pair.member.with(|g| g.is_whole()));
}
