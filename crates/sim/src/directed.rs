//! Directed schedules: what chance meets rarely, played step by step. Each must pass with every rule in force; with
//! the rule broken that it is about it must not.

use crate::client::Client;
use crate::membership;
use crate::mutant::Mutant;
use crate::network::Cut;
use crate::node::Loss;
use crate::past;
use crate::reading;
use crate::removed;
use crate::thread::Step;
use crate::together;
use crate::wire::{Ask, Body, Envelope, Who};
use crate::world::{Actor, Shape, World};
use dspm_proto::Session;
use dspm_txn::PeerMessage;
use std::time::Duration;

/// A schedule.
pub struct Schedule {
    /// Its name.
    pub name: &'static str,
    /// Plays it; the error is the violation.
    pub play: fn(Option<Mutant>) -> Result<(), String>,
}

/// All of them.
pub const ALL: &[Schedule] = &[
    Schedule { name: "restart_no_wait", play: |m| restart_no_wait(m, Loss::Nothing) },
    Schedule { name: "store_kept", play: |m| restart_no_wait(m, Loss::Memory) },
    Schedule { name: "drift", play: drift },
    Schedule { name: "old_fence", play: |m| old_fence(m, false) },
    Schedule { name: "old_fence_after_power_cut", play: |m| old_fence(m, true) },
    Schedule { name: "complete_twice", play: complete_twice },
    Schedule { name: "two_records_one_token", play: two_records_one_token },
    Schedule { name: "session_ended", play: session_ended },
    Schedule { name: "stale_clock", play: stale_clock },
    Schedule { name: "late_grant", play: late_grant },
    Schedule { name: "slow_renewal", play: slow_renewal },
    Schedule { name: "old_probe", play: old_probe },
    Schedule { name: "reader_cut_off", play: reading::reader_cut_off },
    Schedule { name: "late_read_lease", play: reading::late_read_lease },
    Schedule { name: "lease_outlives_primary", play: reading::lease_outlives_primary },
    Schedule { name: "outcome_under_lease", play: reading::outcome_under_lease },
    Schedule { name: "past_kept", play: past::kept },
    Schedule { name: "past_late_word", play: past::late_word },
    Schedule { name: "past_between", play: past::between },
    Schedule { name: "past_ahead", play: past::ahead },
    Schedule { name: "cut_off_primary", play: membership::cut_off_primary },
    Schedule { name: "joining_member_takes_over", play: membership::joining_member_takes_over },
    Schedule { name: "two_changes_in_a_lease", play: membership::two_changes_in_a_lease },
    Schedule { name: "back_in_the_old_generation", play: membership::back_in_the_old_generation },
    Schedule { name: "back_with_a_record_too_many", play: membership::back_with_a_record_too_many },
    Schedule { name: "rebased_twice", play: membership::rebased_twice },
    Schedule { name: "settled_and_never_active", play: membership::settled_and_never_active },
    Schedule { name: "joins_an_idle_group", play: membership::joins_an_idle_group },
    Schedule { name: "named_by_a_lost_store", play: membership::named_by_a_lost_store },
    Schedule { name: "decided_twice", play: membership::decided_twice },
    Schedule { name: "only_one_knows", play: crate::outdated::only_one_knows },
    Schedule { name: "one_knows_what_never_was", play: crate::outdated::one_knows_what_never_was },
    Schedule { name: "settle_without_room", play: settle_without_room },
    Schedule { name: "late_question", play: |m| crate::outcomes::late_question(m, false) },
    Schedule { name: "late_question_of_many", play: |m| crate::outcomes::late_question(m, true) },
    Schedule { name: "damaged_logs", play: crate::powercuts::damaged_logs },
    Schedule { name: "writer_dies_prepared", play: together::writer_dies_prepared },
    Schedule { name: "late_decision", play: together::late_decision },
    Schedule { name: "writer_dies_decided", play: |m| together::writer_dies_decided(m, 0) },
    Schedule { name: "writer_dies_decided_asked", play: |m| together::writer_dies_decided(m, 1) },
    Schedule { name: "decided_and_cut_off", play: together::decided_and_cut_off },
    Schedule { name: "told_and_power_cut", play: together::told_and_power_cut },
    Schedule { name: "one_primary_dies_prepared", play: |m| together::one_primary_dies(m, false, false) },
    Schedule { name: "one_primary_dies_decided", play: |m| together::one_primary_dies(m, true, false) },
    Schedule { name: "one_primary_dies_prepared_on_disk", play: |m| together::one_primary_dies(m, false, true) },
    Schedule { name: "one_primary_dies_decided_on_disk", play: |m| together::one_primary_dies(m, true, true) },
    Schedule { name: "all_die_prepared", play: |m| together::all_die(m, false) },
    Schedule { name: "all_die_decided", play: |m| together::all_die(m, true) },
    Schedule { name: "resolution_not_held", play: together::resolution_not_held },
    Schedule { name: "writer_dies_busy", play: together::writer_dies_busy },
    Schedule { name: "joins_a_prepared_tail", play: together::joins_a_prepared_tail },
    Schedule { name: "no_room_to_resolve", play: together::no_room_to_resolve },
    Schedule { name: "caller_gives_up_resolving", play: together::caller_gives_up_resolving },
    Schedule { name: "decider_removed_prepared", play: removed::decider_removed_prepared },
    Schedule { name: "decider_removed_decided", play: removed::decider_removed_decided },
    Schedule { name: "decider_removed_from_its_writer", play: removed::decider_removed_from_its_writer },
    Schedule { name: "caller_gives_up_deciding", play: together::caller_gives_up_deciding },
    Schedule { name: "fetch_from_power_cut", play: crate::regress::fetch_from_power_cut },
    Schedule { name: "read_nothing_yet", play: crate::regress::read_nothing_yet },
    Schedule { name: "overtaken_grant", play: crate::regress::overtaken_grant },
    Schedule { name: "read_while_full", play: |m| crate::regress::read_while_full(m, 1) },
    Schedule { name: "read_while_primary_full", play: |m| crate::regress::read_while_full(m, 0) },
    Schedule { name: "too_many_readers", play: crate::regress::too_many_readers },
    Schedule { name: "too_many_past_readers", play: crate::regress::too_many_past_readers },
];

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const L: u64 = 300 * MS;
pub(crate) const A: Who = Who::Client(0);
pub(crate) const B: Who = Who::Client(1);

/// Two members, two clients that do what they are told, no faults but the schedule's.
pub(crate) fn world(mutant: Option<Mutant>, disk: bool) -> World {
    world_of(mutant, disk, Duration::ZERO)
}

/// The same; old versions are kept so long.
pub(crate) fn world_of(mutant: Option<Mutant>, disk: bool, history: Duration) -> World {
    let lease = Duration::from_nanos(L);
    let shape =
        Shape { copies: 2, nodes: 2, sets: 1, groups: 1, clients: 2, threads: 2, disk, lease, history, changes: false };
    let mut w = World::new(1, shape, mutant, false);
    for c in &mut w.clients {
        c.scripted = true;
        c.threads.iter_mut().for_each(|t| t.step = Step::Stopped);
    }
    w.run_for(MS);
    w
}

pub(crate) fn client(w: &World, who: Who) -> &Client {
    let Who::Client(n) = who else { unreachable!("a client") };
    &w.clients[n as usize]
}

/// Begins a transaction on a client's thread.
pub(crate) fn start(w: &mut World, who: Who, thread: usize, writes: bool, work: u64) {
    w.act(who, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.start(thread, 0, writes, work, ctx);
        }
    });
}

/// Runs until the thread is done, at most so long. True: it is.
pub(crate) fn finish(w: &mut World, who: Who, thread: usize, most: u64) -> bool {
    let end = w.time + most;
    while client(w, who).threads[thread].step != Step::Stopped && w.check.violation().is_none() && w.time < end {
        w.run_for(MS / 20);
    }
    client(w, who).threads[thread].step == Step::Stopped
}

pub(crate) fn write(w: &mut World, who: Who, most: u64) -> bool {
    let before = client(w, who).threads[0].tally[0].writes;
    start(w, who, 0, true, 0);
    finish(w, who, 0, most) && client(w, who).threads[0].tally[0].writes > before
}

pub(crate) fn read(w: &mut World, who: Who) {
    start(w, who, 1, false, 0);
    finish(w, who, 1, 5 * MS);
}

/// Nothing passes between these and the rest; what they say to each other waits.
pub(crate) fn cut_off(w: &mut World, side: &[Who]) {
    w.network.cut(Cut { id: 1, side: side.iter().copied().collect(), out: true, into: true });
}

pub(crate) fn inject(w: &mut World, messages: Vec<Envelope>) {
    messages.into_iter().for_each(|e| w.send(e));
    w.run_for(MS);
}

pub(crate) fn verdict(mut w: World, expected: bool, what: &str) -> Result<(), String> {
    if w.check.violation().is_none() {
        w.audit_all();
        w.check_transactions();
    }
    match w.check.violation() {
        Some(v) => Err(v.to_owned()),
        None if !expected => Err(what.to_owned()),
        None => Ok(()),
    }
}

/// A holds a lease and is cut off; the primary dies and comes back at once. It may not give the lease to B before A's
/// has lapsed. With its memory lost it is another store, and the set waits.
fn restart_no_wait(m: Option<Mutant>, loss: Loss) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    cut_off(&mut w, &[A]);
    w.crash(Who::Node(0), loss);
    w.restart(Who::Node(0));
    let again = write(&mut w, B, 3 * L);
    read(&mut w, A);
    verdict(w, ok && again == (loss == Loss::Nothing), "B's write was not served in time")
}

/// A's clock is slow, the primary's fast, both within the margin: B's write is acknowledged as soon as A's lease has
/// lapsed by the primary's clock. A may not begin locally then.
fn drift(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let offset = w.clocks[&A].local(0).0;
    w.clocks.insert(A, crate::clock::Clock::new(offset + MS, -crate::clock::DRIFT_PPM_MAX));
    let offset = w.clocks[&Who::Node(0)].local(0).0;
    w.clocks.insert(Who::Node(0), crate::clock::Clock::new(offset + MS, crate::clock::DRIFT_PPM_MAX));
    let ok = write(&mut w, A, L);
    w.run_for(50 * MS);
    cut_off(&mut w, &[A]);
    let again = write(&mut w, B, 3 * L);
    read(&mut w, A);
    verdict(w, ok && again, "B's write was not served in time")
}

/// A's record under an old token and that token's Fence (and Complete) arrive at the backup after the hand-over to B;
/// perhaps the backup lost power in between.
fn old_fence(m: Option<Mutant>, power: bool) -> Result<(), String> {
    let mut w = world(m, true);
    let ok = write(&mut w, B, L);
    w.run_for(5 * MS);
    w.network.catch(false, |e| peer(e, |m| matches!(m, PeerMessage::Fence(_) | PeerMessage::Complete(_))));
    start(&mut w, A, 0, true, 30 * MS);
    w.run_for(25 * MS);
    let old = w.network.caught();
    w.network.catch(true, |e| e.from == A && matches!(&e.body, Body::Ask { ask: Ask::Commit(_), .. }));
    w.run_for(30 * MS);
    let record = w.network.caught();
    cut_off(&mut w, &[A]);
    start(&mut w, B, 0, true, 40 * MS); // B gets the lease and works
    let got = (0..2 * L / MS).any(|_| {
        w.run_for(MS);
        client(&w, B).threads[0].step.due().is_some() && client(&w, B).desks[0].holder.is_open()
    });
    if power {
        w.network.cut(Cut { id: 2, side: [Who::Node(1)].into(), out: true, into: false });
        w.crash(Who::Node(1), Loss::Power);
        w.restart(Who::Node(1));
    }
    let for_backup = |e: &Envelope| e.to == Who::Node(1);
    inject(&mut w, old.into_iter().filter(for_backup).collect());
    w.network.cut(Cut { id: 3, side: [Who::Node(1)].into(), out: true, into: true });
    w.heal(Some(1));
    w.heal(Some(3));
    let on_way: Vec<Envelope> = record.into_iter().filter(for_backup).collect();
    let sent = !on_way.is_empty();
    inject(&mut w, on_way);
    w.heal(None);
    let again = finish(&mut w, B, 0, 10 * L) && write(&mut w, B, 10 * L);
    verdict(w, ok && got && sent && again, "the group is stuck")
}

fn peer(e: &Envelope, f: impl Fn(&PeerMessage) -> bool) -> bool {
    matches!(&e.body, Body::Peer { message, .. } if f(message))
}

/// The Complete of a settle arrives again after its token's writer committed more.
fn complete_twice(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, true);
    w.network.catch(false, |e| peer(e, |m| matches!(m, PeerMessage::Complete(_))));
    let ok = write(&mut w, A, L) && write(&mut w, A, L);
    let old = w.network.caught();
    let sent = !old.is_empty();
    inject(&mut w, old);
    let again = write(&mut w, B, 10 * L);
    verdict(w, ok && sent && again, "the group is stuck")
}

/// A writer that breaks its own rules sends another record under the same token and LSN: the members may not say that
/// they hold it.
fn two_records_one_token(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    w.network.catch(false, |e| e.from == A && matches!(&e.body, Body::Ask { ask: Ask::Commit(_), .. }));
    let ok = write(&mut w, A, L);
    let mut forged = w.network.caught();
    let mut other = 0;
    for e in &mut forged {
        if let Body::Ask { ask: Ask::Commit(record), .. } = &mut e.body {
            let mut copy = (**record).clone();
            copy.pages[0].checksum += 1_000_000;
            copy.seal();
            other = copy.id.hash;
            *record = std::rc::Rc::new(copy);
        }
    }
    w.network.catch(
        false,
        move |e| matches!(&e.body, Body::Answer { answer: crate::wire::Answer::Ack(a), .. } if a.id.hash == other),
    );
    inject(&mut w, forged);
    let held = !w.network.caught().is_empty();
    verdict(w, ok && !held, "a second record at one LSN was acknowledged")
}

/// A's record is on its way when its process begins the next session, which the members answer; then it arrives.
fn session_ended(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    let late = |e: &Envelope| matches!(&e.body, Body::Ask { ask: Ask::Commit(_) | Ask::Outcome(_), .. });
    w.network.catch(true, late);
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    w.act(A, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.next_session(ctx);
        }
    });
    w.run_for(3 * MS);
    let record = w.network.caught();
    let sent = record.iter().any(|e| matches!(&e.body, Body::Ask { ask: Ask::Commit(r), .. } if session(r.session)));
    inject(&mut w, record);
    let again = write(&mut w, B, 10 * L);
    verdict(w, ok && sent && again, "the group is stuck")
}

fn session(s: Session) -> bool {
    s.number == 1
}

/// The primary is stopped while it waits for messages; A's renewal comes meanwhile, and counts from then.
fn stale_clock(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    w.run_for(5 * MS);
    w.pause(Who::Node(0));
    w.run_for(250 * MS);
    w.resume(Who::Node(0));
    w.run_for(MS);
    cut_off(&mut w, &[A]);
    let again = write(&mut w, B, 3 * L);
    read(&mut w, A);
    verdict(w, ok && again, "B's write was not served in time")
}

/// A's grant is on its way when the call-back overtakes it; A, that does not wait for it any more, gives the token
/// back. B writes. The grant arrives.
fn late_grant(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    w.network.catch(true, |e| matches!(&e.body, Body::Answer { answer: crate::wire::Answer::Granted { .. }, .. }));
    start(&mut w, A, 0, true, 0);
    w.run_for(3 * MS);
    let grant = w.network.caught();
    let sent = !grant.is_empty();
    w.act(A, |actor, ctx| {
        if let Actor::Client(c) = actor {
            c.give_up_waiting(0, ctx);
        }
    });
    let ok = write(&mut w, B, L / 2);
    cut_off(&mut w, &[A]);
    w.run_for(MS);
    w.heal(None);
    w.network.cut(Cut { id: 4, side: [A].into(), out: true, into: false });
    inject(&mut w, grant);
    read(&mut w, A);
    verdict(w, ok && sent, "B's write was not served in time")
}

/// The answer to A's last renewal is slow: A counts from when it asked.
fn slow_renewal(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    w.network.catch(true, |e| {
        e.to == A && matches!(&e.body, Body::Answer { answer: crate::wire::Answer::Renewed { .. }, .. })
    });
    w.run_for(250 * MS);
    let slow = w.network.caught();
    w.network.cut(Cut { id: 4, side: [A].into(), out: true, into: false });
    w.run_for(10 * MS);
    inject(&mut w, slow);
    cut_off(&mut w, &[A]);
    let again = write(&mut w, B, 3 * L);
    read(&mut w, A);
    verdict(w, ok && again, "B's write was not served in time")
}

/// A reader's round asked the backup before a record came there; the next reader, who begins after that record was
/// acknowledged, needs a round of its own.
fn old_probe(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    w.run_for(10 * MS);
    w.network.catch(true, |e| {
        e.to == Who::Node(1) && matches!(&e.body, Body::Ask { ask: Ask::Commit(_) | Ask::Note(_), .. })
    });
    start(&mut w, A, 0, true, 0);
    w.run_for(MS);
    read(&mut w, B);
    let record = w.network.caught();
    w.network.catch(true, |e| e.from == A && matches!(&e.body, Body::Ask { ask: Ask::Note(_), .. }));
    inject(&mut w, record);
    let again = finish(&mut w, A, 0, L);
    read(&mut w, B);
    verdict(w, ok && again, "A's write did not return")
}

/// The backup has no room for A's record and A dies waiting: the record is completed there all the same, and when room
/// is back the next commit waits no longer.
fn settle_without_room(m: Option<Mutant>) -> Result<(), String> {
    let mut w = world(m, false);
    let ok = write(&mut w, A, L);
    w.nodes[1].room = 0;
    start(&mut w, A, 0, true, 0);
    w.run_for(20 * MS);
    let waits = client(&w, A).threads[0].step == Step::Committing && client(&w, A).desks[0].holder.token().is_some();
    w.crash(A, Loss::Nothing);
    start(&mut w, B, 0, true, 0);
    w.run_for(2 * L);
    let settled = w.nodes[1].records(0).is_some_and(|r| r.last() == dspm_proto::Lsn(2));
    w.nodes[1].room = u64::MAX;
    let again = finish(&mut w, B, 0, L);
    verdict(w, ok && waits && settled && again, "a settle waits for room, or a commit does not")
}
