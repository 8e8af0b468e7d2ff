//! WiredTiger's C structures as far as a file system meets them: our own definitions, nothing of WiredTiger is linked.
//! They are the same in every version of the table in [`super::layout`].

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `WT_SESSION`: only handed back.
pub type Session = c_void;
/// `WT_CONFIG_ARG`: only handed back.
pub type ConfigArg = c_void;
/// `WT_CONNECTION`: a table of functions whose order depends on the version, and private data behind it.
pub type Connection = *const c_void;

/// `WT_EXTENSION_API`, up to the last member that is used here.
#[repr(C)]
pub struct ExtensionApi {
    _connection: *mut c_void,
    pub err_printf: unsafe extern "C" fn(*mut ExtensionApi, *mut Session, *const c_char, ...) -> c_int,
    _between: [*const c_void; 10],
    pub config_parser_open_arg:
        unsafe extern "C" fn(*mut ExtensionApi, *mut Session, *mut ConfigArg, *mut *mut ConfigParser) -> c_int,
}

/// `WT_CONFIG_PARSER`, up to the last member that is used here.
#[repr(C)]
pub struct ConfigParser {
    pub close: unsafe extern "C" fn(*mut ConfigParser) -> c_int,
    pub next: unsafe extern "C" fn(*mut ConfigParser, *mut ConfigItem, *mut ConfigItem) -> c_int,
}

/// `WT_CONFIG_ITEM`: a key or a value, with its quotes taken off.
#[repr(C)]
pub struct ConfigItem {
    pub text: *const c_char,
    pub length: usize,
    pub number: i64,
    pub kind: c_int,
}

/// `WT_FILE_SYSTEM`.
#[repr(C)]
pub struct FileSystemTable {
    pub directory_list: ListMethod,
    pub directory_list_single: Option<ListMethod>,
    pub directory_list_free: unsafe extern "C" fn(*mut FileSystemTable, *mut Session, *mut *mut c_char, u32) -> c_int,
    pub exist: unsafe extern "C" fn(*mut FileSystemTable, *mut Session, *const c_char, *mut bool) -> c_int,
    pub open_file: unsafe extern "C" fn(
        *mut FileSystemTable,
        *mut Session,
        *const c_char,
        c_uint,
        u32,
        *mut *mut FileHandleTable,
    ) -> c_int,
    pub remove: unsafe extern "C" fn(*mut FileSystemTable, *mut Session, *const c_char, u32) -> c_int,
    pub rename: unsafe extern "C" fn(*mut FileSystemTable, *mut Session, *const c_char, *const c_char, u32) -> c_int,
    pub size: unsafe extern "C" fn(*mut FileSystemTable, *mut Session, *const c_char, *mut i64) -> c_int,
    pub terminate: unsafe extern "C" fn(*mut FileSystemTable, *mut Session) -> c_int,
}

/// `fs_directory_list`.
pub type ListMethod = unsafe extern "C" fn(
    *mut FileSystemTable,
    *mut Session,
    *const c_char,
    *const c_char,
    *mut *mut *mut c_char,
    *mut u32,
) -> c_int;

/// `WT_FILE_HANDLE`. A member that stays null has the type of any function.
#[repr(C)]
pub struct FileHandleTable {
    pub file_system: *mut FileSystemTable,
    pub name: *mut c_char,
    pub close: HandleMethod,
    pub advise: Option<HandleMethod>,
    pub extend: Option<HandleMethod>,
    pub extend_nolock: Option<HandleMethod>,
    pub lock: unsafe extern "C" fn(*mut FileHandleTable, *mut Session, bool) -> c_int,
    pub map: Option<HandleMethod>,
    pub map_discard: Option<HandleMethod>,
    pub map_preload: Option<HandleMethod>,
    pub unmap: Option<HandleMethod>,
    pub read: unsafe extern "C" fn(*mut FileHandleTable, *mut Session, i64, usize, *mut c_void) -> c_int,
    pub size: unsafe extern "C" fn(*mut FileHandleTable, *mut Session, *mut i64) -> c_int,
    pub sync: HandleMethod,
    pub sync_nowait: Option<HandleMethod>,
    pub truncate: unsafe extern "C" fn(*mut FileHandleTable, *mut Session, i64) -> c_int,
    pub write: unsafe extern "C" fn(*mut FileHandleTable, *mut Session, i64, usize, *const c_void) -> c_int,
}

/// `close` and `fh_sync`.
pub type HandleMethod = unsafe extern "C" fn(*mut FileHandleTable, *mut Session) -> c_int;
