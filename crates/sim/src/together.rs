//! Directed schedules about transactions over several groups: A commits to both, group 0 decides; B comes afterwards.

use crate::directed::{A, B, L, MS, finish, inject, read, start, verdict};
use crate::membership::{becomes, change, finds};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::thread::Step;
use crate::wire::{Ask, Body, Envelope, Who};
use crate::world::{Actor, Shape, World};
use dspm_proto::Part;
use std::time::Duration;

const N0: Who = Who::Node(0);
const N1: Who = Who::Node(1);

/// Two groups on two nodes: of two sets, each node primary of one, or of one set.
fn world(m: Option<Mutant>, sets: usize, disk: bool) -> World {
    let (lease, history) = (Duration::from_nanos(L), Duration::ZERO);
    let shape =
        Shape { copies: 2, nodes: 2, sets, groups: 2, clients: 2, threads: 2, disk, lease, history, changes: false };
    scripted(World::new(1, shape, m, false))
}

pub(crate) fn scripted(mut w: World) -> World {
    for c in &mut w.clients {
        c.scripted = true;
        c.threads.iter_mut().for_each(|t| t.step = Step::Stopped);
    }
    w.run_for(20 * MS);
    w
}

/// A's first thread commits to both groups.
fn start_all(w: &mut World, decider: usize) {
    w.act(A, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.decides = Some(decider);
            c.start_all(0, &[0, 1], ctx);
        }
    });
}

/// One transaction of B on one group. True: it was done.
pub(crate) fn one(w: &mut World, g: usize, writes: bool, most: u64) -> bool {
    let done = |w: &World| {
        let t = w.clients[1].threads[usize::from(!writes)].tally[g];
        if writes { t.writes } else { t.reads }
    };
    let before = done(w);
    w.act(B, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.start(usize::from(!writes), g, writes, 0, ctx);
        }
    });
    finish(w, B, usize::from(!writes), most) && done(w) > before
}

fn write_both(w: &mut World, most: u64) -> bool {
    one(w, 0, true, most) && one(w, 1, true, most)
}

pub(crate) fn part(e: &Envelope, part: Part, empty: bool) -> bool {
    matches!(&e.body, Body::Ask { ask: Ask::Commit(r), .. } if r.part == part && r.is_empty() == empty)
}

pub(crate) fn resolves(e: &Envelope) -> bool {
    part(e, Part::Alone, true) || matches!(&e.body, Body::Ask { ask: Ask::Resolved(_), .. })
}

pub(crate) fn crosses(e: &Envelope) -> bool {
    matches!(e.body, Body::Cross { .. })
}

/// Both members of group 1 hold A's prepared record; what is to be done next is caught.
fn prepared(w: &mut World) -> bool {
    let ok = write_both(w, L);
    w.run_for(20 * MS);
    w.network.catch(true, |e| part(e, Part::Decides, false));
    start_all(w, 0);
    w.run_for(10 * MS);
    ok && w.nodes.iter().all(|n| n.is_unresolved(1)) && !w.network.caught.is_empty()
}

/// All hold the decision, and nobody heard of it in group 1.
fn decided(w: &mut World) -> bool {
    let ok = write_both(w, L);
    w.run_for(20 * MS);
    w.network.catch(true, |e| resolves(e) || crosses(e));
    start_all(w, 0);
    w.run_for(10 * MS);
    ok && w.nodes.iter().all(|n| n.is_unresolved(1)) && !w.network.caught.is_empty()
}

fn both_read(w: &mut World) -> bool {
    one(w, 0, false, L) && one(w, 1, false, L)
}

/// The writer dies before the decision: group 1 is as it was before, and takes writers again.
pub(crate) fn writer_dies_prepared(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = prepared(&mut w);
    let before = both_read(&mut w);
    w.crash(A, Loss::Nothing);
    w.network.caught();
    let again = one(&mut w, 1, true, 5 * L) && both_read(&mut w) && write_both(&mut w, 5 * L);
    let aborted = w.check.counts.aborts == 1;
    verdict(w, ok && before && again && aborted, "a group is stuck, or was not taken back")
}

/// The writer dies before the decision, which arrives when group 1 asked about it.
pub(crate) fn late_decision(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = prepared(&mut w);
    let decision = w.network.caught();
    w.pause(A);
    let again = one(&mut w, 1, true, 5 * L);
    inject(&mut w, decision);
    w.resume(A);
    w.run_for(3 * L);
    let at_last = both_read(&mut w) && write_both(&mut w, 5 * L);
    verdict(w, ok && again && at_last, "a group is stuck")
}

/// The writer dies when the decision is held by all: who writes next in either group finds it done in both.
pub(crate) fn writer_dies_decided(m: Option<Mutant>, first: usize) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = decided(&mut w);
    w.crash(A, Loss::Nothing);
    w.network.caught();
    let again = one(&mut w, first, true, 5 * L) && both_read(&mut w) && one(&mut w, 1 - first, true, 5 * L);
    let kept = w.check.counts.aborts == 0;
    verdict(w, ok && again && kept, "a group is stuck, or a decision was lost")
}

/// The same while the two primaries do not hear each other: group 0 is read and takes no writer, however often it is asked
/// to; then they do.
pub(crate) fn decided_and_cut_off(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = decided(&mut w);
    w.crash(A, Loss::Nothing);
    w.network.caught();
    w.network.catch(true, crosses);
    let mut waits = true;
    for _ in 0..10 {
        waits &= one(&mut w, 0, false, L);
        waits &= !one(&mut w, 0, true, 2 * L);
        w.act(B, |actor, ctx| {
            if let Actor::Client(c) = actor {
                c.give_up_waiting(0, ctx);
            }
        });
    }
    w.network.caught();
    let again = one(&mut w, 1, true, 5 * L) && both_read(&mut w) && one(&mut w, 0, true, 5 * L);
    let kept = w.check.counts.aborts == 0;
    verdict(w, ok && waits && again && kept, "group 0 was not read, or went on, or is stuck, or a decision was lost")
}

/// Power fails in group 1 after it was told; group 0 has gone on for long when it is back.
pub(crate) fn told_and_power_cut(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, true);
    let ok = decided(&mut w);
    w.crash(A, Loss::Nothing);
    w.network.caught();
    let told = one(&mut w, 0, true, 5 * L);
    let mut more = true;
    for n in [N0, N1] {
        more &= (0..10).all(|_| one(&mut w, 0, true, 5 * L));
        w.crash(n, Loss::Power);
        w.restart(n);
        more &= (0..10).all(|_| one(&mut w, 0, true, 10 * L));
    }
    let again = both_read(&mut w) && write_both(&mut w, 10 * L);
    let kept = w.check.counts.aborts == 0;
    verdict(w, ok && told && more && again && kept, "a group is stuck, or a decision was lost")
}

/// The writer and the one primary of both groups die between two steps.
pub(crate) fn one_primary_dies(m: Option<Mutant>, is_decided: bool, disk: bool) -> Result<(), String> {
    let mut w = world(m, 1, disk);
    let ok = if is_decided { decided(&mut w) } else { prepared(&mut w) };
    w.crash(A, Loss::Nothing);
    w.crash(N0, if disk { Loss::Power } else { Loss::Nothing });
    w.network.caught();
    w.restart(N0);
    w.run_for(2 * L); // leases and grants of before
    let again = both_read(&mut w) && write_both(&mut w, 10 * L);
    let aborted = w.check.counts.aborts == u64::from(!is_decided);
    verdict(w, ok && again && aborted, "a group is stuck, or not what was decided")
}

/// Everybody dies, and all that nobody heard is lost.
pub(crate) fn all_die(m: Option<Mutant>, is_decided: bool) -> Result<(), String> {
    let mut w = world(m, 2, true);
    let ok = if is_decided { decided(&mut w) } else { prepared(&mut w) };
    w.run_for(20 * MS); // all is in the logs
    for who in [A, N0, N1] {
        w.crash(who, Loss::Power);
    }
    w.network.caught();
    w.restart(N0);
    w.restart(N1);
    w.run_for(2 * L);
    let again = one(&mut w, 1, true, 10 * L) && both_read(&mut w) && write_both(&mut w, 10 * L);
    let aborted = w.check.counts.aborts == u64::from(!is_decided);
    verdict(w, ok && again && aborted, "a group is stuck, or not what was decided")
}

/// A member without room for the resolution, and B, who reads all the while.
pub(crate) fn no_room_to_resolve(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = write_both(&mut w, L);
    w.run_for(20 * MS);
    w.network.catch(true, resolves);
    start_all(&mut w, 0);
    w.run_for(10 * MS);
    w.nodes[0].room = 0;
    let held: Vec<Envelope> = w.network.caught();
    inject(&mut w, held);
    w.run_for(20 * MS);
    let meanwhile = both_read(&mut w);
    w.nodes[0].room = u64::MAX;
    let done = finish(&mut w, A, 0, 5 * L);
    let again = both_read(&mut w) && write_both(&mut w, 5 * L);
    read(&mut w, A);
    verdict(w, ok && meanwhile && done && again, "a group is stuck")
}

/// The writer's second thread writes to group 0 while what resolves group 1 is on its way; then the process dies.
pub(crate) fn writer_dies_busy(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = decided(&mut w);
    for _ in 0..10 {
        start(&mut w, A, 1, true, 0);
        finish(&mut w, A, 1, 20 * MS);
    }
    w.crash(A, Loss::Nothing);
    w.network.caught();
    let again = one(&mut w, 1, true, 5 * L) && both_read(&mut w) && one(&mut w, 0, true, 5 * L);
    let kept = w.check.counts.aborts == 0;
    verdict(w, ok && again && kept, "a group is stuck, or a decision was lost")
}

/// Group 1 decides and cannot be asked. A spare joins the set of group 0, whose tail is prepared, too late to be told by
/// records, and is its only member in the end; then group 1 says no.
pub(crate) fn joins_a_prepared_tail(m: Option<Mutant>) -> Result<(), String> {
    let (lease, history) = (Duration::from_nanos(L), Duration::ZERO);
    let shape = Shape {
        copies: 2,
        nodes: 4,
        sets: 2,
        groups: 2,
        clients: 2,
        threads: 2,
        disk: false,
        lease,
        history,
        changes: true,
    };
    let mut w = scripted(World::new(1, shape, m, false));
    let ok = (0..14).all(|_| one(&mut w, 0, true, L)) && one(&mut w, 1, true, L);
    w.run_for(20 * MS);
    w.network.catch(true, |e| part(e, Part::Decides, false) || crosses(e));
    start_all(&mut w, 1);
    w.run_for(10 * MS);
    let prepared = w.nodes[0].is_unresolved(0) && w.nodes[1].is_unresolved(0);
    w.crash(A, Loss::Nothing);
    change(&mut w, 0, &[0], &[3]);
    let whole = becomes(&mut w, &[0, 3], 10 * L);
    let waits = one(&mut w, 0, false, 2 * L) && w.nodes[3].is_unresolved(0);
    change(&mut w, 3, &[3], &[]);
    becomes(&mut w, &[3], 5 * L);
    finds(&mut w, B, 5 * L);
    let shown = one(&mut w, 0, false, 2 * L);
    w.network.caught();
    let again = write_both(&mut w, 10 * L) && both_read(&mut w);
    let aborted = w.check.counts.aborts == 1;
    verdict(
        w,
        ok && prepared && whole && waits && shown && again && aborted,
        "the set is stuck, or not what was decided",
    )
}

/// Group 1 is told, and its members do not hear each other: nothing is resolved, and group 0 takes no writer.
pub(crate) fn resolution_not_held(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = decided(&mut w);
    w.crash(A, Loss::Nothing);
    w.network.caught();
    w.network.catch(true, |e| e.group == 1 && matches!(e.body, Body::Peer { .. } | Body::Replicate { .. }));
    let waits = !one(&mut w, 0, true, 3 * L);
    w.network.caught();
    finish(&mut w, B, 0, 5 * L);
    let again = write_both(&mut w, 5 * L) && both_read(&mut w);
    verdict(w, ok && waits && again, "group 0 went on before group 1 was resolved, or a group is stuck")
}

/// A's transaction finds no room in group 1 for almost as long as its caller waits. Its second thread, which began before,
/// waits to write to group `g`; what goes out when there is room is caught.
fn slow(w: &mut World, g: usize, next: impl Fn(&Envelope) -> bool + 'static) -> bool {
    let ok = write_both(w, L);
    w.run_for(20 * MS);
    w.clients[0].commit_timeout = Duration::from_nanos(3 * L);
    w.nodes[0].room = 0;
    start_all(w, 0);
    w.run_for(10 * MS);
    w.act(A, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.start(1, g, true, 0, ctx);
        }
    });
    w.run_for(28 * L / 10);
    w.network.catch(true, next);
    w.run_for(MS); // what went out before was refused
    w.nodes[0].room = u64::MAX;
    w.run_for(12 * L / 10);
    ok && !w.network.caught.is_empty() && w.clients[0].threads[1].step == Step::Mutex
}

/// Nothing of A's waits any more.
fn is_done(w: &World) -> bool {
    w.clients[0].joints.is_empty() && w.clients[0].threads.iter().all(|t| t.step == Step::Stopped)
}

/// The caller's time is over while what resolves group 1 is on its way there; the process's next record for group 1 waits
/// for it.
pub(crate) fn caller_gives_up_resolving(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = slow(&mut w, 1, |e| part(e, Part::Decides, false));
    let decision = w.network.caught();
    w.network.catch(true, |e| resolves(e) || crosses(e));
    inject(&mut w, decision);
    w.run_for(12 * L / 10);
    let gave_up = w.clients[0].threads[0].step == Step::Stopped && w.check.counts.joint == 0;
    let resolution = w.network.caught();
    inject(&mut w, resolution);
    finish(&mut w, A, 1, 5 * L);
    let done = is_done(&w) && write_both(&mut w, 5 * L) && both_read(&mut w);
    verdict(w, ok && gave_up && done, "the transaction does not come to its end, or a group is stuck")
}

/// The caller's time is over while the decision is on its way: if it is committed after all, nothing of the process goes on
/// behind it before group 1 is told, and the process dies.
pub(crate) fn caller_gives_up_deciding(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, 2, false);
    let ok = slow(&mut w, 0, |e| part(e, Part::Prepared, false));
    let prepared = w.network.caught();
    w.network
        .catch(true, |e| part(e, Part::Decides, false) || matches!(e.body, Body::Ask { ask: Ask::Outcome(_), .. }));
    inject(&mut w, prepared);
    w.run_for(12 * L / 10);
    let gave_up = w.clients[0].threads[0].step == Step::Stopped && w.clients[0].joints.len() == 1;
    let (decision, questions): (Vec<_>, _) =
        w.network.caught().into_iter().partition(|e| part(e, Part::Decides, false));
    w.network.catch(true, |e| resolves(e) || crosses(e));
    inject(&mut w, decision);
    inject(&mut w, questions);
    for _ in 0..10 {
        if finish(&mut w, A, 1, L / 10) {
            start(&mut w, A, 1, true, 0);
        }
    }
    w.crash(A, Loss::Nothing);
    w.network.caught();
    let again = one(&mut w, 1, true, 5 * L) && both_read(&mut w) && one(&mut w, 0, true, 5 * L);
    let kept = w.check.counts.aborts == 0;
    verdict(w, ok && gave_up && again && kept, "a group is stuck, or a decision was lost")
}
