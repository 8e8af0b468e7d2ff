//! Ctrl-C and SIGTERM end a measurement between two of its steps, so that its dataset and its peers go too. The rounds that
//! were done by then are reported.

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

/// A signal came.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Does the rounds, and answers how many were done: fewer once a signal came, but one at least.
///
/// # Errors
/// The round's; [`Error::Failed`] when a signal came before the first was done.
pub(crate) fn rounds(count: usize, mut round: impl FnMut() -> Result<(), Error>) -> Result<usize, Error> {
    for done in 0..count {
        match check().and_then(|()| round()) {
            // Whatever failed then: the signal may have ended the floor's processes too.
            Err(_) if asked() && done > 0 => return Ok(done),
            Err(_) if asked() => return check().map(|()| 0),
            Err(e) => return Err(e),
            Ok(()) => {}
        }
    }
    Ok(count)
}

/// An error once a signal came.
///
/// # Errors
/// [`Error::Failed`].
pub(crate) fn check() -> Result<(), Error> {
    if asked() { Err(Error::Failed("interrupted; nothing was measured".into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the flag is the process's.
    #[test]
    fn what_was_done_before_a_signal_counts() {
        assert_eq!(rounds(3, || Ok(())), Ok(3));
        let failed = rounds(3, || Err(Error::Failed("by itself".into())));
        assert_eq!(failed, Err(Error::Failed("by itself".into())));
        let mut left = 2;
        let until_a_signal = || {
            if left == 0 {
                ask(libc::SIGINT);
                return Err(Error::Unavailable("a peer of the floor is gone".into()));
            }
            left -= 1;
            Ok(())
        };
        assert_eq!(rounds(5, until_a_signal), Ok(2));
        assert!(matches!(rounds(5, || Ok(())), Err(Error::Failed(why)) if why.contains("interrupted")));
    }
}
