//! Directed schedules about read leases.

use crate::directed::{A, B, L, MS, client, cut_off, inject, read, start, verdict, world, write};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::wire::{Answer, Ask, Body, Envelope, Who};
use crate::world::World;
use std::time::Duration;

/// B reads until it has a read lease: the second time it asks, nothing had changed. A has its write lease still.
fn leased(w: &mut World) -> bool {
    let before = w.check.counts.read_leases;
    let ok = write(w, A, L);
    w.run_for(20 * MS);
    read(w, B);
    read(w, B);
    ok && w.check.counts.read_leases > before
}

/// B has a read lease and is cut off: A's commit returns when the lease has lapsed, and B reads nothing older then.
pub(crate) fn reader_cut_off(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = leased(&mut w);
    cut_off(&mut w, &[B]);
    let again = write(&mut w, A, 2 * L);
    read(&mut w, B);
    verdict(w, ok && again, "A's write was not served in time")
}

/// B's read lease is on its way when a commit calls it back; then it arrives.
pub(crate) fn late_read_lease(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    read(&mut w, B);
    let granted = |a: &Answer| matches!(a, Answer::Snapshot { lease, .. } if *lease > Duration::ZERO);
    w.network.catch(true, move |e: &Envelope| matches!(&e.body, Body::Answer { answer, .. } if granted(answer)));
    start(&mut w, B, 1, false, 0);
    w.run_for(3 * MS);
    let lease = w.network.caught();
    let sent = !lease.is_empty();
    let again = write(&mut w, A, L / 2);
    inject(&mut w, lease);
    read(&mut w, B);
    verdict(w, ok && sent && again, "A's write was not served in time")
}

/// B has a read lease and is cut off. A's record reaches both members, then the primary dies and comes back at once: it
/// knows nothing of the lease, and may not tell A that the record is committed before the lease has lapsed.
pub(crate) fn lease_outlives_primary(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = leased(&mut w);
    cut_off(&mut w, &[B]);
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    w.crash(Who::Node(0), Loss::Nothing);
    w.restart(Who::Node(0));
    let mut told = false;
    for _ in 0..4 * L / MS {
        w.run_for(MS);
        told |= client(&w, A).threads[0].tally[0].writes > 1;
        read(&mut w, B);
        if w.check.violation().is_some() {
            break;
        }
    }
    verdict(w, ok && told, "A never heard that its record is committed")
}

/// The writer asks for a record's outcome itself while the reader's lease lasts.
pub(crate) fn outcome_under_lease(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = leased(&mut w);
    cut_off(&mut w, &[B]);
    w.network
        .catch(true, |e: &Envelope| e.to == Who::Node(1) && matches!(&e.body, Body::Ask { ask: Ask::Commit(_), .. }));
    start(&mut w, A, 0, true, 0);
    for _ in 0..4 * L / MS {
        w.run_for(MS);
        read(&mut w, B);
    }
    let again = client(&w, A).threads[0].tally[0].writes > 1;
    verdict(w, ok && again, "A's write did not return")
}
