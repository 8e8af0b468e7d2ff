//! Calls of a file's methods that SQLite would not make, and file controls.

use crate::harness::{Db, group};
use dspm_proto::Error;
use dspm_sqlite::memory::Call;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

type Call0 = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
type Write = unsafe extern "C" fn(*mut c_void, *const c_void, c_int, i64) -> c_int;
type Truncate = unsafe extern "C" fn(*mut c_void, i64) -> c_int;
type Control = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;

/// `sqlite3_io_methods` as far as we call it.
#[repr(C)]
struct Methods {
    version: c_int,
    close: *const c_void,
    read: *const c_void,
    write: Write,
    truncate: Truncate,
    sync: Call0,
    size: *const c_void,
    lock: Call0,
    unlock: Call0,
    check_reserved: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    control: Control,
}

fn file(db: &Db) -> (*mut c_void, &'static Methods) {
    let mut file: *mut c_void = std::ptr::null_mut();
    unsafe {
        let code = (db.sqlite.file_control)(db.raw, std::ptr::null(), 7, (&raw mut file).cast());
        assert_eq!(code, 0);
        (file, &**file.cast::<*const Methods>())
    }
}

#[test]
fn writing_without_a_reservation_is_an_error() {
    let db = Db::dspm("misuse-write");
    db.exec("CREATE TABLE t(a)");
    let (f, m) = file(&db);
    let lsn = group("misuse-write").lsn();
    assert_eq!(m.version, 1);
    for level in [0, 1] {
        unsafe {
            assert_eq!((m.lock)(f, level), 0);
            assert_eq!((m.write)(f, [1u8; 10].as_ptr().cast(), 10, 0) & 0xff, 10);
            assert_eq!((m.truncate)(f, 0) & 0xff, 10);
            assert_eq!((m.sync)(f, 2) & 0xff, 10);
            assert_eq!((m.control)(f, 21, std::ptr::null_mut()) & 0xff, 10);
            assert_eq!((m.control)(f, 22, std::ptr::null_mut()) & 0xff, 10);
            assert_eq!((m.unlock)(f, 0), 0);
        }
    }
    unsafe {
        assert_eq!((m.lock)(f, 99) & 0xff, 10, "no such lock");
        assert_eq!((m.lock)(f, 1), 0);
        assert_eq!((m.lock)(f, 2), 0);
        assert_eq!((m.write)(f, [1u8; 10].as_ptr().cast(), 10, -5) & 0xff, 10, "a negative offset");
        assert_eq!((m.unlock)(f, 0), 0);
        assert_eq!((m.unlock)(f, 0), 0, "twice");
    }
    assert_eq!(group("misuse-write").lsn(), lsn);
    assert_eq!(db.cell("PRAGMA integrity_check"), "ok");
}

#[test]
fn what_is_not_published_is_gone_with_the_lock() {
    let db = Db::dspm("misuse-discard");
    db.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let (f, m) = file(&db);
    let before = group("misuse-discard").image();
    unsafe {
        for keep in [0, 1] {
            for level in [1, 2, 4] {
                assert_eq!((m.lock)(f, level), 0);
            }
            assert_eq!((m.write)(f, [0u8; 3000].as_ptr().cast(), 3000, 500), 0);
            assert_eq!((m.control)(f, 21, std::ptr::null_mut()), 0, "a sync alone is no commit");
            assert_eq!((m.sync)(f, 2), 0);
            assert_eq!((m.unlock)(f, keep), 0);
        }
        (m.unlock)(f, 0);
    }
    assert!(group("misuse-discard").image() == before);
    assert_eq!(db.cell("SELECT a FROM t"), "1");
}

#[test]
fn file_controls() {
    let db = Db::dspm("misuse-control");
    db.exec("CREATE TABLE t(a)");
    let number = |operation: c_int| {
        let mut n: c_int = -7;
        let code = unsafe { (db.sqlite.file_control)(db.raw, std::ptr::null(), operation, (&raw mut n).cast()) };
        (code, n)
    };
    assert_eq!(number(20), (0, 0), "it was not moved");
    assert_eq!(number(1), (0, 0), "not locked");
    db.exec("BEGIN IMMEDIATE");
    assert_eq!(number(1), (0, 2));
    db.exec("ROLLBACK");
    assert_eq!(number(31).0, 12, "no batches");
    assert_eq!(number(12345).0, 12);
    let mut name: *mut c_char = std::ptr::null_mut();
    unsafe {
        assert_eq!((db.sqlite.file_control)(db.raw, std::ptr::null(), 12, (&raw mut name).cast()), 0);
        assert_eq!(CStr::from_ptr(name), c"dspm");
    }
}

#[test]
fn a_reservation_is_told_to_the_whole_process() {
    let (a, b) = (Db::dspm("misuse-reserved"), Db::dspm("misuse-reserved"));
    a.exec("CREATE TABLE t(a)");
    let other = Db::process("misuse-reserved", 1);
    let reserved = |db: &Db| unsafe {
        let (f, m) = file(db);
        let mut answer = -1;
        assert_eq!((m.check_reserved)(f, &mut answer), 0);
        answer
    };
    assert_eq!((reserved(&a), reserved(&b)), (0, 0));
    a.exec("BEGIN IMMEDIATE");
    assert_eq!((reserved(&a), reserved(&b), reserved(&other)), (1, 1, 0));
    a.exec("COMMIT");
    assert_eq!((reserved(&a), reserved(&b)), (0, 0));
}

/// `sqlite3_vfs` as far as we call it.
#[repr(C)]
struct Vfs {
    numbers: [c_int; 3],
    pointers: [*const c_void; 4],
    delete: unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int,
    access: unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_int) -> c_int,
}

#[test]
fn journals_are_there_while_they_are_written() {
    let name = "misuse-journals";
    let db = Db::dspm(name);
    db.exec("PRAGMA page_size=1024; CREATE TABLE t(a, b); PRAGMA cache_size=5");
    let vfs: *mut Vfs = unsafe { (db.sqlite.vfs_find)(c"dspm".as_ptr()) }.cast();
    let is_there = |name: &str| unsafe {
        let (name, mut answer) = (CString::new(name).unwrap(), -1);
        assert_eq!(((*vfs).access)(vfs, name.as_ptr(), 0, &mut answer), 0);
        answer == 1
    };
    let delete = |name: &str| unsafe { ((*vfs).delete)(vfs, CString::new(name).unwrap().as_ptr(), 0) };
    let fill = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
                SELECT i, hex(zeroblob(100)) FROM n";
    db.exec(fill);
    assert!(is_there(name) && !is_there("misuse-journals-journal") && !is_there("misuse-journals-wal"));
    let journal = format!("{name}-journal");
    assert!(!is_there(&journal));
    db.exec("BEGIN; UPDATE t SET b = b || 'y'");
    assert!(is_there(&journal) && !is_there(&format!("{name}-wal")));
    db.exec("ROLLBACK");
    assert!(!is_there(&journal));
    // A write that fails (of a page of 1 KiB the rest is read first) leaves SQLite's pager in an error state, in which
    // it finalizes nothing.
    for after in 0.. {
        db.exec("BEGIN; UPDATE t SET b = b || 'y' WHERE a < 50");
        assert!(is_there(&journal));
        group(name).fail(Call::Read, Error::Unavailable("nobody answers".into()), after, 1);
        let done = db.rows("UPDATE t SET b = b || 'x'");
        group(name).heal();
        if done.is_ok() {
            assert!(after > 20, "{after} places to fail at");
            db.exec("ROLLBACK");
            break;
        }
        assert_eq!(done.unwrap_err().code & 0xff, 10);
        assert!(!is_there(&journal), "after {after} reads");
    }
    assert_eq!(db.cell("SELECT sum(b = hex(zeroblob(100))) FROM t"), "500");
    assert_eq!(delete(&journal), 10 | 23 << 8, "there is none");
    db.close();
    assert_eq!(delete(name), 0);
    assert!(!is_there(name));
    assert_eq!(delete(name), 10 | 23 << 8);
}
