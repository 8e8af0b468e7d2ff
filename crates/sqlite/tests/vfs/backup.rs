//! sqlite3_backup both ways, VACUUM INTO, and databases in the write-ahead format.

use crate::harness::{Db, Directory, assert_idle, group};

fn filled(db: &Db) {
    db.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b); PRAGMA user_version=5");
    db.exec(
        "INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
         SELECT hex(i) || hex(zeroblob(50)) FROM n",
    );
}

#[test]
fn both_ways_and_from_a_write_ahead_source() {
    let directory = Directory::new("backup");
    for (n, mode) in ["delete", "wal"].into_iter().enumerate() {
        for page_size in [1024, 4096, 16384] {
            let source = Db::unix(&directory.file(&format!("source-{n}-{page_size}.db")));
            source.exec(&format!("PRAGMA page_size={page_size}; PRAGMA journal_mode={mode}"));
            filled(&source);
            let name = format!("backup-{n}-{page_size}");
            let ours = Db::dspm(&name);
            ours.exec("CREATE TABLE gone(x); INSERT INTO gone VALUES(1)");
            source.backup_to(&ours).unwrap();
            assert_eq!(ours.dump(), source.dump());
            assert_eq!(group(&name).image()[18..20], [1, 1], "the write-ahead format is not stored");
            ours.exec("INSERT INTO t(b) VALUES('more')");
            assert_eq!(Db::process(&name, 1).dump(), ours.dump());
            let back = Db::unix(&directory.file(&format!("back-{n}-{page_size}.db")));
            ours.backup_to(&back).unwrap();
            assert_eq!(back.dump(), ours.dump());
            drop(ours);
            assert_idle(&name);
        }
    }
}

#[test]
fn an_imported_write_ahead_database_opens() {
    let directory = Directory::new("backup-import");
    let path = directory.file("source.db");
    let source = Db::unix(&path);
    source.exec("PRAGMA journal_mode=WAL");
    filled(&source);
    let dump = source.dump();
    source.close();
    let image = std::fs::read(&path).unwrap();
    assert_eq!(image[18..20], [2, 2]);
    group("backup-imported").import(&image);
    let db = Db::dspm("backup-imported");
    assert_eq!(db.dump(), dump);
    assert_eq!(db.cell("PRAGMA journal_mode"), "delete");
    db.exec("UPDATE t SET b = 'x' WHERE a = 1");
    assert_eq!(group("backup-imported").image()[18..20], [1, 1]);
}

#[test]
fn vacuum_into_another_dataset() {
    let db = Db::dspm("backup-vacuum");
    filled(&db);
    db.exec("DELETE FROM t WHERE a % 2; VACUUM INTO 'backup-vacuum-copy'");
    assert_eq!(Db::dspm("backup-vacuum-copy").dump(), db.dump());
    assert!(db.rows("VACUUM INTO 'backup-vacuum-copy'").is_err(), "it exists");
}

#[test]
fn an_image_is_an_ordinary_database_file() {
    let directory = Directory::new("backup-image");
    let db = Db::dspm("backup-image");
    filled(&db);
    let path = directory.file("exported.db");
    std::fs::write(&path, group("backup-image").image()).unwrap();
    assert_eq!(Db::unix(&path).dump(), db.dump());
}
