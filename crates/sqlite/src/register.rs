//! Putting the VFS into a copy of SQLite.
//!
//! A process may hold several copies (Python's own and apsw's wheel): each has its own API table, default VFS and VFS
//! list, so each gets a [`Copy`], found through `pAppData`. What is shared by name is shared by all copies.
#![allow(unsafe_code)]

use crate::api::Api;
use crate::database_file::DatabaseFile;
use crate::ffi::{self, Vfs};
use crate::fork;
use crate::guard::guard;
use crate::journal_file::JournalFile;
use crate::names::THROUGH_SQLITE_MAX;
use crate::opener::Opener;
use crate::vfs;
use dspm_proto::Error;
use dspm_proto::limits::NAME_MAX;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, Mutex};

/// What the VFS is called.
pub const VFS_NAME: &CStr = c"dspm";

/// Longest name that SQLite may give us, that of a journal included ([`THROUGH_SQLITE_MAX`]). Not more: SQLite
/// reads the name of a super-journal into a buffer of the database's page size, which is 512 bytes at least, and trusts
/// that the VFS allows no longer one.
const PATH_MAX: c_int = 512;
const _: () = assert!(THROUGH_SQLITE_MAX + "-journal".len() == PATH_MAX as usize && NAME_MAX >= PATH_MAX as usize);

/// One copy of SQLite.
pub struct Copy {
    pub api: Api,
    /// Its own VFS for temporary files, libraries, time and randomness.
    pub base: *mut Vfs,
    pub opener: Arc<dyn Opener>,
}

// SAFETY: the base VFS lives as long as its SQLite and is made for all threads; the rest is plain or Send + Sync.
unsafe impl Send for Copy {}
// SAFETY: as above.
unsafe impl Sync for Copy {}

/// What [`register`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The VFS is new in this copy of SQLite.
    New,
    /// It was there already; the opener given first stays.
    Before,
}

/// Why the VFS could not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// No API table was given.
    NoApi,
    /// This SQLite (its version number) is older than 3.32.
    TooOld(i32),
    /// This SQLite has no VFS of its own to keep temporary files in.
    NoBase,
    /// Another library has registered a VFS of our name.
    Taken,
    /// `sqlite3_vfs_register` failed with this code.
    Failed(i32),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::NoApi => f.write_str("SQLite gave no API table"),
            RegisterError::TooOld(n) => {
                let (major, minor, patch) = (n / 1_000_000, n / 1000 % 1000, n % 1000);
                write!(f, "dspm needs SQLite 3.32 or newer; this one is {major}.{minor}.{patch}")
            }
            RegisterError::NoBase => f.write_str("this SQLite has no VFS for temporary files"),
            RegisterError::Taken => f.write_str("another library has registered a VFS called 'dspm'"),
            RegisterError::Failed(code) => write!(f, "sqlite3_vfs_register failed with code {code}"),
        }
    }
}

impl std::error::Error for RegisterError {}

/// Registers the VFS `dspm`, not as the default, in the copy of SQLite that the API table belongs to. Once a copy: a
/// repeat changes nothing. The library must stay loaded from then on.
///
/// # Errors
/// [`RegisterError`].
///
/// # Safety
/// `api` is null or the `sqlite3_api_routines` that a SQLite of this process passed to an extension's entry.
pub unsafe fn register(api: *const c_void, opener: Arc<dyn Opener>) -> Result<Registered, RegisterError> {
    // SAFETY: the caller's promise.
    unsafe { register_with(api, || Ok::<_, RegisterError>(opener)) }
}

/// # Safety
/// As [`register`].
unsafe fn register_with<E: From<RegisterError>>(
    api: *const c_void,
    opener: impl FnOnce() -> Result<Arc<dyn Opener>, E>,
) -> Result<Registered, E> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = crate::process::locked(&ONE_AT_A_TIME);
    fork::watch();
    // SAFETY: the caller's promise.
    let api = unsafe { Api::of(api) }?;
    let present = api.vfs_find(Some(VFS_NAME));
    if !present.is_null() {
        // SAFETY: a registered VFS is alive.
        return if unsafe { vfs::is_ours(present) } {
            Ok(Registered::Before)
        } else {
            Err(RegisterError::Taken.into())
        };
    }
    let base = Some(api.vfs_find(Some(c"unix"))).filter(|b| !b.is_null()).unwrap_or_else(|| api.vfs_find(None));
    if base.is_null() {
        return Err(RegisterError::NoBase.into());
    }
    let copy = Box::leak(Box::new(Copy { api, base, opener: opener()? }));
    // SAFETY: a registered VFS is alive; ours lives for ever.
    let code = unsafe {
        let room = size_of::<DatabaseFile>().max(size_of::<JournalFile>()) as c_int;
        let ours = vfs::new(copy, (*base).file_size.max(room), PATH_MAX);
        api.vfs_register(Box::leak(Box::new(ours)))
    };
    if code == ffi::OK { Ok(Registered::New) } else { Err(RegisterError::Failed(code).into()) }
}

/// The body of an extension's entry point: registers, and answers what SQLite expects of an extension that stays
/// loaded. `opener` is called only if this copy of SQLite has no VFS of ours yet.
///
/// # Safety
/// `message` and `api` are what SQLite passed to the entry point.
pub unsafe fn extension_init(
    message: *mut *mut c_char,
    api: *const c_void,
    opener: impl FnOnce() -> Result<Arc<dyn Opener>, Error>,
) -> c_int {
    guard("the extension's entry", ffi::ERROR, || {
        // SAFETY: the caller's promise.
        match unsafe { register_with(api, || opener().map_err(|e| e.to_string())) } {
            Ok(_) => ffi::OK_LOAD_PERMANENTLY,
            Err(text) => {
                // SAFETY: the caller's promise; SQLite frees the message. Without a usable API there is none.
                if let (Ok(api), false) = (unsafe { Api::of(api) }, message.is_null()) {
                    // SAFETY: as above.
                    unsafe { *message = api.string(&format!("dspm: {text}")) };
                }
                ffi::ERROR
            }
        }
    })
}

impl From<RegisterError> for String {
    fn from(e: RegisterError) -> String {
        e.to_string()
    }
}
