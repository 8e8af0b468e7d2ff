//! Schedules about outcomes that are asked for late.

use crate::directed::{A, B, L, MS, client, cut_off, finish, start, verdict, world, write};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::wire::{Answer, Body, Who};
use crate::world::World;
use std::time::Duration;

/// A's record is held by all, and none of the acknowledgements reaches A, which is cut off. Others commit so much that
/// the identity of A's record is forgotten; with `newcomers`, so many of them that A is forgotten too. Every member
/// restarts. Then A asks: "committed" as long as A's newest record is known, and never "not committed".
pub(crate) fn late_question(m: Option<Mutant>, newcomers: bool) -> Result<(), String> {
    let mut w = world(m, false);
    w.clients[0].commit_timeout = Duration::from_nanos(100 * L);
    w.network.catch(true, |e| e.to == A && matches!(&e.body, Body::Answer { answer: Answer::Ack(_), .. }));
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    cut_off(&mut w, &[A]);
    let held = !w.network.caught().is_empty();
    let mut ok = (0..8).all(|_| write(&mut w, B, 5 * L));
    for _ in 0..u8::from(newcomers) * 2 {
        another_process(&mut w);
        ok &= write(&mut w, B, 5 * L);
    }
    for n in 0..2 {
        w.crash(Who::Node(n), Loss::Nothing);
        w.restart(Who::Node(n));
    }
    ok &= write(&mut w, B, 5 * L);
    w.heal(None);
    let told = finish(&mut w, A, 0, 10 * L);
    let (unknown, written) = (w.check.counts.unknown, client(&w, A).threads[0].tally[0].writes);
    let expected = if newcomers { (1, 0) } else { (0, 1) };
    verdict(w, ok && held && told && (unknown, written) == expected, "the outcome is not what it has to be")
}

/// A new process in B's place.
fn another_process(w: &mut World) {
    w.crash(B, Loss::Nothing);
    w.restart(B);
    let c = &mut w.clients[1];
    c.scripted = true;
    c.threads.iter_mut().for_each(|t| t.step = crate::thread::Step::Stopped);
    w.run_for(MS);
}
