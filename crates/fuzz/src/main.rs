//! `dspm-fuzz`: hostile bytes, from a seed. Without `--live` for the decoders alone, with it for the nodes of the cluster
//! that DSPM_CONFIG names, which is best one that holds nothing.
//!
//! Inputs are valid messages of every kind with a few places harmed; most are sealed again, so that they pass the
//! checksums and reach the decoder behind. The promises that are checked: no panic, no large allocation for a lying
//! length, what a decoder takes it gives back, a record that is sent again keeps its identity; a node goes on serving.

mod catalog;
mod generate;
mod live;
mod mutate;
mod offline;
mod rng;

use dspm_proto::Error;
use lexopt::prelude::*;
use std::process::ExitCode;

const USAGE: &str = "usage: dspm-fuzz [--live] [--inputs 1000000] [--seed 1]";

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("dspm: error: {e}");
            ExitCode::from(if matches!(e, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run() -> Result<String, Error> {
    let usage = |e: lexopt::Error| Error::Usage(format!("{e}; {USAGE}"));
    let (mut is_live, mut inputs, mut seed) = (false, 1_000_000, 1);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("live") => is_live = true,
            Long("inputs") => inputs = parser.value().and_then(|v| v.parse()).map_err(usage)?,
            Long("seed") => seed = parser.value().and_then(|v| v.parse()).map_err(usage)?,
            Long("help") => return Ok(USAGE.into()),
            other => return Err(usage(other.unexpected())),
        }
    }
    let start = std::time::Instant::now();
    let rate = |n: u64| (n as f64 / start.elapsed().as_secs_f64()) as u64;
    if is_live {
        let c = live::run(seed, inputs)?;
        let (sent, connections, answered) = (c.sent, c.connections, c.answered_bytes);
        return Ok(format!(
            "sent={sent} connections={connections} answered_bytes={answered} per_second={}",
            rate(sent)
        ));
    }
    let c = offline::run(seed, inputs)?;
    let least = c.by_message.iter().min().copied().unwrap_or(0);
    let (reached, taken, per_second) = (c.reached, c.taken, rate(inputs));
    Ok(format!(
        "inputs={inputs} reached={reached} taken={taken} messages={} least_of_a_message={least} per_second={per_second}",
        c.by_message.len()
    ))
}
