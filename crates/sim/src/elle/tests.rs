//! Each anomaly in a history of its own.

use super::*;

const X: Key = (0, PageNo(0));
const Y: Key = (0, PageNo(1));
const Z: Key = (1, PageNo(0));

fn txn(h: &mut Transactions, reads: &[(Key, u64)]) -> Txn {
    Txn { reads: reads.to_vec(), ..h.begin() }
}

/// Appends one value to each key.
fn write(h: &mut Transactions, txn: Txn, appends: &[(Key, u64)]) -> usize {
    h.sent(txn, &appends.iter().map(|(key, value)| (*key, vec![*value])).collect::<Vec<_>>())
}

fn commit(h: &mut Transactions, reads: &[(Key, u64)], appends: &[(Key, u64)]) {
    let t = txn(h, reads);
    let n = write(h, t, appends);
    h.committed(n);
}

fn found(h: &Transactions, last: &[(Key, u64)]) -> String {
    h.check(&last.iter().copied().collect()).err().unwrap_or_default()
}

#[test]
fn a_serial_history_is_in_order() {
    let mut h = Transactions::default();
    commit(&mut h, &[(X, 0), (Z, 0)], &[(X, 1), (Z, 2)]);
    commit(&mut h, &[(X, 1), (Y, 0)], &[(X, 3), (Y, 4)]);
    let t = txn(&mut h, &[(X, 3), (Y, 4)]);
    h.read_only(t);
    assert_eq!(found(&h, &[(X, 3), (Y, 4), (Z, 2)]), "");
}

#[test]
fn lists_tell_lost_and_aborted_and_intermediate_values() {
    let mut h = Transactions::default();
    commit(&mut h, &[(X, 0)], &[(X, 1)]);
    commit(&mut h, &[(X, 0)], &[(X, 2)]); // a lost update
    assert!(found(&h, &[(X, 2)]).contains("acknowledged and is lost"));
    let t = txn(&mut h, &[(X, 1)]);
    h.read_only(t);
    assert!(found(&h, &[(X, 2)]).starts_with("two orders"));

    let mut h = Transactions::default();
    let t = txn(&mut h, &[(X, 0)]);
    let n = write(&mut h, t, &[(X, 1)]);
    assert_eq!(found(&h, &[(X, 1)]), "", "nobody knows what became of it");
    h.failed(n);
    assert!(found(&h, &[(X, 1)]).starts_with("G1a"));

    let mut h = Transactions::default();
    let t = txn(&mut h, &[(X, 0)]);
    let n = h.sent(t, &[(X, vec![1, 2])]);
    h.committed(n);
    assert_eq!(found(&h, &[(X, 2)]), "");
    let t = txn(&mut h, &[(X, 1)]);
    h.read_only(t);
    assert!(found(&h, &[(X, 2)]).starts_with("G1b"));
}

#[test]
fn half_a_transaction_is_found_though_nobody_was_told() {
    let mut h = Transactions::default();
    let t = txn(&mut h, &[(X, 0), (Z, 0)]);
    write(&mut h, t, &[(X, 1), (Z, 2)]);
    assert_eq!(found(&h, &[(X, 0), (Z, 0)]), "");
    assert_eq!(found(&h, &[(X, 1), (Z, 2)]), "");
    assert_eq!(found(&h, &[(X, 1)]), "", "the other group is not there");
    assert!(found(&h, &[(X, 1), (Z, 0)]).starts_with("half a transaction"));
}

#[test]
fn cycles_have_their_names() {
    // G0: two writers in two orders.
    let mut h = Transactions::default();
    let (a, b) = (txn(&mut h, &[(X, 0), (Y, 3)]), txn(&mut h, &[(X, 1), (Y, 0)]));
    let a = write(&mut h, Txn { reads: vec![(X, 0), (Y, 4)], ..a }, &[(X, 1), (Y, 3)]);
    let b = write(&mut h, b, &[(X, 2), (Y, 4)]);
    h.txns[a].0.reads.clear();
    h.txns[b].0.reads.clear();
    h.committed(a);
    h.committed(b);
    assert!(found(&h, &[(X, 2), (Y, 3)]).starts_with("G0:"));

    // G1c: each reads what the other wrote.
    let mut h = Transactions::default();
    let (a, b) = (txn(&mut h, &[(Y, 2)]), txn(&mut h, &[(X, 1)]));
    let (a, b) = (write(&mut h, a, &[(X, 1)]), write(&mut h, b, &[(Y, 2)]));
    h.committed(a);
    h.committed(b);
    assert!(found(&h, &[(X, 1), (Y, 2)]).starts_with("G1c:"));

    // G-single: a reader sees one of two writes.
    let mut h = Transactions::default();
    let reader = txn(&mut h, &[(X, 0), (Y, 2)]);
    commit(&mut h, &[(X, 0), (Y, 0)], &[(X, 1), (Y, 2)]);
    h.read_only(reader);
    assert!(found(&h, &[(X, 1), (Y, 2)]).starts_with("G-single:"));

    // G2: write skew.
    let mut h = Transactions::default();
    let (a, b) = (txn(&mut h, &[(X, 0), (Y, 0)]), txn(&mut h, &[(X, 0), (Y, 0)]));
    let (a, b) = (write(&mut h, a, &[(X, 1)]), write(&mut h, b, &[(Y, 2)]));
    h.committed(a);
    h.committed(b);
    assert!(found(&h, &[(X, 1), (Y, 2)]).starts_with("G2:"));
}

#[test]
fn time_is_an_order_within_a_group() {
    let mut h = Transactions::default();
    commit(&mut h, &[(X, 0)], &[(X, 1)]);
    let stale = txn(&mut h, &[(X, 0)]);
    h.read_only(stale);
    assert!(found(&h, &[(X, 1)]).starts_with("G-single-realtime:"));

    // Two groups, each as it was at some time; the reader of the second is not told of the first.
    let mut h = Transactions::default();
    let t = txn(&mut h, &[(X, 0), (Z, 0)]);
    let n = write(&mut h, t, &[(X, 1), (Z, 2)]);
    let (new, old) = (txn(&mut h, &[(X, 1)]), txn(&mut h, &[(Z, 0)]));
    h.read_only(new);
    h.read_only(old);
    h.committed(n);
    assert_eq!(found(&h, &[(X, 1), (Z, 2)]), "");
    let stale = txn(&mut h, &[(Z, 0)]);
    h.read_only(stale);
    assert!(found(&h, &[(X, 1), (Z, 2)]).starts_with("G-single-realtime:"));
}
