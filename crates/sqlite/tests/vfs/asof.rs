//! Reading the past: the failures guarded against are pages, sizes or a schema of another time than the one asked for,
//! and a write that lands in the present from there.

use crate::harness::{CREATE, Db, assert_idle, group};

const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;

/// A database whose every commit is kept, with what a reader saw after each.
fn grown(name: &str) -> (Db, Vec<Vec<Vec<String>>>) {
    let db = Db::dspm(name);
    let mut seen = vec![Vec::new()];
    for sql in [
        "CREATE TABLE t(a)",
        "INSERT INTO t VALUES('one')",
        "INSERT INTO t SELECT hex(zeroblob(3000)) FROM generate_series(1, 40)",
        "CREATE TABLE u(b, c)",
        "INSERT INTO u VALUES(1, 2)",
        "DELETE FROM t WHERE a != 'one'",
        "VACUUM",
        "DROP TABLE u",
        "UPDATE t SET a = 'two'",
    ] {
        let sql = sql.replace(
            "generate_series(1, 40)",
            "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) SELECT i FROM n)",
        );
        db.exec(&sql);
        seen.push(db.dump());
        assert_eq!(group(name).lsn().0 as usize, seen.len() - 1);
    }
    (db, seen)
}

#[test]
fn every_commit_is_read_as_it_was_in_any_order() {
    let (db, seen) = grown("asof-each");
    let newest = seen.len() - 1;
    let order = (1..=newest).chain((1..=newest).rev()).chain([3, 7, 3, 9, 4, 8, 6, 7]);
    for lsn in order {
        assert_eq!(db.cell(&format!("PRAGMA dspm_as_of={lsn}")), lsn.to_string());
        assert_eq!((db.cell("PRAGMA dspm_as_of"), db.cell("PRAGMA dspm_lsn")), (lsn.to_string(), lsn.to_string()));
        assert_eq!(db.dump(), seen[lsn], "as of {lsn}");
    }
    assert_eq!(db.cell("PRAGMA dspm_as_of=now"), "0");
    assert_eq!(db.dump(), seen[newest]);
    db.exec("INSERT INTO t VALUES('three'); CREATE TABLE u(other)");
    let fresh = Db::process("asof-each", 1);
    assert_eq!(fresh.dump(), db.dump(), "what it writes afterwards is what others read");
    fresh.close();
    db.close();
    assert_idle("asof-each");
}

#[test]
fn others_write_on_and_the_past_stays() {
    let (db, seen) = grown("asof-stays");
    let past = Db::dspm("file:asof-stays?process=1");
    past.exec("PRAGMA dspm_as_of=3");
    for n in 0..3 {
        db.exec(&format!("INSERT INTO t VALUES({n})"));
        assert_eq!(past.dump(), seen[3]);
    }
    past.exec("PRAGMA dspm_as_of=0");
    assert_eq!(past.dump(), db.dump());
}

#[test]
fn the_past_is_not_written() {
    let (db, seen) = grown("asof-write");
    db.exec("PRAGMA dspm_as_of=5");
    for sql in ["INSERT INTO u VALUES(3, 4)", "BEGIN IMMEDIATE", "VACUUM", "PRAGMA user_version=7", "DROP TABLE t"] {
        assert_eq!(db.code(sql) & 0xff, READONLY, "{sql}");
    }
    let text = db.cell("PRAGMA dspm_error");
    assert!(text.contains("as of commit 5") && text.contains("dspm_as_of = 0"), "{text}");
    assert_eq!((group("asof-write").lsn().0, db.dump()), (9, seen[5].clone()));
    // The newest commit is the past too, once it was asked for.
    db.exec("PRAGMA dspm_as_of=9");
    assert_eq!(db.code("INSERT INTO t VALUES(1)") & 0xff, READONLY);
    db.exec("PRAGMA dspm_as_of=0; INSERT INTO t VALUES(1)");
    assert_eq!(group("asof-write").lsn().0, 10);
}

#[test]
fn a_transaction_stays_where_it_began() {
    let (db, seen) = grown("asof-inside");
    db.exec("BEGIN; SELECT * FROM t");
    let refused = db.rows("PRAGMA dspm_as_of=3").unwrap_err();
    assert!(refused.text.contains("inside a transaction"), "{refused}");
    assert_eq!(db.cell("PRAGMA dspm_as_of"), "0");
    db.exec("COMMIT; PRAGMA dspm_as_of=3; BEGIN; SELECT * FROM t");
    assert!(db.rows("PRAGMA dspm_as_of=0").is_err());
    db.exec("ROLLBACK");
    assert_eq!(db.dump(), seen[3]);
    let cursor = db.cursor("SELECT * FROM t");
    assert!(db.rows("PRAGMA dspm_as_of=now").unwrap_err().text.contains("statements that still run"));
    drop(cursor);
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let (db, seen) = grown("asof-wrong");
    db.exec("PRAGMA dspm_as_of=4");
    for (value, expected) in
        [("10", "the newest is 9"), ("'tomorrow'", "expected"), ("-30", "expected"), ("1.5", "expected")]
    {
        let refused = db.rows(&format!("PRAGMA dspm_as_of={value}")).unwrap_err();
        assert!(refused.text.contains(expected), "{value}: {refused}");
        assert_eq!((db.cell("PRAGMA dspm_as_of"), db.dump()), ("4".into(), seen[4].clone()));
    }
}

#[test]
fn a_uri_opens_the_past_beside_the_present() {
    let (db, seen) = grown("asof-uri");
    let past = Db::dspm("file:asof-uri?as_of=4");
    assert_eq!(past.dump(), seen[4]);
    assert_eq!(past.code("INSERT INTO t VALUES(1)") & 0xff, READONLY);
    db.exec("ATTACH 'file:asof-uri?as_of=2' AS old");
    assert_eq!(db.cell("SELECT old.t.a || ' ' || main.t.a FROM old.t, main.t"), "one two");
    db.exec("INSERT INTO main.t SELECT a FROM old.t");
    assert_eq!(db.cell("SELECT group_concat(a) FROM t"), "two,one");
    assert_eq!(db.code("INSERT INTO old.t VALUES(1)") & 0xff, READONLY);
    for bad in ["99", "soon"] {
        let refused = Db::try_open(&format!("file:asof-uri?as_of={bad}"), CREATE, "dspm").err().unwrap();
        assert_eq!(refused.code & 0xff, CANTOPEN);
    }
    past.close();
    db.close();
    assert_idle("asof-uri");
}

#[test]
fn a_schema_number_set_by_hand_does_not_mix_times() {
    let name = "asof-cookie";
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 2)");
    let then = group(name).lsn().0;
    let number = db.cell("PRAGMA schema_version");
    db.exec("DROP TABLE t; CREATE TABLE x(c); INSERT INTO x VALUES('x'); CREATE TABLE t(z)");
    db.exec(&format!("PRAGMA schema_version={number}"));
    let other = Db::process(name, 1);
    assert_eq!(other.cell("SELECT count(z) FROM t"), "0");
    other.exec(&format!("PRAGMA dspm_as_of={then}"));
    assert_eq!(other.cell("SELECT a + b FROM t"), "3");
    other.exec("PRAGMA dspm_as_of=0");
    assert_eq!(other.cell("SELECT count(z) FROM t"), "0");
}

#[test]
fn a_lost_history_is_not_read_on() {
    let name = "asof-lost";
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(a); INSERT INTO t VALUES('lost')");
    let past = Db::process(name, 1);
    past.exec("PRAGMA dspm_as_of=2");
    assert_eq!(past.cell("SELECT a FROM t"), "lost");
    group(name).lose_after(dspm_proto::Lsn(1));
    db.exec("INSERT INTO t VALUES('found')");
    assert_eq!(past.code("SELECT a FROM t"), 517);
    past.exec("PRAGMA dspm_as_of=2");
    assert_eq!(past.cell("SELECT a FROM t"), "found", "asked again, it is the commit that has the number now");
}
