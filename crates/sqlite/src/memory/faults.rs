//! Failures that a test asks for.

use dspm_proto::Error;
use std::collections::HashMap;

/// Which call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening by name.
    Open,
    /// `snapshot`.
    Snapshot,
    /// `read`.
    Read,
    /// `reserve`.
    Reserve,
    /// `commit`, before it took effect.
    Commit,
    /// `commit`, after it took effect.
    Committed,
    /// `confirm`.
    Confirm,
}

/// The failures that are to come.
#[derive(Default)]
pub struct Faults(HashMap<Call, Fault>);

struct Fault {
    /// `None` is a panic.
    error: Option<Error>,
    after: u64,
    times: u64,
}

impl Faults {
    /// After `after` good calls, the next `times` fail; without an error they panic.
    pub fn set(&mut self, call: Call, error: Option<Error>, after: u64, times: u64) {
        self.0.insert(call, Fault { error, after, times });
    }

    /// No more failures.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The failure of this call, if it is to fail.
    pub fn check(&mut self, call: Call) -> Result<(), Error> {
        let Some(fault) = self.0.get_mut(&call) else { return Ok(()) };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        fault.times -= 1;
        let error = fault.error.clone();
        if fault.times == 0 {
            self.0.remove(&call);
        }
        Err(error.expect("a panic that the test asked for"))
    }
}
