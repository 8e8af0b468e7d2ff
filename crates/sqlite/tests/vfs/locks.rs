//! Several connections: of one process, and of several.

use crate::harness::{Db, assert_idle, group};

const BUSY: i32 = 5;
const BUSY_SNAPSHOT: i32 = 517;

fn two(name: &str, process: u64) -> (Db, Db) {
    let a = Db::dspm(name);
    a.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES(1, 'one')");
    let b = Db::process(name, process);
    assert_eq!(b.cell("SELECT b FROM t"), "one");
    (a, b)
}

#[test]
fn a_second_writer_is_busy_until_the_first_ends() {
    for process in [0, 1] {
        let name = format!("locks-busy-{process}");
        let (a, b) = two(&name, process);
        a.exec("BEGIN IMMEDIATE; UPDATE t SET b = 'a'");
        assert_eq!(b.code("BEGIN IMMEDIATE"), BUSY);
        assert_eq!(b.cell("SELECT b FROM t"), "one", "readers are not stopped, and see nothing of it");
        a.exec("COMMIT");
        b.exec("BEGIN IMMEDIATE; UPDATE t SET b = b || 'b'; COMMIT");
        assert_eq!(a.cell("SELECT b FROM t"), "ab");
        drop((a, b));
        assert_idle(&name);
    }
}

#[test]
fn a_reader_that_wants_to_write_after_a_foreign_commit_is_told_to_begin_again() {
    for process in [0, 1] {
        let name = format!("locks-stale-{process}");
        let (a, b) = two(&name, process);
        b.exec("BEGIN");
        assert_eq!(b.cell("SELECT b FROM t"), "one");
        a.exec("UPDATE t SET b = 'new'");
        assert_eq!(b.cell("SELECT b FROM t"), "one", "the snapshot stays");
        assert_eq!(b.code("UPDATE t SET b = 'lost'"), BUSY_SNAPSHOT);
        assert_eq!(b.cell("SELECT b FROM t"), "one");
        b.exec("ROLLBACK; UPDATE t SET b = b || '!'");
        assert_eq!(a.cell("SELECT b FROM t"), "new!");
        drop((a, b));
        assert_idle(&name);
    }
}

#[test]
fn readers_do_not_see_a_spilled_writer() {
    for process in [0, 1] {
        let name = format!("locks-spill-{process}");
        let (a, b) = two(&name, process);
        let c = Db::process(&name, process);
        a.exec("PRAGMA cache_size=5; BEGIN; CREATE TABLE u(x)");
        a.exec(
            "INSERT INTO u WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
             SELECT hex(i) || hex(zeroblob(100)) FROM n; UPDATE t SET b = 'spilled'",
        );
        for reader in [&b, &c] {
            assert_eq!(reader.cell("SELECT b FROM t"), "one");
            assert_eq!(reader.cell("SELECT count(*) FROM sqlite_master"), "1");
        }
        b.exec("BEGIN");
        let before = b.dump();
        a.exec("COMMIT");
        assert!(b.dump() == before, "a reader keeps its snapshot");
        assert_eq!(c.cell("SELECT count(*) FROM u"), "2000");
        b.exec("COMMIT");
        assert_eq!(b.cell("SELECT b FROM t"), "spilled");
        drop((a, b, c));
        assert_idle(&name);
    }
}

#[test]
fn a_refused_writer_keeps_its_place_in_the_queue() {
    let name = "locks-queue";
    let (a, b) = two(name, 1);
    let c = Db::process(name, 2);
    a.exec("BEGIN IMMEDIATE; UPDATE t SET b = 'a'");
    assert_eq!(b.code("BEGIN IMMEDIATE"), BUSY);
    assert_eq!(c.code("BEGIN IMMEDIATE"), BUSY);
    assert_eq!(b.code("BEGIN IMMEDIATE"), BUSY, "asking again is no second place");
    assert_eq!(group(name).waiters(), 2);
    a.exec("COMMIT");
    b.exec("BEGIN IMMEDIATE; UPDATE t SET b = b || 'b'; COMMIT");
    assert_eq!(group(name).waiters(), 1);
    c.exec("BEGIN IMMEDIATE; UPDATE t SET b = b || 'c'; COMMIT");
    assert_eq!(a.cell("SELECT b FROM t"), "abc");
    assert_eq!(group(name).waiters(), 0);
}

#[test]
fn who_comes_back_to_read_only_leaves_the_queue() {
    let name = "locks-leave";
    let (a, b) = two(name, 1);
    a.exec("BEGIN IMMEDIATE");
    assert_eq!(b.code("BEGIN IMMEDIATE"), BUSY);
    assert_eq!(group(name).waiters(), 1);
    assert_eq!(b.cell("SELECT b FROM t"), "one");
    assert_eq!(group(name).waiters(), 0);
    assert_eq!(b.code("BEGIN IMMEDIATE"), BUSY);
    b.close();
    assert_eq!(group(name).waiters(), 0, "closing leaves it too");
    a.exec("ROLLBACK");
}

#[test]
fn the_busy_handler_waits() {
    let name = "locks-handler";
    let (a, b) = two(name, 1);
    b.busy_timeout(60_000);
    a.exec("BEGIN IMMEDIATE; UPDATE t SET b = 'a'");
    let waiter = std::thread::spawn(move || {
        b.exec("BEGIN IMMEDIATE; UPDATE t SET b = b || 'b'; COMMIT");
        b
    });
    while group(name).waiters() == 0 {
        std::thread::yield_now();
    }
    a.exec("COMMIT");
    let b = waiter.join().unwrap();
    assert_eq!(b.cell("SELECT b FROM t"), "ab");
}

#[test]
fn exclusive_keeps_the_lease_until_normal_or_close() {
    let name = "locks-exclusive";
    let (a, b) = two(name, 1);
    assert_eq!(a.cell("PRAGMA locking_mode=EXCLUSIVE"), "exclusive");
    assert_eq!(a.cell("PRAGMA locking_mode"), "exclusive");
    b.exec("UPDATE t SET b = 'b'");
    assert_eq!(group(name).owner(), Some(1), "the lease is taken with the next read, not by the PRAGMA");
    assert_eq!(a.cell("SELECT b FROM t"), "b");
    assert_eq!(group(name).owner(), Some(0));
    assert_eq!(b.code("UPDATE t SET b = 'no'"), BUSY);
    assert_eq!(b.cell("SELECT b FROM t"), "b", "others still read");
    a.exec("UPDATE t SET b = 'a'");
    assert_eq!(b.cell("SELECT b FROM t"), "a", "each commit is published");
    // A second handle of the process holds it as well: the first one's NORMAL does not give it away.
    let a2 = Db::dspm(name);
    a2.exec("PRAGMA locking_mode=EXCLUSIVE; SELECT * FROM t");
    assert_eq!(a.cell("PRAGMA locking_mode=NORMAL"), "normal");
    assert_eq!(b.code("UPDATE t SET b = 'no'"), BUSY);
    a2.close();
    b.exec("UPDATE t SET b = 'yes'");
    assert_eq!(a.cell("SELECT b FROM t"), "yes");
    // While another writes, it is BUSY, not an error, and comes with the next try.
    b.exec("BEGIN IMMEDIATE; UPDATE t SET b = 'b again'");
    a.exec("PRAGMA locking_mode=EXCLUSIVE");
    assert_eq!(a.code("SELECT * FROM t"), BUSY);
    b.exec("COMMIT");
    assert_eq!(a.cell("SELECT b FROM t"), "b again");
    drop((a, b));
    assert_idle(name);
}

#[test]
fn a_commit_leaves_its_open_reader_at_its_own_state() {
    let name = "locks-own";
    let (a, b) = two(name, 1);
    a.exec("INSERT INTO t VALUES(2, 'two'), (3, 'three')");
    let mut cursor = a.cursor("SELECT b FROM t ORDER BY a");
    assert_eq!(cursor.text(), "one");
    a.exec("UPDATE t SET b = 'changed' WHERE a > 1");
    b.exec("UPDATE t SET b = 'foreign' WHERE a = 3");
    // The statement goes on in the state that its connection committed, not in the newer foreign one.
    assert_eq!((cursor.step(), cursor.text()), (100, "changed".into()));
    assert_eq!((cursor.step(), cursor.text()), (100, "changed".into()));
    drop(cursor);
    assert_eq!(a.cell("SELECT b FROM t WHERE a = 3"), "foreign");
    drop((a, b));
    assert_idle(name);
}

#[test]
fn a_transaction_that_wrote_nothing_makes_no_commit() {
    let name = "locks-empty";
    let (a, _b) = two(name, 1);
    let before = group(name).lsn();
    a.exec("BEGIN IMMEDIATE; COMMIT; BEGIN EXCLUSIVE; SELECT * FROM t; COMMIT; BEGIN; UPDATE t SET b = 'x' WHERE 0; COMMIT");
    a.exec("BEGIN; UPDATE t SET b = 'x'; ROLLBACK");
    a.exec("PRAGMA cache_size=1; BEGIN; INSERT INTO t(b) SELECT zeroblob(90000); INSERT INTO t(b) SELECT b FROM t; ROLLBACK");
    assert_eq!(group(name).lsn(), before);
    assert_eq!(a.cell("SELECT b FROM t"), "one");
    a.exec("UPDATE t SET b = 'x'");
    assert_eq!(group(name).lsn(), before.next(), "one commit, one LSN");
}
