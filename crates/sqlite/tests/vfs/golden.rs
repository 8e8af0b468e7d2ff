//! The same script on plain files and on datasets has to give the same answers, and the same bytes.

use crate::harness::{Db, Directory, assert_idle, group};
use std::fmt::Write as _;

const PAGE_SIZES: [u32; 5] = [512, 1024, 4096, 8192, 65536];

/// What both sides answer, step by step.
struct Transcript<'a> {
    db: &'a Db,
    lines: String,
}

impl Transcript<'_> {
    /// Runs a step; its rows, or its failure, are part of the transcript.
    fn step(&mut self, sql: &str) {
        match self.db.rows(sql) {
            Ok(rows) => writeln!(self.lines, "{sql} -> {rows:?}").unwrap(),
            Err(e) => writeln!(self.lines, "{sql} -> failed: {e}").unwrap(),
        }
    }

    fn check(&mut self) {
        self.step("SELECT count(*), sum(a), sum(length(b)), sum(length(c)), min(b), max(b) FROM t");
    }
}

const FILL: &str = "INSERT INTO t(b, c) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) \
                    SELECT 'row ' || i || ' ' || hex(i * 7919), zeroblob(i * 3 % 400) FROM n";

fn script(db: &Db, page_size: u32, auto_vacuum: u32, mode: &str) -> String {
    let mut t = Transcript { db, lines: String::new() };
    t.step(&format!("PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}"));
    // The answers differ for WAL, which dspm refuses.
    db.exec(&format!("PRAGMA journal_mode={mode}"));
    t.step("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB); CREATE INDEX tb ON t(b)");
    t.step(FILL);
    t.check();
    t.step("UPDATE t SET b = b || '!' WHERE a % 3 = 0; DELETE FROM t WHERE a % 7 = 0");
    t.check();
    t.step("BEGIN; INSERT INTO t(b) VALUES('x'); SAVEPOINT s; DELETE FROM t WHERE a < 100; ROLLBACK TO s");
    t.check();
    t.step("RELEASE s; COMMIT");
    t.check();
    t.step("PRAGMA cache_size=5; BEGIN");
    t.step(FILL);
    t.step(&format!("SAVEPOINT deep; {FILL}; UPDATE t SET c = zeroblob(700) WHERE a % 2; ROLLBACK TO deep; COMMIT"));
    t.check();
    if mode != "off" {
        t.step(&format!("BEGIN; {FILL}; UPDATE t SET b = upper(b), c = NULL; {FILL}"));
        t.check();
        t.step("ROLLBACK");
        t.check();
        t.step("INSERT INTO t(a, b) VALUES(1, 'taken')");
        t.check();
    }
    t.step("PRAGMA cache_size=-2000; CREATE TABLE big(x BLOB); INSERT INTO big VALUES(zeroblob(300000))");
    writeln!(t.lines, "blob: {}", db.write_blob("big", "x", 1, 123_456, &[0xab; 50_000])).unwrap();
    t.step("SELECT hex(substr(x, 123450, 20)), length(x) FROM big");
    t.step("DELETE FROM t WHERE a BETWEEN 50 AND 400; PRAGMA incremental_vacuum(5); PRAGMA freelist_count");
    t.check();
    t.step("BEGIN EXCLUSIVE; UPDATE t SET b = 'e' WHERE a < 20; COMMIT; PRAGMA user_version=17");
    t.step("VACUUM; PRAGMA page_count");
    t.check();
    // The two do not release the file alike, so answers while it is exclusive are those of one connection.
    t.step("PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET b = 'f1' WHERE a = 1; UPDATE t SET b = 'f2' WHERE a = 2");
    t.step("PRAGMA locking_mode=NORMAL; SELECT b FROM t WHERE a < 3; DROP TABLE big");
    if mode != "wal" {
        let other = if page_size == 4096 { 1024 } else { 4096 };
        t.step(&format!("PRAGMA page_size={other}; VACUUM; PRAGMA page_size; PRAGMA page_count"));
        t.step(&format!("PRAGMA auto_vacuum={}; VACUUM; PRAGMA auto_vacuum", (auto_vacuum + 1) % 3));
    }
    t.check();
    if db.rows("PRAGMA compile_options").unwrap().iter().any(|o| o[0] == "ENABLE_FTS5") {
        t.step("CREATE VIRTUAL TABLE f USING fts5(w); INSERT INTO f SELECT b || ' word' FROM t; SELECT count(*) FROM f('word')");
        t.step("INSERT INTO f(f) VALUES('optimize'); DELETE FROM f WHERE rowid % 2; SELECT count(*) FROM f('word')");
        t.step("DROP TABLE f");
    }
    t.step(FILL);
    t.step("PRAGMA integrity_check; PRAGMA foreign_key_check; ANALYZE; REINDEX");
    t.lines
}

fn compare(page_size: u32, auto_vacuum: u32, mode: &str) {
    let name = format!("golden-{page_size}-{auto_vacuum}-{mode}");
    let directory = Directory::new(&name);
    let path = directory.file("plain.db");
    let (plain, ours) = (Db::unix(&path), Db::dspm(&name));
    let expected = script(&plain, page_size, auto_vacuum, mode);
    let found = script(&ours, page_size, auto_vacuum, mode);
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(expected, found, "{name}");
    }
    assert_eq!(expected, found, "{name}");
    let (plain_dump, our_dump) = (plain.dump(), ours.dump());
    assert!(plain_dump == our_dump, "{name}: the dumps differ");
    plain.close();
    ours.close();
    assert_idle(&name);
    let again = Db::process(&name, 1);
    assert!(again.dump() == our_dump, "{name}: another process sees something else");
    if mode != "wal" {
        // Under WAL the format differs, and pages are written in another order.
        let (mut file, mut image) = (std::fs::read(&path).unwrap(), group(&name).image());
        // Plain SQLite stops counting changes in its exclusive mode; `counter` has what dspm does.
        for bytes in [&mut file, &mut image] {
            bytes[24..28].fill(0);
            bytes[92..96].fill(0);
        }
        assert_eq!(file.len(), image.len(), "{name}: the sizes differ");
        let differing: Vec<_> = (0..file.len()).filter(|n| file[*n] != image[*n]).take(20).collect();
        assert!(differing.is_empty(), "{name}: bytes differ at {differing:?}");
    }
}

fn compare_all(mode: &str) {
    for page_size in PAGE_SIZES {
        for auto_vacuum in 0..3 {
            compare(page_size, auto_vacuum, mode);
        }
    }
}

#[test]
fn journal_mode_delete() {
    compare_all("delete");
}

#[test]
fn journal_mode_truncate() {
    compare_all("truncate");
}

#[test]
fn journal_mode_persist() {
    compare_all("persist");
}

#[test]
fn journal_mode_memory() {
    compare_all("memory");
}

#[test]
fn journal_mode_off() {
    compare_all("off");
}

#[test]
fn journal_mode_wal() {
    compare_all("wal");
}

#[test]
fn a_journal_larger_than_its_memory_rolls_back() {
    let db = Db::dspm("golden-large-journal");
    db.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB); PRAGMA cache_size=50");
    db.exec(
        "INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         SELECT randomblob(4000) FROM n",
    );
    let before = db.dump();
    // Every page is changed: the journal has 12 MB, more than it may have in memory.
    db.exec("BEGIN; UPDATE t SET b = zeroblob(4000)");
    assert_eq!(db.cell("SELECT sum(hex(b) = hex(zeroblob(4000))) FROM t"), "3000");
    db.exec("ROLLBACK");
    assert!(db.dump() == before);
}
