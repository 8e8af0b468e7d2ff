//! Opening and closing datasets. A handle is the pointer of an [`Arc`]: snapshots and transactions hold it too, so the
//! order in which they end does not matter.

use super::errors::CError;
use super::{call, handle, name, put, put_text, quietly, text};
use crate::datasets::{Flags, OpenDataset, Options};
use dspm_proto::Error;
use std::ffi::{c_char, c_int};
use std::sync::Arc;

const CREATE: c_int = 1;
const EXCLUSIVE: c_int = 2;
const READ_ONLY: c_int = 4;

fn flags(bits: c_int) -> Result<Flags, Error> {
    let flags =
        Flags { create: bits & CREATE != 0, exclusive: bits & EXCLUSIVE != 0, read_only: bits & READ_ONLY != 0 };
    let unknown = bits & !(CREATE | EXCLUSIVE | READ_ONLY) != 0;
    match unknown || (flags.exclusive && !flags.create) || (flags.create && flags.read_only) {
        true => Err(Error::Usage(format!("flags {bits:#x} have no meaning together"))),
        false => Ok(flags),
    }
}

/// The object behind a handle, held once more.
///
/// # Safety
/// As [`handle`].
pub(super) unsafe fn shared(p: *const OpenDataset) -> Result<Arc<OpenDataset>, Error> {
    // SAFETY: the caller's promise.
    unsafe {
        handle(p)?;
        Arc::increment_strong_count(p);
        Ok(Arc::from_raw(p))
    }
}

/// Opens a dataset.
///
/// # Safety
/// `config` and `options` are null or strings that end with a zero byte, `opened` is such a string; `out` and `err` are
/// null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_open(
    config: *const c_char,
    opened: *const c_char,
    bits: c_int,
    options: *const c_char,
    out: *mut *const OpenDataset,
    err: *mut CError,
) -> c_int {
    let open = || {
        // SAFETY: the caller's promise.
        let (config, opened, options) = unsafe { (text(config)?, name(opened)?, text(options)?) };
        let options = Options::parse(options.unwrap_or("{}"))?;
        let dataset = OpenDataset::open(config, opened, flags(bits)?, &options)?;
        if out.is_null() {
            return Err(Error::Usage("nowhere to put the answer".into()));
        }
        // SAFETY: the caller's promise.
        unsafe { put(out, Arc::into_raw(Arc::new(dataset))) }
    };
    // SAFETY: the caller's promise.
    unsafe { call(err, open) }
}

/// Closes a dataset.
///
/// # Safety
/// `dataset` is null or a handle that was not closed yet; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_close(dataset: *const OpenDataset) {
    if !dataset.is_null() {
        // SAFETY: the caller's promise: it came from Arc::into_raw.
        quietly(|| drop(unsafe { Arc::from_raw(dataset) }));
    }
}

/// Id of a dataset; 0 for null.
///
/// # Safety
/// `dataset` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_id(dataset: *const OpenDataset) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { dataset.as_ref() }.map_or(0, OpenDataset::id)
}

/// The cluster-wide name.
///
/// # Safety
/// `dataset` is null or a handle; `out` and `err` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_name(
    dataset: *const OpenDataset,
    out: *mut *mut c_char,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || put_text(out, handle(dataset)?.name().to_owned())) }
}

/// Figures as JSON, from memory.
///
/// # Safety
/// As [`dspm_dataset_name`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_status(
    dataset: *const OpenDataset,
    out: *mut *mut c_char,
    err: *mut CError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || put_text(out, handle(dataset)?.status()?)) }
}

/// Whether this process writes; 0 for null.
///
/// # Safety
/// `dataset` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_is_reserved(dataset: *const OpenDataset) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { dataset.as_ref() }.map_or(0, |d| c_int::from(d.is_reserved()))
}

/// Keeps the write lease here, or no longer.
///
/// # Safety
/// `dataset` is null or a handle; `err` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dspm_dataset_hold(dataset: *const OpenDataset, keep: c_int, err: *mut CError) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(err, || handle(dataset)?.hold(keep != 0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        assert!(
            flags(0).is_ok() && flags(CREATE).is_ok() && flags(CREATE | EXCLUSIVE).is_ok() && flags(READ_ONLY).is_ok()
        );
        assert!([EXCLUSIVE, CREATE | READ_ONLY, 8, -1].into_iter().all(|f| flags(f).is_err()));
    }
}
