//! Many runs: seeds on two threads, each run single-threaded; mutants by random runs and directed schedules.

use crate::check::Counts;
use crate::directed;
use crate::mutant::{Hunt, Mutant};
use crate::world::World;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs at the same time; never more than one uses a world.
const THREADS: usize = 2;

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What went wrong first.
    pub violation: Option<String>,
    /// Hash of all its events.
    pub trace: u64,
    /// What happened how often.
    pub counts: Counts,
    /// What happened, where it was asked for.
    pub lines: Vec<String>,
}

/// One run.
pub fn run(seed: u64, mutant: Option<Mutant>, lines: bool) -> Report {
    let mut world = World::random(seed, mutant, lines);
    world.play();
    Report {
        seed,
        violation: world.check.violation().map(str::to_owned),
        trace: world.trace.hash(),
        counts: world.check.counts,
        lines: world.trace.lines().to_vec(),
    }
}

/// Runs of `first..first + count`, in order of their seeds.
pub fn runs(first: u64, count: u64) -> Vec<Report> {
    let next = AtomicU64::new(first);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return reports;
            }
            reports.push(run(seed, None, false));
        }
    };
    let mut all: Vec<Report> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..THREADS).map(|_| s.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap_or_default()).collect()
    });
    all.sort_by_key(|r| r.seed);
    all
}

/// Looks for a mutant: the seed, or the directed schedule, that catches it, and the violation.
pub fn hunt(mutant: Mutant, seeds: u64) -> Option<(String, String)> {
    let random =
        || (0..seeds).find_map(|seed| run(seed, Some(mutant), false).violation.map(|v| (format!("seed={seed}"), v)));
    let directed =
        || directed::ALL.iter().find_map(|d| (d.play)(Some(mutant)).err().map(|v| (format!("schedule={}", d.name), v)));
    match mutant.hunt() {
        Hunt::Random => random().or_else(directed),
        Hunt::Directed => directed().or_else(random),
    }
}

/// Looks for all mutants, two at a time; answers in their order.
pub fn hunt_all(seeds: u64) -> Vec<(Mutant, Option<(String, String)>)> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(m) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            found.push((*m, hunt(*m, seeds)));
        }
        found
    };
    let mut all: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..THREADS).map(|_| s.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap_or_default()).collect()
    });
    all.sort_by_key(|f: &(Mutant, _)| f.0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_runs_keep_every_rule() {
        let bad: Vec<_> = runs(0, 600).into_iter().filter_map(|r| r.violation.map(|v| (r.seed, v))).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }

    #[test]
    fn a_seed_is_its_run() {
        for seed in 0..20 {
            let (a, b) = (run(seed, None, false), run(seed, None, true));
            assert_eq!(a.trace, b.trace, "seed {seed}");
            assert!(!b.lines.is_empty());
        }
    }

    #[test]
    fn directed_schedules_pass() {
        for d in directed::ALL {
            assert_eq!((d.play)(None), Ok(()), "{}", d.name);
        }
    }

    #[test]
    fn every_mutant_is_caught() {
        let missed: Vec<_> = hunt_all(2500).into_iter().filter(|f| f.1.is_none()).map(|f| f.0).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}
