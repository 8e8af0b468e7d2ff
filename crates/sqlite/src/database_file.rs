//! The C entry points of an open database.
#![allow(unsafe_code)]

use crate::characteristics::{CHARACTERISTICS, SECTOR_SIZE};
use crate::control;
use crate::errors::Code;
use crate::ffi::{self, File, IoMethods};
use crate::fork;
use crate::guard::guard;
use crate::handle::Handle;
use crate::lock::Lock;
use crate::report;
use dspm_proto::Error;
use std::ffi::{c_int, c_void};

/// What SQLite's buffer of an open database holds.
#[repr(C)]
pub struct DatabaseFile {
    file: File,
    handle: *mut Handle,
}

/// Turns SQLite's buffer into an open database.
///
/// # Safety
/// `file` has room for a [`DatabaseFile`] and stays where it is until it is closed.
pub unsafe fn open(file: *mut File, handle: Handle) {
    let handle = Box::into_raw(Box::new(handle));
    // SAFETY: a fresh box.
    unsafe { (*handle).place = handle };
    // SAFETY: the caller's promise.
    unsafe { file.cast::<DatabaseFile>().write(DatabaseFile { file: File { methods: &METHODS }, handle }) }
}

static METHODS: IoMethods = IoMethods {
    version: 1,
    close,
    read,
    write,
    truncate,
    sync,
    file_size,
    lock,
    unlock,
    check_reserved_lock,
    file_control,
    sector_size,
    device_characteristics,
};

/// Runs an entry with the handle. In a forked child the handle is the parent's and nothing of it is touched: the entry
/// answers `in_child`.
///
/// # Safety
/// `file` was opened by [`open`].
#[inline]
unsafe fn enter(
    file: *mut File,
    (name, failed, in_child): (&'static str, c_int, c_int),
    body: impl FnOnce(&mut Handle) -> Result<(), Code>,
) -> c_int {
    guard(name, failed, || {
        // SAFETY: the caller's promise; SQLite uses a file from one thread at a time and never after closing it.
        let handle = unsafe { &mut *(*file.cast::<DatabaseFile>()).handle };
        if handle.born != fork::generation() {
            if in_child != ffi::OK {
                refuse(handle, Code(in_child));
            }
            return in_child;
        }
        body(handle).map_or_else(|code| code.0, |()| ffi::OK)
    })
}

/// Says why nothing goes in a forked child, and answers the text. Of the handle nothing is used but what is as it was opened.
#[cold]
fn refuse(handle: &Handle, code: Code) -> String {
    let text =
        "the process that forked this one opened this connection, and only that process can use it: open another one";
    report::failure(&handle.copy.api, &handle.name, &Error::Usage(text.into()), code)
}

/// SQLite passes offsets and sizes of files, which are never negative; a number that is means a bug of the caller.
fn unsigned(n: i64) -> Result<u64, Code> {
    u64::try_from(n).map_err(|_| Code(ffi::IOERR))
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    guard("xClose", ffi::IOERR_CLOSE, || {
        // SAFETY: SQLite closes once what `open` filled; methods become null as SQLite asks.
        unsafe {
            let file = file.cast::<DatabaseFile>();
            let handle = (*file).handle;
            (*file).file.methods = std::ptr::null();
            // A child leaks its parent's: what the handle shares is in whatever state the parent's threads left it.
            if (*handle).born == fork::generation() {
                // Closed through the pointer that stages know, then freed.
                (*handle).close();
                drop(Box::from_raw(handle));
            }
        }
        ffi::OK
    })
}

unsafe extern "C" fn read(file: *mut File, buf: *mut c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite passes its open file and `amount` writable bytes.
    unsafe {
        enter(file, ("xRead", ffi::IOERR_READ, ffi::IOERR_READ), |handle| {
            let buf = std::slice::from_raw_parts_mut(buf.cast::<u8>(), amount as usize);
            handle.read(unsigned(offset)?, buf)
        })
    }
}

unsafe extern "C" fn write(file: *mut File, data: *const c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite passes its open file and `amount` readable bytes.
    unsafe {
        enter(file, ("xWrite", ffi::IOERR_WRITE, ffi::IOERR_WRITE), |handle| {
            let data = std::slice::from_raw_parts(data.cast::<u8>(), amount as usize);
            handle.write(unsigned(offset)?, data)
        })
    }
}

unsafe extern "C" fn truncate(file: *mut File, size: i64) -> c_int {
    // SAFETY: SQLite passes its open file.
    unsafe {
        enter(file, ("xTruncate", ffi::IOERR_TRUNCATE, ffi::IOERR_TRUNCATE), |handle| handle.truncate(unsigned(size)?))
    }
}

/// Durability is the dataset's and comes with the commit: a sync only has to be one of a write transaction.
unsafe extern "C" fn sync(file: *mut File, _: c_int) -> c_int {
    // SAFETY: SQLite passes its open file.
    unsafe {
        enter(file, ("xSync", ffi::IOERR, ffi::IOERR), |handle| match handle.overlay {
            Some(_) => Ok(()),
            None => Err(handle.misuse("a sync")),
        })
    }
}

unsafe extern "C" fn file_size(file: *mut File, size: *mut i64) -> c_int {
    // SAFETY: SQLite passes its open file and a place for the answer.
    unsafe {
        enter(file, ("xFileSize", ffi::IOERR_FSTAT, ffi::IOERR_FSTAT), |handle| {
            *size = i64::try_from(handle.size()?).map_err(|_| Code(ffi::IOERR_FSTAT))?;
            Ok(())
        })
    }
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: SQLite passes its open file.
    unsafe {
        enter(file, ("xLock", ffi::IOERR_LOCK, ffi::IOERR_LOCK), |handle| {
            handle.lock(Lock::of(level).ok_or(Code(ffi::IOERR_LOCK))?)
        })
    }
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: SQLite passes its open file.
    unsafe {
        enter(file, ("xUnlock", ffi::IOERR_UNLOCK, ffi::OK), |handle| {
            handle.unlock(Lock::of(level).ok_or(Code(ffi::IOERR_UNLOCK))?);
            Ok(())
        })
    }
}

unsafe extern "C" fn check_reserved_lock(file: *mut File, answer: *mut c_int) -> c_int {
    let failed = ffi::IOERR_CHECKRESERVEDLOCK;
    // SAFETY: SQLite passes its open file and a place for the answer.
    unsafe {
        enter(file, ("xCheckReservedLock", failed, failed), |handle| {
            *answer = c_int::from(handle.is_reserved());
            Ok(())
        })
    }
}

unsafe extern "C" fn file_control(file: *mut File, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: SQLite passes its open file, and with each operation the argument that belongs to it.
    unsafe {
        let handle = &*(*file.cast::<DatabaseFile>()).handle;
        if operation == ffi::FCNTL_PRAGMA && handle.born != fork::generation() {
            return guard("xFileControl", ffi::IOERR, || {
                let text = refuse(handle, Code(ffi::ERROR));
                control::answer_in_child(handle, argument, &text).map_or_else(|code| code.0, |()| ffi::OK)
            });
        }
        enter(file, ("xFileControl", ffi::IOERR, ffi::IOERR), |handle| control::control(handle, operation, argument))
    }
}

unsafe extern "C" fn sector_size(_: *mut File) -> c_int {
    SECTOR_SIZE
}

unsafe extern "C" fn device_characteristics(_: *mut File) -> c_int {
    CHARACTERISTICS
}
