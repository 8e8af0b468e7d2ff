//! Errors as C sees them.

use dspm_proto::Error;
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::catch_unwind;

/// `dspm_error` of dspm.h.
#[repr(C)]
pub struct CError {
    code: c_int,
    message: [c_char; 1024],
    hint: [c_char; 256],
}

impl CError {
    pub(super) fn of(e: &Error) -> CError {
        let mut out = CError { code: c_int::from(e.code()), message: [0; 1024], hint: [0; 256] };
        put(&mut out.message, &e.to_string());
        put(&mut out.hint, e.hint());
        out
    }
}

/// Copies a text, cut at a character's edge, with its zero byte.
fn put(to: &mut [c_char], text: &str) {
    let end = (0..=text.len().min(to.len() - 1)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    to.iter_mut().zip(&text.as_bytes()[..end]).for_each(|(c, b)| *c = *b as c_char);
}

/// What the VFS last said went wrong in this process; empty if nothing did. Valid until the thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn dspm_last_error() -> *const c_char {
    thread_local! {
        static LAST: RefCell<CString> = RefCell::default();
    }
    let text = catch_unwind(dspm_sqlite::last_error).unwrap_or_default();
    LAST.with_borrow_mut(|last| {
        *last = CString::new(text).unwrap_or_default();
        last.as_ptr()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut to = [1 as c_char; 6];
        put(&mut to, "ab€€");
        assert_eq!(to.map(|c| c as u8), [b'a', b'b', 0xE2, 0x82, 0xAC, 1]);
        let e = CError::of(&Error::Failed("x".repeat(5000)));
        assert_eq!((e.message[1022] as u8, e.message[1023]), (b'x', 0));
    }
}
