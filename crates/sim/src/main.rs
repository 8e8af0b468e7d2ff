//! `dspm-sim`: runs the simulator.

use dspm_sim::directed;
use dspm_sim::explore::hunt_all;
use dspm_sim::{Mutant, Report, run, runs};
use std::process::ExitCode;

const USAGE: &str = "usage: dspm-sim --seeds N [--first N] | --seed K [--mutant NAME] | --mutants [--budget SEEDS] | --schedules [--mutant NAME]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let number = |name: &str| value(name).and_then(|v| v.parse::<u64>().ok());
    let mutant = match value("--mutant").map(|name| Mutant::named(name)) {
        Some(None) => return usage(),
        other => other.flatten(),
    };
    if args.iter().any(|a| a == "--mutants") {
        return mutants(number("--budget").unwrap_or(2500));
    }
    if args.iter().any(|a| a == "--schedules") {
        return schedules(mutant);
    }
    match (number("--seeds"), number("--seed")) {
        (Some(count), None) => seeds(number("--first").unwrap_or(0), count),
        (None, Some(seed)) => replay(seed, mutant),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    eprintln!("mutants: {}", Mutant::ALL.iter().map(|m| m.name()).collect::<Vec<_>>().join(" "));
    ExitCode::from(2)
}

fn seeds(first: u64, count: u64) -> ExitCode {
    let reports = runs(first, count);
    for r in &reports {
        if let Some(v) = &r.violation {
            println!("seed={} {v}", r.seed);
        }
    }
    if let Some(slowest) = reports.iter().max_by_key(|r| r.counts.recovery_ms) {
        println!("slowest recovery: seed={} {} ms", slowest.seed, slowest.counts.recovery_ms);
    }
    let sum = |f: fn(&Report) -> u64| reports.iter().map(f).sum::<u64>();
    println!(
        "commits={} begins={} local={} read_leases={} reads={} cached={} outcomes={} not_committed={} unknown={} too_old={} past={} settles={} faults={} busy={} \
         changes={} bases={} promoted={} taken_over={} joint={} aborts={} recovery_ms_max={}",
        sum(|r| r.counts.commits),
        sum(|r| r.counts.begins),
        sum(|r| r.counts.local_begins),
        sum(|r| r.counts.read_leases),
        sum(|r| r.counts.reads),
        sum(|r| r.counts.cached),
        sum(|r| r.counts.outcomes),
        sum(|r| r.counts.not_committed),
        sum(|r| r.counts.unknown),
        sum(|r| r.counts.too_old),
        sum(|r| r.counts.past),
        sum(|r| r.counts.settles),
        sum(|r| r.counts.faults),
        sum(|r| r.counts.busy),
        sum(|r| r.counts.changes),
        sum(|r| r.counts.bases),
        sum(|r| r.counts.promoted),
        sum(|r| r.counts.taken_over),
        sum(|r| r.counts.joint),
        sum(|r| r.counts.aborts),
        reports.iter().map(|r| r.counts.recovery_ms).max().unwrap_or(0),
    );
    let trace = reports.iter().fold(0u64, |h, r| h.rotate_left(5) ^ r.trace);
    finish(&reports, trace)
}

fn replay(seed: u64, mutant: Option<Mutant>) -> ExitCode {
    let report = run(seed, mutant, true);
    report.lines.iter().for_each(|l| println!("{l}"));
    if let Some(v) = &report.violation {
        println!("seed={seed} {v}");
    }
    let trace = report.trace;
    finish(&[report], trace)
}

fn schedules(mutant: Option<Mutant>) -> ExitCode {
    let mut violations = 0;
    for d in directed::ALL {
        let result = (d.play)(mutant);
        violations += u8::from(result.is_err());
        println!("{:28} {}", d.name, result.err().unwrap_or_else(|| "passes".into()));
    }
    println!("schedules={} violations={violations}", directed::ALL.len());
    ExitCode::from(u8::from(violations > 0))
}

fn finish(reports: &[Report], trace: u64) -> ExitCode {
    let violations = reports.iter().filter(|r| r.violation.is_some()).count();
    println!("seeds={} violations={violations} trace={trace:016x}", reports.len());
    ExitCode::from(u8::from(violations > 0))
}

fn mutants(budget: u64) -> ExitCode {
    let found = hunt_all(budget);
    let mut caught = 0;
    for (m, how) in &found {
        match how {
            Some((how, what)) => {
                caught += 1;
                println!("caught {} {how} ({})\n       {what}", m.name(), m.rule());
            }
            None => println!("missed {} ({})", m.name(), m.rule()),
        }
    }
    println!("mutants={} caught={caught} missed={}", found.len(), found.len() - caught);
    ExitCode::from(u8::from(caught < found.len()))
}
