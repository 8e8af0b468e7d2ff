//! The entry of SQLite's loadable extension.

use crate::opener::ClusterOpener;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

/// SQLite's entry point, the default name of a loadable extension.
///
/// # Safety
/// Called by SQLite with what it passes to every extension.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_extension_init(
    _db: *mut c_void,
    message: *mut *mut c_char,
    api: *const c_void,
) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe { dspm_sqlite::extension_init(message, api, || Ok(Arc::new(ClusterOpener::default()))) }
}
