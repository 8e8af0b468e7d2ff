//! The entries of WiredTiger's extension, one for each of its binary interfaces (docs/mongodb.md says which is whose).

use super::errors::CError;
use super::{call, name, put_text};
use crate::wiredtiger::open;
use dspm_proto::Error;
use dspm_wiredtiger::abi::{entry_for, load};
use std::ffi::{c_char, c_int, c_void};

macro_rules! entries {
    ($($name:ident)*) => {$(
        /// An entry of WiredTiger's extension.
        ///
        /// # Safety
        /// Called by WiredTiger with what it passes to every extension.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(connection: *mut c_void, config: *mut c_void) -> c_int {
            // SAFETY: the arguments are WiredTiger's own.
            unsafe { load(stringify!($name), connection, config, open) }
        }
    )*};
}

entries! { dspm_wiredtiger_4_0 dspm_wiredtiger_5_0 dspm_wiredtiger_8_0 dspm_wiredtiger_8_1 }

/// The entry for a program with that version of WiredTiger.
///
/// # Safety
/// `version` is null or a string that ends with a zero byte; `out` and `err` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_wiredtiger_entry(
    version: *const c_char,
    out: *mut *mut c_char,
    err: *mut CError,
) -> c_int {
    let find = || {
        // SAFETY: the caller's promise.
        let entry = entry_for(unsafe { name(version) }?).map_err(|e| Error::Usage(e.text))?;
        // SAFETY: the caller's promise.
        unsafe { put_text(out, entry.into()) }
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, find) }
}
