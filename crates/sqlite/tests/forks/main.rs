//! A forked child neither uses nor disturbs what its parent has open.
//!
//! A program of its own with one test: in a child of a process with busy threads, SQLite itself may wait for ever for a
//! mutex that some thread held at the fork.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

#[path = "../vfs/harness.rs"]
mod harness;

use harness::{Db, assert_idle, group};

/// Runs `child` in a forked process; true if it says so.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    unsafe {
        match libc::fork() {
            -1 => panic!("fork"),
            0 => {
                // A child that hangs is a failure, not a test that never ends.
                libc::alarm(60);
                let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
                libc::_exit(if good { 0 } else { 1 });
            }
            pid => {
                let mut status = 0;
                assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }
    }
}

#[test]
fn forked_children() {
    a_child_cannot_use_its_parents_handles();
    a_child_can_open_its_own();
}

fn a_child_cannot_use_its_parents_handles() {
    let name = "forks";
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1); BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
    let idle = Db::dspm("forks-idle");
    idle.exec("CREATE TABLE t(a)");
    let (raw, idle_raw, sqlite) = (db.raw, idle.raw, db.sqlite);
    let done = in_child(|| unsafe {
        let child = Db { sqlite, raw };
        let idle = Db { sqlite, raw: idle_raw };
        let committed = child.rows("COMMIT").map_err(|e| e.code & 0xff);
        let read = idle.rows("SELECT * FROM t").map_err(|e| e.code & 0xff);
        let why = idle.cell("PRAGMA dspm_error");
        let told = why.contains("forks-idle") && why.contains("the process that forked this one opened");
        let status = idle.rows("PRAGMA dspm_status").map_err(|e| e.text.contains("open another one"));
        std::mem::forget((child, idle));
        // Closing ends the transaction in the child's memory and leaves the parent's alone.
        (sqlite.close)(raw);
        (sqlite.close)(idle_raw);
        committed == Err(10) && read == Err(10) && told && status == Err(true)
    });
    assert!(done, "the child's calls fail with IOERR");
    assert!(group(name).is_reserved(), "the parent's transaction is still open");
    db.exec("COMMIT");
    assert_eq!(db.cell("SELECT count(*) FROM t"), "2");
    drop((db, idle));
    assert_idle(name);
}

fn a_child_can_open_its_own() {
    let db = Db::dspm("forks-own");
    db.exec("CREATE TABLE t(a); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
    // The memory store is copied with the process: what counts here is that no lock of the parent is waited for.
    assert!(in_child(|| {
        let own = Db::dspm("forks-child");
        own.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        own.cell("SELECT a FROM t") == "1"
    }));
    db.exec("COMMIT");
}
