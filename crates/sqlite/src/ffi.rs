//! What we need of SQLite's C interface: structures, result codes and flags, as `sqlite3.h` lays them down.
//!
//! Invariant: layouts are those of `sqlite3_vfs` version 2 and `sqlite3_io_methods` version 1, which every later SQLite
//! keeps. Version 1 of the methods is on purpose: without shared memory SQLite never opens a write-ahead log.

use std::ffi::{c_char, c_int, c_void};

/// `sqlite3_file`: only its first field is SQLite's business.
#[repr(C)]
pub struct File {
    pub methods: *const IoMethods,
}

/// `sqlite3_io_methods`, version 1.
#[repr(C)]
pub struct IoMethods {
    pub version: c_int,
    pub close: unsafe extern "C" fn(*mut File) -> c_int,
    pub read: unsafe extern "C" fn(*mut File, *mut c_void, c_int, i64) -> c_int,
    pub write: unsafe extern "C" fn(*mut File, *const c_void, c_int, i64) -> c_int,
    pub truncate: unsafe extern "C" fn(*mut File, i64) -> c_int,
    pub sync: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub file_size: unsafe extern "C" fn(*mut File, *mut i64) -> c_int,
    pub lock: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub unlock: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub check_reserved_lock: unsafe extern "C" fn(*mut File, *mut c_int) -> c_int,
    pub file_control: unsafe extern "C" fn(*mut File, c_int, *mut c_void) -> c_int,
    pub sector_size: unsafe extern "C" fn(*mut File) -> c_int,
    pub device_characteristics: unsafe extern "C" fn(*mut File) -> c_int,
}

/// A symbol of a loaded library.
pub type Symbol = Option<unsafe extern "C" fn()>;

/// `sqlite3_vfs`, version 2.
#[repr(C)]
pub struct Vfs {
    pub version: c_int,
    pub file_size: c_int,
    pub path_max: c_int,
    pub next: *mut Vfs,
    pub name: *const c_char,
    pub app_data: *mut c_void,
    pub open: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, *mut File, c_int, *mut c_int) -> c_int>,
    pub delete: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int>,
    pub access: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_int) -> c_int>,
    pub full_pathname: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_char) -> c_int>,
    pub dl_open: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *mut c_void>,
    pub dl_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char)>,
    pub dl_sym: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void, *const c_char) -> Symbol>,
    pub dl_close: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void)>,
    pub randomness: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    pub sleep: Option<unsafe extern "C" fn(*mut Vfs, c_int) -> c_int>,
    pub current_time: Option<unsafe extern "C" fn(*mut Vfs, *mut f64) -> c_int>,
    pub last_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    pub current_time_int64: Option<unsafe extern "C" fn(*mut Vfs, *mut i64) -> c_int>,
}

pub const OK: c_int = 0;
pub const ERROR: c_int = 1;
pub const PERM: c_int = 3;
pub const BUSY: c_int = 5;
pub const BUSY_SNAPSHOT: c_int = 5 | 2 << 8;
pub const NOMEM: c_int = 7;
pub const READONLY: c_int = 8;
pub const IOERR: c_int = 10;
pub const IOERR_READ: c_int = 10 | 1 << 8;
pub const IOERR_SHORT_READ: c_int = 10 | 2 << 8;
pub const IOERR_WRITE: c_int = 10 | 3 << 8;
pub const IOERR_TRUNCATE: c_int = 10 | 6 << 8;
pub const IOERR_FSTAT: c_int = 10 | 7 << 8;
pub const IOERR_UNLOCK: c_int = 10 | 8 << 8;
pub const IOERR_DELETE: c_int = 10 | 10 << 8;
pub const IOERR_ACCESS: c_int = 10 | 13 << 8;
pub const IOERR_CHECKRESERVEDLOCK: c_int = 10 | 14 << 8;
pub const IOERR_LOCK: c_int = 10 | 15 << 8;
pub const IOERR_CLOSE: c_int = 10 | 16 << 8;
pub const IOERR_DELETE_NOENT: c_int = 10 | 23 << 8;
pub const IOERR_DATA: c_int = 10 | 32 << 8;
pub const NOTFOUND: c_int = 12;
pub const FULL: c_int = 13;
pub const CANTOPEN: c_int = 14;
pub const PROTOCOL: c_int = 15;
pub const AUTH: c_int = 23;
pub const OK_LOAD_PERMANENTLY: c_int = 256;

pub const OPEN_READONLY: c_int = 0x1;
pub const OPEN_READWRITE: c_int = 0x2;
pub const OPEN_CREATE: c_int = 0x4;
pub const OPEN_EXCLUSIVE: c_int = 0x10;
pub const OPEN_MAIN_DB: c_int = 0x100;
pub const OPEN_MAIN_JOURNAL: c_int = 0x800;
pub const OPEN_SUPER_JOURNAL: c_int = 0x4000;
pub const OPEN_WAL: c_int = 0x80000;

pub const ACCESS_EXISTS: c_int = 0;

pub const FCNTL_LOCKSTATE: c_int = 1;
pub const FCNTL_LAST_ERRNO: c_int = 4;
pub const FCNTL_SIZE_HINT: c_int = 5;
pub const FCNTL_CHUNK_SIZE: c_int = 6;
pub const FCNTL_OVERWRITE: c_int = 11;
pub const FCNTL_VFSNAME: c_int = 12;
pub const FCNTL_PRAGMA: c_int = 14;
pub const FCNTL_HAS_MOVED: c_int = 20;
pub const FCNTL_SYNC: c_int = 21;
pub const FCNTL_COMMIT_PHASETWO: c_int = 22;
pub const FCNTL_PDB: c_int = 30;
