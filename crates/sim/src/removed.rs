//! Directed schedules about a group that is removed in the middle of a transaction: A commits to all three, group 0 decides
//! and is removed; B comes afterwards.

use crate::directed::{A, L, MS, inject, verdict};
use crate::mutant::Mutant;
use crate::node::Loss;
use crate::together::{crosses, one, part, resolves, scripted};
use crate::wire::{Envelope, Who};
use crate::world::{Actor, Shape, World};
use dspm_proto::{GroupId, Part};
use std::time::Duration;

/// Three groups of two sets on two nodes: node 0 is the primary of groups 0 and 2, node 1 of group 1.
fn world(m: Option<Mutant>) -> World {
    let (lease, history) = (Duration::from_nanos(L), Duration::ZERO);
    let shape = Shape {
        copies: 2,
        nodes: 2,
        sets: 2,
        groups: 3,
        clients: 2,
        threads: 2,
        disk: false,
        lease,
        history,
        changes: false,
    };
    scripted(World::new(1, shape, m, false))
}

/// A's transaction over all groups, up to what is caught. True: the participants hold their prepared records.
fn begin(w: &mut World, caught: impl Fn(&Envelope) -> bool + 'static) -> bool {
    let ok = (0..3).all(|g| one(w, g, true, L));
    w.run_for(20 * MS);
    w.network.catch(true, caught);
    w.act(A, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.decides = Some(0);
            c.start_all(0, &[0, 1, 2], ctx);
        }
    });
    w.run_for(10 * MS);
    ok && w.nodes.iter().all(|n| n.is_unresolved(1) && n.is_unresolved(2)) && !w.network.caught.is_empty()
}

fn decides(e: &Envelope) -> bool {
    part(e, Part::Decides, false)
}

fn node(w: &mut World, n: u32, f: impl FnOnce(&mut crate::node::Node, &mut crate::ctx::Ctx<'_>)) {
    w.act(Who::Node(n), |actor, ctx| {
        if let Actor::Node(node) = actor {
            f(node, ctx);
        }
    });
}

/// The registry marks group 0, and waits for its primary to say that it is at rest.
fn comes_to_rest(w: &mut World, most: u64) -> bool {
    (0..2).for_each(|n| node(w, n, |node, ctx| node.mark(0, true, ctx)));
    let until = w.time + most;
    loop {
        let mut rests = false;
        node(w, 0, |node, ctx| rests = node.is_at_rest(0, ctx));
        if rests || w.time >= until {
            return rests;
        }
        w.run_for(5 * MS);
    }
}

fn removed(w: &mut World, nodes: &[u32]) {
    for n in nodes {
        node(w, *n, |node, _| node.slots[0].removed = true);
    }
}

/// What is left takes writers, and was taken back everywhere or nowhere.
fn ends(w: &mut World, aborts: u64) -> bool {
    let rest = [1, 2].into_iter().all(|g| one(w, g, true, 10 * L) && one(w, g, false, L));
    rest && w.check.counts.aborts == aborts
}

/// The writer dies before the decision. Group 1 heard "no"; group 2 asks when group 0 was removed.
pub(crate) fn decider_removed_prepared(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let of_2 = |e: &Envelope| crosses(e) && (e.group == 2 || asks(e, GroupId(3)));
    let ok = begin(&mut w, move |e| decides(e) || of_2(e));
    w.crash(A, Loss::Nothing);
    let first = one(&mut w, 1, true, 5 * L) && w.check.counts.aborts == 1;
    let rests = comes_to_rest(&mut w, 5 * L);
    removed(&mut w, &[0, 1]);
    w.network.caught();
    let again = ends(&mut w, 2);
    verdict(w, ok && first && rests && again, "group 2 is stuck, or not what group 1 is")
}

fn asks(e: &Envelope, asker: GroupId) -> bool {
    use crate::wire::{Body, CrossMessage};
    matches!(&e.body, Body::Cross { message: CrossMessage::Inquiry(m), .. } if m.asker == asker)
}

/// The writer dies when all hold the decision, and nobody was told: group 0 comes to rest when both know.
pub(crate) fn decider_removed_decided(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = begin(&mut w, |e| resolves(e) || crosses(e));
    w.crash(A, Loss::Nothing);
    let early = comes_to_rest(&mut w, 5 * L);
    if early {
        removed(&mut w, &[0, 1]);
    }
    w.network.caught();
    let rests = early || comes_to_rest(&mut w, 5 * L);
    removed(&mut w, &[0, 1]);
    let again = ends(&mut w, 0);
    verdict(w, ok && rests && again && !early, "removed before all knew, or a group is stuck, or the decision was lost")
}

/// The writer lives. Its decision is on its way while group 0 is removed, which node 1 hears first.
pub(crate) fn decider_removed_from_its_writer(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m);
    let ok = begin(&mut w, decides);
    let rests = comes_to_rest(&mut w, 5 * L);
    removed(&mut w, &[1]);
    let decision: Vec<Envelope> = w.network.caught();
    w.pause(A);
    let first = one(&mut w, 1, true, 10 * L);
    node(&mut w, 1, |node, _| node.slots[0].removed = false); // the record finds its way there
    inject(&mut w, decision);
    w.run_for(L);
    removed(&mut w, &[0, 1]);
    w.resume(A);
    w.crash(A, Loss::Nothing);
    let again = ends(&mut w, 2);
    verdict(w, ok && rests && first && again, "a group is stuck, or they are not alike")
}
