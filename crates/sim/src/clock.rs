//! A process's own clock: any offset, and a rate that differs from true time by less than the drift margin.

use dspm_proto::Instant;

/// Most parts per million by which a rate differs from true time; two clocks differ by twice that.
pub const DRIFT_PPM_MAX: i64 = 4000;

/// A clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: u64,
    ppm: i64,
}

impl Clock {
    /// A clock that shows `offset` at true time 0.
    pub fn new(offset: u64, ppm: i64) -> Clock {
        Clock { offset, ppm }
    }

    /// What it shows at a true time.
    pub fn local(&self, time: u64) -> Instant {
        let drift = i128::from(time) * i128::from(self.ppm) / 1_000_000;
        Instant((i128::from(self.offset) + i128::from(time) + drift) as u64)
    }

    /// The first true time at which it shows at least `at`.
    pub fn time(&self, at: Instant) -> u64 {
        let ahead = i128::from(at.0) - i128::from(self.offset);
        let guess = ahead * 1_000_000 / i128::from(1_000_000 + self.ppm) - 1;
        let mut time = guess.max(0) as u64;
        while self.local(time) < at {
            time += 1;
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for ppm in [-DRIFT_PPM_MAX, -1, 0, 17, DRIFT_PPM_MAX] {
            let clock = Clock::new(5_000_000_000, ppm);
            for t in [0, 1, 999_999, 77_777_777_777] {
                let back = clock.time(clock.local(t));
                assert!(back <= t && clock.local(back) == clock.local(t));
            }
        }
    }
}
