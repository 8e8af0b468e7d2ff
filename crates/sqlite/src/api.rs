//! The few functions that we call in a copy of SQLite, taken from its `sqlite3_api_routines` by slot.
//!
//! Invariant: no slot beyond the early ones is read before the copy's version was found to be at least
//! [`VERSION_MIN`], the first whose table holds all of them (`sqlite3_uri_key` came with 3.31) and whose core asks a
//! child journal for its super-journal as a super-journal (3.32), which is how the VFS tells that from a search for
//! a hot journal.
#![allow(unsafe_code)]

use crate::ffi::Vfs;
use crate::register::RegisterError;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute;

/// Oldest SQLite that is served: 3.32.0 (May 2020).
pub const VERSION_MIN: c_int = 3_032_000;

/// Positions in `sqlite3_api_routines`. The table only ever grows at its end.
mod slot {
    pub const LIBVERSION_NUMBER: usize = 67;
    pub const MALLOC: usize = 68;
    pub const VFS_FIND: usize = 141;
    pub const VFS_REGISTER: usize = 142;
    pub const NEXT_STMT: usize = 152;
    pub const LOG: usize = 167;
    pub const STMT_BUSY: usize = 184;
    pub const URI_BOOLEAN: usize = 187;
    pub const URI_PARAMETER: usize = 189;
    pub const URI_KEY: usize = 245;
}

/// One copy's functions.
#[derive(Clone, Copy)]
pub struct Api {
    malloc: unsafe extern "C" fn(c_int) -> *mut c_void,
    vfs_find: unsafe extern "C" fn(*const c_char) -> *mut Vfs,
    vfs_register: unsafe extern "C" fn(*mut Vfs, c_int) -> c_int,
    log: unsafe extern "C" fn(c_int, *const c_char, ...),
    next_stmt: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void,
    stmt_busy: unsafe extern "C" fn(*mut c_void) -> c_int,
    uri_boolean: unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> c_int,
    uri_parameter: unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char,
    uri_key: unsafe extern "C" fn(*const c_char, c_int) -> *const c_char,
}

impl Api {
    /// Reads the table that SQLite hands to an extension.
    ///
    /// # Safety
    /// `table` is null or a `sqlite3_api_routines` of a SQLite in this process.
    pub unsafe fn of(table: *const c_void) -> Result<Api, RegisterError> {
        if table.is_null() {
            return Err(RegisterError::NoApi);
        }
        let slots = table.cast::<*const c_void>();
        // SAFETY: the version's slot is in the table of every SQLite that has loadable extensions.
        let version = unsafe {
            transmute::<*const c_void, unsafe extern "C" fn() -> c_int>(*slots.add(slot::LIBVERSION_NUMBER))()
        };
        if version < VERSION_MIN {
            return Err(RegisterError::TooOld(version));
        }
        // SAFETY: a table of at least VERSION_MIN has these slots, with these signatures.
        unsafe {
            Ok(Api {
                malloc: transmute::<*const c_void, unsafe extern "C" fn(c_int) -> *mut c_void>(
                    *slots.add(slot::MALLOC),
                ),
                vfs_find: transmute::<*const c_void, unsafe extern "C" fn(*const c_char) -> *mut Vfs>(
                    *slots.add(slot::VFS_FIND),
                ),
                vfs_register: transmute::<*const c_void, unsafe extern "C" fn(*mut Vfs, c_int) -> c_int>(
                    *slots.add(slot::VFS_REGISTER),
                ),
                log: transmute::<*const c_void, unsafe extern "C" fn(c_int, *const c_char, ...)>(*slots.add(slot::LOG)),
                next_stmt: transmute::<*const c_void, unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void>(
                    *slots.add(slot::NEXT_STMT),
                ),
                stmt_busy: transmute::<*const c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(
                    *slots.add(slot::STMT_BUSY),
                ),
                uri_boolean: transmute::<
                    *const c_void,
                    unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> c_int,
                >(*slots.add(slot::URI_BOOLEAN)),
                uri_parameter: transmute::<
                    *const c_void,
                    unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char,
                >(*slots.add(slot::URI_PARAMETER)),
                uri_key: transmute::<*const c_void, unsafe extern "C" fn(*const c_char, c_int) -> *const c_char>(
                    *slots.add(slot::URI_KEY),
                ),
            })
        }
    }

    /// The VFS of that name, null if there is none; the default one for `None`.
    pub fn vfs_find(&self, name: Option<&CStr>) -> *mut Vfs {
        // SAFETY: null asks for the default; a CStr ends with NUL.
        unsafe { (self.vfs_find)(name.map_or(std::ptr::null(), CStr::as_ptr)) }
    }

    /// Adds a VFS, not as the default.
    ///
    /// # Safety
    /// `vfs` lives, unmoved, as long as this copy of SQLite.
    pub unsafe fn vfs_register(&self, vfs: *mut Vfs) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { (self.vfs_register)(vfs, 0) }
    }

    /// A NUL-terminated copy of `text` in SQLite's own memory (SQLite frees it); null without memory. Text ends at
    /// its first NUL.
    pub fn string(&self, text: &str) -> *mut c_char {
        let bytes = text.split('\0').next().unwrap_or("").as_bytes();
        let Ok(size) = c_int::try_from(bytes.len() + 1) else { return std::ptr::null_mut() };
        // SAFETY: sqlite3_malloc gives `size` writable bytes or null.
        unsafe {
            let copy = (self.malloc)(size).cast::<u8>();
            if !copy.is_null() {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
                *copy.add(bytes.len()) = 0;
            }
            copy.cast()
        }
    }

    /// A line for the program's `SQLITE_CONFIG_LOG` callback.
    pub fn log(&self, code: c_int, text: &str) {
        let Ok(text) = CString::new(text) else { return };
        // SAFETY: a format with one %s and one string for it.
        unsafe { (self.log)(code, c"%s".as_ptr(), text.as_ptr()) }
    }

    /// How many statements of a connection have begun and not ended.
    ///
    /// # Safety
    /// `connection` is an open `sqlite3*` that this thread is in a call of.
    pub unsafe fn busy_statements(&self, connection: *mut c_void) -> usize {
        let (mut count, mut statement) = (0, std::ptr::null_mut());
        loop {
            // SAFETY: the caller's promise; statements of the connection live while this thread has its mutex.
            unsafe {
                statement = (self.next_stmt)(connection, statement);
                if statement.is_null() {
                    return count;
                }
                count += usize::from((self.stmt_busy)(statement) != 0);
            }
        }
    }

    /// A URI parameter read as a truth value.
    ///
    /// # Safety
    /// `name` is a main database's name as SQLite passed it to `xOpen`.
    pub unsafe fn uri_boolean(&self, name: *const c_char, key: &CStr) -> bool {
        // SAFETY: the caller's promise; such names carry their parameters behind them.
        unsafe { (self.uri_boolean)(name, key.as_ptr(), 0) != 0 }
    }

    /// All URI parameters of a name. What is not UTF-8 is read lossily.
    ///
    /// # Safety
    /// As [`Api::uri_boolean`].
    pub unsafe fn uri_parameters(&self, name: *const c_char) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for n in 0.. {
            // SAFETY: the caller's promise; both calls answer null or a NUL-terminated string that lives with `name`.
            unsafe {
                let key = (self.uri_key)(name, n);
                if key.is_null() {
                    break;
                }
                let value = (self.uri_parameter)(name, key);
                let value = if value.is_null() { c"" } else { CStr::from_ptr(value) };
                all.push((CStr::from_ptr(key).to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
            }
        }
        all
    }
}
