//! What a process may use while it handles one event.

use crate::check::Checker;
use crate::mutant::Mutant;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::wire::Envelope;
use dspm_proto::Instant;

/// Lent to a process for one event.
pub struct Ctx<'a> {
    /// The process's own clock, read after the event came.
    pub now: Instant,
    /// Chance.
    pub rng: &'a mut Rng,
    /// The rule that is broken in this run.
    pub mutant: Option<Mutant>,
    /// Is told what callers see.
    pub check: &'a mut Checker,
    /// Messages to send.
    pub out: Vec<Envelope>,
    /// History.
    pub trace: &'a mut Trace,
    /// Last connection number that was given out.
    pub links: &'a mut u64,
    /// Last page value that was given out: none is used twice.
    pub values: &'a mut u64,
}

impl Ctx<'_> {
    /// True when this rule is broken.
    pub fn broken(&self, m: Mutant) -> bool {
        self.mutant == Some(m)
    }
}
