//! The C ABI (dspm.h) and the entry of SQLite's extension, and the only unsafe code of this crate.
//!
//! Rules kept by every entry: panics are caught; a failure answers the error's code and fills in `dspm_error`; strings
//! that are given out are freed by `dspm_free`, handles by their own function. Handles are pointers of [`Arc`]s and
//! boxes; a null handle is a usage error where a call can fail, and nothing where it cannot.
#![allow(unsafe_code)]

mod catalog;
mod config;
mod dataset;
mod errors;
mod extension;
mod snapshot;
mod transaction;
mod wiredtiger;

use dspm_proto::{Error, PAGE_SIZE};
use errors::CError;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an entry: 0, or a code with `err` filled in if it is not null.
///
/// # Safety
/// `err` is null or can be written.
unsafe fn call(err: *mut CError, body: impl FnOnce() -> Result<(), Error>) -> c_int {
    let done = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(Error::Failed("a bug in dspm".into())));
    let Err(e) = done else { return 0 };
    if !err.is_null() {
        // SAFETY: the caller's promise.
        unsafe { err.write(CError::of(&e)) };
    }
    c_int::from(e.code())
}

/// Runs what cannot fail; a panic ends here.
fn quietly(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}

/// An optional text.
///
/// # Safety
/// `p` is null or a string that ends with a zero byte and lives as long as the answer is used.
unsafe fn text<'a>(p: *const c_char) -> Result<Option<&'a str>, Error> {
    if p.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(p) }.to_str();
    text.map(Some).map_err(|_| Error::Usage("a text that is not UTF-8".into()))
}

/// A text that has to be there.
///
/// # Safety
/// As [`text`].
unsafe fn name<'a>(p: *const c_char) -> Result<&'a str, Error> {
    // SAFETY: the caller's promise.
    unsafe { text(p) }?.ok_or_else(|| Error::Usage("a name is missing".into()))
}

/// Gives out a value.
///
/// # Safety
/// `out` is null or can be written.
unsafe fn put<T>(out: *mut T, value: T) -> Result<(), Error> {
    if out.is_null() {
        return Err(Error::Usage("nowhere to put the answer".into()));
    }
    // SAFETY: the caller's promise; it is not null.
    unsafe { out.write(value) };
    Ok(())
}

/// Gives out a string that the caller frees.
///
/// # Safety
/// As [`put`].
unsafe fn put_text(out: *mut *mut c_char, text: String) -> Result<(), Error> {
    let text = CString::new(text).map_err(|_| Error::Failed("an answer with a zero byte".into()))?;
    if out.is_null() {
        return Err(Error::Usage("nowhere to put the answer".into()));
    }
    // SAFETY: the caller's promise.
    unsafe { put(out, text.into_raw()) }
}

/// A handle that was given out.
///
/// # Safety
/// `p` is null or a handle of that kind that was not ended yet, and is not ended while the answer is used.
unsafe fn handle<'a, T>(p: *const T) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise.
    unsafe { p.as_ref() }.ok_or_else(|| Error::Usage("a null handle".into()))
}

/// Page numbers in the caller's memory.
///
/// # Safety
/// `numbers` points to `count` numbers, unless that is 0, which stay as they are while the answer is used.
unsafe fn numbers<'a>(numbers: *const u64, count: usize) -> Result<&'a [u64], Error> {
    check(numbers.cast(), numbers.is_aligned(), count)?;
    match count {
        0 => Ok(&[]),
        // SAFETY: the caller's promise; checked for null and alignment, and the size in bytes is below isize::MAX.
        _ => Ok(unsafe { std::slice::from_raw_parts(numbers, count) }),
    }
}

/// Contents of pages in the caller's memory.
///
/// # Safety
/// `pages` points to `count` × 4096 bytes, unless that is 0, which stay as they are while the answer is used.
unsafe fn contents<'a>(pages: *const c_void, count: usize) -> Result<&'a [u8], Error> {
    check(pages, true, count)?;
    match count {
        0 => Ok(&[]),
        // SAFETY: the caller's promise; checked as above.
        _ => Ok(unsafe { std::slice::from_raw_parts(pages.cast(), count * PAGE_SIZE) }),
    }
}

/// The caller's memory for pages.
///
/// # Safety
/// `pages` points to `count` × 4096 bytes that nobody else uses while the answer is used, unless that is 0.
unsafe fn buffer<'a>(pages: *mut c_void, count: usize) -> Result<&'a mut [u8], Error> {
    check(pages, true, count)?;
    match count {
        0 => Ok(&mut []),
        // SAFETY: the caller's promise; checked as above.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(pages.cast(), count * PAGE_SIZE) }),
    }
}

fn check(p: *const c_void, aligned: bool, count: usize) -> Result<(), Error> {
    if count > 0 && (p.is_null() || !aligned) {
        return Err(Error::Usage("a null pointer where pages are expected".into()));
    }
    match count <= isize::MAX as usize / PAGE_SIZE {
        true => Ok(()),
        false => Err(Error::Usage(format!("{count} pages in one call"))),
    }
}
