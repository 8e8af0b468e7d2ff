//! Forks: a child has its parent's memory, and nothing of its parent's work.
//!
//! Invariant: [`generation`] differs between a process and its forked children, without a system call to find out. A
//! handle remembers the generation that it was opened in; in another one it does nothing. The child's own table of
//! journals and stages starts empty, so that no lock that some thread of the parent held at the fork is ever waited for.
#![allow(unsafe_code)]

use crate::process::Process;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(1);
static CURRENT: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());
static WATCH: Once = Once::new();

/// Counts the forks between the process that loaded us and this one.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Runs in the child before fork returns there: only async-signal-safe things, which atomics are.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    CURRENT.store(std::ptr::null_mut(), Ordering::Release);
}

/// Begins to notice forks.
pub fn watch() {
    WATCH.call_once(|| {
        // SAFETY: in_child is a plain function of this library, which stays loaded (OK_LOAD_PERMANENTLY).
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(failed, 0, "pthread_atfork: no memory");
    });
}

/// What all handles of this process share.
pub fn process() -> &'static Process {
    let current = CURRENT.load(Ordering::Acquire);
    if !current.is_null() {
        // SAFETY: only pointers of leaked boxes are stored.
        return unsafe { &*current };
    }
    let fresh = Box::into_raw(Box::default());
    match CURRENT.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: a leaked box.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` was never shared; `other` is a leaked box.
            unsafe {
                drop(Box::from_raw(fresh));
                &*other
            }
        }
    }
}
