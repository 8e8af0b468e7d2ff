//! A transaction of one full page, committed to every member through the client core, beside the floor: a page to as
//! many processes, 32 bytes back from each.

use crate::cluster::{Cluster, Numbers, Scratch, random_page};
use crate::floor::Floor;
use crate::place::{self, Probes};
use crate::stats::Turns;
use crate::stop;
use dspm_proto::{Error, PageNo};
use dspm_txn::dataset::{Change, PageBuf};
use serde_json::{Value, json};
use std::time::Instant;

/// Pages that take turns, each with two contents that do too: no content resembles the one before it.
const PAGES: usize = 64;

/// The command `commit`.
///
/// # Errors
/// Those of the cluster and of the floor's processes.
pub(crate) fn measure(rounds: usize, samples: usize) -> Result<Value, Error> {
    let cluster = Cluster::configured()?;
    let scratch = Scratch::create(&cluster, "commit", PAGES)?;
    let mut numbers = Numbers::new();
    let contents: [Box<PageBuf>; 2] = [random_page(&mut numbers), random_page(&mut numbers)];
    let size = scratch.size();
    let mut probes = Probes::dial(&cluster, &scratch, scratch.members())?;
    let mut floor = Floor::of_commit(scratch.members())?;
    let mut turns = Turns::default();
    let mut count = 0;
    stop::rounds(rounds, || {
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            count += 1;
            let pages = [(PageNo((count % PAGES) as u64), &*contents[count / PAGES % 2])];
            let start = Instant::now();
            scratch.write(&Change { pages: &pages, size })?;
            times.push(start.elapsed());
        }
        let (here, cores) = (place::here(), probes.cores()?);
        let floor_us = floor.round_on(here, &cores, samples)?;
        turns.push(floor_us, &mut times, cores.iter().all(|c| *c == here));
        Ok(())
    })?;
    let mut out = turns.report();
    out.extend([
        ("samples".into(), json!(samples)),
        ("members".into(), json!(scratch.members())),
        ("durability".into(), json!(scratch.located.entry.durability.name())),
    ]);
    Ok(Value::Object(out))
}
