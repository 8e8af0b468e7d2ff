//! The tables as C calls them, over a store in memory. That real libraries of WiredTiger call them so is tested with
//! those (tests/wiredtiger); here is what does not depend on a version.

use super::call::Core;
use super::connection::Api;
use super::file_system;
use super::layout::{Layout, Version};
use super::paths::Home;
use super::structs::{ExtensionApi, FileHandleTable, FileSystemTable, Session};
use crate::memory::MemoryVolume;
use crate::{Failure, FileSystem};
use dspm_proto::Error;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

const DATA: c_uint = 1;
const DIRECTORY: c_uint = 2;
const LOG: c_uint = 3;
const CREATE: u32 = 4;

thread_local! {
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// `err_printf` as it is called here: one string behind the format.
unsafe extern "C" fn note(_: *mut ExtensionApi, _: *mut Session, _: *const c_char, text: *const c_char) -> c_int {
    // SAFETY: `Api::report` passes a string.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    SAID.with_borrow_mut(|said| said.push(text));
    0
}

fn said() -> Vec<String> {
    SAID.with_borrow_mut(std::mem::take)
}

fn api() -> Api {
    let mut table = Box::new(std::mem::MaybeUninit::<ExtensionApi>::zeroed());
    // SAFETY: with one variable argument, a pointer, both are called alike on the platforms that there are tests for.
    unsafe {
        let note = transmute::<*const (), unsafe extern "C" fn(_, _, *const c_char, ...) -> c_int>(note as *const ());
        (&raw mut (*table.as_mut_ptr()).err_printf).write(note);
    }
    Api(Box::leak(table).as_mut_ptr())
}

fn core(volume: &MemoryVolume) -> Core {
    let files = FileSystem::open(Arc::new(volume.process()), Duration::ZERO).unwrap();
    let layout = Layout::of(Version(11, 3, 1), 21).unwrap();
    Core { files, home: Home::new("/home/db"), layout, api: api(), process: std::process::id() }
}

fn open(fs: *mut FileSystemTable, name: &str, kind: c_uint, flags: u32) -> Result<*mut FileHandleTable, c_int> {
    let (name, mut handle) = (CString::new(name).unwrap(), null_mut());
    // SAFETY: made by `file_system::new`.
    match unsafe { ((*fs).open_file)(fs, null_mut(), name.as_ptr(), kind, flags, &mut handle) } {
        0 => Ok(handle),
        errno => Err(errno),
    }
}

fn write(handle: *mut FileHandleTable, offset: i64, data: &[u8]) -> c_int {
    // SAFETY: an open handle.
    unsafe { ((*handle).write)(handle, null_mut(), offset, data.len(), data.as_ptr().cast()) }
}

fn read(handle: *mut FileHandleTable, offset: i64, length: usize) -> Result<Vec<u8>, c_int> {
    let mut buffer = vec![0xEE; length];
    // SAFETY: an open handle.
    match unsafe { ((*handle).read)(handle, null_mut(), offset, length, buffer.as_mut_ptr().cast()) } {
        0 => Ok(buffer),
        errno => Err(errno),
    }
}

fn sync(handle: *mut FileHandleTable) -> c_int {
    // SAFETY: an open handle.
    unsafe { ((*handle).sync)(handle, null_mut()) }
}

#[test]
fn a_write_to_the_log_is_durable_and_to_data_once_synced() {
    let volume = MemoryVolume::default();
    let fs = file_system::new(core(&volume));
    let log = open(fs, "/home/db/journal/WiredTigerLog.0000000001", LOG, CREATE).unwrap();
    let data = open(fs, "/home/db/a.wt", DATA, CREATE).unwrap();

    let before = volume.commits();
    assert_eq!(write(log, 0, &[7; 128]), 0);
    assert_eq!(volume.commits(), before + 1);
    assert_eq!(sync(log), 0);
    assert_eq!(volume.commits(), before + 1, "the sync that follows has nothing left to do");

    assert_eq!(write(data, 4096, &[9; 4096]), 0);
    assert_eq!(volume.commits(), before + 1);
    assert_eq!(sync(data), 0);
    assert_eq!(volume.commits(), before + 2);
}

#[test]
fn behind_its_end_the_log_is_zeros_and_data_an_error() {
    let volume = MemoryVolume::default();
    let fs = file_system::new(core(&volume));
    let log = open(fs, "/home/db/WiredTigerLog.0000000002", LOG, CREATE).unwrap();
    let data = open(fs, "/home/db/a.wt", DATA, CREATE).unwrap();
    for handle in [log, data] {
        assert_eq!(write(handle, 0, &[7; 128]), 0);
        assert_eq!(read(handle, 0, 128), Ok(vec![7; 128]));
    }
    assert_eq!(read(log, 128, 128), Ok(vec![0; 128]), "as recovery reads a log file that has its header alone");
    assert_eq!(read(log, 127, 3), Ok(vec![7, 0, 0]));
    assert_eq!(read(log, 1 << 40, 3), Ok(vec![0; 3]));
    assert_eq!(read(data, 128, 128), Err(libc::EIO));
    assert_eq!(read(data, 127, 3), Err(libc::EIO));
}

#[test]
fn names_and_sizes() {
    let volume = MemoryVolume::default();
    let fs = file_system::new(core(&volume));
    for name in ["WiredTigerLog.0000000001", "WiredTigerLog.0000000002", "WiredTigerPreplog.0000000001"] {
        let handle = open(fs, &format!("/home/db/journal/{name}"), LOG, CREATE).unwrap();
        assert_eq!(write(handle, 100, b"x"), 0);
        // SAFETY: an open handle.
        assert_eq!(unsafe { ((*handle).close)(handle, null_mut()) }, 0);
    }
    assert!(open(fs, "/home/db/journal", DIRECTORY, 0).is_ok_and(|d| sync(d) == 0));

    let (directory, prefix) = (c"/home/db/journal", c"WiredTigerLog");
    let (mut list, mut count, mut size, mut there) = (null_mut(), 0, 0, false);
    // SAFETY: as WiredTiger calls them.
    unsafe {
        assert_eq!(
            ((*fs).directory_list)(fs, null_mut(), directory.as_ptr(), prefix.as_ptr(), &mut list, &mut count),
            0
        );
        let mut names: Vec<_> = (0..count as usize).map(|i| CStr::from_ptr(*list.add(i)).to_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["WiredTigerLog.0000000001", "WiredTigerLog.0000000002"]);
        assert_eq!(((*fs).directory_list_free)(fs, null_mut(), list, count), 0);

        let one = c"/home/db/journal/WiredTigerLog.0000000002";
        assert_eq!(((*fs).size)(fs, null_mut(), one.as_ptr(), &mut size), 0);
        assert_eq!(size, 101);
        assert_eq!(((*fs).remove)(fs, null_mut(), one.as_ptr(), 0), 0);
        assert_eq!(((*fs).exist)(fs, null_mut(), one.as_ptr(), &mut there), 0);
        assert!(!there);
        assert_eq!(((*fs).size)(fs, null_mut(), one.as_ptr(), &mut size), libc::ENOENT);
        assert_eq!(((*fs).terminate)(fs, null_mut()), 0);
    }
}

#[test]
fn failures_are_numbers_and_sentences() {
    let volume = MemoryVolume::default();
    let fs = file_system::new(core(&volume));
    assert_eq!(open(fs, "/home/db/missing.wt", DATA, 0), Err(libc::ENOENT));
    assert_eq!(open(fs, "/elsewhere/a.wt", DATA, CREATE), Err(libc::EINVAL));
    assert_eq!(open(fs, "/home/db/a.wt", 99, CREATE), Err(libc::EINVAL));
    let log = open(fs, "/home/db/log", LOG, CREATE).unwrap();
    assert_eq!(write(log, -1, b"x"), libc::EINVAL);
    said();
    volume.fail(0, Error::Full("the arena is full".into()));
    assert_eq!(write(log, 0, b"x"), libc::ENOSPC);
    assert_eq!(said(), ["dspm: the arena is full"]);
}

#[test]
fn a_panic_stays_here_and_a_forked_child_gets_nothing() {
    let volume = MemoryVolume::default();
    let mut core = core(&volume);
    assert_eq!(core.run(null_mut(), || panic!("on purpose")), libc::EIO);
    assert!(said().concat().contains("a bug in dspm"));

    core.process += 1; // as in a child, whose parent made it
    let touched = RefCell::new(false);
    let body = || -> Result<(), Failure> {
        *touched.borrow_mut() = true;
        Ok(())
    };
    assert_eq!(core.run(null_mut(), body), libc::EPERM);
    assert!(!*touched.borrow() && said().is_empty());
}
