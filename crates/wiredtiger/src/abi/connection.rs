//! The connection of the program, and its extension API: home, configuration, messages.

use super::layout::Layout;
use super::program::text;
use super::structs::{ConfigArg, ConfigItem, Connection, ExtensionApi, FileSystemTable, Session};
use crate::Failure;
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

/// A `WT_CONNECTION` whose layout is known, for the time of the entry.
pub struct KnownConnection {
    table: *mut Connection,
    layout: &'static Layout,
}

impl KnownConnection {
    /// # Safety
    /// `table` is a connection of that layout, and stays one for the life of the answer.
    pub unsafe fn new(table: *mut Connection, layout: &'static Layout) -> KnownConnection {
        KnownConnection { table, layout }
    }

    /// A method by its slot, counted from 1.
    fn method(&self, slot: usize) -> Connection {
        // SAFETY: `new` was promised a table of that layout, and the slot is the layout's.
        unsafe { *self.table.add(slot - 1) }
    }

    /// What errors are reported to.
    pub fn api(&self) -> Api {
        type Method = unsafe extern "C" fn(*mut Connection) -> *mut ExtensionApi;
        // SAFETY: the layout's get_extension_api.
        Api(unsafe { transmute::<Connection, Method>(self.method(self.layout.get_extension_api))(self.table) })
    }

    /// Where the database is, as paths begin; None if it is not UTF-8.
    pub fn home(&self) -> Option<String> {
        type Method = unsafe extern "C" fn(*mut Connection) -> *const c_char;
        // SAFETY: the layout's get_home; its string lives as long as the connection.
        let home = unsafe { text(transmute::<Connection, Method>(self.method(self.layout.get_home))(self.table)) };
        home.map(str::to_string)
    }

    /// Makes WiredTiger use that file system until it calls `terminate`.
    ///
    /// # Safety
    /// The table stays valid until then.
    pub unsafe fn set_file_system(&self, table: *mut FileSystemTable) -> Result<(), c_int> {
        type Method = unsafe extern "C" fn(*mut Connection, *mut FileSystemTable, *const c_char) -> c_int;
        // SAFETY: the layout's set_file_system; no configuration.
        match unsafe {
            transmute::<Connection, Method>(self.method(self.layout.set_file_system))(self.table, table, null_mut())
        } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }
}

/// The extension API of a connection.
#[derive(Clone, Copy)]
pub struct Api(pub(super) *mut ExtensionApi);

// SAFETY: WiredTiger's extension functions may be called by any thread for as long as the connection is open.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

impl Api {
    /// One line into the program's log.
    pub fn report(self, session: *mut Session, sentence: &str) {
        let line = CString::new(format!("dspm: {}", sentence.replace('\0', "?"))).unwrap_or_default();
        // SAFETY: the API's own function; the format takes one string. That nobody could be told is no reason to fail.
        let _ = unsafe { ((*self.0).err_printf)(self.0, session, c"%s".as_ptr(), line.as_ptr()) };
    }

    /// The pairs of the extension's `config=[...]`.
    ///
    /// # Safety
    /// `config` is what WiredTiger passed to the entry.
    pub unsafe fn pairs(self, config: *mut ConfigArg) -> Result<Vec<(String, String)>, Failure> {
        let mut parser = null_mut();
        // SAFETY: the API's own functions, and what it answered.
        unsafe {
            let errno = ((*self.0).config_parser_open_arg)(self.0, null_mut(), config, &mut parser);
            if errno != 0 || parser.is_null() {
                return Err(unreadable(errno));
            }
            let mut pairs = Vec::new();
            let ended = loop {
                let (mut key, mut value) = (ConfigItem::empty(), ConfigItem::empty());
                match ((*parser).next)(parser, &mut key, &mut value) {
                    0 => pairs.push((key.text(), value.text())),
                    errno => break errno,
                }
            };
            ((*parser).close)(parser);
            if ended == NOT_FOUND { Ok(pairs) } else { Err(unreadable(ended)) }
        }
    }
}

/// `WT_NOTFOUND`: no pair is left.
const NOT_FOUND: c_int = -31803;

fn unreadable(errno: c_int) -> Failure {
    let text = format!("WiredTiger cannot read the config=[...] of the dspm extension (error {errno})");
    Failure { errno: libc::EINVAL, text }
}

impl ConfigItem {
    fn empty() -> ConfigItem {
        ConfigItem { text: null_mut::<c_void>().cast(), length: 0, number: 0, kind: 0 }
    }

    /// # Safety
    /// Filled in by WiredTiger, whose configuration string still lives.
    unsafe fn text(&self) -> String {
        if self.text.is_null() || self.length == 0 {
            return String::new();
        }
        // SAFETY: the caller's promise.
        String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(self.text.cast(), self.length) }).into_owned()
    }
}
