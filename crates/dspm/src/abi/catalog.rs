//! Datasets by name: list, locate, remove, rename.

use super::errors::CError;
use super::{call, name, put_text, text};
use crate::datasets;
use std::ffi::{c_char, c_int};

/// The catalog as JSON.
///
/// # Safety
/// `config` is null or a string that ends with a zero byte; `out` and `err` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_list(config: *const c_char, out: *mut *mut c_char, err: *mut CError) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || put_text(out, datasets::list(text(config)?)?)) }
}

/// Where a dataset is, as JSON.
///
/// # Safety
/// As [`dspm_list`]; `opened` is a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_locate(
    config: *const c_char,
    opened: *const c_char,
    out: *mut *mut c_char,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || put_text(out, datasets::locate(text(config)?, name(opened)?)?)) }
}

/// Removes a dataset.
///
/// # Safety
/// As [`dspm_locate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_remove(config: *const c_char, opened: *const c_char, err: *mut CError) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || datasets::remove(text(config)?, name(opened)?)) }
}

/// Gives a dataset another name, and the one that has that name now a third.
///
/// # Safety
/// As [`dspm_locate`]; `to` is a string that ends with a zero byte, `aside` is one or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_rename(
    config: *const c_char,
    opened: *const c_char,
    to: *const c_char,
    aside: *const c_char,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || datasets::rename(text(config)?, name(opened)?, name(to)?, text(aside)?)) }
}
