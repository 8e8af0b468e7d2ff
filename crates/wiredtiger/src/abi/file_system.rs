//! `WT_FILE_SYSTEM` over [`FileSystem`].

use super::call::{Core, invalid, signed};
use super::file_handle;
use super::program::text;
use super::structs::{FileHandleTable, FileSystemTable, Session};
use crate::{Failure, FileKind};
use std::ffi::{CString, c_char, c_int, c_uint};
use std::ptr::null_mut;
use std::sync::Arc;

/// The table that WiredTiger sees, and what is ours behind it.
#[repr(C)]
pub struct Instance {
    table: FileSystemTable,
    core: Arc<Core>,
}

/// A file system for `set_file_system`; `terminate` frees it.
pub fn new(core: Core) -> *mut FileSystemTable {
    let table = FileSystemTable {
        directory_list,
        directory_list_single: None,
        directory_list_free,
        exist,
        open_file,
        remove,
        rename,
        size,
        terminate,
    };
    Box::into_raw(Box::new(Instance { table, core: Arc::new(core) })).cast()
}

/// # Safety
/// `fs` came from [`new`], and `terminate` was not called yet.
unsafe fn core<'a>(fs: *mut FileSystemTable) -> &'a Arc<Core> {
    // SAFETY: the caller's promise; the table is the instance's first member.
    unsafe { &(*fs.cast::<Instance>()).core }
}

// SAFETY of all methods: WiredTiger calls them with the file system that it was given, strings that end with a zero byte,
// and places for the answers.

unsafe extern "C" fn directory_list(
    fs: *mut FileSystemTable,
    session: *mut Session,
    directory: *const c_char,
    prefix: *const c_char,
    list: *mut *mut *mut c_char,
    count: *mut u32,
) -> c_int {
    // SAFETY: see above.
    let core = unsafe { core(fs) };
    core.run(session, || {
        // SAFETY: see above.
        let (directory, prefix) = unsafe { (core.path(directory)?, text(prefix).unwrap_or("")) };
        let names = core.files.list(&directory, prefix)?;
        // SAFETY: see above.
        unsafe {
            *count = u32::try_from(names.len()).map_err(|_| invalid("too many files in a directory"))?;
            *list = strings(&names)?;
        }
        Ok(())
    })
}

/// A list in memory of malloc: parts of WiredTiger free single names themselves.
fn strings(names: &[String]) -> Result<*mut *mut c_char, Failure> {
    let no_memory = || Failure { errno: libc::ENOMEM, text: "no memory for the names of files".into() };
    if names.is_empty() {
        return Ok(null_mut());
    }
    // SAFETY: calloc answers that many null pointers, or null.
    let list = unsafe { libc::calloc(names.len(), size_of::<*mut c_char>()) }.cast::<*mut c_char>();
    if list.is_null() {
        return Err(no_memory());
    }
    for (i, name) in names.iter().enumerate() {
        // SAFETY: strndup copies at most that many bytes of the name; the place is within the list.
        let copied = unsafe {
            *list.add(i) = libc::strndup(name.as_ptr().cast(), name.len());
            !(*list.add(i)).is_null()
        };
        if !copied {
            // SAFETY: made above.
            unsafe { free_strings(list, names.len()) };
            return Err(no_memory());
        }
    }
    Ok(list)
}

/// # Safety
/// From [`strings`], with its length, not freed yet.
unsafe fn free_strings(list: *mut *mut c_char, count: usize) {
    if list.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (0..count).for_each(|i| libc::free((*list.add(i)).cast()));
        libc::free(list.cast());
    }
}

unsafe extern "C" fn directory_list_free(
    _fs: *mut FileSystemTable,
    _session: *mut Session,
    list: *mut *mut c_char,
    count: u32,
) -> c_int {
    // SAFETY: see above.
    unsafe { free_strings(list, count as usize) };
    0
}

unsafe extern "C" fn exist(
    fs: *mut FileSystemTable,
    session: *mut Session,
    name: *const c_char,
    answer: *mut bool,
) -> c_int {
    // SAFETY: see above.
    let core = unsafe { core(fs) };
    core.run(session, || {
        // SAFETY: see above.
        unsafe { *answer = core.files.exists(&core.path(name)?)? };
        Ok(())
    })
}

unsafe extern "C" fn open_file(
    fs: *mut FileSystemTable,
    session: *mut Session,
    name: *const c_char,
    kind: c_uint,
    flags: u32,
    handle: *mut *mut FileHandleTable,
) -> c_int {
    // SAFETY: see above.
    let core = unsafe { core(fs) };
    core.run(session, || {
        let kind = file_kind(kind)?;
        // SAFETY: see above.
        let (path, name) = unsafe { (core.path(name)?, text(name).unwrap_or("")) };
        let file = core.files.open_file(&path, kind, core.layout.open_flags(flags))?;
        let name = CString::new(name).map_err(|_| invalid("a path with a zero byte"))?;
        // SAFETY: see above.
        unsafe { *handle = file_handle::new(fs, name, kind, file, core.clone()) };
        Ok(())
    })
}

/// `WT_FS_OPEN_FILE_TYPE`.
fn file_kind(kind: c_uint) -> Result<FileKind, Failure> {
    match kind {
        0 => Ok(FileKind::Checkpoint),
        1 => Ok(FileKind::Data),
        2 => Ok(FileKind::Directory),
        3 => Ok(FileKind::Log),
        4 => Ok(FileKind::Regular),
        _ => Err(invalid(&format!("WiredTiger opens a file of type {kind}, which is not known"))),
    }
}

unsafe extern "C" fn remove(fs: *mut FileSystemTable, session: *mut Session, name: *const c_char, _: u32) -> c_int {
    // SAFETY: see above.
    let core = unsafe { core(fs) };
    // SAFETY: see above.
    core.run(session, || core.files.remove(&unsafe { core.path(name) }?))
}

unsafe extern "C" fn rename(
    fs: *mut FileSystemTable,
    session: *mut Session,
    from: *const c_char,
    to: *const c_char,
    _: u32,
) -> c_int {
    // SAFETY: see above.
    let core = unsafe { core(fs) };
    core.run(session, || {
        // SAFETY: see above.
        let (from, to) = unsafe { (core.path(from)?, core.path(to)?) };
        core.files.rename(&from, &to)
    })
}

unsafe extern "C" fn size(
    fs: *mut FileSystemTable,
    session: *mut Session,
    name: *const c_char,
    answer: *mut i64,
) -> c_int {
    // SAFETY: see above.
    let core = unsafe { core(fs) };
    core.run(session, || {
        // SAFETY: see above.
        unsafe { *answer = signed(core.files.size(&core.path(name)?)?)? };
        Ok(())
    })
}

unsafe extern "C" fn terminate(fs: *mut FileSystemTable, session: *mut Session) -> c_int {
    // SAFETY: see above.
    if !unsafe { core(fs) }.is_own() {
        return 0;
    }
    // SAFETY: made by `new`, and WiredTiger does not use it any more.
    let instance = unsafe { Box::from_raw(fs.cast::<Instance>()) };
    instance.core.run(session, || instance.core.files.close())
}
