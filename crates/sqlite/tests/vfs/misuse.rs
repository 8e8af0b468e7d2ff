//! Calls of a file's methods that SQLite would not make, and file controls.

use crate::harness::{Db, group};
use std::ffi::{CStr, c_char, c_int, c_void};

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
    check_reserved: *const c_void,
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
        libc::free(std::ptr::null_mut());
    }
}
