//! The C side: how WiredTiger loads this file system and calls it. The only unsafe code of this crate.
//!
//! [`load`] is the body of an extension's entry. It finds out which binary interface the program has (docs/mongodb.md),
//! refuses a wrong or unknown one before it calls anything through it, opens the database path and hands WiredTiger the
//! tables of [`file_system`] and [`file_handle`]. Nothing is kept between calls: a program may open, fail and open again.
//! Why it is done so: docs/decisions/0023-wiredtiger-binary-interfaces.md.
#![allow(unsafe_code)]

mod call;
mod connection;
mod file_handle;
mod file_system;
mod layout;
mod options;
mod paths;
mod program;
mod structs;
#[cfg(test)]
mod tests;

use crate::{Failure, FileSystem};
use call::{Core, invalid};
use connection::{Api, KnownConnection};
use layout::Layout;
pub use options::Options;
use paths::Home;
use program::Program;
use std::ffi::{c_int, c_void};
use std::panic::catch_unwind;
use std::ptr::null_mut;
use std::sync::Arc;
use structs::Connection;

/// The entry for a program with that version of WiredTiger.
///
/// # Errors
/// EINVAL: no version; ENOTSUP: not one that is known.
pub fn entry_for(version: &str) -> Result<&'static str, Failure> {
    let parsed = layout::Version::parse(version);
    let parsed = parsed.ok_or_else(|| invalid(&format!("'{version}': expected WiredTiger's version, like 11.3.1")))?;
    Layout::entry_for(parsed).map_err(|text| Failure { errno: libc::ENOTSUP, text })
}

/// Opens the database path that an extension's configuration names.
pub type Open = fn(&Options) -> Result<Arc<FileSystem>, Failure>;

/// The body of the entry of that name: 0, or an errno with the reason in the program's log (on stderr, where the
/// program's interface is not known).
///
/// # Safety
/// Called by WiredTiger with what it passes to an extension's entry: a connection and its configuration.
pub unsafe fn load(entry: &str, connection: *mut c_void, config: *mut c_void, open: Open) -> c_int {
    if connection.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller's promise.
    catch_unwind(|| unsafe { start(entry, connection.cast(), config, open) }).unwrap_or(libc::EIO)
}

/// # Safety
/// As [`load`].
unsafe fn start(entry: &str, connection: *mut Connection, config: *mut c_void, open: Open) -> c_int {
    // SAFETY: the caller's promise.
    let program = unsafe { Program::of(connection) };
    let layout = match layout_of(&program, entry) {
        Ok(layout) => layout,
        Err(why) => {
            eprintln!("dspm: error: {why}");
            return libc::ENOTSUP;
        }
    };
    // SAFETY: a connection, and its version and number of methods are the layout's.
    let connection = unsafe { KnownConnection::new(connection, layout) };
    let api = connection.api();
    // SAFETY: the caller's promise.
    match unsafe { set_up(entry, &program, layout, &connection, api, config, open) } {
        Ok(()) => 0,
        Err(failure) => {
            api.report(null_mut(), &failure.text);
            failure.errno
        }
    }
}

/// The program's layout; without a version, the first of the entry's that has as many methods, until the configuration is
/// read: home, messages and configuration are in the same places in all of them.
fn layout_of(program: &Program, entry: &str) -> Result<&'static Layout, String> {
    match program.version {
        Some(version) => Layout::of(version, program.methods),
        None => Layout::of_entry(entry, program.methods),
    }
}

/// # Safety
/// As [`load`]; the rest is the connection's.
unsafe fn set_up(
    entry: &str,
    program: &Program,
    layout: &'static Layout,
    connection: &KnownConnection,
    api: Api,
    config: *mut c_void,
    open: Open,
) -> Result<(), Failure> {
    if layout.entry != entry {
        let version = program.version.map(|v| v.to_string()).unwrap_or_default();
        return Err(invalid(&format!(
            "entry={entry} is not for this program's WiredTiger {version}; use entry={}",
            layout.entry
        )));
    }
    // SAFETY: the caller's promise.
    let options = Options::new(&unsafe { api.pairs(config) }?)?;
    let layout = checked_version(entry, program, options.version)?;
    let home = options.home.clone().or_else(|| connection.home()).ok_or_else(|| invalid("the home is not UTF-8"))?;
    let files = open(&options)?;
    let core = Core { files: files.clone(), home: Home::new(&home), layout, api, process: std::process::id() };
    let table = file_system::new(core);
    // SAFETY: it stays until WiredTiger calls `terminate`.
    unsafe { connection.set_file_system(table) }.map_err(|errno| {
        // The table is leaked: whether WiredTiger kept a pointer to it is not known. What it stands for is given back.
        let closed = files.close().err().map(|e| format!("; {}", e.text)).unwrap_or_default();
        let late = if errno == libc::EPERM { "; add early_load=true to the extension" } else { "" };
        Failure { errno, text: format!("WiredTiger refuses the file system (error {errno}){late}{closed}") }
    })
}

/// The layout for the version that the program exports, or the configuration says.
fn checked_version(entry: &str, program: &Program, told: Option<layout::Version>) -> Result<&'static Layout, Failure> {
    let version = program.version.or(told).ok_or_else(|| {
        invalid(
            "this program does not say which WiredTiger it has (it does not export wiredtiger_version); \
             add version=X.Y.Z, as its log shows it, to the config=[...] of the dspm extension",
        )
    })?;
    if told.is_some_and(|told| told != version) {
        return Err(invalid(&format!(
            "the extension's configuration says another version: this is WiredTiger {version}"
        )));
    }
    let layout = Layout::of(version, program.methods).map_err(|why| invalid(&why))?;
    if layout.entry == entry {
        return Ok(layout);
    }
    Err(invalid(&format!("entry={entry} is not for WiredTiger {version}; use entry={}", layout.entry)))
}
