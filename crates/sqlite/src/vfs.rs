//! The C entry points of the VFS itself. Databases and journals are ours; temporary files, libraries, time and
//! randomness are the business of the copy's own VFS.
#![allow(unsafe_code)]

use crate::attach;
use crate::base;
use crate::database_file;
use crate::errors::{Code, During, code, is_ordinary};
use crate::ffi::{self, File, Vfs};
use crate::fork::process;
use crate::guard::guard;
use crate::handle::Handle;
use crate::journal::Journal;
use crate::journal_file;
use crate::names::{self, Kind};
use crate::opener::{Access, OpenRequest};
use crate::register::{Copy, VFS_NAME};
use crate::report;
use dspm_proto::Error;
use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

/// The VFS of one copy of SQLite.
pub fn new(copy: &'static Copy, file_size: c_int, path_max: c_int) -> Vfs {
    Vfs {
        version: 2,
        file_size,
        path_max,
        next: std::ptr::null_mut(),
        name: VFS_NAME.as_ptr(),
        app_data: std::ptr::from_ref(copy).cast_mut().cast(),
        open: Some(open),
        delete: Some(delete),
        access: Some(access),
        full_pathname: Some(full_pathname),
        dl_open: Some(base::dl_open),
        dl_error: Some(base::dl_error),
        dl_sym: Some(base::dl_sym),
        dl_close: Some(base::dl_close),
        randomness: Some(base::randomness),
        sleep: Some(base::sleep),
        current_time: Some(base::current_time),
        last_error: Some(base::last_error),
        current_time_int64: Some(base::current_time_int64),
    }
}

/// True if this library made that VFS.
///
/// # Safety
/// `vfs` is alive.
pub unsafe fn is_ours(vfs: *mut Vfs) -> bool {
    let ours: unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int = delete;
    // SAFETY: the caller's promise.
    unsafe { (*vfs).delete }.is_some_and(|theirs| std::ptr::fn_addr_eq(theirs, ours))
}

/// # Safety
/// `vfs` was made by [`new`].
pub unsafe fn copy_of(vfs: *mut Vfs) -> &'static Copy {
    // SAFETY: the caller's promise.
    unsafe { &*(*vfs).app_data.cast::<Copy>() }
}

/// Reports a failure that belongs to no handle.
fn fail(copy: &Copy, name: &str, error: &Error, during: During) -> Code {
    let code = code(error, during);
    if !is_ordinary(code) {
        report::failure(&copy.api, name, error, code);
    }
    code
}

unsafe extern "C" fn open(
    vfs: *mut Vfs,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes its VFS, a name or null, room for a file, and a place for flags or null.
    guard("xOpen", ffi::CANTOPEN, || unsafe {
        (*file).methods = std::ptr::null();
        let copy = copy_of(vfs);
        let ours = flags & (ffi::OPEN_MAIN_DB | ffi::OPEN_MAIN_JOURNAL | ffi::OPEN_SUPER_JOURNAL | ffi::OPEN_WAL);
        if name.is_null() || ours == 0 {
            return match (*copy.base).open {
                Some(open) => open(copy.base, name, file, flags, out_flags),
                None => ffi::CANTOPEN,
            };
        }
        let opened = match ours {
            ffi::OPEN_MAIN_DB => open_database(copy, name, file, flags),
            ffi::OPEN_MAIN_JOURNAL | ffi::OPEN_SUPER_JOURNAL => open_journal(name, file, flags),
            // There is no write-ahead log.
            _ => Err(Code(ffi::CANTOPEN)),
        };
        match opened {
            Ok(flags) => {
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                ffi::OK
            }
            Err(code) => code.0,
        }
    })
}

/// # Safety
/// As `xOpen` of a main database.
unsafe fn open_database(
    copy: &'static Copy,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
) -> Result<c_int, Code> {
    // SAFETY: SQLite passes a NUL-terminated name with its URI parameters behind it.
    let (bytes, parameters, no_lock, immutable) = unsafe {
        let no_lock = copy.api.uri_boolean(name, c"nolock");
        (CStr::from_ptr(name), copy.api.uri_parameters(name), no_lock, copy.api.uri_boolean(name, c"immutable"))
    };
    let Ok(name) = bytes.to_str() else {
        let error = Error::Usage("the name is not UTF-8".into());
        return Err(fail(copy, &bytes.to_string_lossy(), &error, During::Open));
    };
    if no_lock {
        let error = Error::Usage("nolock=1 cannot work: the locks are the transactions".into());
        return Err(fail(copy, name, &error, During::Open));
    }
    let as_of = parameters.iter().find(|(key, _)| key == "as_of").map(|(_, value)| value.clone());
    let access = access_of(flags, immutable || as_of.is_some());
    let request = OpenRequest { name, access, parameters };
    let dataset = copy.opener.open(&request).map_err(|e| fail(copy, name, &e, During::Open))?;
    let read_only = access == Access::ReadOnly;
    let mut handle = Handle::new(copy, name, dataset, read_only);
    match as_of {
        Some(time) => handle.open_as_of(&time)?,
        None if immutable => handle.pin()?,
        None => {}
    }
    // SAFETY: SQLite's buffer has the room that the VFS asked for, and stays.
    unsafe { database_file::open(file, handle) };
    Ok(if read_only { flags & !(ffi::OPEN_READWRITE | ffi::OPEN_CREATE) | ffi::OPEN_READONLY } else { flags })
}

fn access_of(flags: c_int, fixed: bool) -> Access {
    if fixed || flags & ffi::OPEN_READWRITE == 0 {
        Access::ReadOnly
    } else if flags & ffi::OPEN_CREATE == 0 {
        Access::ReadWrite
    } else if flags & ffi::OPEN_EXCLUSIVE == 0 {
        Access::Create
    } else {
        Access::CreateNew
    }
}

/// # Safety
/// As `xOpen` of a journal or super-journal.
unsafe fn open_journal(name: *const c_char, file: *mut File, flags: c_int) -> Result<c_int, Code> {
    // SAFETY: SQLite passes a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let journals = &process().journals;
    let journal = if flags & ffi::OPEN_CREATE != 0 {
        journals.create(name, flags & ffi::OPEN_EXCLUSIVE != 0)
    } else if flags & (ffi::OPEN_MAIN_JOURNAL | ffi::OPEN_READONLY) == ffi::OPEN_MAIN_JOURNAL | ffi::OPEN_READONLY {
        // Only the search for a hot journal opens one so, and there is never one: the store is changed by a commit
        // alone. Another handle may have begun or ended a transaction since SQLite asked for its lock, so what is
        // there now says nothing.
        Some(Arc::new(Journal::default()))
    } else {
        journals.get(name)
    };
    // SAFETY: SQLite's buffer has the room that the VFS asked for, and stays.
    unsafe { journal_file::open(file, journal.ok_or(Code(ffi::CANTOPEN))?) };
    Ok(flags)
}

unsafe extern "C" fn delete(vfs: *mut Vfs, name: *const c_char, _sync: c_int) -> c_int {
    // SAFETY: SQLite passes its VFS and a NUL-terminated name.
    guard("xDelete", ffi::IOERR_DELETE, || unsafe {
        let bytes = CStr::from_ptr(name).to_bytes();
        let journals = &process().journals;
        let kind = names::kind(bytes);
        if kind == Kind::Super {
            if let Err(code) = attach::publish_of(bytes) {
                return code.0;
            }
        }
        if journals.delete(bytes) {
            return ffi::OK;
        }
        if kind != Kind::Main {
            return ffi::IOERR_DELETE_NOENT;
        }
        let (copy, name) = (copy_of(vfs), String::from_utf8_lossy(bytes));
        match copy.opener.delete(&name) {
            Ok(()) => ffi::OK,
            Err(e) => fail(copy, &name, &e, During::Delete).0,
        }
    })
}

unsafe extern "C" fn access(vfs: *mut Vfs, name: *const c_char, flags: c_int, answer: *mut c_int) -> c_int {
    // SAFETY: SQLite passes its VFS, a NUL-terminated name and a place for the answer.
    guard("xAccess", ffi::IOERR_ACCESS, || unsafe {
        let copy = copy_of(vfs);
        let bytes = CStr::from_ptr(name).to_bytes();
        let kind = names::kind(bytes);
        let journals = &process().journals;
        let exists = match kind {
            // PRAGMA temp_store_directory asks about a real directory.
            _ if flags != ffi::ACCESS_EXISTS => return base_access(copy, name, flags, answer),
            Kind::Wal => false,
            Kind::Journal => journals.is_in_use(bytes),
            Kind::Super if journals.contains(bytes) => true,
            // The super-journal of a main database on another VFS.
            Kind::Super => return base_access(copy, name, flags, answer),
            Kind::Main => {
                let name = String::from_utf8_lossy(bytes);
                match copy.opener.exists(&name) {
                    Ok(exists) => exists,
                    Err(e) => return fail(copy, &name, &e, During::Exists).0,
                }
            }
        };
        *answer = c_int::from(exists);
        ffi::OK
    })
}

/// # Safety
/// As `xAccess`.
unsafe fn base_access(copy: &Copy, name: *const c_char, flags: c_int, answer: *mut c_int) -> c_int {
    // SAFETY: the caller's promise; the base lives as long as its SQLite.
    unsafe { (*copy.base).access.map_or(ffi::IOERR_ACCESS, |access| access(copy.base, name, flags, answer)) }
}

unsafe extern "C" fn full_pathname(vfs: *mut Vfs, typed: *const c_char, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite passes its VFS, a NUL-terminated name and `room` writable bytes.
    guard("xFullPathname", ffi::CANTOPEN, || unsafe {
        let copy = copy_of(vfs);
        let Ok(typed) = CStr::from_ptr(typed).to_str() else {
            let error = Error::Usage("the name is not UTF-8".into());
            return fail(copy, &CStr::from_ptr(typed).to_string_lossy(), &error, During::Open).0;
        };
        let name = copy.opener.full_name(typed);
        if let Some(why) = names::refuse(&name) {
            return fail(copy, typed, &Error::Usage(why), During::Open).0;
        }
        if name.len() >= room as usize {
            return ffi::CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(name.as_ptr(), out.cast::<u8>(), name.len());
        *out.add(name.len()) = 0;
        ffi::OK
    })
}
