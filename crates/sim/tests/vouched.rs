//! A joining member that said that it is whole forgets nothing in that generation: it may be a complete member by the time
//! that a settle's older word to begin anew arrives.

use dspm_proto::message::{Complete, Fence, Rebase};
use dspm_proto::{Generation, GroupId, Instant, Lsn, RecordId, StoreId, Token};
use dspm_sim::records::SimRecords;
use dspm_txn::{Member, PeerMessage, Records, Replica, Setup, Term};
use std::time::Duration;

const PRIMARY: Member = Member { node: 0, store: StoreId(10) };
const JOINING: Member = Member { node: 1, store: StoreId(11) };
const NOW: Instant = Instant(1_000_000_000);

fn setup(generation: u64) -> Setup {
    Setup {
        group: GroupId(1),
        generation: Generation(generation),
        primary: 0,
        members: vec![PRIMARY],
        joining: vec![JOINING],
        active: true,
        min_copies: 1,
        term: Term::always(),
        me: JOINING,
        boot: 1,
        started: Instant(1),
        lease: Duration::from_millis(300),
        history: Duration::ZERO,
        disk: false,
        removing: false,
    }
}

fn token(generation: u64, n: u32) -> Token {
    Token { generation: Generation(generation), boot: 1, n }
}

fn elsewhere() -> RecordId {
    RecordId { generation: Generation(2), lsn: Lsn(7), hash: 77 }
}

fn hear(j: &mut Replica<SimRecords>, message: PeerMessage) {
    j.peer(0, PRIMARY.store, message, NOW);
}

/// A joining member that is settled, and whole.
fn joined() -> Replica<SimRecords> {
    let mut j = Replica::new(SimRecords::default(), setup(2), NOW);
    hear(&mut j, PeerMessage::Fence(Fence { token: token(2, 1) }));
    hear(&mut j, PeerMessage::Complete(Complete { token: token(2, 1), tail: RecordId::default() }));
    assert!(j.is_whole());
    j
}

fn begins_anew(j: &mut Replica<SimRecords>, token: Token) -> bool {
    hear(j, PeerMessage::Fence(Fence { token }));
    hear(j, PeerMessage::Rebase(Rebase { token, tail: elsewhere() }));
    j.records.tail() == elsewhere()
}

#[test]
fn who_said_nothing_begins_anew() {
    assert!(begins_anew(&mut joined(), token(2, 2)));
}

#[test]
fn who_vouched_does_not() {
    let mut j = joined();
    assert!(j.vouch());
    assert!(!begins_anew(&mut j, token(2, 2)));
    assert!(j.is_whole());
}

#[test]
fn in_the_next_generation_it_may_again() {
    let mut j = joined();
    assert!(j.vouch());
    j.configure(setup(3), NOW);
    assert!(begins_anew(&mut j, token(3, 1)));
    assert!(!j.vouch());
}
