//! All or nothing, whoever dies: the schedules one by one, then at random.

use super::world::{LEASE, Transaction, Wire, World, id_of};
use crate::Records;
use dspm_proto::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const WRITER: Session = Session { client: ClientId(5), number: 1 };
const OTHER: Session = Session { client: ClientId(6), number: 1 };

/// A world in which the writer has the leases of these groups, and its transaction.
fn begin(w: &mut World, session: Session, groups: &[usize]) -> Transaction {
    groups.iter().for_each(|g| w.acquire(*g, session));
    w.run_apart(500); // leases of others lapse
    let leases: BTreeMap<_, _> = groups.iter().map(|g| (*g, w.granted(*g, session).expect("granted"))).collect();
    Transaction::new(session, groups, &leases)
}

fn send(w: &mut World, g: usize, r: &Record, to: &[u32]) {
    w.net.extend(to.iter().map(|n| Wire::Commit(g, *n, r.clone(), r.session.client.0)));
}

use dspm_proto::record::Record;

/// The prepared records are at all their members, the decision nowhere.
fn prepared(w: &mut World, groups: &[usize]) -> Transaction {
    let t = begin(w, WRITER, groups);
    for (g, r) in t.groups.iter().zip(&t.records).skip(1) {
        send(w, *g, r, &[0, 1]);
    }
    w.run(20);
    t
}

/// What became of a record on each member of its group; None: it is not there, or not resolved.
fn fates(w: &World, g: usize, r: &Record) -> Vec<Option<bool>> {
    let fate = |m: &crate::Replica<super::world::Memory>| {
        let held = m.records.at(r.id.lsn).is_some_and(|h| h.id == r.id);
        match (held, r.part) {
            (true, Part::Prepared) => m.records.at(r.id.lsn.next()).map(|next| next.part == Part::Alone),
            (held, _) => Some(held),
        }
    };
    w.groups[g].members.iter().map(fate).collect()
}

fn all(w: &World, t: &Transaction, committed: bool) -> bool {
    t.groups.iter().zip(&t.records).all(|(g, r)| fates(w, *g, r).iter().all(|f| *f == Some(committed)))
}

#[test]
fn a_writer_that_dies_before_its_decision_leaves_nothing() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1, 2]);
    assert_eq!(w.shown(1), Some(Lsn(0)), "at once, and without the prepared record");
    w.run(3 * LEASE.as_millis() as u64);
    assert!(all(&w, &t, false));
    assert_eq!((w.shown(1), w.shown(2)), (Some(Lsn(2)), Some(Lsn(2))), "the record that takes it back counts as one");
    w.ask_outcome(1, WRITER, &t.records[1]);
    w.run(100);
    assert_eq!(w.outcome(1, WRITER), Some(false));
    let after = begin(&mut w, OTHER, &[1, 0]);
    assert_eq!(after.records[0].id.lsn, Lsn(3));
}

#[test]
fn a_writer_that_dies_after_its_decision_leaves_all_of_it() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1, 2]);
    send(&mut w, 0, &t.records[0], &[0]); // one member is enough for a settle to find it
    w.run(3 * LEASE.as_millis() as u64);
    assert!(all(&w, &t, true));
    assert!(w.groups[0].members.iter().all(|m| m.records.closed == Lsn(1)), "nobody will ask again");
    w.ask_outcome(2, WRITER, &t.records[2]);
    w.run(100);
    assert_eq!(w.outcome(2, WRITER), Some(true));
}

/// Schedule 3: the decider goes on while a participant is away.
#[test]
fn the_decider_takes_no_other_writer_before_every_participant_is_told() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.run(20);
    w.acquire(0, OTHER);
    w.run_apart(2000);
    assert_eq!(w.granted(0, OTHER), None);
    assert_eq!(w.shown(0), Some(Lsn(1)), "reads go on");
    assert_eq!(w.shown(1), Some(Lsn(0)), "here too, as of before");
    w.run(300);
    assert!(w.granted(0, OTHER).is_some() && all(&w, &t, true));
}

/// Guards writers without patience: the other group may be away for long, and they are told which one it is. While it
/// answers they wait as for any settle.
#[test]
fn who_waits_for_another_group_is_told_for_which() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1, 2]);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.run_apart(20);
    for g in 0..3 {
        w.try_acquire(g, OTHER);
    }
    w.run_apart(LEASE.as_millis() as u64 / 2);
    assert!((0..3).all(|g| w.awaits(g, OTHER).is_none()));
    w.run_apart(3 * LEASE.as_millis() as u64);
    assert_eq!(w.awaits(0, OTHER), Some(vec![id_of(1), id_of(2)]), "the participants");
    assert_eq!(w.awaits(1, OTHER), Some(vec![id_of(0)]), "who decides");
    w.run(300);
    assert!((0..3).all(|g| w.granted(g, OTHER).is_none()), "nobody waits any more: a lease would be lost");
    w.try_acquire(0, OTHER);
    w.run(300);
    assert!(w.granted(0, OTHER).is_some() && all(&w, &t, true));
}

/// Its word that all hold the resolution is lost, and so is its hint to the decider; it goes on renewing its lease.
#[test]
fn a_silent_writer_that_keeps_its_lease_holds_up_no_decider() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    send(&mut w, 1, &t.resolutions[0], &[0, 1]);
    w.run_apart(20);
    w.acquire(0, OTHER);
    for _ in 0..100 {
        w.on_primary(1, |r, now| {
            r.renew(WRITER, t.records[1].token, Lsn(2), now);
        });
        w.run(10);
    }
    assert!(w.granted(0, OTHER).is_some() && all(&w, &t, true));
}

fn damage(w: &mut World, g: usize, damaged: bool) {
    w.groups[g].members.iter_mut().for_each(|m| m.records.damaged = damaged);
}

#[test]
fn a_decision_that_cannot_be_read_stays_open() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.run_apart(20);
    damage(&mut w, 0, true);
    w.acquire(0, OTHER);
    w.run_apart(2000);
    assert_eq!(w.granted(0, OTHER), None, "nobody was told");
    damage(&mut w, 0, false);
    w.run(1000);
    assert!(w.granted(0, OTHER).is_some() && all(&w, &t, true));
}

#[test]
fn a_participant_that_cannot_read_its_record_does_not_call_it_resolved() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    damage(&mut w, 1, true);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.acquire(0, OTHER);
    w.run(2000);
    assert_eq!((w.granted(0, OTHER), w.shown(1)), (None, Some(Lsn(0))));
    damage(&mut w, 1, false);
    w.run(1000);
    assert!(w.granted(0, OTHER).is_some() && all(&w, &t, true));
}

#[test]
fn no_member_begins_anew_with_a_record_that_is_prepared_or_open() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.run_apart(20);
    for (g, r) in t.groups.iter().zip(&t.records) {
        assert_eq!(w.groups[*g].members[0].rebase_target(r.id).map(|id| id.lsn), Some(Lsn(0)));
        damage(&mut w, *g, true);
        assert_eq!(w.groups[*g].members[0].rebase_target(r.id), None, "until it is repaired");
    }
    damage(&mut w, 0, false);
    damage(&mut w, 1, false);
    w.run(1000);
    damage(&mut w, 0, true);
    let closed = &w.groups[0].members[0];
    assert_eq!(closed.rebase_target(t.records[0].id), Some(t.records[0].id));
}

/// A client of the participant's group can write any token into its record.
#[test]
fn a_token_that_nobody_was_given_does_not_keep_the_decider_settling() {
    let mut w = World::new(false);
    let mut t = begin(&mut w, WRITER, &[0, 1]);
    t.records[1].links[0].token.boot = u32::MAX;
    t.records[1].seal();
    send(&mut w, 1, &t.records[1], &[0, 1]);
    w.run(2000);
    assert_eq!(fates(&w, 1, &t.records[1]), [Some(false); 2]);
    let settled = w.groups[0].members[0].records.fence().token;
    w.run(1000);
    assert_eq!(w.groups[0].members[0].records.fence().token, settled);
}

/// Schedule 5: "no" is said only when the decision cannot arrive any more.
#[test]
fn a_late_decision_is_nobodys() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    w.ask_outcome(1, WRITER, &t.records[1]);
    w.run(200);
    assert_eq!(w.outcome(1, WRITER), Some(false));
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.run(1000);
    assert!(w.groups[0].members.iter().all(|m| m.records.log.is_empty()));
}

#[test]
fn sets_become_active_with_prepared_tails_whose_deciders_wait_too() {
    let mut w = World::new(false);
    // 1 waits for 0, then 0 for 1: two writers that died, neither with a decision.
    let first = begin(&mut w, WRITER, &[0, 1]);
    send(&mut w, 1, &first.records[1], &[0, 1]);
    w.run(20);
    let second = begin(&mut w, OTHER, &[2, 0]);
    send(&mut w, 0, &second.records[1], &[0, 1]);
    w.run_apart(20);
    (0..3).for_each(|g| w.change(g));
    w.run(1000);
    assert!(w.groups.iter().all(|g| g.setup.active));
    assert!(fates(&w, 1, &first.records[1]).iter().chain(&fates(&w, 0, &second.records[1])).all(|f| *f == Some(false)));
}

#[test]
fn nothing_but_its_resolution_follows_a_prepared_record() {
    let mut w = World::new(false);
    let t = prepared(&mut w, &[0, 1]);
    let mut next = Record { datasets: t.records[1].datasets.clone(), ..t.resolutions[0].clone() };
    next.seal();
    send(&mut w, 1, &next, &[0, 1]);
    w.run(10);
    assert_eq!(w.groups[1].members[0].records.tail(), t.records[1].id);
    send(&mut w, 0, &t.records[0], &[0, 1]);
    w.run(10);
    send(&mut w, 1, &t.resolutions[0], &[0, 1]);
    w.run(10);
    assert!(all(&w, &t, true));
    let mut again = Record { predecessor: t.resolutions[0].id.hash, ..t.resolutions[0].clone() };
    again.id.lsn = again.id.lsn.next();
    again.seal();
    send(&mut w, 1, &again, &[0, 1]);
    w.run(10);
    assert_eq!(w.groups[1].members[0].records.tail(), t.resolutions[0].id, "it resolves nothing");
}

/// A writer of the random runs, and how far it is.
struct Writer {
    session: Session,
    groups: Vec<usize>,
    leases: BTreeMap<usize, (Token, dspm_proto::RecordId)>,
    transaction: Option<Transaction>,
    /// Records sent and, of those, who holds which.
    step: usize,
    acks: Vec<(usize, u32, Lsn)>,
    done: bool,
    dead: bool,
}

impl Writer {
    fn new(client: u64, groups: Vec<usize>) -> Writer {
        let session = Session { client: ClientId(client), number: 1 };
        let (leases, acks) = (BTreeMap::new(), Vec::new());
        Writer { session, groups, leases, transaction: None, step: 0, acks, done: false, dead: false }
    }

    /// Prepared records one after the other, then the decision, then the resolutions.
    fn plan(t: &Transaction) -> Vec<(usize, Record)> {
        let participants = || t.groups.iter().copied().skip(1);
        let prepared = participants().zip(t.records[1..].iter().cloned());
        let resolutions = participants().zip(t.resolutions.iter().cloned());
        prepared.chain([(t.groups[0], t.records[0].clone())]).chain(resolutions).collect()
    }

    fn go(&mut self, w: &mut World) {
        if self.transaction.is_none() {
            for g in self.groups.clone() {
                if let Some(lease) = w.granted(g, self.session) {
                    self.leases.insert(g, lease);
                } else if !self.leases.contains_key(&g) {
                    return w.acquire(g, self.session);
                }
            }
            self.transaction = Some(Transaction::new(self.session, &self.groups, &self.leases));
        }
        let Some(t) = &self.transaction else { return };
        let plan = Writer::plan(t);
        let held = |(g, r): &(usize, Record)| (0..2).all(|n| self.acks.contains(&(*g, n, r.id.lsn)));
        if self.step > 0 && !held(&plan[self.step - 1]) {
            return;
        }
        if let Some((g, r)) = plan.get(self.step) {
            send(w, *g, r, &[0, 1]);
            self.step += 1;
        } else {
            self.done = true;
        }
    }
}

/// Everything at random from one seed.
fn random_run(seed: u64, disk: bool) -> [u32; 3] {
    let mut state = seed | 1;
    let mut draw = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % n
    };
    let mut w = World::new(disk);
    let mut writers: Vec<Writer> = Vec::new();
    let harm = draw(4); // of four: how much of what can go wrong does
    for _ in 0..1500 {
        let wrong = draw(4) < harm;
        match draw(40) {
            0 if writers.len() < 8 => {
                let first = draw(3) as usize;
                let mut groups = vec![first, (first + 1 + draw(2) as usize) % 3];
                if draw(3) == 0 {
                    groups.push(3 - groups[0] - groups[1]);
                }
                writers.push(Writer::new(10 + writers.len() as u64, groups));
            }
            1 if wrong && !writers.is_empty() => {
                let at = draw(writers.len() as u64) as usize;
                writers[at].dead |= draw(3) == 0;
            }
            2 if wrong => w.restart(draw(3) as usize, draw(2) as u32),
            3 if wrong && draw(3) == 0 => w.change(draw(3) as usize),
            4..6 => w.pass([1, 3, 10, if wrong { 350 } else { 10 }][draw(4) as usize]),
            6..9 => w.flush(draw(3) as usize, draw(2) as u32),
            9 => drop(w.shown(draw(3) as usize)),
            10..18 if !writers.is_empty() => {
                let at = draw(writers.len() as u64) as usize;
                if !writers[at].dead && !writers[at].done {
                    writers[at].go(&mut w);
                }
            }
            _ if !w.net.is_empty() => {
                let at = (draw(w.net.len() as u64) as usize).min(draw(8) as usize); // mostly in order
                let again = wrong && draw(8) == 0;
                let wire = if again { w.net[at].clone() } else { w.net.remove(at) };
                if wrong && draw(8) == 0 {
                    continue; // lost
                }
                if let Some(Wire::Ack(client, g, n, lsn)) = w.deliver(wire) {
                    if let Some(writer) = writers.iter_mut().find(|x| x.session.client.0 == client) {
                        writer.acks.push((g, n, lsn));
                    }
                }
            }
            _ => w.pass(1),
        }
    }
    w.run(4 * LEASE.as_millis() as u64);
    for g in 0..3 {
        w.acquire(g, OTHER); // a last settle
    }
    w.run(6 * LEASE.as_millis() as u64);
    check(&w, &writers, seed)
}

/// How many transactions were acknowledged, committed by others than their writers, and taken back.
fn check(w: &World, writers: &[Writer], seed: u64) -> [u32; 3] {
    let mut ends = [0; 3];
    for (g, group) in w.groups.iter().enumerate() {
        let [a, b] = &group.members[..] else { panic!("two members") };
        assert_eq!(a.records.log, b.records.log, "seed {seed}: group {g}");
        let primary = &group.members[group.setup.primary as usize].records;
        assert_eq!(primary.committed(), primary.tail().lsn, "seed {seed}: group {g} is not settled");
    }
    for t in writers.iter().filter_map(|x| x.transaction.as_ref().map(|t| (x.done, t))) {
        let (done, t) = t;
        let decided = fates(w, t.groups[0], &t.records[0])[0] == Some(true);
        assert!(decided || !done, "seed {seed}: an acknowledged commit is lost");
        let prepared = t.groups.iter().zip(&t.records).skip(1).any(|(g, r)| fates(w, *g, r)[0].is_some());
        ends[if done {
            0
        } else if decided {
            1
        } else {
            2
        }] += u32::from(prepared);
        for (g, r) in t.groups.iter().zip(&t.records).skip(1) {
            let there = fates(w, *g, r)[0].unwrap_or(false);
            assert_eq!(there, decided, "seed {seed}: group {g} has another outcome than group {}", t.groups[0]);
        }
    }
    ends
}

#[test]
fn random_runs_come_to_every_end() {
    let mut ends = [0; 3];
    for seed in 1..200 {
        let run = random_run(seed * 7919, seed % 2 == 0);
        ends.iter_mut().zip(run).for_each(|(all, n)| *all += n);
    }
    assert!(ends.iter().all(|n| *n >= 10), "acknowledged, found, taken back: {ends:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn transactions_are_whole_or_gone(seed in any::<u64>(), disk in any::<bool>()) {
        random_run(seed, disk);
    }
}
