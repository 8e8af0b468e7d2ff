//! The C entry points of an open journal.
#![allow(unsafe_code)]

use crate::characteristics::{CHARACTERISTICS, SECTOR_SIZE};
use crate::ffi::{self, File, IoMethods};
use crate::fork;
use crate::guard::guard;
use crate::journal::Journal;
use std::ffi::{c_int, c_void};
use std::sync::Arc;

/// What SQLite's buffer of an open journal holds.
#[repr(C)]
pub struct JournalFile {
    file: File,
    handle: *mut JournalHandle,
}

/// One opening of a journal.
struct JournalHandle {
    journal: Arc<Journal>,
    born: u64,
}

/// Turns SQLite's buffer into an open journal.
///
/// # Safety
/// `file` has room for a [`JournalFile`] and stays where it is until it is closed.
pub unsafe fn open(file: *mut File, journal: Arc<Journal>) {
    let handle = Box::into_raw(Box::new(JournalHandle { journal, born: fork::generation() }));
    // SAFETY: the caller's promise.
    unsafe { file.cast::<JournalFile>().write(JournalFile { file: File { methods: &METHODS }, handle }) }
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

/// Runs an entry with the journal; in a forked child it fails, since the journal is the parent's.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn enter(file: *mut File, name: &'static str, failed: c_int, body: impl FnOnce(&Journal) -> c_int) -> c_int {
    // SAFETY: the caller's promise; SQLite does not use a file after closing it.
    let handle = unsafe { &*(*file.cast::<JournalFile>()).handle };
    guard(name, failed, || if handle.born == fork::generation() { body(&handle.journal) } else { failed })
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    guard("xClose of a journal", ffi::OK, || {
        // SAFETY: SQLite closes once what `open` filled; methods become null as SQLite asks.
        unsafe {
            let file = file.cast::<JournalFile>();
            let handle = (*file).handle;
            (*file).file.methods = std::ptr::null();
            // A child leaks its parent's: freeing could wait for a lock of the parent's threads.
            if (*handle).born == fork::generation() {
                drop(Box::from_raw(handle));
            }
        }
        ffi::OK
    })
}

unsafe extern "C" fn read(file: *mut File, buf: *mut c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite passes its open file and `amount` writable bytes.
    unsafe {
        enter(file, "xRead of a journal", ffi::IOERR_READ, |journal| {
            let buf = std::slice::from_raw_parts_mut(buf.cast::<u8>(), amount as usize);
            match journal.read(offset as u64, buf) {
                Ok(n) if n == buf.len() => ffi::OK,
                Ok(n) => {
                    buf[n..].fill(0);
                    ffi::IOERR_SHORT_READ
                }
                Err(_) => ffi::IOERR_READ,
            }
        })
    }
}

unsafe extern "C" fn write(file: *mut File, data: *const c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite passes its open file and `amount` readable bytes.
    unsafe {
        enter(file, "xWrite of a journal", ffi::IOERR_WRITE, |journal| {
            let data = std::slice::from_raw_parts(data.cast::<u8>(), amount as usize);
            match journal.write(offset as u64, data) {
                Ok(()) => ffi::OK,
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => ffi::FULL,
                Err(_) => ffi::IOERR_WRITE,
            }
        })
    }
}

unsafe extern "C" fn truncate(file: *mut File, size: i64) -> c_int {
    // SAFETY: SQLite passes its open file.
    unsafe {
        enter(file, "xTruncate of a journal", ffi::IOERR_TRUNCATE, |journal| match journal.truncate(size as u64) {
            Ok(()) => ffi::OK,
            Err(_) => ffi::IOERR_TRUNCATE,
        })
    }
}

unsafe extern "C" fn file_size(file: *mut File, size: *mut i64) -> c_int {
    // SAFETY: SQLite passes its open file and a place for the answer.
    unsafe {
        enter(file, "xFileSize of a journal", ffi::IOERR_FSTAT, |journal| {
            *size = journal.size() as i64;
            ffi::OK
        })
    }
}

unsafe extern "C" fn sync(_: *mut File, _: c_int) -> c_int {
    ffi::OK
}

unsafe extern "C" fn lock(_: *mut File, _: c_int) -> c_int {
    ffi::OK
}

unsafe extern "C" fn unlock(_: *mut File, _: c_int) -> c_int {
    ffi::OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut File, answer: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *answer = 0 };
    ffi::OK
}

unsafe extern "C" fn file_control(_: *mut File, _: c_int, _: *mut c_void) -> c_int {
    ffi::NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut File) -> c_int {
    SECTOR_SIZE
}

unsafe extern "C" fn device_characteristics(_: *mut File) -> c_int {
    CHARACTERISTICS
}
