//! Snapshots that are open in this process, by epoch and LSN: the lowest of the present epoch is the process's floor.

use dspm_proto::Lsn;
use std::collections::BTreeMap;

/// An epoch of the group's history, and a commit of it.
pub(crate) type Pin = (u64, Lsn);

/// Counted pins. Those of an epoch that is over keep nothing alive; their owners remove them all the same.
#[derive(Default)]
pub(crate) struct Pins(BTreeMap<Pin, u32>);

impl Pins {
    pub(crate) fn add(&mut self, pin: Pin) {
        *self.0.entry(pin).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, pin: Pin) {
        if let Some(n) = self.0.get_mut(&pin) {
            *n -= 1;
            if *n == 0 {
                self.0.remove(&pin);
            }
        }
    }

    /// The lowest open snapshot of an epoch.
    pub(crate) fn lowest(&self, epoch: u64) -> Option<Lsn> {
        self.0.range((epoch, Lsn(0))..=(epoch, Lsn(u64::MAX))).next().map(|(pin, _)| pin.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_an_epoch_that_is_over_do_not_count() {
        let mut pins = Pins::default();
        pins.add((0, Lsn(3)));
        pins.add((1, Lsn(5)));
        assert_eq!((pins.lowest(0), pins.lowest(1), pins.lowest(2)), (Some(Lsn(3)), Some(Lsn(5)), None));
        pins.add((1, Lsn(3)));
        pins.remove((0, Lsn(3)));
        assert_eq!((pins.lowest(0), pins.lowest(1)), (None, Some(Lsn(3))));
    }
}
