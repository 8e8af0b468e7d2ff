//! Forks: a child has its parent's memory, and nothing of its parent's work.
//!
//! Invariant: [`generation`] differs between a process and its forked children, without a system call to find out. A
//! handle remembers the generation that it was opened in; in another one it does nothing. What a process shares lies in
//! a [`PerProcess`], which starts empty in a child, so that no lock that some thread of the parent held at the fork is
//! ever waited for.
#![allow(unsafe_code)]

use crate::process::Process;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(1);
static WATCH: Once = Once::new();
static PROCESS: PerProcess<Process> = PerProcess::new();

/// Counts the forks between the process that loaded us and this one.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Runs in the child before fork returns there: only async-signal-safe things, which atomics are.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Begins to notice forks. The library that this is part of stays loaded from then on.
pub fn watch() {
    WATCH.call_once(|| run_in_children(in_child));
}

/// Has every child run that before fork returns there. It may use nothing but what is async-signal-safe: threads that
/// held locks, the allocator's too, are not in the child.
pub fn run_in_children(run: extern "C" fn()) {
    // SAFETY: a plain function of this library, which stays loaded (OK_LOAD_PERMANENTLY, or linked).
    let failed = unsafe { libc::pthread_atfork(None, None, Some(run)) };
    assert_eq!(failed, 0, "pthread_atfork: no memory");
}

/// Writes to stderr past its lock, which some thread of the parent may have held at the fork. Nobody is told of a failure:
/// a program without stderr goes on.
pub fn print_error(text: &str) {
    // SAFETY: readable bytes of that length.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// What all handles of this process share.
pub fn process() -> &'static Process {
    PROCESS.get()
}

/// A value of this process: made when first asked for, and once more in a forked child, where the parent's is left alone.
#[derive(Debug)]
pub struct PerProcess<T> {
    current: AtomicPtr<Made<T>>,
}

#[derive(Debug)]
struct Made<T> {
    generation: u64,
    value: T,
}

impl<T: Default + Send + Sync> PerProcess<T> {
    /// Nothing yet.
    pub const fn new() -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// This process's value.
    pub fn get(&self) -> &T {
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: null, or a leaked box.
        match unsafe { current.as_ref() } {
            Some(made) if made.generation == generation() => &made.value,
            _ => self.make(current),
        }
    }

    #[cold]
    fn make(&self, before: *mut Made<T>) -> &T {
        watch();
        let fresh = Box::into_raw(Box::new(Made { generation: generation(), value: T::default() }));
        match self.current.compare_exchange(before, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: a leaked box, and so are all that are stored; a parent's is never freed, since what it holds
            // is in whatever state the parent's threads left it.
            Ok(_) => unsafe { &(*fresh).value },
            Err(other) => {
                // SAFETY: `fresh` was never shared; `other` is what another thread of this process made just now.
                unsafe {
                    drop(Box::from_raw(fresh));
                    &(*other).value
                }
            }
        }
    }
}

impl<T: Default + Send + Sync> Default for PerProcess<T> {
    fn default() -> Self {
        PerProcess::new()
    }
}
