//! Ctrl-C and SIGTERM end a measurement between two of its steps, so that its dataset and its peers go too.

use dspm_proto::Error;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn ask(_signal: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Takes the signals over.
pub(crate) fn watch() {
    let handler = ask as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { libc::signal(signal, handler) };
    }
}

/// An error once a signal came.
///
/// # Errors
/// [`Error::Failed`].
pub(crate) fn check() -> Result<(), Error> {
    if ASKED.load(Ordering::Relaxed) { Err(Error::Failed("interrupted".into())) } else { Ok(()) }
}
