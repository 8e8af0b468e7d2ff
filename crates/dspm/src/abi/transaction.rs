//! Write transactions: a handle is a box.

use super::dataset::shared;
use super::errors::CError;
use super::snapshot::give;
use super::{buffer, call, contents, handle, numbers, put, quietly};
use crate::datasets::{OpenDataset, OpenSnapshot};
use crate::writer::{Part, Writer, commit_together};
use dspm_proto::{Error, Lsn};
use std::ffi::{c_int, c_void};
use std::time::Duration;

/// `DSPM_ANY_LSN`.
const ANY_LSN: u64 = u64::MAX;
/// `DSPM_PARTS_MAX`.
const PARTS_MAX: usize = 129;

/// Makes a transaction; it is not reserved yet.
///
/// # Safety
/// `dataset` is null or a handle; `out` and `err` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_new(
    dataset: *const OpenDataset,
    out: *mut *mut Writer,
    err: *mut CError,
) -> c_int {
    let new = || {
        if out.is_null() {
            return Err(Error::Usage("nowhere to put the answer".into()));
        }
        // SAFETY: the caller's promise.
        unsafe { put(out, Box::into_raw(Box::new(Writer::new(shared(dataset)?)?))) }
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, new) }
}

/// Becomes the only writer.
///
/// # Safety
/// `transaction` is null or a handle; `lsn`, `size` and `err` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_reserve(
    transaction: *const Writer,
    expected: u64,
    wait_ms: u32,
    lsn: *mut u64,
    size: *mut u64,
    err: *mut CError,
) -> c_int {
    let reserve = || {
        if lsn.is_null() || size.is_null() {
            return Err(Error::Usage("nowhere to put the answer".into()));
        }
        let expected = (expected != ANY_LSN).then_some(Lsn(expected));
        // SAFETY: the caller's promise.
        unsafe {
            let (at, bytes) = handle(transaction)?.reserve(expected, Duration::from_millis(u64::from(wait_ms)))?;
            put(lsn, at)?;
            put(size, bytes)
        }
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, reserve) }
}

/// Begins a read, waiting for the turn if there is a place in the queue.
///
/// # Safety
/// `transaction` is null or a handle; `lsn`, `size`, `out` and `err` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_snapshot(
    transaction: *const Writer,
    wait_ms: u32,
    lsn: *mut u64,
    size: *mut u64,
    out: *mut *mut OpenSnapshot,
    err: *mut CError,
) -> c_int {
    let wait = Duration::from_millis(u64::from(wait_ms));
    // SAFETY: the caller's promise.
    unsafe { call(err, || give(|| handle(transaction)?.snapshot(wait), lsn, size, out)) }
}

/// Becomes the only writer on top of a snapshot, or says at once why not.
///
/// # Safety
/// `transaction` and `base` are null or handles; `err` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_reserve_at(
    transaction: *const Writer,
    base: *const OpenSnapshot,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || handle(transaction)?.reserve_at(handle(base)?)) }
}

/// Asks whether this is still the writer.
///
/// # Safety
/// `transaction` is null or a handle; `err` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_confirm(transaction: *const Writer, err: *mut CError) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || handle(transaction)?.confirm()) }
}

/// Ends the reservation and gives out what it showed last.
///
/// # Safety
/// As [`dspm_transaction_snapshot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_finish(
    transaction: *const Writer,
    lsn: *mut u64,
    size: *mut u64,
    out: *mut *mut OpenSnapshot,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || give(|| handle(transaction)?.finish(), lsn, size, out)) }
}

/// Copies a range of pages.
///
/// # Safety
/// `transaction` is null or a handle; `into` has room for `count` pages; `err` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_read(
    transaction: *const Writer,
    first: u64,
    count: usize,
    into: *mut c_void,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || handle(transaction)?.read(first..u64::MAX, buffer(into, count)?)) }
}

/// Commits and stays reserved.
///
/// # Safety
/// `transaction` is null or a handle; `pages` points to `count` numbers, `content` to as many pages; `lsn` and `err` are
/// null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_commit(
    transaction: *const Writer,
    pages: *const u64,
    content: *const c_void,
    count: usize,
    size: u64,
    lsn: *mut u64,
    err: *mut CError,
) -> c_int {
    let commit = || {
        if lsn.is_null() {
            return Err(Error::Usage("nowhere to put the answer".into()));
        }
        // SAFETY: the caller's promise.
        unsafe { put(lsn, handle(transaction)?.commit(numbers(pages, count)?, contents(content, count)?, size)?) }
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, commit) }
}

/// `dspm_part` of dspm.h.
#[repr(C)]
pub struct CPart {
    transaction: *const Writer,
    pages: *const u64,
    content: *const c_void,
    count: usize,
    size: u64,
    lsn: u64,
}

/// Commits several transactions or none of them, and all stay reserved.
///
/// # Safety
/// `parts` points to `count` parts that can be written, each as [`dspm_transaction_commit`] asks; `err` is null or can
/// be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_commit_together(parts: *mut CPart, count: usize, err: *mut CError) -> c_int {
    let commit = || {
        if parts.is_null() || !parts.is_aligned() || !(1..=PARTS_MAX).contains(&count) {
            return Err(Error::Usage(format!(
                "{count} transactions in one commit; from 1 to {PARTS_MAX} are possible"
            )));
        }
        // SAFETY: the caller's promise; not null, aligned, and few.
        let parts = unsafe { std::slice::from_raw_parts_mut(parts, count) };
        let part = |p: &CPart| {
            // SAFETY: the caller's promise.
            unsafe {
                let (numbers, content) = (numbers(p.pages, p.count)?, contents(p.content, p.count)?);
                Ok(Part { writer: handle(p.transaction)?, numbers, content, size: p.size })
            }
        };
        let all: Vec<Part<'_>> = parts.iter().map(part).collect::<Result<_, Error>>()?;
        let lsns = commit_together(&all)?;
        parts.iter_mut().zip(lsns).for_each(|(p, lsn)| p.lsn = lsn);
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, commit) }
}

/// Ends the reservation, and gives the place in the queue back.
///
/// # Safety
/// `transaction` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_release(transaction: *const Writer) {
    // SAFETY: the caller's promise.
    if let Some(t) = unsafe { transaction.as_ref() } {
        quietly(|| t.release());
    }
}

/// Releases and frees it.
///
/// # Safety
/// `transaction` is null or a handle that was not freed yet; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_transaction_free(transaction: *mut Writer) {
    if !transaction.is_null() {
        // SAFETY: the caller's promise: it came from Box::into_raw.
        quietly(|| drop(unsafe { Box::from_raw(transaction) }));
    }
}
