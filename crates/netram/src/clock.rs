//! The clock of leases: CLOCK_BOOTTIME, which goes on while the machine sleeps, so a lease cannot outlive a suspend.

use dspm_proto::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now.
#[inline]
pub fn now() -> Instant {
    let t = clock_gettime(ClockId::Boottime);
    Instant(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}
