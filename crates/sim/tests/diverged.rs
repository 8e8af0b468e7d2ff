//! Two complete members whose logs went apart, as a whole set without its memories may find them: a settle ends, with
//! the history of the newest generation, whoever leads it.

use dspm_proto::record::{DatasetChange, PageChange, Payload, Record};
use dspm_proto::{
    ClientId, DatasetId, Generation, GroupId, Instant, Lsn, PAGE_SIZE, PageNo, Part, RecordId, Session, StoreId, Token,
};
use dspm_sim::records::SimRecords;
use dspm_txn::{Effect, Member, Origin, Records, Replica, Setup, Term};
use std::time::Duration;

const MEMBERS: [Member; 2] = [Member { node: 0, store: StoreId(10) }, Member { node: 1, store: StoreId(11) }];

fn record(generation: u64, base: RecordId) -> Record {
    let lsn = base.lsn.next();
    let page = PageNo(0);
    let page =
        PageChange { dataset: 0, page, payload: Payload::Full, bytes: PAGE_SIZE as u32, checksum: 1, base: Lsn(0) };
    let mut record = Record {
        group: GroupId(1),
        id: RecordId { generation: Generation(generation), lsn, hash: 0 },
        token: Token { generation: Generation(generation), boot: 1, n: 1 },
        session: Session { client: ClientId(generation), number: 1 },
        transaction: lsn.0,
        predecessor: base.hash,
        floor: base.lsn,
        part: Part::Alone,
        links: Vec::new(),
        datasets: vec![DatasetChange { dataset: DatasetId(1), size: PAGE_SIZE as u64 }],
        pages: vec![page],
    };
    record.seal();
    // The simulated store cannot take back a record with such a hash: this is about what happens where it can.
    while record.id.hash % 8 == 0 {
        record.transaction += 1000;
        record.seal();
    }
    record
}

/// Records of these generations, from LSN 1.
fn history(generations: &[u64]) -> (SimRecords, Vec<RecordId>) {
    let (mut records, mut ids, mut tail) = (SimRecords::default(), Vec::new(), RecordId::default());
    for g in generations {
        let r = record(*g, tail);
        assert_eq!(records.append(&r, (), Origin::Settle), Ok(()));
        tail = r.id;
        ids.push(tail);
    }
    (records, ids)
}

/// The members, and what they say to one another; time passes when all is said.
struct Pair {
    replicas: Vec<Replica<SimRecords>>,
    now: Instant,
    alarms: Vec<String>,
}

impl Pair {
    fn new(records: [SimRecords; 2]) -> Pair {
        let now = Instant(1_000_000_000);
        let replica = |(me, records)| {
            let setup = Setup {
                group: GroupId(1),
                generation: Generation(9),
                primary: 0,
                members: MEMBERS.to_vec(),
                joining: Vec::new(),
                active: false,
                min_copies: 1,
                term: Term::always(),
                me: MEMBERS[me],
                boot: 3,
                started: Instant(1),
                lease: Duration::from_millis(300),
                history: Duration::ZERO,
                disk: false,
                removing: false,
            };
            Replica::new(records, setup, now)
        };
        Pair { replicas: records.into_iter().enumerate().map(replica).collect(), now, alarms: Vec::new() }
    }

    fn turn(&mut self, from: usize) -> bool {
        let effects: Vec<Effect> = self.replicas[from].effects().collect();
        let (other, busy) = (1 - from, !effects.is_empty());
        for e in effects {
            match e {
                Effect::Send { message, .. } => {
                    self.replicas[other].peer(from as u32, MEMBERS[from].store, message, self.now);
                }
                Effect::SendRecords { token, from: first, last, .. } => {
                    let all = (first.0..=last.0).filter_map(|l| self.replicas[from].records.record(Lsn(l)).cloned());
                    for r in all.collect::<Vec<_>>() {
                        self.replicas[other].replicate(from as u32, token, &r, (), self.now);
                    }
                }
                Effect::Alarm(text) => self.alarms.push(text),
                _ => {}
            }
        }
        busy
    }

    /// Until both have that tail, and the settle is over.
    fn settles_to(&mut self, tail: RecordId) {
        for _ in 0..100 {
            while self.turn(0) | self.turn(1) {}
            let settled = !self.replicas[0].situation().settling && self.replicas[0].records.tail() == tail;
            if settled && self.replicas[1].records.tail() == tail && self.replicas.iter().all(Replica::is_whole) {
                return assert_eq!(self.alarms, Vec::<String>::new());
            }
            self.now = self.now.after(Duration::from_millis(60));
            self.replicas.iter_mut().for_each(|r| r.tick(self.now));
        }
        let tails: Vec<_> = self.replicas.iter().map(|r| r.records.tail()).collect();
        panic!("not settled at {tail}: {tails:?}, {:?}", self.alarms);
    }
}

/// The generations of both members' records, and which of the two has the newer history.
const APART: [(&[u64], &[u64], usize); 6] = [
    (&[1, 1, 1, 1], &[1, 1, 2], 1),
    (&[1, 1, 1], &[1, 1, 2], 1),
    (&[1, 1, 1], &[1, 1, 2, 2, 2], 1),
    (&[1, 1, 1, 1, 1], &[1, 2, 3], 1),
    (&[1, 1], &[2, 2, 2], 1),
    (&[1, 1, 2, 2], &[1, 1, 1, 1, 1], 0),
];

#[test]
fn the_newest_generation_goes_on_whoever_leads() {
    for (one, other, newest) in APART {
        let ((a, of_a), (b, of_b)) = (history(one), history(other));
        let tail = *[of_a, of_b][newest].last().unwrap();
        Pair::new([a.clone(), b.clone()]).settles_to(tail);
        Pair::new([b, a]).settles_to(tail);
    }
}

/// Records that cannot be taken back any more are not: the settle waits, and says so.
#[test]
fn what_cannot_be_taken_back_stays() {
    let ((mut a, of_a), (b, _)) = (history(&[1, 1, 1]), history(&[1, 1, 2]));
    a.set_horizon(Lsn(3));
    let mut pair = Pair::new([a, b]);
    for _ in 0..20 {
        while pair.turn(0) | pair.turn(1) {}
        pair.now = pair.now.after(Duration::from_millis(60));
        pair.replicas.iter_mut().for_each(|r| r.tick(pair.now));
    }
    assert_eq!(pair.replicas[0].records.tail(), of_a[2]);
    assert!(pair.replicas[0].situation().settling);
    assert!(pair.alarms.iter().any(|a| a.contains("cannot be taken back")), "{:?}", pair.alarms);
}
