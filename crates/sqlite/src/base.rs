//! What the VFS leaves to the copy's own: loading libraries, randomness, time, and the last error of its files.
//!
//! Each method is there in every VFS that SQLite ships; where one is not, the answer is that of a VFS that cannot do it.
//! Nothing here unwinds: the base is C.
//!
//! # Safety
//! All entries: called by SQLite with a VFS that [`crate::vfs::new`] made, and what belongs to the method.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)]

use crate::ffi::{self, Symbol, Vfs};
use crate::vfs::copy_of;
use std::ffi::{c_char, c_int, c_void};

pub unsafe extern "C" fn dl_open(vfs: *mut Vfs, path: *const c_char) -> *mut c_void {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        (*base).dl_open.map_or(std::ptr::null_mut(), |f| f(base, path))
    }
}

pub unsafe extern "C" fn dl_error(vfs: *mut Vfs, room: c_int, out: *mut c_char) {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        if let Some(f) = (*base).dl_error {
            f(base, room, out);
        }
    }
}

pub unsafe extern "C" fn dl_sym(vfs: *mut Vfs, library: *mut c_void, name: *const c_char) -> Symbol {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        (*base).dl_sym.and_then(|f| f(base, library, name))
    }
}

pub unsafe extern "C" fn dl_close(vfs: *mut Vfs, library: *mut c_void) {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        if let Some(f) = (*base).dl_close {
            f(base, library);
        }
    }
}

pub unsafe extern "C" fn randomness(vfs: *mut Vfs, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        (*base).randomness.map_or(0, |f| f(base, room, out))
    }
}

pub unsafe extern "C" fn sleep(vfs: *mut Vfs, microseconds: c_int) -> c_int {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        (*base).sleep.map_or(0, |f| f(base, microseconds))
    }
}

pub unsafe extern "C" fn current_time(vfs: *mut Vfs, days: *mut f64) -> c_int {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        (*base).current_time.map_or(ffi::ERROR, |f| f(base, days))
    }
}

pub unsafe extern "C" fn current_time_int64(vfs: *mut Vfs, milliseconds: *mut i64) -> c_int {
    // SAFETY: passed on as SQLite gave it; a VFS of version 1 has no such field.
    unsafe {
        let base = copy_of(vfs).base;
        match if (*base).version >= 2 { (*base).current_time_int64 } else { None } {
            Some(f) => f(base, milliseconds),
            None => {
                let mut days = 0.0;
                let code = current_time(vfs, &mut days);
                *milliseconds = (days * 86_400_000.0) as i64;
                code
            }
        }
    }
}

pub unsafe extern "C" fn last_error(vfs: *mut Vfs, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: passed on as SQLite gave it.
    unsafe {
        let base = copy_of(vfs).base;
        (*base).last_error.map_or(0, |f| f(base, room, out))
    }
}
