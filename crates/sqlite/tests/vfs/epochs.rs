//! A store that lost its newest commits and made others under their LSNs. Change counters and numbers of schemas come
//! again too, so SQLite by itself takes what it has cached of the one history for the other.

use crate::harness::{Db, group};

const BUSY_SNAPSHOT: i32 = 517;
const ERROR: i32 = 1;

/// Two connections that have seen commits which are lost then; a third process makes as many others.
fn lost(name: &str, old: &str, new: &str) -> (Db, Db) {
    let maker = Db::dspm(name);
    maker.exec("CREATE TABLE t(a); INSERT INTO t VALUES('kept')");
    let kept = group(name).lsn();
    let warm = Db::process(name, 1);
    let reading = Db::process(name, 2);
    maker.exec(old);
    maker.close();
    for db in [&warm, &reading] {
        db.dump();
    }
    reading.exec("BEGIN; SELECT * FROM t");
    let (last, header) = (group(name).lsn(), numbers(name));
    group(name).lose_after(kept);
    let other = Db::process(name, 3);
    other.exec(new);
    assert_eq!((group(name).lsn(), numbers(name)), (last, header), "nothing tells the two apart");
    other.close();
    (warm, reading)
}

/// Change counter and number of the schema.
fn numbers(name: &str) -> (u32, u32) {
    let image = group(name).image();
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    (number(24), number(40))
}

#[test]
fn cached_pages_are_dropped() {
    let (warm, reading) = lost("epochs-pages", "UPDATE t SET a = 'lost'", "UPDATE t SET a = 'found'");
    assert_eq!(warm.cell("SELECT a FROM t"), "found");
    assert_eq!(warm.cell("SELECT a FROM t"), "found");
    assert_eq!(reading.code("UPDATE t SET a = a || '!'"), BUSY_SNAPSHOT);
    reading.exec("ROLLBACK; UPDATE t SET a = a || '!'");
    assert_eq!(warm.cell("SELECT a FROM t"), "found!");
}

#[test]
fn a_cached_schema_is_dropped() {
    let name = "epochs-schema";
    let old = "CREATE TABLE gone(a, b); INSERT INTO gone VALUES(1, 2)";
    let new = "CREATE TABLE other(x); INSERT INTO other VALUES('x')";
    let (warm, reading) = lost(name, old, new);
    assert_eq!(warm.code("SELECT * FROM gone"), ERROR, "its pages are another table's now");
    assert_eq!(warm.cell("SELECT x FROM other"), "x");
    reading.exec("ROLLBACK");
    assert_eq!(reading.code("INSERT INTO gone VALUES(3, 4)"), ERROR);
    // What such a connection writes is read by all others, whatever number it shows for the schema.
    reading.exec("BEGIN IMMEDIATE; CREATE TABLE more(y); INSERT INTO more SELECT x FROM other; COMMIT");
    assert_eq!(warm.cell("SELECT y FROM more"), "x");
    let fresh = Db::process(name, 4);
    assert_eq!(fresh.cell("SELECT y FROM more"), "x");
    warm.exec("DROP TABLE more; VACUUM");
    for db in [&fresh, &reading, &warm] {
        assert_eq!(db.code("SELECT * FROM more"), ERROR);
        assert_eq!(db.cell("PRAGMA integrity_check"), "ok");
    }
}
