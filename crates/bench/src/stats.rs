//! Medians, and one measurement beside its floor.

use serde_json::{Map, Value, json};
use std::time::Duration;

/// Microseconds of each sample; their median.
pub(crate) fn p50_us(samples: &mut [Duration]) -> f64 {
    quantile_us(samples, 0.5)
}

/// That share of the samples took less, in µs.
pub(crate) fn quantile_us(samples: &mut [Duration], share: f64) -> f64 {
    samples.sort_unstable();
    let at = (samples.len() as f64 * share) as usize;
    samples.get(at.min(samples.len().saturating_sub(1))).map_or(0.0, |d| d.as_nanos() as f64 / 1000.0)
}

/// The median of the rounds.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Puts `name` (the median), `name_min` and `name_max` of the rounds into a JSON object.
pub(crate) fn put(into: &mut Map<String, Value>, name: &str, rounds: &[f64]) {
    into.insert(name.into(), rounded(median(rounds)));
    into.insert(format!("{name}_min"), rounded(rounds.iter().copied().fold(f64::INFINITY, f64::min)));
    into.insert(format!("{name}_max"), rounded(rounds.iter().copied().fold(0.0, f64::max)));
}

fn rounded(v: f64) -> Value {
    json!((v * 1000.0).round() / 1000.0)
}

/// Rounds of a measurement and of its floor, taken in turns.
#[derive(Default)]
pub(crate) struct Turns {
    floors: Vec<f64>,
    ours: Vec<f64>,
    tails: Vec<f64>,
    near: Vec<bool>,
}

impl Turns {
    /// One more round: the floor's median in µs, our samples, and whether all ran on one core.
    pub(crate) fn push(&mut self, floor_us: f64, ours: &mut [Duration], near: bool) {
        self.near.push(near);
        self.floors.push(floor_us);
        self.ours.push(p50_us(ours));
        self.tails.push(quantile_us(ours, 0.99));
    }

    /// `floor_us`, `p50_us`, `p99_us` and `ratio`, with the spread of the rounds; `on_one_core` is the share of rounds
    /// in which client and nodes were. The ratio is the median of the rounds' own, each against its own floor.
    pub(crate) fn report(&self) -> Map<String, Value> {
        let mut out = Map::new();
        put(&mut out, "floor_us", &self.floors);
        put(&mut out, "p50_us", &self.ours);
        put(&mut out, "p99_us", &self.tails);
        let ratios: Vec<f64> = self.ours.iter().zip(&self.floors).map(|(o, f)| o / f).collect();
        put(&mut out, "ratio", &ratios);
        out.insert("rounds".into(), json!(self.ours.len()));
        let near = self.near.iter().filter(|n| **n).count() as f64 / self.near.len().max(1) as f64;
        out.insert("on_one_core".into(), rounded(near));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let mut samples: Vec<Duration> = (1..=101).rev().map(Duration::from_micros).collect();
        assert_eq!(p50_us(&mut samples), 51.0);
        assert_eq!(quantile_us(&mut samples, 1.0), 101.0);
        assert_eq!(p50_us(&mut []), 0.0);
    }

    #[test]
    fn each_round_has_its_own_floor() {
        let mut turns = Turns::default();
        for (floor, ours) in [(10.0, 11), (20.0, 30), (40.0, 41)] {
            turns.push(floor, &mut [Duration::from_micros(ours)], floor < 15.0);
        }
        let report = turns.report();
        assert_eq!(report["floor_us"], 20.0);
        assert_eq!(report["p50_us"], 30.0);
        assert_eq!(report["ratio"], 1.1);
        assert_eq!(report["on_one_core"], 0.333);
        assert_eq!(report["ratio_min"], 1.025);
        assert_eq!(report["ratio_max"], 1.5);
    }
}
