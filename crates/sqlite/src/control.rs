//! `xFileControl` of a database.
#![allow(unsafe_code)]

use crate::attach;
use crate::errors::Code;
use crate::ffi;
use crate::handle::Handle;
use crate::pragma;
use crate::register::VFS_NAME;
use std::ffi::{CStr, c_char, c_int, c_void};

/// Answers one file control.
///
/// # Safety
/// `argument` is what SQLite passes with that operation.
pub unsafe fn control(handle: &mut Handle, operation: c_int, argument: *mut c_void) -> Result<(), Code> {
    match operation {
        ffi::FCNTL_SYNC => {
            let name = argument.cast::<c_char>();
            // SAFETY: null, or the super-journal's NUL-terminated name.
            let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes());
            attach::stage(handle, name)
        }
        ffi::FCNTL_COMMIT_PHASETWO => attach::finish(handle),
        ffi::FCNTL_PDB => {
            handle.connection = argument.cast_const().cast();
            Ok(())
        }
        // SAFETY: SQLite passes an array of three strings.
        ffi::FCNTL_PRAGMA => unsafe { answer_pragma(handle, argument.cast()) },
        ffi::FCNTL_VFSNAME => {
            // SAFETY: SQLite passes a place for a string that it frees.
            unsafe { *argument.cast::<*mut c_char>() = handle.copy.api.string(&VFS_NAME.to_string_lossy()) };
            Ok(())
        }
        // SAFETY: SQLite passes a place for a number.
        ffi::FCNTL_LOCKSTATE => unsafe { number(argument, handle.lock as c_int) },
        // A dataset is not a file that someone could rename under an open handle.
        // SAFETY: SQLite passes a place for a number.
        ffi::FCNTL_HAS_MOVED | ffi::FCNTL_LAST_ERRNO => unsafe { number(argument, 0) },
        ffi::FCNTL_SIZE_HINT | ffi::FCNTL_CHUNK_SIZE | ffi::FCNTL_OVERWRITE => Ok(()),
        _ => Err(Code(ffi::NOTFOUND)),
    }
}

/// # Safety
/// `place` is an `int` to fill.
unsafe fn number(place: *mut c_void, value: c_int) -> Result<(), Code> {
    // SAFETY: the caller's promise.
    unsafe { *place.cast::<c_int>() = value };
    Ok(())
}

/// # Safety
/// `texts` are three strings: a place for the answer, the PRAGMA's name, and its value or null.
unsafe fn answer_pragma(handle: &mut Handle, texts: *mut *mut c_char) -> Result<(), Code> {
    // SAFETY: the caller's promise; names and values are NUL-terminated.
    let (name, value) = unsafe {
        let value = *texts.add(2);
        let value = (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy());
        (CStr::from_ptr(*texts.add(1)).to_string_lossy(), value)
    };
    let (text, done) = match pragma::answer(handle, &name, value.as_deref()) {
        None => return Err(Code(ffi::NOTFOUND)),
        Some(Ok(text)) => (text, Ok(())),
        Some(Err(text)) => (text, Err(Code(ffi::ERROR))),
    };
    // SAFETY: the caller's promise.
    unsafe { give(handle, texts, &text) }?;
    done
}

/// Answers a PRAGMA on a connection that is the parent's: `dspm_error` with that text, any other fails with it.
///
/// # Safety
/// `texts` are what SQLite passes with a PRAGMA.
pub unsafe fn answer_in_child(handle: &Handle, texts: *mut c_void, text: &str) -> Result<(), Code> {
    let texts = texts.cast::<*mut c_char>();
    // SAFETY: the caller's promise; names are NUL-terminated.
    let name = unsafe { CStr::from_ptr(*texts.add(1)) };
    // SAFETY: the caller's promise.
    unsafe { give(handle, texts, text) }?;
    if name.to_bytes().eq_ignore_ascii_case(b"dspm_error") { Ok(()) } else { Err(Code(ffi::ERROR)) }
}

/// # Safety
/// `place` takes a string.
unsafe fn give(handle: &Handle, place: *mut *mut c_char, text: &str) -> Result<(), Code> {
    let text = handle.copy.api.string(text);
    if text.is_null() {
        return Err(Code(ffi::NOMEM));
    }
    // SAFETY: the caller's promise; SQLite frees it.
    unsafe { *place = text };
    Ok(())
}
