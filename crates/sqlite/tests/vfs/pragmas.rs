//! The PRAGMAs that the VFS answers.

use crate::harness::{Db, group};
use dspm_proto::Error;
use dspm_sqlite::memory::Call;

#[test]
fn write_ahead_is_refused_as_documented() {
    let db = Db::dspm("pragmas-wal");
    assert_eq!(db.cell("PRAGMA journal_mode=WAL"), "delete");
    assert_eq!(db.cell("PRAGMA main.journal_mode=wal"), "delete");
    assert_eq!(db.cell("PRAGMA journal_mode"), "delete");
    assert_eq!(db.cell("PRAGMA journal_mode=TRUNCATE"), "truncate");
    assert_eq!(db.cell("PRAGMA journal_mode=WAL"), "delete", "the same answer, whatever journal there is");
    assert_eq!(db.cell("PRAGMA journal_mode"), "truncate");
    // Answered to a whole connection, it holds for what is attached as well.
    db.exec("ATTACH 'pragmas-wal-2' AS aux; CREATE TABLE aux.t(a)");
    assert_eq!(db.cell("PRAGMA aux.journal_mode=WAL"), "delete");
    db.exec("INSERT INTO t VALUES(1)");
}

#[test]
fn a_foreign_main_cannot_switch_it_on() {
    let directory = crate::harness::Directory::new("pragmas-wal");
    let db = Db::unix(&directory.file("main.db"));
    db.exec("ATTACH 'file:pragmas-wal-3?vfs=dspm' AS aux; CREATE TABLE aux.t(a)");
    let _ = db.rows("PRAGMA journal_mode=WAL");
    db.exec("INSERT INTO aux.t VALUES(1)");
    // SQLite believes that its exclusive mode needs no shared memory for a log, and then cannot open one: this
    // connection is told so until it ends, and the database stays what it was.
    let _ = db.rows("PRAGMA locking_mode=EXCLUSIVE; SELECT * FROM aux.t; PRAGMA journal_mode=WAL");
    let _ = db.rows("INSERT INTO aux.t VALUES(2)");
    db.close();
    assert_eq!(group("pragmas-wal-3").image()[18..20], [1, 1]);
    let db = Db::dspm("pragmas-wal-3");
    assert_eq!(db.cell("SELECT count(*) FROM t WHERE a = 1"), "1");
    db.exec("INSERT INTO t VALUES(3)");
}

#[test]
fn status_is_one_cell_of_json() {
    let db = Db::dspm("pragmas-status");
    db.exec("CREATE TABLE t(a)");
    let cell = db.cell("PRAGMA dspm_status");
    let status: serde_json::Value = serde_json::from_str(&cell).unwrap();
    for key in [
        "mode",
        "config",
        "dataset",
        "lsn",
        "durability",
        "copies",
        "copies_now",
        "lease",
        "transport",
        "round_trips",
        "cache_hits",
        "cache_misses",
    ] {
        assert!(status.get(key).is_some(), "{key} in {cell}");
    }
    assert_eq!(status["dataset"], "pragmas-status");
    assert_eq!(status["lsn"], 1);
}

#[test]
fn lsn_and_durability() {
    let db = Db::dspm("pragmas-lsn");
    assert_eq!(db.cell("PRAGMA dspm_lsn"), "0");
    db.exec("CREATE TABLE t(a)");
    assert_eq!(db.cell("PRAGMA dspm_lsn"), "1");
    db.exec("BEGIN; SELECT * FROM t");
    Db::process("pragmas-lsn", 1).exec("INSERT INTO t VALUES(1)");
    assert_eq!(db.cell("PRAGMA dspm_lsn"), "1", "what this transaction sees");
    db.exec("COMMIT");
    assert_eq!(db.cell("PRAGMA dspm_lsn"), "2");
    assert_eq!(db.cell("PRAGMA dspm_durability"), "memory");
    assert_eq!(db.cell("PRAGMA dspm_durability=MEMORY"), "memory");
    assert!(db.rows("PRAGMA dspm_durability=disk").unwrap_err().text.contains("fixed"));
}

#[test]
fn the_last_error_can_be_read() {
    let db = Db::dspm("pragmas-error");
    db.exec("CREATE TABLE t(a)");
    group("pragmas-error").fail(Call::Commit, Error::Unavailable("nobody answered for 10s".into()), 0, 1);
    assert!(db.rows("INSERT INTO t VALUES(1)").is_err());
    let text = db.cell("PRAGMA dspm_error");
    assert!(text.contains("pragmas-error") && text.contains("nobody answered for 10s"), "{text}");
    assert!(text.contains("\nhint: "), "{text}");
    // A connection without an error of its own shows the process's last: an open that failed has no connection.
    let other = Db::dspm("pragmas-error");
    other.cell("PRAGMA dspm_error");
}

#[test]
fn sqlites_own_pragmas_work() {
    let db = Db::dspm("pragmas-own");
    for sql in [
        "PRAGMA mmap_size=1000000",
        "PRAGMA synchronous=EXTRA",
        "PRAGMA wal_checkpoint",
        "PRAGMA cache_spill=10",
        "PRAGMA temp_store_directory",
        "PRAGMA data_version",
        "PRAGMA secure_delete=1",
        "PRAGMA optimize",
        "PRAGMA journal_size_limit=100",
        "PRAGMA max_page_count=1000000",
        "PRAGMA lock_status",
    ] {
        if let Err(e) = db.rows(sql) {
            panic!("{sql}: {e}");
        }
    }
    db.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
}
