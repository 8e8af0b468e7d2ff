//! What a primary answers, message by message, where the simulator's callers would only see that it took longer.

use dspm_proto::message::{Acquire, Completed, Fenced, Outcome, Unsettled};
use dspm_proto::record::{DatasetChange, PageChange, Payload, Record};
use dspm_proto::{
    ClientId, DatasetId, Generation, GroupId, Instant, Lsn, PAGE_SIZE, PageNo, Part, RecordId, Refusal, Session,
    StoreId, Token,
};
use dspm_sim::records::SimRecords;
use dspm_txn::{Caller, Effect, Member, PeerMessage, Records, Replica, Setup, Term};
use std::time::Duration;

const GENERATION: Generation = Generation(1);
const PRIMARY: Member = Member { node: 0, store: StoreId(10) };
const BACKUP: Member = Member { node: 1, store: StoreId(11) };
const A: Session = Session { client: ClientId(1), number: 1 };
const B: Session = Session { client: ClientId(2), number: 1 };

/// The primary of a group, and a backup that holds whatever it is sent.
struct Primary {
    replica: Replica<SimRecords>,
    now: Instant,
    request: u64,
}

impl Primary {
    fn new() -> Primary {
        let setup = Setup {
            group: GroupId(1),
            generation: GENERATION,
            primary: PRIMARY.node,
            members: vec![PRIMARY, BACKUP],
            joining: Vec::new(),
            active: true,
            min_copies: 1,
            term: Term::always(),
            me: PRIMARY,
            boot: 1,
            started: Instant(1),
            lease: Duration::from_millis(300),
            history: Duration::ZERO,
            disk: false,
            removing: false,
        };
        let replica = Replica::new(SimRecords::default(), setup, Instant(1));
        Primary { replica, now: Instant(1), request: 0 }
    }

    fn caller(&mut self, session: Session) -> Caller {
        self.request += 1;
        Caller { connection: session.client.0, request: self.request }
    }

    /// What it answers, once the backup has answered everything that it was asked.
    fn answers(&mut self) -> Vec<Effect> {
        let mut answers = Vec::new();
        loop {
            let (asked, told): (Vec<_>, Vec<_>) =
                self.replica.effects().partition(|e| matches!(e, Effect::Send { .. }));
            answers.extend(told);
            if asked.is_empty() {
                return answers;
            }
            for e in asked {
                let tail = self.replica.records.tail();
                let reply = match e {
                    Effect::Send { message: PeerMessage::Fence(m), .. } => {
                        PeerMessage::Fenced(Fenced { token: m.token, tail, unsettled: false, whole: true })
                    }
                    Effect::Send { message: PeerMessage::Complete(m), .. } => {
                        PeerMessage::Completed(Completed { token: m.token, tail: m.tail })
                    }
                    _ => continue,
                };
                self.replica.peer(BACKUP.node, BACKUP.store, reply, self.now);
            }
        }
    }

    fn acquire(&mut self, session: Session, returned: Token) -> Vec<Effect> {
        let from = self.caller(session);
        let known = self.replica.records.tail().lsn;
        let ask = Acquire { session, known, floor: known, ticket: 0, wait_ns: 0, forget: false, returned };
        self.replica.acquire(from, &ask, self.now);
        self.answers()
    }

    fn commit(&mut self, record: &Record) -> Vec<Effect> {
        let from = self.caller(record.session);
        self.replica.commit(from, PRIMARY.store, record, (), self.now);
        self.answers()
    }

    fn without_room(&mut self, record: &Record) -> Vec<Effect> {
        let from = self.caller(record.session);
        self.replica.commit_without_room(from, PRIMARY.store, record, self.now);
        self.answers()
    }

    fn outcome(&mut self, session: Session, token: Token, id: RecordId) -> Vec<Effect> {
        let from = self.caller(session);
        self.replica.outcome(from, &Outcome { session, token, id }, self.now);
        self.answers()
    }
}

fn granted(answers: &[Effect], to: Session) -> Option<Token> {
    answers.iter().find_map(|e| match e {
        Effect::Granted { to: c, token, .. } if c.connection == to.client.0 => Some(*token),
        _ => None,
    })
}

fn refused(answers: &[Effect]) -> Option<Refusal> {
    answers.iter().find_map(|e| if let Effect::Refuse { why, .. } = e { Some(*why) } else { None })
}

fn is_acked(answers: &[Effect], id: RecordId) -> bool {
    answers.iter().any(|e| matches!(e, Effect::Ack { ack, .. } if ack.id == id))
}

fn record(session: Session, token: Token, base: RecordId) -> Record {
    let page = PageNo(0);
    let checksum = base.lsn.0 + 1;
    let page = PageChange { dataset: 0, page, payload: Payload::Full, bytes: PAGE_SIZE as u32, checksum, base: Lsn(0) };
    let mut record = Record {
        group: GroupId(1),
        id: RecordId { generation: GENERATION, lsn: base.lsn.next(), hash: 0 },
        token,
        session,
        transaction: base.lsn.0 + 1,
        predecessor: base.hash,
        floor: base.lsn,
        part: Part::Alone,
        datasets: vec![DatasetChange { dataset: DatasetId(1), size: PAGE_SIZE as u64 }],
        links: Vec::new(),
        pages: vec![page],
    };
    record.seal();
    record
}

/// "No room" invites to send the same record again. A record that is here needs no room, and a fenced writer that is
/// invited keeps its whole process waiting until `commit_timeout`.
#[test]
fn no_room_is_said_of_what_could_be_published_only() {
    let mut p = Primary::new();
    let answers = p.acquire(A, Token::default());
    let token = granted(&answers, A).expect("A has the lease");
    let first = record(A, token, RecordId::default());
    assert!(is_acked(&p.commit(&first), first.id));
    assert!(is_acked(&p.without_room(&first), first.id), "it is here");

    let second = record(A, token, first.id);
    assert_eq!(refused(&p.without_room(&second)), Some(Refusal::Full));
    assert_eq!(p.replica.records.committed(), Lsn(1), "what it says of the first one counts");

    p.now = p.now.after(Duration::from_secs(1)); // A's lease lapses
    let answers = p.acquire(B, Token::default());
    assert!(granted(&answers, B).is_some());
    assert_eq!(refused(&p.without_room(&second)), Some(Refusal::Fenced));
}

/// A member restarted, which cost A its token but not its lease. A's question ends the lease: B, who waits, is next.
#[test]
fn a_question_for_an_outcome_ends_the_askers_lease_for_those_who_wait() {
    let mut p = Primary::new();
    let answers = p.acquire(A, Token::default());
    let token = granted(&answers, A).expect("A has the lease");
    let first = record(A, token, RecordId::default());
    p.commit(&first);
    let unsettled = PeerMessage::Unsettled(Unsettled { tail: first.id });
    p.replica.peer(BACKUP.node, BACKUP.store, unsettled, p.now);
    p.answers();
    let answers = p.acquire(B, Token::default());
    assert_eq!(granted(&answers, B), None, "A may begin without asking until its lease lapses");

    let answers = p.outcome(A, token, first.id);
    assert!(answers.iter().any(|e| matches!(e, Effect::Outcome { committed: true, .. })));
    assert!(granted(&answers, B).is_some());
}

/// While a member is away no outcome can be told. Who asks again and again is answered once, where it asked last.
#[test]
fn a_process_has_one_question_for_an_outcome() {
    let mut p = Primary::new();
    let answers = p.acquire(A, Token::default());
    let token = granted(&answers, A).expect("A has the lease");
    let first = record(A, token, RecordId::default());
    p.commit(&first);
    for _ in 0..100 {
        let from = p.caller(A);
        p.replica.outcome(from, &Outcome { session: A, token, id: first.id }, p.now);
    }
    let last = p.request;
    let told =
        |e: &Effect| if let Effect::Outcome { to, committed, .. } = e { Some((to.request, *committed)) } else { None };
    assert_eq!(p.answers().iter().filter_map(told).collect::<Vec<_>>(), [(last, true)]);
}
