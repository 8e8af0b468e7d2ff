//! The connection (`sqlite3*`) that a handle belongs to, as far as SQLite tells.
#![allow(unsafe_code)]

use crate::handle::Handle;
use std::ffi::c_void;

/// The connection that uses the handle now, null if SQLite never said; it can change where connections share a cache.
pub fn of(handle: &Handle) -> *mut c_void {
    if handle.connection.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: FCNTL_PDB gave a pointer into the b-tree that owns this file, and closes it before it goes.
    unsafe { *handle.connection }
}

/// True unless the statement that commits is the connection's only open one. To be asked inside of a commit only.
pub fn has_other_statements(handle: &Handle) -> bool {
    let connection = of(handle);
    // SAFETY: SQLite calls the handle for that connection, in the thread that has its mutex.
    connection.is_null() || unsafe { handle.copy.api.busy_statements(connection) } > 1
}
