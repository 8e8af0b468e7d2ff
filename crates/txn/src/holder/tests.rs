//! Tests of the holder alone.

use super::*;
use dspm_proto::Generation;

const L: Duration = Duration::from_millis(300);
const TOKEN: Token = Token { generation: Generation(1), boot: 1, n: 1 };

fn id(lsn: u64) -> RecordId {
    RecordId { generation: Generation(1), lsn: Lsn(lsn), hash: lsn }
}

fn ms(n: u64) -> Instant {
    Instant(n * 1_000_000)
}

/// It has the lease since `ms(2)`, at LSN 4.
fn holder() -> Holder {
    let mut h = Holder::new();
    h.learned(id(4));
    assert!(h.granted(TOKEN, ms(1), L, id(4), ms(2)));
    h
}

#[test]
fn a_read_lease_asked_for_before_a_record_was_sent_does_not_outlive_its_doubt() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send(id(5), vec![0, 1]).is_some());
    h.may_read(Lsn(4), ms(0), L); // another thread's answer, late: the primary has forgotten that lease since
    h.doubt();
    h.abandon(); // committed, or nobody knows
    assert_eq!(h.begin(ms(10)), Begin::Ask);
    h.learned(id(5));
    h.may_read(Lsn(5), ms(11), L);
    assert_eq!(h.begin(ms(12)), Begin::Local(id(5)));
}

#[test]
fn a_read_lease_that_was_given_up_is_not_taken_up_again() {
    let mut h = Holder::new();
    h.learned(id(4));
    assert_eq!(h.end_read(ms(1)), None);
    h.may_read(Lsn(4), ms(1), L);
    assert_eq!((h.begin(ms(2)), h.end_read(ms(3))), (Begin::Local(id(4)), Some(Lsn(5))));
    h.may_read(Lsn(4), ms(4), L); // the primary may yet hear that it is over
    assert_eq!((h.begin(ms(5)), h.end_read(ms(5))), (Begin::Ask, None));
}

#[test]
fn a_record_that_waits_for_room_holds_up_no_reader() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send(id(5), vec![0, 1]).is_some());
    assert_eq!(h.begin(ms(4)), Begin::Wait, "it will be here in a moment");
    h.stall();
    assert_eq!(h.begin(ms(4)), Begin::Ask, "never here: it may be committed by now");
    h.doubt();
    assert_eq!(h.begin(ms(5)), Begin::Wait, "the outcome comes first");
    h.abandon();
    assert!(h.granted(Token { n: 2, ..TOKEN }, ms(6), L, id(4), ms(7)));
    h.open(ms(7));
    assert!(h.send(id(5), vec![0]).is_some());
    assert_eq!(h.begin(ms(8)), Begin::Wait, "another record, which waits for nothing yet");
}

#[test]
fn an_acknowledgement_does_not_take_back_what_the_primary_showed_meanwhile() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send(id(5), vec![0]).is_some());
    h.learned(id(6)); // the lease had lapsed, and another process committed
    assert!(h.acked(0, id(5), ms(400)));
    assert_eq!(h.tail(), id(6));
    assert!(h.send(id(6), vec![0]).is_none(), "the transaction goes on from 5, which is not the newest");
}

#[test]
fn a_call_back_that_overtook_its_grant_is_looked_at_in_time() {
    let mut h = Holder::new();
    h.ask();
    assert_eq!(h.callback(TOKEN, ms(1)), Recall::Linger(ms(3)));
    assert_eq!(h.recall(ms(3)), Recall::Linger(ms(5)), "the grant is not here yet");
    h.asked();
    assert!(h.granted(TOKEN, ms(0), L, id(4), ms(4)));
    assert_eq!(h.recall(ms(4)), Recall::Linger(ms(4).after(LINGER)), "used a moment ago");
    assert_eq!(h.recall(ms(5)), Recall::Return(id(4)));
}

#[test]
fn a_call_back_whose_grant_was_lost_is_not_waited_for() {
    let mut h = Holder::new();
    h.ask();
    assert_eq!(h.callback(TOKEN, ms(1)), Recall::Linger(ms(3)));
    h.asked();
    assert_eq!(h.recall(ms(3)), Recall::Nothing);
    assert_eq!(h.callback(TOKEN, ms(50)), Recall::Return(RecordId::default()));
}

#[test]
fn every_call_back_is_answered() {
    let mut h = holder();
    h.open(ms(3));
    assert_eq!(h.callback(TOKEN, ms(50)), Recall::Kept);
    assert_eq!(h.recall(ms(51)), Recall::Nothing, "once is enough");
    assert_eq!(h.callback(TOKEN, ms(100)), Recall::Kept, "the first answer was lost");
    assert_eq!(h.close(ms(101)), Recall::Return(id(4)));
}

/// The primary takes the sender of a record to read nothing meanwhile, and may show the record to others.
#[test]
fn a_read_lease_ends_where_the_process_sends_a_record() {
    let (mut h, token, sent) = (Holder::new(), TOKEN, Instant(5));
    h.learned(id(7));
    h.may_read(Lsn(7), sent, L);
    assert_eq!(h.begin(Instant(6)), Begin::Local(id(7)));
    assert!(h.granted(token, sent, L, id(7), Instant(6)));
    h.open(Instant(6));
    assert!(h.send(id(8), vec![0, 1]).is_some());
    h.doubt();
    h.abandon();
    h.close(Instant(7));
    assert_eq!(h.begin(Instant(8)), Begin::Ask, "8 may have been committed");
}

/// A call-back by LSN also ends a read lease whose grant is still on its way.
#[test]
fn a_late_read_lease_is_not_taken_up() {
    let mut h = Holder::new();
    h.learned(id(7));
    h.recall_read(Lsn(8));
    h.may_read(Lsn(7), Instant(5), L);
    assert_eq!(h.begin(Instant(6)), Begin::Ask);
    h.learned(id(8));
    h.may_read(Lsn(8), Instant(6), L);
    assert_eq!(h.begin(Instant(7)), Begin::Local(id(8)));
    assert_eq!(h.begin(Instant(6).after(L)), Begin::Ask, "lapsed");
}

/// Sent, held by all, followed by its resolution: only then the state moves, over both records at once.
#[test]
fn a_prepared_record_stays_in_flight_until_its_resolution_is_held() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send_prepared(id(5), vec![0, 1]).is_some());
    assert!(!h.acked(0, id(5), ms(4)));
    assert!(h.follow(id(6), vec![0, 1]).is_none(), "not held by all");
    h.stall();
    assert!(h.acked(1, id(5), ms(4)));
    assert_eq!((h.tail(), h.begin(ms(5))), (id(4), Begin::Wait), "nobody knows yet");
    assert!(!h.acked(1, id(5), ms(5)), "said once");
    assert_eq!(h.callback(TOKEN, ms(50)), Recall::Kept);
    assert!(h.follow(id(7), vec![0]).is_none(), "not behind it");
    assert_eq!(h.follow(id(6), vec![0, 1]).unwrap().question(), id(5));
    assert!(!h.acked(0, id(5), ms(6)), "an acknowledgement of before");
    assert!(!h.acked(0, id(6), ms(6)) && h.acked(1, id(6), ms(6)));
    assert_eq!((h.tail(), h.flight()), (id(6), None));
    assert_eq!(h.close(ms(7)), Recall::Return(id(6)));
}

/// The caller that sent it may be gone, and another thread of the process be next.
#[test]
fn nothing_takes_the_place_of_a_record_in_flight() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send_prepared(id(5), vec![0]).is_some());
    h.close(ms(4));
    h.open(ms(4));
    assert!(h.send(id(5), vec![0, 1]).is_none() && h.send_prepared(id(5), vec![0, 1]).is_none());
    assert!(h.acked(0, id(5), ms(5)), "the one that is in flight");
    assert!(h.send(id(5), vec![0]).is_none(), "held by all, and not resolved");
    assert!(h.follow(id(6), vec![0]).is_some() && h.send(id(5), vec![0]).is_none());
    assert!(h.acked(0, id(6), ms(6)));
    assert!(h.send(id(7), vec![0]).is_some());
}

#[test]
fn a_prepared_record_in_doubt_is_not_followed() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send_prepared(id(5), vec![0]).is_some());
    assert!(h.acked(0, id(5), ms(4)));
    h.doubt(); // the decision did not come about
    assert!(h.follow(id(6), vec![0]).is_none());
    assert_eq!((h.flight().unwrap().question(), h.begin(ms(5))), (id(5), Begin::Wait));
    h.abandon();
    assert_eq!(h.begin(ms(6)), Begin::Ask);
}

#[test]
fn of_a_resolution_in_doubt_the_prepared_record_is_asked_about() {
    let mut h = holder();
    h.open(ms(3));
    assert!(h.send_prepared(id(5), vec![0]).is_some());
    assert!(h.acked(0, id(5), ms(4)));
    assert!(h.follow(id(6), vec![0]).is_some());
    h.doubt();
    assert_eq!(h.flight().map(|f| (f.question(), f.id)), Some((id(5), id(6))));
    assert!(!h.acked(0, id(6), ms(5)), "in doubt");
}
