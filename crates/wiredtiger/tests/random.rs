//! Any sequence of calls gives what a directory gives, and any commit may be the last one of a process.
//!
//! Guards: names, cuts and what is synced are there after a crash, the rest is of the time since, and nothing is of
//! another file or of one that is gone.

#![allow(clippy::unwrap_used)]

mod model;

use dspm_txn::volume::Volume;
use dspm_wiredtiger::memory::MemoryVolume;
use dspm_wiredtiger::{FileKind, FileSystem};
use model::both::{Both, Call};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// Few names, so that they meet: files, files in directories, and a file where another name has a directory.
const NAMES: [&str; 8] = ["a", "b", "c", "journal/l1", "journal/l2", "d/e", "d/e/f", "d"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(String::from)
}

fn call() -> impl Strategy<Value = Call> {
    let offset = prop_oneof![0..20_000_u64, (0..6_u64).prop_map(|page| page * 4096), 60_000..70_000_u64];
    let length = prop_oneof![3 => 1..300_usize, 3 => Just(4096_usize), 1 => 0..30_000_usize];
    let size = prop_oneof![Just(0_u64), 0..20_000_u64, (0..6_u64).prop_map(|page| page * 4096), 0..100_000_u64];
    let kind = prop_oneof![6 => Just(FileKind::Log), 1 => Just(FileKind::Directory)];
    let open = (name(), kind, prop::bool::weighted(0.8), prop::bool::weighted(0.2))
        .prop_map(|(path, kind, create, exclusive)| Call::Open { path, kind, create, exclusive });
    prop_oneof![
        8 => open,
        12 => (name(), offset.clone(), length.clone())
            .prop_map(|(path, offset, length)| Call::Write { path, offset, length }),
        6 => (name(), offset, length).prop_map(|(path, offset, length)| Call::Read { path, offset, length }),
        6 => name().prop_map(Call::Sync),
        4 => (name(), size).prop_map(|(path, size)| Call::Truncate(path, size)),
        4 => name().prop_map(Call::Close),
        2 => name().prop_map(Call::Remove),
        4 => (name(), name()).prop_map(|(from, to)| Call::Rename(from, to)),
        1 => name().prop_map(Call::Size),
        1 => name().prop_map(Call::Exists),
        1 => prop::sample::select(&["", "d", "journal", "d/e", "x"][..])
            .prop_map(|directory| Call::List(directory.into(), String::new())),
    ]
}

/// A call, and whether the process is gone after it.
fn steps() -> impl Strategy<Value = Vec<(Call, bool)>> {
    prop::collection::vec((call(), prop::bool::weighted(0.06)), 1..120)
}

fn open(volume: &Arc<MemoryVolume>) -> Arc<FileSystem> {
    FileSystem::open(volume.clone() as Arc<dyn Volume>, Duration::ZERO).unwrap()
}

/// Calls of a handle need one.
fn is_possible(call: &Call, both: &Both) -> bool {
    match call {
        Call::Close(path) | Call::Sync(path) | Call::Truncate(path, _) => both.handle(path).is_some(),
        Call::Read { path, .. } | Call::Write { path, .. } => both.handle(path).is_some(),
        _ => true,
    }
}

fn run(steps: &[(Call, bool)], pages_max: usize) {
    let mut volume = Arc::new(MemoryVolume::default().with_pages_max(pages_max));
    let mut both = Both::new(open(&volume));
    let mut files = 0;
    for (call, crash) in steps {
        if !is_possible(call, &both) {
            continue;
        }
        let before = volume.commits();
        let _ = both.call(call);
        for n in before + 1..volume.commits() {
            both.model.verify(&open(&Arc::new(volume.after(n))), call.renames());
        }
        both.settle();
        if volume.commits() > before {
            both.model.verify(&open(&Arc::new(volume.after(volume.commits()))), None);
        }
        files = files.max(both.model.names().len());
        assert!(volume.datasets() <= files + 2, "datasets are used again"); // one of a crash may be without bytes
        if *crash {
            volume = Arc::new(volume.after(volume.commits()));
            both.reopen(open(&volume));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls(steps in steps()) {
        run(&steps, usize::MAX);
    }

    #[test]
    fn any_calls_in_small_records(steps in steps(), pages_max in 2..5_usize) {
        run(&steps, pages_max);
    }
}
