//! Snapshots: a handle is a box.

use super::dataset::shared;
use super::errors::CError;
use super::{buffer, call, handle, numbers, put, quietly, text};
use crate::datasets::{OpenDataset, OpenSnapshot};
use dspm_proto::Error;
use std::ffi::{c_char, c_int, c_void};

/// Begins a read.
///
/// # Safety
/// `dataset` is null or a handle; `lsn`, `size`, `out` and `err` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_snapshot_begin(
    dataset: *const OpenDataset,
    lsn: *mut u64,
    size: *mut u64,
    out: *mut *mut OpenSnapshot,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || give(|| OpenSnapshot::begin(shared(dataset)?), lsn, size, out)) }
}

/// Begins a read of the past.
///
/// # Safety
/// As [`dspm_snapshot_begin`]; `time` is null or a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_snapshot_as_of(
    dataset: *const OpenDataset,
    time: *const c_char,
    lsn: *mut u64,
    size: *mut u64,
    out: *mut *mut OpenSnapshot,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        call(err, || {
            let time = text(time)?.ok_or_else(|| Error::Usage("no time to read as of".into()))?;
            give(|| OpenSnapshot::begin_as_of(shared(dataset)?, time), lsn, size, out)
        })
    }
}

/// Gives out a snapshot, which is made only if there is room for all of the answer.
///
/// # Safety
/// `lsn`, `size` and `out` are null or can be written.
pub(super) unsafe fn give(
    make: impl FnOnce() -> Result<OpenSnapshot, Error>,
    lsn: *mut u64,
    size: *mut u64,
    out: *mut *mut OpenSnapshot,
) -> Result<(), Error> {
    if lsn.is_null() || size.is_null() || out.is_null() {
        return Err(Error::Usage("nowhere to put the answer".into()));
    }
    let snapshot = make()?;
    let (at, bytes) = snapshot.shows();
    // SAFETY: the caller's promise.
    unsafe {
        put(lsn, at)?;
        put(size, bytes)?;
        put(out, Box::into_raw(Box::new(snapshot)))
    }
}

/// Ends a read.
///
/// # Safety
/// `snapshot` is null or a handle that was not ended yet; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_snapshot_end(snapshot: *mut OpenSnapshot) {
    if !snapshot.is_null() {
        // SAFETY: the caller's promise: it came from Box::into_raw.
        quietly(|| drop(unsafe { Box::from_raw(snapshot) }));
    }
}

/// Copies a range of pages.
///
/// # Safety
/// `snapshot` is null or a handle; `into` has room for `count` pages; `err` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_snapshot_read(
    snapshot: *const OpenSnapshot,
    first: u64,
    count: usize,
    into: *mut c_void,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || handle(snapshot)?.read(first..u64::MAX, buffer(into, count)?)) }
}

/// Copies listed pages.
///
/// # Safety
/// As [`dspm_snapshot_read`]; `pages` points to `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_snapshot_read_list(
    snapshot: *const OpenSnapshot,
    pages: *const u64,
    count: usize,
    into: *mut c_void,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || handle(snapshot)?.read(numbers(pages, count)?.iter().copied(), buffer(into, count)?)) }
}
