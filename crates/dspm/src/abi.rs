//! The C ABI (dspm.h) and the entry of SQLite's extension. Every entry catches panics; strings that are given out are
//! freed by `dspm_free`.
#![allow(unsafe_code)]

use crate::opener::ClusterOpener;
use dspm_config::{Config, overrides_from_json};
use dspm_proto::Error;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// An error as C sees it (`dspm_error` of dspm.h).
#[repr(C)]
pub struct CError {
    code: c_int,
    message: [c_char; 1024],
    hint: [c_char; 256],
}

/// SQLite's entry point, the default name of a loadable extension.
///
/// # Safety
/// Called by SQLite with what it passes to every extension.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_extension_init(
    _db: *mut c_void,
    message: *mut *mut c_char,
    api: *const c_void,
) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe { dspm_sqlite::extension_init(message, api, || Ok(Arc::new(ClusterOpener::default()))) }
}

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn dspm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What the VFS last said went wrong in this process; empty if nothing did. Valid until the thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn dspm_last_error() -> *const c_char {
    thread_local! {
        static LAST: RefCell<CString> = RefCell::default();
    }
    let text = catch_unwind(dspm_sqlite::last_error).unwrap_or_default();
    LAST.with_borrow_mut(|last| {
        *last = CString::new(text).unwrap_or_default();
        last.as_ptr()
    })
}

/// Frees a string that this library gave out.
///
/// # Safety
/// `p` is null, or came from a function of dspm.h that says so, and was not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_free(p: *mut c_void) {
    if !p.is_null() {
        // SAFETY: the caller's promise: it came from CString::into_raw.
        drop(unsafe { CString::from_raw(p.cast()) });
    }
}

/// The configuration as JSON. `path` may be null (the places of the documentation are searched), `overrides` is a JSON
/// object of key → value or null. Answers 0, or the error's code with `err` filled in.
///
/// # Safety
/// `path` and `overrides` are null or strings that end with a zero byte; `out` and `err` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_config_load(
    path: *const c_char,
    overrides: *const c_char,
    out: *mut *mut c_char,
    err: *mut CError,
) -> c_int {
    let load = || {
        // SAFETY: the caller's promise.
        let (path, overrides) = unsafe { (text(path), text(overrides)) };
        let overrides = overrides_from_json(overrides.unwrap_or("{}"))?;
        let json = Config::load(path.map(Path::new), &overrides)?.to_json();
        CString::new(json).map_err(|_| Error::Failed("the configuration holds a zero byte".into()))
    };
    let done = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(Error::Failed("a bug in dspm".into())));
    match done {
        Ok(json) => {
            // SAFETY: the caller's promise.
            unsafe { *out = json.into_raw() };
            0
        }
        Err(e) => {
            // SAFETY: the caller's promise.
            unsafe { *err = CError::of(&e) };
            c_int::from(e.code())
        }
    }
}

/// # Safety
/// `p` is null or a string that ends with a zero byte and lives as long as the answer is used.
unsafe fn text<'a>(p: *const c_char) -> Option<&'a str> {
    if p.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(p) }.to_str().ok()
}

impl CError {
    fn of(e: &Error) -> CError {
        let mut out = CError { code: c_int::from(e.code()), message: [0; 1024], hint: [0; 256] };
        put(&mut out.message, &e.to_string());
        put(&mut out.hint, e.hint());
        out
    }
}

/// Copies a text, cut at a character's edge, with its zero byte.
fn put(to: &mut [c_char], text: &str) {
    let end = (0..=text.len().min(to.len() - 1)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    to.iter_mut().zip(&text.as_bytes()[..end]).for_each(|(c, b)| *c = *b as c_char);
}
