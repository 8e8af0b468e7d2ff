//! The entries of WiredTiger's extension, one for each of its binary interfaces (docs/mongodb.md says which is whose).

use crate::wiredtiger::open;
use dspm_wiredtiger::abi::load;
use std::ffi::{c_int, c_void};

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
