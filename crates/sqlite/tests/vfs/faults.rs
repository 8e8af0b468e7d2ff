//! The store fails at any call: what the program is told is what happened, and the connection goes on.

use crate::harness::{Cursor, Db, assert_idle, group};
use dspm_proto::{Error, Refusal};
use dspm_sqlite::memory::Call;

const IOERR: i32 = 10;
const IOERR_READ: i32 = 266;
const IOERR_LOCK: i32 = 3850;
const BUSY_SNAPSHOT: i32 = 517;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;

fn outage() -> Error {
    Error::Unavailable("nobody answers".into())
}

fn table(name: &str) -> Db {
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES(1, 'one')");
    db
}

/// After a failed transaction: rolled back, nothing there, the next one works, every connection sees the same.
fn goes_on(name: &str, db: &Db) {
    group(name).heal();
    assert!(!db.in_transaction(), "rolled back");
    let other = Db::process(name, 9);
    assert_eq!(db.rows("SELECT a, b FROM t").unwrap(), other.rows("SELECT a, b FROM t").unwrap());
    assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "one");
    db.exec("INSERT INTO t VALUES(2, 'two')");
    assert_eq!(other.cell("SELECT group_concat(b) FROM t"), "one,two");
    assert_eq!(db.dump(), other.dump());
}

#[test]
fn a_failed_commit_is_rolled_back() {
    for (n, (error, code)) in [
        (outage(), IOERR),
        (Error::Conflict("fenced".into()), BUSY_SNAPSHOT),
        (Error::TooOld("x".into()), BUSY_SNAPSHOT),
        (Error::Full("arena".into()), FULL),
        (Error::Busy("x".into()), IOERR),
        (Error::Auth("x".into()), IOERR),
        (Error::Refused(Refusal::Fenced), IOERR),
        (Error::Corrupt("x".into()), IOERR),
    ]
    .into_iter()
    .enumerate()
    {
        for mode in ["delete", "truncate", "persist", "memory", "off"] {
            for transaction in ["BEGIN; INSERT INTO t VALUES(7, 'lost'); COMMIT", "INSERT INTO t VALUES(7, 'lost')"] {
                let name = format!("faults-commit-{n}-{mode}-{}", transaction.len());
                let db = table(&name);
                db.exec(&format!("PRAGMA journal_mode={mode}; SELECT * FROM t"));
                group(&name).fail(Call::Commit, error.clone(), 0, 1);
                assert_eq!(db.code(transaction), code, "{name}");
                goes_on(&name, &db);
                drop(db);
                assert_idle(&name);
            }
        }
    }
}

#[test]
fn a_lost_race_does_not_leave_lost_rows_in_the_cache() {
    // The lost transaction and the one that won have the same change counter and the same sizes: only dropping the
    // cache can tell them apart.
    let name = "faults-same-counter";
    let db = table(name);
    group(name).fail(Call::Commit, Error::Conflict("fenced".into()), 0, 1);
    assert_eq!(db.code("UPDATE t SET b = 'lost'"), BUSY_SNAPSHOT);
    let other = Db::process(name, 1);
    other.exec("UPDATE t SET b = 'won!'");
    assert_eq!(db.cell("SELECT b FROM t"), "won!");
}

#[test]
fn an_outcome_unknown_is_what_it_is_afterwards() {
    let name = "faults-unknown";
    let db = table(name);
    group(name).fail(Call::Committed, Error::OutcomeUnknown("nobody could be asked".into()), 0, 1);
    assert_eq!(db.code("INSERT INTO t VALUES(2, 'two')"), IOERR);
    assert!(db.cell("PRAGMA dspm_error").contains("read the rows back"));
    assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "one,two", "it had happened");
    db.exec("INSERT INTO t VALUES(3, 'three')");
    assert_eq!(db.dump(), Db::process(name, 1).dump());
}

#[test]
fn a_write_transaction_that_wrote_nothing_still_tells_that_it_was_fenced() {
    let name = "faults-confirm";
    let db = table(name);
    db.exec("BEGIN IMMEDIATE; SELECT * FROM t");
    group(name).fail(Call::Confirm, Error::Conflict("fenced".into()), 0, 1);
    assert_eq!(db.code("COMMIT"), BUSY_SNAPSHOT);
    goes_on(name, &db);
    let before = db.cell("PRAGMA dspm_lsn");
    db.exec("BEGIN IMMEDIATE; COMMIT; UPDATE t SET b = b");
    assert_eq!(db.cell("PRAGMA dspm_lsn"), before, "nothing written makes no commit");
}

#[test]
fn an_outage_at_any_read_of_a_write_transaction_rolls_it_back() {
    let name = "faults-read";
    let db = table(name);
    db.exec("CREATE TABLE u(x); CREATE INDEX ux ON u(x)");
    db.exec(
        "INSERT INTO u WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
         SELECT hex(i) || hex(zeroblob(100)) FROM n",
    );
    let before = db.dump();
    for error in [outage(), Error::TooOld("x".into()), Error::Busy("x".into()), Error::Corrupt("x".into())] {
        let mut failures = 0;
        for after in 0.. {
            let db = Db::dspm(name);
            db.exec("PRAGMA cache_size=5; SELECT * FROM t; BEGIN IMMEDIATE; INSERT INTO t VALUES(7, 'lost')");
            group(name).fail(Call::Read, error.clone(), after, 1);
            let done = db.rows("UPDATE u SET x = x || 'y' WHERE rowid % 50 = 0");
            group(name).heal();
            match done {
                Err(e) => {
                    assert_eq!(e.code & 0xff, IOERR, "after {after} reads: {e}");
                    assert!(!db.in_transaction(), "after {after} reads");
                    failures += 1;
                }
                Ok(_) => {
                    db.exec("ROLLBACK");
                    break;
                }
            }
            assert!(db.dump() == before, "after {after} reads");
        }
        assert!(failures > 20, "{failures} places to fail at");
    }
    assert!(db.dump() == before);
    drop(db);
    assert_idle(name);
}

#[test]
fn an_outage_while_reading_is_an_error_and_over_with_the_outage() {
    let name = "faults-reader";
    let db = table(name);
    db.close();
    let db = Db::dspm(name);
    group(name).fail(Call::Read, outage(), 0, u64::MAX);
    assert_eq!(db.code("SELECT * FROM t"), IOERR_READ);
    group(name).fail(Call::Read, Error::TooOld("revoked".into()), 0, u64::MAX);
    assert_eq!(db.code("SELECT * FROM t"), BUSY_SNAPSHOT);
    goes_on(name, &db);
    group(name).fail(Call::Snapshot, outage(), 0, 1);
    assert_eq!(db.code("SELECT * FROM t"), IOERR_LOCK);
    assert_eq!(db.cell("SELECT count(*) FROM t"), "2");
    drop(db);
    assert_idle(name);
}

#[test]
fn an_outage_at_the_reservation_ends_the_transaction() {
    for (n, error) in [outage(), Error::Corrupt("x".into())].into_iter().enumerate() {
        let name = format!("faults-reserve-{n}");
        let db = table(&name);
        db.exec("BEGIN; SELECT * FROM t");
        group(&name).fail(Call::Reserve, error, 0, 1);
        assert_eq!(db.code("INSERT INTO t VALUES(7, 'lost')") & 0xff, IOERR);
        goes_on(&name, &db);
        group(&name).fail(Call::Reserve, outage(), 0, 1);
        assert_eq!(db.code("BEGIN IMMEDIATE"), IOERR_LOCK);
        db.exec("BEGIN IMMEDIATE; COMMIT");
        drop(db);
        assert_idle(&name);
    }
}

#[test]
fn a_spilled_transaction_that_fails_at_the_end_is_rolled_back() {
    for mode in ["delete", "persist", "memory"] {
        let name = format!("faults-spill-{mode}");
        let db = table(&name);
        db.exec(&format!("PRAGMA journal_mode={mode}; PRAGMA cache_size=3; BEGIN; INSERT INTO t VALUES(7, 'lost')"));
        db.exec(
            "INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
             SELECT hex(zeroblob(200)) FROM n",
        );
        group(&name).fail(Call::Commit, outage(), 0, 1);
        assert_eq!(db.code("COMMIT"), IOERR);
        goes_on(&name, &db);
        drop(db);
        assert_idle(&name);
    }
}

#[test]
fn a_transaction_over_the_limit_is_full_and_rolled_back() {
    let name = "faults-limit";
    let db = table(name);
    // A limit is read when a transaction begins to write; other tests may begin one too, all far below this one.
    crate::harness::store().limit_transactions(256 << 20);
    db.exec("PRAGMA cache_size=10");
    let sql = "INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
               SELECT zeroblob(1000000) FROM n";
    assert_eq!(db.code(&format!("BEGIN; {sql}")), FULL);
    goes_on(name, &db);
}

#[test]
fn an_open_cursor_never_shows_a_lost_transaction() {
    for (n, error) in [outage(), Error::Conflict("fenced".into()), Error::Full("x".into())].into_iter().enumerate() {
        for begin in ["SELECT 1", "BEGIN"] {
            let name = format!("faults-cursor-{n}-{}", begin.len());
            let db = table(&name);
            db.exec("INSERT INTO t VALUES(2, 'two'), (3, 'three')");
            let mut cursor: Cursor<'_> = db.cursor("SELECT b FROM t ORDER BY a");
            group(&name).fail(Call::Commit, error.clone(), 0, 1);
            let end = if begin == "BEGIN" { "; COMMIT" } else { "" };
            assert!(db.rows(&format!("{begin}; UPDATE t SET b = 'lost'{end}")).is_err());
            let code = cursor.step();
            assert!(code != 100 || cursor.text() == "two", "{error:?}: {code} {}", cursor.text());
            drop(cursor);
            assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "one,two,three");
        }
    }
}

#[test]
fn errors_of_opening_have_their_codes() {
    for (n, (error, code)) in [
        (outage(), CANTOPEN),
        (Error::Auth("x".into()), 23),
        (Error::Permission("x".into()), 3),
        (Error::Protocol("x".into()), 15),
        (Error::Corrupt("x".into()), CANTOPEN),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("faults-open-{n}");
        group(&name).fail(Call::Open, error, 0, 1);
        let failed = Db::try_open(&name, 6, "dspm").err().unwrap();
        assert_eq!(failed.code, code);
        Db::dspm(&name).exec("CREATE TABLE t(a)");
    }
}

#[test]
fn a_panic_is_an_error_and_no_more() {
    for call in [Call::Open, Call::Snapshot, Call::Read, Call::Reserve, Call::Commit] {
        let name = format!("faults-panic-{call:?}");
        let db = table(&name);
        db.close();
        let db = Db::dspm(&name);
        group(&name).panic(call);
        if call == Call::Open {
            assert_eq!(Db::try_open(&name, 6, "dspm").err().unwrap().code, CANTOPEN);
        } else {
            assert_eq!(db.code("INSERT INTO t VALUES(7, 'lost')") & 0xff, IOERR, "{call:?}");
        }
        goes_on(&name, &db);
        drop(db);
        assert_idle(&name);
    }
}
