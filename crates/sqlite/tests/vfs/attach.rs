//! Transactions over several databases.

use crate::harness::{Db, Directory, assert_idle, group};
use dspm_proto::Error;
use dspm_sqlite::memory::Call;

const IOERR: i32 = 10;

/// A connection with `aux` attached, each with a table of one row.
fn attached(main: Db, aux: &str) -> Db {
    main.exec(&format!("ATTACH '{aux}' AS aux; CREATE TABLE main.t(a, b); CREATE TABLE aux.u(a, b)"));
    main.exec("INSERT INTO t VALUES(1, 'main')");
    main.exec("INSERT INTO u VALUES(1, 'aux')");
    main
}

const MODES: [&str; 4] = [
    "SELECT 1",
    "PRAGMA main.synchronous=OFF; PRAGMA aux.synchronous=OFF",
    "PRAGMA main.journal_mode=MEMORY",
    "PRAGMA main.journal_mode=OFF; PRAGMA aux.journal_mode=PERSIST",
];

#[test]
fn one_of_two_may_be_written() {
    for (n, mode) in MODES.into_iter().enumerate() {
        let (a, b) = (format!("attach-one-a{n}"), format!("attach-one-b{n}"));
        let db = attached(Db::dspm(&a), &b);
        db.exec(mode);
        db.exec("BEGIN; UPDATE t SET b = (SELECT b FROM u); COMMIT; BEGIN IMMEDIATE; UPDATE u SET b = 'new'; COMMIT");
        db.exec("BEGIN EXCLUSIVE; INSERT INTO t SELECT * FROM u; COMMIT");
        assert_eq!(Db::process(&a, 1).cell("SELECT group_concat(b) FROM t"), "aux,new");
        assert_eq!(Db::process(&b, 1).cell("SELECT group_concat(b) FROM u"), "new");
        drop(db);
        assert_idle(&a);
        assert_idle(&b);
    }
}

#[test]
fn two_written_are_refused_and_rolled_back_in_both() {
    for (n, mode) in MODES.into_iter().enumerate() {
        for spill in ["PRAGMA cache_size=-2000", "PRAGMA main.cache_size=1; PRAGMA aux.cache_size=1"] {
            let (a, b) = (format!("attach-two-a{n}-{}", spill.len()), format!("attach-two-b{n}-{}", spill.len()));
            let db = attached(Db::dspm(&a), &b);
            db.exec(&format!("{mode}; {spill}"));
            let (lsn_a, lsn_b) = (group(&a).lsn(), group(&b).lsn());
            let rows = "SELECT 2, hex(zeroblob(3000)) FROM u, (SELECT 1 UNION SELECT 2 UNION SELECT 3)";
            db.exec(&format!(
                "BEGIN; INSERT INTO t {rows}; INSERT INTO u {rows}; UPDATE t SET b = 'lost'; UPDATE u SET b = 'lost'"
            ));
            assert_eq!(db.code("COMMIT"), IOERR, "{mode}");
            assert!(!db.in_transaction());
            assert!(db.cell("PRAGMA aux.dspm_error").contains("only one dspm database"), "the reason can be read");
            assert_eq!((group(&a).lsn(), group(&b).lsn()), (lsn_a, lsn_b), "neither was committed");
            assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "main", "{mode} {spill}");
            assert_eq!(db.cell("SELECT group_concat(b) FROM u"), "aux", "{mode} {spill}");
            db.exec("UPDATE t SET b = 'next'");
            db.exec("UPDATE u SET b = 'next'");
            assert_eq!(Db::process(&a, 1).cell("SELECT b FROM t"), "next");
            assert_eq!(Db::process(&b, 1).cell("SELECT b FROM u"), "next");
            assert_eq!(db.cell("PRAGMA main.integrity_check"), "ok");
            assert_eq!(db.cell("PRAGMA aux.integrity_check"), "ok");
            drop(db);
            assert_idle(&a);
            assert_idle(&b);
        }
    }
}

/// Statements that stay open over a refused commit go on in the pager's cache: it has to be what it was.
#[test]
fn an_open_cursor_never_shows_a_refused_transaction() {
    let directory = Directory::new("attach-cursor");
    for foreign in [false, true] {
        for (n, mode) in MODES.into_iter().enumerate() {
            let name = format!("attach-cursor-{foreign}-{n}");
            let aux = format!("{name}-aux");
            let main = if foreign { Db::unix(&directory.file(&name)) } else { Db::dspm(&name) };
            let db = attached(main, &format!("file:{aux}?vfs=dspm"));
            db.exec("INSERT INTO u VALUES(2, 'two'), (3, 'three')");
            db.exec(mode);
            if foreign && n > 0 {
                // Without a super-journal there is nothing that tells of the other VFS.
                continue;
            }
            let mut cursor = db.cursor("SELECT b FROM u");
            assert_eq!(cursor.text(), "aux");
            assert_eq!(db.code("BEGIN; UPDATE t SET b = 'lost'; UPDATE u SET b = 'lost'; COMMIT"), IOERR);
            let code = cursor.step();
            assert!(code != 100 || cursor.text() != "lost", "{name} {mode}");
            drop(cursor);
            assert_eq!(db.cell("SELECT group_concat(b) FROM u"), "aux,two,three");
            assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "main");
        }
    }
}

#[test]
fn two_connections_of_a_process_are_no_transaction() {
    let (a, b) = (Db::dspm("attach-apart-a"), Db::dspm("attach-apart-b"));
    for db in [&a, &b] {
        db.exec("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)");
    }
    a.exec("COMMIT");
    b.exec("COMMIT");
}

#[test]
fn a_failure_under_a_super_journal_is_reported() {
    // BEGIN IMMEDIATE begins in both, so SQLite makes a super-journal though only one is written, and ignores errors
    // after that is deleted: an outage must show before.
    for error in [Error::Unavailable("nobody".into()), Error::Conflict("fenced".into()), Error::Full("full".into())] {
        for written in ["t", "u"] {
            let (a, b) = (
                format!("attach-super-a-{}-{written}", error.code()),
                format!("attach-super-b-{}-{written}", error.code()),
            );
            let db = attached(Db::dspm(&a), &b);
            let name = if written == "t" { &a } else { &b };
            let (before, rows) = (group(name).lsn(), db.cell(&format!("SELECT b FROM {written}")));
            db.exec(&format!("BEGIN IMMEDIATE; UPDATE {written} SET b = 'lost'"));
            group(name).fail(Call::Commit, error.clone(), 0, 1);
            assert!(db.rows("COMMIT").is_err(), "{error:?}");
            assert!(!db.in_transaction());
            assert_eq!(group(name).lsn(), before);
            assert_eq!(db.cell(&format!("SELECT b FROM {written}")), rows);
            db.exec(&format!("BEGIN IMMEDIATE; UPDATE {written} SET b = 'kept'; COMMIT"));
            assert_eq!(group(name).lsn(), before.next(), "one commit");
            assert_eq!(db.cell(&format!("SELECT b FROM {written}")), "kept");
            drop(db);
            assert_idle(&a);
            assert_idle(&b);
        }
    }
}

#[test]
fn a_shrinking_commit_under_a_super_journal_is_one_commit() {
    let (a, b) = ("attach-shrink-a", "attach-shrink-b");
    let db = Db::dspm(a);
    db.exec("PRAGMA auto_vacuum=1");
    let db = attached(db, b);
    db.exec("INSERT INTO t VALUES(2, zeroblob(500000))");
    let (lsn, size) = (group(a).lsn(), group(a).image().len());
    db.exec("BEGIN IMMEDIATE; DELETE FROM t WHERE a = 2; COMMIT");
    assert_eq!(group(a).lsn(), lsn.next());
    assert!(group(a).image().len() < size / 10);
    assert_eq!(Db::process(a, 1).cell("PRAGMA integrity_check"), "ok");
}

#[test]
fn a_super_journal_of_another_vfs_is_refused() {
    let directory = Directory::new("attach-foreign");
    for (n, mode) in
        ["PRAGMA main.cache_size=-2000", "PRAGMA main.cache_size=1; PRAGMA aux.cache_size=1"].into_iter().enumerate()
    {
        let aux = format!("attach-foreign-{n}");
        let db = attached(Db::unix(&directory.file(&format!("main{n}.db"))), &format!("file:{aux}?vfs=dspm"));
        db.exec(mode);
        let rows = "SELECT 2, hex(zeroblob(3000)) FROM u, (SELECT 1 UNION SELECT 2 UNION SELECT 3)";
        db.exec(&format!(
            "BEGIN; INSERT INTO u {rows}; INSERT INTO t {rows}; UPDATE t SET b = 'lost'; UPDATE u SET b = 'lost'"
        ));
        assert_eq!(db.code("COMMIT"), IOERR);
        assert!(!db.in_transaction());
        assert!(db.cell("PRAGMA aux.dspm_error").contains("use one VFS"));
        assert_eq!(db.cell("SELECT group_concat(b) FROM u"), "aux");
        assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "main");
        db.exec("UPDATE u SET b = 'alone'; UPDATE t SET b = 'alone'");
        assert_eq!(Db::process(&aux, 1).cell("SELECT b FROM u"), "alone");
        drop(db);
        assert_idle(&aux);
        let left = std::fs::read_dir(directory.file(""))
            .unwrap()
            .filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("-mj"));
        assert_eq!(left.count(), 0, "no super-journal is left");
    }
}

#[test]
fn temporary_and_memory_databases_are_no_second_one() {
    let db = Db::dspm("attach-temp");
    db.exec("CREATE TABLE t(a); CREATE TEMP TABLE x(a); ATTACH ':memory:' AS m; CREATE TABLE m.y(a); ATTACH '' AS e; CREATE TABLE e.z(a)");
    db.exec("BEGIN; INSERT INTO t VALUES(1); INSERT INTO x VALUES(1); INSERT INTO y VALUES(1); INSERT INTO z VALUES(1); COMMIT");
    assert_eq!(Db::process("attach-temp", 1).cell("SELECT count(*) FROM t"), "1");
}
