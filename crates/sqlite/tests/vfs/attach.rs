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

const SPILLS: [&str; 2] = ["PRAGMA cache_size=-2000", "PRAGMA main.cache_size=1; PRAGMA aux.cache_size=1"];

/// Some pages of rows for a table with the columns a and b.
const ROWS: &str = "SELECT 2, hex(zeroblob(3000)) FROM u, (SELECT 1 UNION SELECT 2 UNION SELECT 3)";

/// Runs the body with two databases for each way that SQLite has to commit them, in a cache that spills and one that does
/// not, and looks afterwards whether anything is left.
fn in_each_mode(test: &str, body: impl Fn(&Db, &str, &str)) {
    for (n, mode) in MODES.into_iter().enumerate() {
        for (m, spill) in SPILLS.into_iter().enumerate() {
            let (a, b) = (format!("attach-{test}-a{n}-{m}"), format!("attach-{test}-b{n}-{m}"));
            let db = attached(Db::dspm(&a), &b);
            db.exec(&format!("{mode}; {spill}"));
            body(&db, &a, &b);
            drop(db);
            assert_idle(&a);
            assert_idle(&b);
        }
    }
}

/// What another process reads in both.
fn seen(a: &str, b: &str) -> [String; 2] {
    [
        Db::process(a, 1).cell("SELECT group_concat(DISTINCT b) FROM t"),
        Db::process(b, 1).cell("SELECT group_concat(DISTINCT b) FROM u"),
    ]
}

fn change_both(db: &Db, to: &str) {
    db.exec(&format!(
        "BEGIN; INSERT INTO t {ROWS}; INSERT INTO u {ROWS}; UPDATE t SET b = '{to}'; UPDATE u SET b = '{to}'"
    ));
}

#[test]
fn two_are_one_commit() {
    in_each_mode("two", |db, a, b| {
        let before = (group(a).lsn(), group(b).lsn());
        change_both(db, "both");
        assert_eq!(seen(a, b), ["main", "aux"], "before the commit");
        db.exec("COMMIT");
        assert_eq!((group(a).lsn(), group(b).lsn()), (before.0.next(), before.1.next()), "one commit of each");
        assert_eq!(seen(a, b), ["both", "both"]);
        if db.cell("PRAGMA main.journal_mode") == "off" {
            return; // without a journal nothing is rolled back
        }
        change_both(db, "lost");
        db.exec("SAVEPOINT s; DELETE FROM t; DELETE FROM u; ROLLBACK TO s; ROLLBACK");
        assert_eq!(db.cell("SELECT (SELECT max(b) FROM t) || (SELECT max(b) FROM u)"), "bothboth");
        change_both(db, "next");
        db.exec("SAVEPOINT s; DELETE FROM t; DELETE FROM u; ROLLBACK TO s; UPDATE u SET b = 'last'; COMMIT");
        assert_eq!(seen(a, b), ["next", "last"]);
        assert_eq!((group(a).lsn(), group(b).lsn()), (before.0.next().next(), before.1.next().next()));
        for (name, schema) in [(a, "main"), (b, "aux")] {
            assert_eq!(db.cell(&format!("PRAGMA {schema}.integrity_check")), "ok");
            assert_eq!(Db::process(name, 1).cell("PRAGMA integrity_check"), "ok");
        }
    });
}

/// A lost race, a lost lease, no room, nobody there: of either database, at either way to commit.
#[test]
fn a_failure_in_one_is_a_failure_of_both() {
    const BUSY_SNAPSHOT: i32 = 517;
    const FULL: i32 = 13;
    for (error, code) in [
        (Error::Conflict("fenced".into()), BUSY_SNAPSHOT),
        (Error::TooOld("lost".into()), BUSY_SNAPSHOT),
        (Error::Unavailable("nobody".into()), IOERR),
        (Error::Full("no room".into()), FULL),
    ] {
        for first in [true, false] {
            in_each_mode(&format!("fails-{}-{first}", error.code()), |db, a, b| {
                let before = (group(a).lsn(), group(b).lsn());
                change_both(db, "lost");
                group(if first { a } else { b }).fail(Call::Commit, error.clone(), 0, 1);
                assert_eq!(db.code("COMMIT"), code);
                assert!(!db.in_transaction());
                for schema in ["main", "aux"] {
                    let said = db.cell(&format!("PRAGMA {schema}.dspm_error"));
                    assert!(said.contains(&error.to_string()), "{schema}: {said}");
                }
                assert_eq!((group(a).lsn(), group(b).lsn()), before, "neither was committed");
                let journal = db.cell("PRAGMA main.journal_mode");
                if journal == "off" {
                    return; // without a journal SQLite cannot roll back: what its caches hold is undefined
                }
                assert_eq!(db.cell("SELECT group_concat(b) FROM t"), "main");
                assert_eq!(db.cell("SELECT group_concat(b) FROM u"), "aux");
                change_both(db, "next");
                db.exec("COMMIT");
                assert_eq!(seen(a, b), ["next", "next"]);
            });
        }
    }
}

#[test]
fn an_unknown_outcome_is_said_and_what_is_stored_is_shown() {
    in_each_mode("unknown", |db, a, b| {
        change_both(db, "perhaps");
        group(b).fail(Call::Committed, Error::OutcomeUnknown("nobody says".into()), 0, 1);
        assert_eq!(db.code("COMMIT"), IOERR);
        assert!(db.cell("PRAGMA main.dspm_error").contains("nobody says"));
        assert_eq!(seen(a, b), ["perhaps", "perhaps"]);
        if db.cell("PRAGMA main.journal_mode") != "off" {
            assert_eq!(db.cell("SELECT max(b) FROM t"), "perhaps");
            assert_eq!(db.cell("SELECT max(b) FROM u"), "perhaps");
        }
    });
}

#[test]
fn what_is_lost_beside_it_is_noticed() {
    in_each_mode("epoch", |db, a, b| {
        let before = group(a).lsn();
        change_both(db, "lost");
        group(b).lose_after(group(b).lsn());
        assert_eq!(db.code("COMMIT"), 517);
        assert_eq!(group(a).lsn(), before);
        assert_eq!(seen(a, b), ["main", "aux"]);
    });
}

#[test]
fn three_databases_and_a_main_in_memory() {
    for (n, mode) in MODES.into_iter().enumerate() {
        for memory in [false, true] {
            let names = [1, 2, 3].map(|i| format!("attach-three-{n}-{memory}-{i}"));
            let [a, b, c] = &names;
            let main = Db::try_open(":memory:", 6, "unix").unwrap();
            let db = if memory { main } else { Db::dspm(a) };
            let schema = if memory { "first" } else { "main" };
            if memory {
                db.exec(&format!("ATTACH 'file:{a}?vfs=dspm' AS first; CREATE TABLE m(a)"));
            }
            db.exec(&format!("ATTACH 'file:{b}?vfs=dspm' AS aux; ATTACH 'file:{c}?vfs=dspm' AS third"));
            db.exec(&format!("CREATE TABLE {schema}.t(a); CREATE TABLE aux.u(a); CREATE TABLE third.v(a)"));
            db.exec(mode);
            let lsns = || names.each_ref().map(|name| group(name).lsn().0);
            let before = lsns();
            let rows = "INSERT INTO t VALUES(1); INSERT INTO u VALUES(1); INSERT INTO v VALUES(1)";
            db.exec(&format!("BEGIN; {rows}; COMMIT"));
            assert_eq!(lsns(), before.map(|lsn| lsn + 1));
            group(c).fail(Call::Commit, Error::Conflict("fenced".into()), 0, 1);
            assert!(db.rows(&format!("BEGIN IMMEDIATE; {rows}; COMMIT")).is_err());
            assert_eq!(lsns(), before.map(|lsn| lsn + 1), "{mode} {memory}");
            // One of three reserved ones is not written: two commit.
            if db.rows("PRAGMA journal_mode").unwrap()[0][0] != "off" {
                db.exec("BEGIN IMMEDIATE; UPDATE t SET a = 7; UPDATE v SET a = 7; COMMIT");
                assert_eq!(lsns(), [before[0] + 2, before[1] + 1, before[2] + 2]);
                assert_eq!(Db::process(c, 1).cell("SELECT sum(a) FROM v"), "7");
            }
            db.exec("DETACH aux; DETACH third");
            db.exec("UPDATE t SET a = 8");
            drop(db);
            names.iter().for_each(|name| assert_idle(name));
        }
    }
}

#[test]
fn a_read_only_one_beside_it_is_read() {
    let (a, b) = ("attach-readonly-a", "attach-readonly-b");
    drop(attached(Db::dspm(a), b));
    let db = Db::dspm(a);
    db.exec(&format!("ATTACH 'file:{b}?mode=ro' AS aux"));
    let before = group(b).lsn();
    db.exec("BEGIN; UPDATE t SET b = (SELECT b FROM u); COMMIT");
    assert_eq!(db.code("BEGIN; UPDATE t SET b = 'lost'; UPDATE u SET b = 'lost'"), 8);
    db.exec("ROLLBACK; DETACH aux");
    assert_eq!(seen(a, b), ["aux", "aux"]);
    assert_eq!(group(b).lsn(), before);
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
            if !foreign {
                group(&aux).fail(Call::Commit, Error::Conflict("fenced".into()), 0, 1);
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

/// SQLite cuts each file in its second phase, after the decision.
#[test]
fn a_shrinking_commit_is_one_commit() {
    for (n, mode) in MODES.into_iter().enumerate() {
        for both in [false, true] {
            let (a, b) = (format!("attach-shrink-a{n}-{both}"), format!("attach-shrink-b{n}-{both}"));
            let (db, aux) = (Db::dspm(&a), Db::dspm(&b));
            db.exec("PRAGMA auto_vacuum=1");
            aux.exec("PRAGMA auto_vacuum=1");
            aux.exec("CREATE TABLE first(a)");
            drop(aux);
            let db = attached(db, &b);
            db.exec(mode);
            db.exec("INSERT INTO t VALUES(2, zeroblob(500000))");
            db.exec("INSERT INTO u VALUES(2, zeroblob(500000))");
            let before = [&a, &b].map(|name| (group(name).lsn(), group(name).image().len()));
            let delete_aux = if both { "DELETE FROM u WHERE a = 2" } else { "SELECT 1" };
            db.exec(&format!("BEGIN IMMEDIATE; DELETE FROM t WHERE a = 2; {delete_aux}; COMMIT"));
            for (i, name) in [&a, &b].into_iter().enumerate() {
                let (lsn, size) = before[i];
                let changed = i == 0 || both;
                assert_eq!(group(name).lsn().0, lsn.0 + u64::from(changed), "{mode}");
                assert_eq!(group(name).image().len() < size / 10, changed, "{mode}");
                assert_eq!(Db::process(name, 1).cell("PRAGMA integrity_check"), "ok");
            }
        }
    }
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

/// A stage that outlived its transaction, since its pager could not roll back yet, is no part of the next one.
#[test]
fn what_was_staged_before_another_began_to_write_is_not_published_with_it() {
    const SYNC: i32 = 21;
    const COMMIT_PHASETWO: i32 = 22;
    let (a, b) = ("attach-stale-a", "attach-stale-b");
    let db = attached(Db::dspm(a), b);
    db.exec(SPILLS[1]);
    let control = |schema: &std::ffi::CStr, operation| unsafe {
        (db.sqlite.file_control)(db.raw, schema.as_ptr(), operation, std::ptr::null_mut())
    };
    let before = (group(a).lsn(), group(b).lsn());
    db.exec(&format!("BEGIN; INSERT INTO u {ROWS}"));
    assert_eq!(control(c"aux", SYNC), 0);
    db.exec(&format!("INSERT INTO t {ROWS}"));
    assert_eq!(control(c"main", COMMIT_PHASETWO), 0);
    assert_eq!((group(a).lsn(), group(b).lsn()), (before.0.next(), before.1));
    db.exec("ROLLBACK");
}
