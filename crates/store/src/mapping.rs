//! The arena's file in memory. One of the two modules with `unsafe`; everything else sees bounds-checked accesses.
//!
//! Invariant: a byte has one owner at a time: the pool (free frames), a [`crate::FrameBuf`], or the group whose lock
//! is held. The accessors here rely on it: two threads never touch one byte where one of them writes, the frame
//! table excepted, which is read and written by words ([`Mapping::load`], [`Mapping::store`]).
//! Fault model: the process may die between any two stores. Stores are made in program order ([`Mapping::store`] is a
//! release store, compiler and processor keep earlier writes before it), and the page cache keeps them all.

use dspm_proto::{Error, PAGE_SIZE};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A file mapped shared and writable.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    _file: File,
}

// SAFETY: the memory is shared and stays mapped until drop; the module's invariant gives each byte one owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes. The file keeps its lock (flock) as long as the mapping lives.
    pub(crate) fn new(file: File, len: usize) -> Result<Mapping, Error> {
        // SAFETY: a fresh mapping chosen by the kernel aliases nothing of this process.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
        }
        .map_err(|e| Error::Unavailable(format!("cannot map the arena: {e}")))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| Error::Failed("arena mapped at zero".into()))?;
        Ok(Mapping { base, len, _file: file })
    }

    #[inline]
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len && len <= self.len - at, "arena access out of bounds");
        // SAFETY: at + len is inside the mapping.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// Copies bytes out.
    #[inline]
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) {
        let from = self.at(at, out.len());
        // SAFETY: in bounds; the owner of these bytes calls, so nobody writes them now.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes in.
    #[inline]
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.at(at, bytes.len());
        // SAFETY: in bounds; the owner of these bytes calls, so nobody else touches them now.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// The 8-byte word at an aligned place.
    #[inline]
    pub(crate) fn load(&self, at: usize) -> u64 {
        debug_assert_eq!(at % 8, 0);
        // SAFETY: in bounds and aligned (the mapping is page aligned).
        u64::from_le(unsafe { AtomicU64::from_ptr(self.at(at, 8).cast()) }.load(Ordering::Acquire))
    }

    /// Publishes an 8-byte word: everything written before is in the file before it.
    #[inline]
    pub(crate) fn store(&self, at: usize, v: u64) {
        debug_assert_eq!(at % 8, 0);
        // SAFETY: as in load.
        unsafe { AtomicU64::from_ptr(self.at(at, 8).cast()) }.store(v.to_le(), Ordering::Release);
    }

    /// Publishes a 4-byte word.
    #[inline]
    pub(crate) fn store32(&self, at: usize, v: u32) {
        debug_assert_eq!(at % 4, 0);
        // SAFETY: in bounds and aligned.
        unsafe { AtomicU32::from_ptr(self.at(at, 4).cast()) }.store(v.to_le(), Ordering::Release);
    }

    /// A frame's address; [`crate::frames`] turns it into references.
    #[inline]
    pub(crate) fn page_ptr(&self, at: usize) -> *mut [u8; PAGE_SIZE] {
        self.at(at, PAGE_SIZE).cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping longer than the arena, which owns it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
