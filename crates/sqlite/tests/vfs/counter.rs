//! The change counter: one value an LSN, also where SQLite leaves it alone.

use crate::harness::{Db, Directory, group};

fn counters(name: &str) -> (u32, u32) {
    let image = group(name).image();
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    (number(24), number(92))
}

#[test]
fn every_commit_has_its_own() {
    for (n, mode) in ["PRAGMA locking_mode=NORMAL", "PRAGMA locking_mode=EXCLUSIVE", "PRAGMA synchronous=OFF"]
        .into_iter()
        .enumerate()
    {
        let name = format!("counter-{n}");
        let db = Db::dspm(&name);
        db.exec(&format!("{mode}; CREATE TABLE t(a)"));
        let reader = Db::process(&name, 1);
        for i in 1..10u32 {
            let before = counters(&name);
            db.exec(&format!("INSERT INTO t VALUES({i})"));
            assert_eq!(counters(&name), (before.0 + 1, before.1 + 1));
            assert_eq!(reader.cell("SELECT count(*) FROM t"), i.to_string());
        }
    }
}

/// A main database on another VFS passes its locking mode on to those attached: SQLite then never unlocks, and stops
/// counting after the first commit.
#[test]
fn readers_see_commits_of_a_connection_that_never_unlocks() {
    let directory = Directory::new("counter");
    let name = "counter-attached";
    let db = Db::unix(&directory.file("main.db"));
    db.exec(&format!("ATTACH 'file:{name}?vfs=dspm' AS aux; PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE aux.t(a)"));
    let reader = Db::process(name, 1);
    let lsn = group(name).lsn();
    for i in 1..6u32 {
        let before = counters(name);
        db.exec(&format!("INSERT INTO aux.t VALUES({i})"));
        assert_eq!(counters(name), (before.0 + 1, before.1 + 1), "commit {i}");
        assert_eq!(reader.cell("SELECT count(*) FROM t"), i.to_string());
        assert_eq!(reader.cell("PRAGMA integrity_check"), "ok");
    }
    assert_eq!(group(name).lsn().0, lsn.0 + 5);
    assert!(group(name).is_reserved());
    db.exec("BEGIN; INSERT INTO aux.t VALUES(7); ROLLBACK");
    db.exec("PRAGMA locking_mode=NORMAL; SELECT * FROM aux.t");
    assert!(!group(name).is_reserved());
    assert_eq!(db.cell("SELECT group_concat(a) FROM aux.t"), "1,2,3,4,5");
    assert_eq!(reader.cell("SELECT count(*) FROM t"), "5");
}
