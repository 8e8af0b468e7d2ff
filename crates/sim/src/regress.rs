//! Schedules that showed a fault of the machines once: they stay, so that it does not come back.

use crate::directed::{A, B, L, MS, client, cut_off, finish, inject, read, start, verdict, world, write};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::wire::{Answer, Ask, Body, Who};
use dspm_txn::PeerMessage;

/// A settle fetches a record from a member that loses power before it could send it: the tail is asked for again.
pub(crate) fn fetch_from_power_cut(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, true);
    let ok = write(&mut w, A, L);
    w.nodes.iter_mut().for_each(|n| n.sync_max = 100 * L);
    w.network.catch(true, |e| e.to == Who::Node(0) && matches!(&e.body, Body::Ask { ask: Ask::Commit(_), .. }));
    start(&mut w, A, 0, true, 0); // its record reaches the backup only, which does not sync it
    w.run_for(3 * MS);
    cut_off(&mut w, &[A]);
    w.network.catch(true, |e| matches!(&e.body, Body::Peer { message: PeerMessage::Fetch(_), .. }));
    start(&mut w, B, 0, true, 0);
    w.run_for(L + L / 2);
    let fetches = !w.network.caught().is_empty();
    w.crash(Who::Node(1), Loss::Power);
    w.restart(Who::Node(1));
    w.nodes.iter_mut().for_each(|n| n.sync_max = MS);
    let again = finish(&mut w, B, 0, 10 * L);
    verdict(w, ok && fetches && again, "the settle is stuck")
}

/// The group's first record is on its way: a reader is shown the empty group, at once and without a storm of probes.
pub(crate) fn read_nothing_yet(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    w.network.catch(true, |e| e.to == Who::Node(1) && matches!(&e.body, Body::Ask { ask: Ask::Commit(_), .. }));
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    let before = client(&w, B).threads[1].tally[0].reads;
    read(&mut w, B);
    let shown = client(&w, B).threads[1].tally[0].reads > before;
    verdict(w, shown, "the reader was not answered")
}

/// A's grant is slow; its lease lapses, B writes, A asks and is shown B's state. Then the grant arrives.
pub(crate) fn overtaken_grant(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    w.network.catch(true, |e| e.to == A && matches!(&e.body, Body::Answer { answer: Answer::Granted { .. }, .. }));
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    let grant = w.network.caught();
    let ok = write(&mut w, B, 3 * L);
    read(&mut w, A);
    let known = client(&w, A).desks[0].holder.tail();
    inject(&mut w, grant);
    let kept = client(&w, A).desks[0].holder.tail().lsn >= known.lsn;
    verdict(w, ok && known.lsn.0 == 1 && kept, "what the process knew went back")
}
