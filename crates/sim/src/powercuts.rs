//! Schedules about what a power cut leaves on the disks.

use crate::directed::{A, B, L, MS, finish, start, verdict, world, write};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::wire::Who;
use dspm_proto::Lsn;

/// Both members' logs are damaged in the middle when the power comes back. Neither is the store that it was, and the set
/// waits; what it has left of the history is shown to nobody.
pub(crate) fn damaged_logs(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, true);
    let ok = (0..3).all(|_| write(&mut w, A, L));
    w.run_for(10 * MS);
    let flipped = w.nodes.iter_mut().filter_map(|n| n.slots[0].replica.as_mut()).all(|r| r.records.flip_at(Lsn(2)));
    for n in 0..2 {
        w.crash(Who::Node(n), Loss::Power);
        w.restart(Who::Node(n));
    }
    start(&mut w, B, 1, false, 0);
    let served = finish(&mut w, B, 1, 10 * L);
    verdict(w, ok && flipped && !served, "a member served from a damaged log")
}
