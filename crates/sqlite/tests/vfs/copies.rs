//! Two copies of SQLite in one process: each has its own API table, and both see the same datasets.

use crate::harness::{CREATE, Db, Directory, library, load, registered, sqlite};
use dspm_sqlite::Registered;
use dspm_sqlite::{RegisterError, register};
use std::ffi::{CStr, CString, c_void};
use std::path::PathBuf;

/// The file behind a loaded function.
fn file_of(function: *const c_void) -> PathBuf {
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        assert_ne!(libc::dladdr(function, &mut info), 0);
        PathBuf::from(CStr::from_ptr(info.dli_fname).to_str().unwrap())
    }
}

#[test]
fn each_copy_has_its_own_vfs() {
    let first = sqlite();
    let directory = Directory::new("copies");
    let second_file = directory.file("second.so");
    std::fs::copy(file_of(first.step as *const c_void), &second_file).unwrap();
    let second = Box::leak(Box::new(load(&CString::new(second_file.to_str().unwrap()).unwrap())));
    let find = |sqlite: &crate::harness::Functions| unsafe { (sqlite.vfs_find)(c"dspm".as_ptr()) };
    assert_ne!(second.step as *const c_void, first.step as *const c_void, "really a second copy");
    assert_ne!(find(first), find(second));
    assert!(registered().iter().filter(|r| **r == Registered::New).count() >= 2);

    let a = Db::dspm("copies");
    let b = Db::try_open_in(second, "copies", CREATE, "dspm").unwrap();
    a.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    b.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
    assert_eq!(a.code("BEGIN IMMEDIATE"), 5, "one writer in the process, whichever copy");
    assert_eq!(a.cell("SELECT count(*) FROM t"), "1");
    b.exec("COMMIT");
    assert_eq!(a.cell("SELECT count(*) FROM t"), "2");
    assert_eq!(b.cell("PRAGMA dspm_lsn"), "3", "answers come from each copy's own allocator");
    b.exec("CREATE TEMP TABLE x(a); INSERT INTO x SELECT a FROM t");
}

#[test]
fn registering_again_changes_nothing() {
    let before = unsafe { (sqlite().vfs_find)(c"dspm".as_ptr()) };
    let again = load(&library());
    assert_eq!(unsafe { (again.vfs_find)(c"dspm".as_ptr()) }, before);
    assert_eq!(registered().last(), Some(&Registered::Before));
    assert!((sqlite().libversion_number as usize) != 0);
}

#[test]
fn a_missing_table_is_refused() {
    let refused = unsafe { register(std::ptr::null(), crate::harness::store()) };
    assert_eq!(refused, Err(RegisterError::NoApi));
    assert!(RegisterError::TooOld(3_031_001).to_string().contains("this one is 3.31.1"));
    // A table of an old SQLite: only the version's slot is looked at.
    unsafe extern "C" fn old() -> i32 {
        3_020_000
    }
    let mut table = [std::ptr::null::<c_void>(); 68];
    table[67] = old as *const c_void;
    let refused = unsafe { register(table.as_ptr().cast(), crate::harness::store()) };
    assert_eq!(refused, Err(RegisterError::TooOld(3_020_000)));
}
