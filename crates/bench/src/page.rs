//! One 4 KiB page read from a node through the client core, beside the floor: 32 bytes there, a page back.

use crate::cluster::{Cache, Cluster, Scratch};
use crate::floor::Floor;
use crate::place::{self, Probes};
use crate::stats::Turns;
use crate::stop;
use dspm_proto::{Error, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Dataset, Intent};
use serde_json::{Value, json};
use std::time::Instant;

/// Pages are visited in steps of this, so that none is met again soon and none follows the one before it.
const STEP: usize = 1009;

/// The command `page`.
///
/// # Errors
/// Those of the cluster and of the floor's processes.
pub(crate) fn measure(rounds: usize, samples: usize, pages: usize) -> Result<Value, Error> {
    let cluster = Cluster::configured()?;
    let scratch = Scratch::create(&cluster, "page", pages)?;
    let client = cluster.client(&Cache::None)?;
    let data = client.open(&scratch.name, None)?;
    let mut probes = Probes::dial(&cluster, &scratch, 1)?;
    let mut floor = Floor::of_page()?;
    let mut turns = Turns::default();
    let mut at = 0;
    let mut page = [0; PAGE_SIZE];
    let snapshot = data.snapshot(Intent::Read)?;
    let misses = data.status().cache_misses;
    let done = stop::rounds(rounds, || {
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            at = (at + STEP) % pages;
            let start = Instant::now();
            data.read(&snapshot, PageNo(at as u64), 0, &mut page)?;
            times.push(start.elapsed());
        }
        let (here, cores) = (place::here(), probes.cores()?);
        let floor_us = floor.round_on(here, &cores, samples)?;
        turns.push(floor_us, &mut times, cores.iter().all(|c| *c == here));
        Ok(())
    })?;
    let asked = data.status().cache_misses - misses;
    data.release(snapshot);
    let mut out = turns.report();
    out.extend([
        ("samples".into(), json!(samples)),
        ("pages".into(), json!(pages)),
        ("asked_of_a_node".into(), json!(asked as f64 / (done * samples) as f64)),
    ]);
    Ok(Value::Object(out))
}
