//! Opening: names, modes, and what is refused.

use crate::harness::{CREATE, Db, READ_ONLY, READ_WRITE, assert_idle, group, store};
use dspm_proto::Error;
use dspm_sqlite::Opener;
use dspm_sqlite::memory::Call;

const CANTOPEN: i32 = 14;
const READONLY: i32 = 8;

#[test]
fn a_dataset_is_called_what_was_opened() {
    for (typed, name) in [
        ("opening-a.db", "opening-a.db"),
        ("./opening/x/../b c.db", "opening/b c.db"),
        ("/opening//abs.db", "/opening/abs.db"),
        ("../opening-up.db", "../opening-up.db"),
        ("opening größe/ü ☃.db", "opening größe/ü ☃.db"),
        ("file:opening%20uri.db?x=1", "opening uri.db"),
        ("opening-journal/a.b.c", "opening-journal/a.b.c"),
    ] {
        assert!(!store().exists(name).unwrap(), "{name}");
        let db = Db::dspm(typed);
        assert!(store().exists(name).unwrap(), "{typed}");
        db.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        assert_eq!(group(name).lsn().0, 2);
        assert_eq!(db.rows("PRAGMA database_list").unwrap()[0][2], name);
    }
}

#[test]
fn names_that_name_nothing_are_refused() {
    for name in ["/", ".", "..", &"x".repeat(2000), "file:a%FFb"] {
        let failed = Db::try_open(name, CREATE, "dspm").err().unwrap();
        assert_eq!(failed.code & 0xff, CANTOPEN, "{name}");
    }
    // SQLite keeps names of files below 512 bytes, and needs eight of them for a journal's.
    assert_eq!(Db::try_open(&"z".repeat(505), CREATE, "dspm").err().unwrap().code & 0xff, CANTOPEN);
    for page_size in [512, 4096] {
        let (long, longer) = (format!("{}{page_size}", "y".repeat(480)), format!("{}{page_size}", "z".repeat(500)));
        for (main, aux) in [(&long, &longer), (&longer, &long)] {
            let db = Db::dspm(main);
            db.exec(&format!("PRAGMA page_size={page_size}; ATTACH '{aux}' AS aux; PRAGMA aux.page_size={page_size}"));
            db.exec("CREATE TABLE IF NOT EXISTS main.t(a); CREATE TABLE IF NOT EXISTS aux.t(a)");
            db.exec("BEGIN IMMEDIATE; INSERT INTO main.t VALUES(1); COMMIT");
            // Under a super-journal, whose name is longer still, and is read back where it comes to a rollback.
            db.exec("BEGIN; INSERT INTO main.t VALUES(2); INSERT INTO aux.t VALUES(2); COMMIT");
            group(aux).fail(Call::Commit, Error::Unavailable("nobody".into()), 0, 1);
            assert!(db.rows("BEGIN; UPDATE main.t SET a = 9; UPDATE aux.t SET a = 9; COMMIT").is_err());
            assert_eq!(db.cell("SELECT max(main.t.a) || max(aux.t.a) FROM main.t, aux.t"), "22");
        }
    }
}

#[test]
fn modes() {
    let name = "opening-modes";
    assert_eq!(Db::try_open(name, READ_WRITE, "dspm").err().unwrap().code & 0xff, CANTOPEN);
    assert_eq!(Db::try_open(&format!("file:{name}?mode=rw"), CREATE, "dspm").err().unwrap().code & 0xff, CANTOPEN);
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    for reader in [
        Db::try_open(name, READ_ONLY, "dspm").unwrap(),
        Db::try_open(&format!("file:{name}?mode=ro"), CREATE, "dspm").unwrap(),
    ] {
        assert_eq!(reader.code("INSERT INTO t VALUES(9)"), READONLY);
        assert_eq!(reader.code("BEGIN IMMEDIATE; INSERT INTO t VALUES(9)"), READONLY);
        reader.exec("ROLLBACK");
        db.exec("INSERT INTO t VALUES(2)");
        assert_eq!(reader.cell("SELECT max(a) FROM t"), "2", "it follows");
        reader.exec("PRAGMA locking_mode=EXCLUSIVE; SELECT * FROM t");
    }
    Db::try_open(name, READ_WRITE, "dspm").unwrap().exec("INSERT INTO t VALUES(3)");
}

#[test]
fn immutable_is_one_snapshot() {
    let name = "opening-immutable";
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let fixed = Db::dspm(&format!("file:{name}?immutable=1"));
    db.exec("INSERT INTO t VALUES(2)");
    assert_eq!(fixed.cell("SELECT count(*) FROM t"), "1");
    assert_eq!(fixed.code("INSERT INTO t VALUES(9)"), READONLY);
    db.exec("DELETE FROM t; VACUUM");
    assert_eq!(fixed.cell("SELECT count(*) FROM t"), "1");
    assert_eq!(fixed.cell("PRAGMA dspm_lsn"), "2");
    drop((fixed, db));
    assert_idle(name);
}

#[test]
fn nolock_is_refused() {
    let failed = Db::try_open("file:opening-nolock?nolock=1", CREATE, "dspm").err().unwrap();
    assert_eq!(failed.code & 0xff, CANTOPEN);
    assert!(!store().exists("opening-nolock").unwrap());
}

#[test]
fn temporary_tables_and_sorts_stay_local() {
    let name = "opening-temp";
    let db = Db::dspm(name);
    db.exec("PRAGMA temp_store=FILE; PRAGMA cache_size=10; PRAGMA temp.cache_size=10; CREATE TABLE t(a, b)");
    db.exec(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
         SELECT i * 7919 % 20011, hex(zeroblob(40)) FROM n; CREATE INDEX ta ON t(a)",
    );
    db.exec("CREATE TEMP TABLE x AS SELECT * FROM t ORDER BY b, a DESC");
    db.exec("BEGIN; UPDATE t SET b = 'x' WHERE a IN (SELECT a FROM x ORDER BY a DESC LIMIT 5000); ROLLBACK");
    let lsn = group(name).lsn();
    assert_eq!(db.cell("SELECT count(*) FROM x"), "20000");
    db.exec("DROP TABLE x");
    assert_eq!(group(name).lsn(), lsn);
    assert_eq!(db.cell("PRAGMA integrity_check"), "ok");
}
