//! What the handles of one process share: journals, stages, holds, and what was reported last.

use crate::attach::Stages;
use crate::holds::Holds;
use crate::journals::Journals;
use crate::report::Reporter;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One process's shared state; get it from [`crate::fork::process`].
#[derive(Default)]
pub struct Process {
    pub journals: Journals,
    pub stages: Stages,
    pub holds: Holds,
    pub reporter: Reporter,
}

/// Locks, whatever happened to another thread that held it: every critical section here leaves whole state.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
