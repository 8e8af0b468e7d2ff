//! Snapshots that are open in this process, by LSN: the lowest is the process's floor.

use dspm_proto::Lsn;
use std::collections::BTreeMap;

/// Counted LSNs.
#[derive(Default)]
pub(crate) struct Pins(BTreeMap<Lsn, u32>);

impl Pins {
    pub(crate) fn add(&mut self, lsn: Lsn) {
        *self.0.entry(lsn).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, lsn: Lsn) {
        if let Some(n) = self.0.get_mut(&lsn) {
            *n -= 1;
            if *n == 0 {
                self.0.remove(&lsn);
            }
        }
    }

    /// The lowest open snapshot.
    pub(crate) fn lowest(&self) -> Option<Lsn> {
        self.0.keys().next().copied()
    }
}
