//! `WT_FILE_HANDLE` over [`OpenFile`].
//!
//! Invariant: a write to a file of the log is durable when it returns. With `transaction_sync=(method=dsync)` WiredTiger
//! acknowledges commits after a write alone: it asks its own POSIX layer for O_DSYNC, and tells another file system
//! nothing of it, nor can that find out. With the other methods the sync that follows finds nothing left to do.
//!
//! fh_extend stays null, or a boot reads all of the log's pre-allocated space. In its place a file of the log reads as
//! zeros behind its end: recovery reads the record behind a log file's header without a look at the size, and a program
//! that is killed while it begins a log file leaves one with a header alone. map stays null too, as it goes past the
//! cache's limits, and so does advise.

use super::call::{Core, signed, unsigned};
use super::structs::{FileHandleTable, FileSystemTable, Session};
use crate::{Failure, FileKind, OpenFile};
use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;

/// The table that WiredTiger sees, and what is ours behind it.
#[repr(C)]
struct Handle {
    table: FileHandleTable,
    name: CString,
    kind: FileKind,
    file: OpenFile,
    core: Arc<Core>,
}

/// A handle; `close` frees it.
pub fn new(
    file_system: *mut FileSystemTable,
    name: CString,
    kind: FileKind,
    file: OpenFile,
    core: Arc<Core>,
) -> *mut FileHandleTable {
    let table = FileHandleTable {
        file_system,
        name: name.as_ptr().cast_mut(),
        close,
        advise: None,
        extend: None,
        extend_nolock: None,
        lock,
        map: None,
        map_discard: None,
        map_preload: None,
        unmap: None,
        read,
        size,
        sync,
        sync_nowait: None,
        truncate,
        write,
    };
    Box::into_raw(Box::new(Handle { table, name, kind, file, core })).cast()
}

impl Handle {
    /// Reads; behind the end of a file of the log there are zeros.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let mut there = buffer.len();
        if self.kind == FileKind::Log {
            let left = self.file.size()?.saturating_sub(offset);
            there = there.min(usize::try_from(left).unwrap_or(there));
        }
        let (content, behind) = buffer.split_at_mut(there);
        behind.fill(0);
        if content.is_empty() { Ok(()) } else { self.file.read(offset, content) }
    }
}

/// # Safety
/// `handle` came from [`new`], and `close` was not called yet.
unsafe fn ours<'a>(handle: *mut FileHandleTable) -> &'a Handle {
    // SAFETY: the caller's promise; the table is the handle's first member.
    unsafe { &*handle.cast::<Handle>() }
}

// SAFETY of all methods: WiredTiger calls them with a handle that it was given, from several threads at once but for
// `close`, and with buffers of the length that it says.

unsafe extern "C" fn close(handle: *mut FileHandleTable, session: *mut Session) -> c_int {
    // SAFETY: see above.
    if !unsafe { ours(handle) }.core.is_own() {
        return 0;
    }
    // SAFETY: made by `new`, and WiredTiger does not use it any more.
    let handle = unsafe { Box::from_raw(handle.cast::<Handle>()) };
    let Handle { file, core, .. } = *handle;
    core.run(session, || file.close())
}

/// The group's ownership is the lock: nobody else has the database open.
unsafe extern "C" fn lock(_: *mut FileHandleTable, _: *mut Session, _: bool) -> c_int {
    0
}

unsafe extern "C" fn read(
    handle: *mut FileHandleTable,
    session: *mut Session,
    offset: i64,
    length: usize,
    buffer: *mut c_void,
) -> c_int {
    // SAFETY: see above.
    let handle = unsafe { ours(handle) };
    handle.core.run(session, || {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: see above; nobody else uses the buffer meanwhile.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        handle.fill(unsigned(offset)?, buffer)
    })
}

unsafe extern "C" fn write(
    handle: *mut FileHandleTable,
    session: *mut Session,
    offset: i64,
    length: usize,
    buffer: *const c_void,
) -> c_int {
    // SAFETY: see above.
    let handle = unsafe { ours(handle) };
    handle.core.run(session, || {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: see above.
        let data = unsafe { std::slice::from_raw_parts(buffer.cast(), length) };
        match handle.kind {
            FileKind::Log => handle.file.write_through(unsigned(offset)?, data),
            _ => handle.file.write(unsigned(offset)?, data),
        }
    })
}

unsafe extern "C" fn size(handle: *mut FileHandleTable, session: *mut Session, answer: *mut i64) -> c_int {
    // SAFETY: see above.
    let handle = unsafe { ours(handle) };
    handle.core.run(session, || {
        // SAFETY: see above.
        unsafe { *answer = signed(handle.file.size()?)? };
        Ok(())
    })
}

unsafe extern "C" fn sync(handle: *mut FileHandleTable, session: *mut Session) -> c_int {
    // SAFETY: see above.
    let handle = unsafe { ours(handle) };
    handle.core.run(session, || handle.file.sync())
}

unsafe extern "C" fn truncate(handle: *mut FileHandleTable, session: *mut Session, length: i64) -> c_int {
    // SAFETY: see above.
    let handle = unsafe { ours(handle) };
    handle.core.run(session, || handle.file.truncate(unsigned(length)?))
}
