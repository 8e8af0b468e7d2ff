//! Threads with a connection each, on one dataset, as one process and as several.

use crate::harness::{Db, assert_idle, group};

fn count_up(name: &'static str, mode: &'static str, processes: u64) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 60;
    let db = Db::dspm(name);
    db.exec("CREATE TABLE t(who, n, PRIMARY KEY(who, n)); CREATE TABLE sum(n); INSERT INTO sum VALUES(0)");
    let threads: Vec<_> = (0..THREADS)
        .map(|who| {
            std::thread::spawn(move || {
                let db = Db::process(name, who % processes);
                db.busy_timeout(600_000);
                db.exec(mode);
                for n in 0..ROUNDS {
                    db.exec(&format!("BEGIN IMMEDIATE; INSERT INTO t VALUES({who}, {n}); UPDATE sum SET n = n + 1"));
                    let (rows, sum) = (db.cell("SELECT count(*) FROM t"), db.cell("SELECT n FROM sum"));
                    assert_eq!(rows, sum);
                    db.exec("COMMIT");
                    // A reader beside the writers sees whole transactions, and never takes a journal for hot.
                    db.exec("BEGIN");
                    assert_eq!(db.cell("SELECT count(*) FROM t"), db.cell("SELECT n FROM sum"));
                    db.exec("COMMIT");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(db.cell("SELECT n FROM sum"), (THREADS * ROUNDS).to_string());
    assert_eq!(db.cell("PRAGMA integrity_check"), "ok");
    assert_eq!(group(name).lsn().0, 3 + THREADS * ROUNDS, "one commit a transaction");
    drop(db);
    assert_idle(name);
}

#[test]
fn of_one_process() {
    count_up("threads-one", "PRAGMA journal_mode=DELETE", 1);
}

#[test]
fn of_one_process_with_persistent_journals() {
    count_up("threads-persist", "PRAGMA journal_mode=PERSIST", 1);
}

#[test]
fn of_two_processes() {
    count_up("threads-two", "PRAGMA journal_mode=TRUNCATE", 2);
}

#[test]
fn of_four_processes() {
    count_up("threads-four", "PRAGMA journal_mode=DELETE", 4);
}
