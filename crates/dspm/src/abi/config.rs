//! Version, configuration, and the end of strings that were given out.

use super::errors::CError;
use super::{call, put_text, quietly, text};
use dspm_config::{Config, overrides_from_json};
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn dspm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Frees a string that this library gave out.
///
/// # Safety
/// `p` is null, or came from a function of dspm.h that says so, and was not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_free(p: *mut c_void) {
    if !p.is_null() {
        // SAFETY: the caller's promise: it came from CString::into_raw.
        quietly(|| drop(unsafe { CString::from_raw(p.cast()) }));
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
        let (path, overrides) = unsafe { (text(path)?, text(overrides)?) };
        let overrides = overrides_from_json(overrides.unwrap_or("{}"))?;
        // SAFETY: the caller's promise.
        unsafe { put_text(out, Config::load(path.map(Path::new), &overrides)?.to_json()) }
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, load) }
}
