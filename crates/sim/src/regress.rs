//! Schedules that showed a fault of the machines once: they stay, so that it does not come back.

use crate::directed::{A, B, L, MS, client, cut_off, finish, inject, read, start, verdict, world, write};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::past::start_past;
use crate::thread::Step;
use crate::wire::{Answer, Ask, Body, Who};
use crate::world::World;
use dspm_proto::{Error, Lsn};
use dspm_txn::{PeerMessage, SNAPSHOTS_MAX};

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

/// A's record waits for room at one member: its process reads meanwhile, the state before, and the record afterwards.
pub(crate) fn read_while_full(m: Option<Mutant>, short: usize) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    w.nodes[short].room = 0;
    start(&mut w, A, 0, true, 0);
    w.run_for(20 * MS);
    let reads = |w: &World| client(w, A).threads[1].tally[0].reads;
    read(&mut w, A);
    let meanwhile = reads(&w) == 1 && client(&w, A).threads[0].step == Step::Committing;
    w.nodes[short].room = u64::MAX;
    let again = finish(&mut w, A, 0, L);
    read(&mut w, A);
    let afterwards = reads(&w) == 2;
    verdict(w, ok && meanwhile && again && afterwards, "a reader waits for its process's record")
}

/// More readers than there is a place for ask a primary that is not ready: those beyond are told to ask again, at once.
pub(crate) fn too_many_readers(m: Option<Mutant>) -> Result<(), String> {
    crowd(m, |w| read(w, B), |a| matches!(a, Ask::Snapshot(_)), |a| matches!(a, Answer::Snapshot { .. }))
}

/// The same of the past.
pub(crate) fn too_many_past_readers(m: Option<Mutant>) -> Result<(), String> {
    crowd(m, |w| start_past(w, Lsn(1)), |a| matches!(a, Ask::AsOf(_)), |a| matches!(a, Answer::AsOf { .. }))
}

fn crowd(
    m: Option<Mutant>,
    ask: fn(&mut World),
    asked: fn(&Ask) -> bool,
    answered: fn(&Answer) -> bool,
) -> Result<(), String> {
    let (mut w, beyond) = (world(m, false), 10);
    let ok = write(&mut w, A, L);
    w.crash(Who::Node(0), Loss::Nothing);
    w.restart(Who::Node(0));
    w.network.catch(true, move |e| matches!(&e.body, Body::Ask { ask, .. } if asked(ask)));
    ask(&mut w);
    let Some(question) = w.network.caught().pop() else { return verdict(w, false, "nobody asked") };
    let count = |w: &mut World, time: u64, kind: fn(&Answer) -> bool| {
        w.network.catch(true, move |e| e.to == B && matches!(&e.body, Body::Answer { answer, .. } if kind(answer)));
        w.run_for(time);
        w.network.caught().len()
    };
    (0..SNAPSHOTS_MAX + beyond).for_each(|_| w.send(question.clone()));
    let unavailable = |a: &Answer| matches!(a, Answer::Failed(Error::Unavailable(_)));
    let refused = count(&mut w, 10 * MS, unavailable);
    let shown = count(&mut w, 2 * L, answered);
    verdict(w, ok && refused == beyond && shown >= SNAPSHOTS_MAX, "readers wait without a limit, or for ever")
}
