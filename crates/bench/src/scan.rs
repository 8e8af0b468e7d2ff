//! A dataset read once from its first page to its last by a client that has nothing of it.

use crate::cluster::{Cache, Cluster, Scratch};
use crate::stats::put;
use crate::stop;
use dspm_proto::{Error, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Dataset, Intent};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Pages between two looks at signals.
const LOOK: usize = 1024;

/// The command `scan`. MB are 10^6 bytes.
///
/// # Errors
/// Those of the cluster.
pub(crate) fn measure(rounds: usize, pages: usize) -> Result<Value, Error> {
    let cluster = Cluster::configured()?;
    let scratch = Scratch::create(&cluster, "scan", pages)?;
    let mut rates = Vec::new();
    let done = stop::rounds(rounds, || {
        rates.push(scan(&cluster, &scratch)?);
        Ok(())
    })?;
    let mut out = Map::new();
    put(&mut out, "mb_per_s", &rates);
    out.extend([
        ("bytes".into(), json!(scratch.size())),
        ("prefetch".into(), json!(cluster.config.cache_prefetch)),
        ("rounds".into(), json!(done)),
    ]);
    Ok(Value::Object(out))
}

fn scan(cluster: &Cluster, scratch: &Scratch) -> Result<f64, Error> {
    let client = cluster.client(&Cache::Configured)?;
    let data = client.open(&scratch.name, None)?;
    let snapshot = data.snapshot(Intent::Read)?;
    let mut page = [0; PAGE_SIZE];
    let start = Instant::now();
    for number in 0..scratch.pages {
        data.read(&snapshot, PageNo(number as u64), 0, &mut page)?;
        if number % LOOK == 0 {
            stop::check()?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    data.release(snapshot);
    Ok(scratch.size() as f64 / 1e6 / seconds)
}
