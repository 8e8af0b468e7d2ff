//! Directed schedules about a registry whose record is an old one and that goes on from what the nodes know.

use crate::directed::{A, B, L, MS, cut_off, read, verdict, write};
use crate::membership::{N0, N1, N2, becomes, change, finds, world};
use crate::mutant::Mutant;
use crate::network::Cut;
use crate::node::Loss;
use crate::wire::Who;
use crate::world::World;

/// The registry dies, and is started with its first record.
fn put_first_back(w: &mut World) {
    w.crash(Who::Registry, Loss::Nothing);
    w.put_back(0);
    w.restart(Who::Registry);
}

/// A generation became active at one node alone, which is away; those who are there know the generation before, in which
/// they and that one held the set.
pub(crate) fn only_one_knows(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    change(&mut w, 0, &[0], &[2]);
    let ok = ok && becomes(&mut w, &[0, 2], 10 * L);
    cut_off(&mut w, &[N0]);
    change(&mut w, 2, &[2], &[]);
    let ok = ok && becomes(&mut w, &[2], 10 * L);
    let ok = ok && write(&mut w, B, 10 * L);
    w.crash(N2, Loss::Nothing);
    w.heal(Some(1));
    put_first_back(&mut w);
    w.run_for(2 * L);
    change(&mut w, 0, &[0], &[]);
    finds(&mut w, A, L);
    w.run_for(2 * L);
    read(&mut w, A);
    w.restart(N2);
    let back = becomes(&mut w, &[2], 10 * L);
    let again = write(&mut w, A, 10 * L);
    verdict(w, ok && back && again, "the group is stuck")
}

/// Two generations were decided that one node heard of which is away: neither was ever active. The versions after the
/// one that the others know are taken.
pub(crate) fn one_knows_what_never_was(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    change(&mut w, 1, &[1, 0], &[]);
    let ok = ok && becomes(&mut w, &[1, 0], 10 * L);
    w.run_for(L);
    w.network.cut(Cut { id: 1, side: [N0, N1].into(), out: true, into: true });
    change(&mut w, 1, &[1], &[2]);
    change(&mut w, 0, &[0], &[2]);
    w.run_for(20 * MS);
    w.crash(N2, Loss::Nothing);
    put_first_back(&mut w);
    w.heal(Some(1));
    let ok = ok && becomes(&mut w, &[1, 0], 10 * L);
    w.restart(N2);
    w.run_for(L);
    change(&mut w, 0, &[0, 1], &[2]);
    let joined = becomes(&mut w, &[0, 1, 2], 10 * L);
    let again = write(&mut w, B, 10 * L);
    verdict(w, ok && joined && again, "the registry decides nothing")
}
