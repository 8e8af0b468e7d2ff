//! Directed schedules about changes of membership: node 0 is primary and node 1 its backup, node 2 a spare; the registry
//! does what it is told.

use crate::directed::{A, B, L, MS, client, cut_off, finish, inject, read, start, verdict, write};
use crate::mutant::Mutant;
use crate::network::Cut;
use crate::node::Loss;
use crate::set::SetConfig;
use crate::thread::Step;
use crate::wire::{Ask, Body, Envelope, Who};
use crate::world::{Actor, Shape, World};
use dspm_txn::{Member, PeerMessage};
use std::rc::Rc;
use std::time::Duration;

pub(crate) const N0: Who = Who::Node(0);
pub(crate) const N1: Who = Who::Node(1);
pub(crate) const N2: Who = Who::Node(2);

pub(crate) fn world(mutant: Option<Mutant>) -> World {
    let (lease, history) = (Duration::from_nanos(L), Duration::ZERO);
    let shape = Shape {
        copies: 2,
        nodes: 3,
        sets: 1,
        groups: 1,
        clients: 2,
        threads: 2,
        disk: false,
        lease,
        history,
        changes: true,
    };
    let mut w = World::new(1, shape, mutant, false);
    w.registry.iter_mut().for_each(|r| r.scripted = true);
    for c in &mut w.clients {
        c.scripted = true;
        c.threads.iter_mut().for_each(|t| t.step = Step::Stopped);
    }
    w.run_for(20 * MS);
    w
}

/// The registry begins a generation.
pub(crate) fn change(w: &mut World, primary: u32, members: &[u32], joining: &[u32]) {
    let member = |n: &u32| Member { node: *n, store: w.nodes[*n as usize].store };
    let (members, joining) = (members.iter().map(member).collect(), joining.iter().map(member).collect());
    propose(w, primary, members, joining);
}

fn propose(w: &mut World, primary: u32, members: Vec<Member>, joining: Vec<Member>) {
    w.act(Who::Registry, |actor, ctx| {
        if let Actor::Registry(r) = actor {
            let now = r.sets[0].clone();
            r.propose(0, &now, primary, members, joining, ctx);
        }
    });
}

fn members(w: &World) -> Vec<u32> {
    let c = &w.sets[0];
    c.members.iter().filter(|_| c.active).map(|m| m.node).collect()
}

/// Runs until the set is active with these members, at most so long.
pub(crate) fn becomes(w: &mut World, expected: &[u32], most: u64) -> bool {
    let end = w.time + most;
    while members(w) != expected && w.time < end && w.check.violation().is_none() {
        w.run_for(MS);
    }
    members(w) == expected
}

/// Asks around until the client knows the newest configuration.
pub(crate) fn finds(w: &mut World, who: Who, most: u64) {
    let end = w.time + most;
    let behind = |w: &World| client(w, who).desks[0].config.version < w.sets[0].version;
    while behind(w) && w.time < end && w.check.violation().is_none() {
        w.act(who, |actor, ctx| {
            if let Actor::Client(c) = actor {
                c.locate(0, ctx);
            }
        });
        w.run_for(MS);
    }
}

fn heal(w: &mut World, cut: u64) {
    w.heal(Some(cut));
}

/// The primary is cut off with a reader and does not hear that it was replaced.
pub(crate) fn cut_off_primary(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    cut_off(&mut w, &[N0, A]);
    w.run_for(2 * L);
    change(&mut w, 1, &[1], &[2]);
    let again = write(&mut w, B, 10 * L);
    read(&mut w, A);
    verdict(w, ok && again, "B's write was not served")
}

/// A joining member becomes complete, which its primary, cut off with a writer that has the lease, does not hear. Then
/// it is primary itself.
pub(crate) fn joining_member_takes_over(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.network.catch(true, |e| matches!(e.body, Body::Whole { .. }));
    change(&mut w, 0, &[0], &[1]);
    let active = becomes(&mut w, &[0], 2 * L);
    let ok = ok && active && write(&mut w, A, 3 * L);
    read(&mut w, B);
    cut_off(&mut w, &[N0, A]);
    w.network.caught();
    let whole = becomes(&mut w, &[0, 1], L);
    w.run_for(2 * L);
    change(&mut w, 1, &[1], &[]);
    let again = write(&mut w, B, 10 * L);
    read(&mut w, A);
    verdict(w, ok && whole && again, "B's write was not served")
}

/// The new primary is never obeyed by the spare that joins. Once that were complete and primary itself it would owe
/// nobody anything, while a lease of the first primary lasts.
pub(crate) fn two_changes_in_a_lease(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(L / 3);
    cut_off(&mut w, &[N0, A]);
    w.network.catch(true, |e| e.to == N2 && matches!(e.body, Body::Grant { .. }));
    change(&mut w, 1, &[1], &[2]);
    if becomes(&mut w, &[1, 2], L / 3) {
        change(&mut w, 2, &[2], &[]);
    }
    becomes(&mut w, &[2], L / 10);
    finds(&mut w, B, L / 3);
    write(&mut w, B, L / 10);
    read(&mut w, A);
    w.network.caught();
    let again = write(&mut w, B, 10 * L);
    verdict(w, ok && again, "B's write was not served")
}

/// The new primary dies after it acknowledged a write, and comes back without hearing from the registry; the old one, cut
/// off until now, asks it for a grant.
pub(crate) fn back_in_the_old_generation(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    cut_off(&mut w, &[N0, A]);
    change(&mut w, 1, &[1], &[2]);
    let again = write(&mut w, B, 10 * L);
    w.network.cut(Cut { id: 2, side: [Who::Registry].into(), out: true, into: true });
    w.network.catch(true, |e| e.from == N1 && matches!(e.body, Body::Peer { .. }));
    w.crash(N1, Loss::Nothing);
    w.restart(N1);
    heal(&mut w, 1);
    for _ in 0..20 {
        w.run_for(L / 10);
        read(&mut w, A);
    }
    w.network.caught();
    heal(&mut w, 2);
    let at_last = write(&mut w, A, 10 * L);
    verdict(w, ok && again && at_last, "the group is stuck")
}

/// A's record reaches the backup only, which is then dropped; another record takes its place; the backup joins again.
pub(crate) fn back_with_a_record_too_many(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    w.network.catch(true, |e| e.to == N0 && matches!(&e.body, Body::Ask { ask: Ask::Commit(_), .. }));
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    w.network.caught();
    cut_off(&mut w, &[N1, A]);
    change(&mut w, 0, &[0], &[]);
    let alone = write(&mut w, B, 10 * L);
    heal(&mut w, 1);
    change(&mut w, 0, &[0], &[1]);
    let whole = becomes(&mut w, &[0, 1], 10 * L);
    let again = write(&mut w, B, 10 * L);
    verdict(w, ok && alone && whole && again, "the group is stuck")
}

/// A spare starts over from the settled tail, becomes a member and holds more; then the Rebase comes again.
pub(crate) fn rebased_twice(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = (0..14).all(|_| write(&mut w, A, L));
    let rebase = |e: &Envelope| matches!(&e.body, Body::Peer { message: PeerMessage::Rebase(_), .. });
    w.network.catch(false, rebase);
    change(&mut w, 0, &[0], &[2]);
    let whole = becomes(&mut w, &[0, 2], 10 * L);
    let more = write(&mut w, A, 10 * L);
    let old = w.network.caught();
    let sent = !old.is_empty();
    inject(&mut w, old);
    let again = write(&mut w, A, 10 * L);
    verdict(w, ok && whole && more && sent && again, "the group is stuck")
}

/// A record that only the backup holds is settled in a generation that never becomes active, for the next one goes on
/// from the old primary, which lacks it.
pub(crate) fn settled_and_never_active(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    w.network.catch(true, |e| match &e.body {
        Body::Ask { ask: Ask::Commit(_), .. } => e.to == N0,
        body => matches!(body, Body::Activated { .. }),
    });
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    cut_off(&mut w, &[N0]);
    change(&mut w, 1, &[1], &[2]);
    w.run_for(3 * L);
    let said = w.network.caught().iter().any(|e| matches!(e.body, Body::Activated { .. }));
    w.network.cut(Cut { id: 2, side: [N1, N2].into(), out: true, into: true });
    heal(&mut w, 1);
    change(&mut w, 0, &[0], &[]);
    let alone = write(&mut w, B, 10 * L);
    heal(&mut w, 2);
    change(&mut w, 0, &[0], &[1]);
    let whole = becomes(&mut w, &[0, 1], 10 * L);
    let done = finish(&mut w, A, 0, 10 * L);
    verdict(w, ok && said && alone && whole && done, "the group is stuck")
}

/// The backup loses its memory and is about to join again; an old word of it reaches the registry, which names it by the
/// store that it was.
pub(crate) fn named_by_a_lost_store(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    let before = Member { node: 1, store: w.nodes[1].store };
    w.crash(N1, Loss::Memory);
    w.restart(N1);
    w.network.catch(true, |e| e.from == N0 && matches!(e.body, Body::Activated { .. }));
    change(&mut w, 0, &[0], &[1]);
    w.run_for(L);
    propose(&mut w, 1, vec![before], Vec::new());
    w.run_for(2 * L);
    w.network.caught();
    change(&mut w, 0, &[0], &[1]);
    let whole = becomes(&mut w, &[0, 1], 10 * L);
    let again = write(&mut w, B, 10 * L);
    verdict(w, ok && whole && again, "the group is stuck")
}

/// A registry with an old record decides the same generation anew and differently before anybody tells it better: nodes
/// that know the first decision do not go by the second.
pub(crate) fn decided_twice(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = write(&mut w, A, L);
    w.run_for(20 * MS);
    change(&mut w, 1, &[1], &[2]);
    let again = write(&mut w, B, 10 * L);
    let only = vec![Member { node: 0, store: w.nodes[0].store }];
    let known = (*w.sets[0]).clone();
    let second = SetConfig { version: 99, primary: 0, members: only.clone(), last_active: only, ..known };
    let second = SetConfig { joining: Vec::new(), active: true, ..second };
    let body = Body::View(vec![Rc::new(second)]);
    inject(&mut w, vec![Envelope { from: Who::Registry, to: N0, link: 0, group: 0, body }]);
    for _ in 0..30 {
        w.act(A, |actor, ctx| {
            if let Actor::Client(c) = actor {
                c.locate(0, ctx);
            }
        });
        w.run_for(L / 10);
        read(&mut w, A);
    }
    let at_last = write(&mut w, A, 10 * L);
    verdict(w, ok && again && at_last, "the group is stuck")
}

/// A spare joins an idle group and catches up by records: it hears that they are committed though nothing follows, or
/// their room would stay taken for all groups of its node.
pub(crate) fn joins_an_idle_group(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = (0..4).all(|_| write(&mut w, A, L));
    w.run_for(L);
    change(&mut w, 0, &[0], &[2]);
    let whole = becomes(&mut w, &[0, 2], 10 * L);
    w.run_for(2 * L);
    let knows = w.nodes[2].records(0).is_some_and(|r| r.last() == w.check.top(0) && r.uncommitted() == 0);
    verdict(w, ok && whole && knows, "the spare does not know what is committed")
}
