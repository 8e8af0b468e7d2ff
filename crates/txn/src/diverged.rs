//! Logs that went apart: what a complete member does whose last records are of an older generation than the settled
//! tail and not in its history.
//!
//! It happens only where a whole set lost its memories and goes on from its logs: one of them lacks what a later
//! generation wrote, or that records were taken back when it was changed. Everywhere else the tails of complete members
//! are prefixes of one history (docs/protocol.md, section 5), and none of this is reached.
//!
//! Invariants: a record goes only for one of a newer generation at its LSN or before it, on the word of the settle that
//! this member obeys; the store refuses to go back behind what it knows to be committed; the settle does not end before
//! this member has its tail.

use crate::effect::Effect;
use crate::replica::{Records, Replica};
use dspm_proto::record::Record;
use dspm_proto::{Lsn, RecordId};

impl<R: Records> Replica<R> {
    /// Goes back to before `target`, which is of a newer generation than the tail and so not behind it.
    pub(crate) fn give_way(&mut self, target: RecordId) {
        let tail = self.records.tail();
        if tail.generation < target.generation && tail.lsn >= target.lsn {
            self.step_back(target.lsn);
        }
    }

    /// A settle's record would be next, and does not follow the tail: its predecessor is another one.
    pub(crate) fn makes_way(&mut self, record: &Record) {
        let tail = self.records.tail();
        let other = record.id.lsn == tail.lsn.next() && record.predecessor != tail.hash;
        if other && record.id.generation > tail.generation {
            self.step_back(tail.lsn); // what comes before is asked for, until it meets what is here
        }
    }

    /// Drops the record at `lsn` and those above.
    fn step_back(&mut self, lsn: Lsn) {
        let to = Lsn(lsn.0.saturating_sub(1));
        if !self.records.cut(to) {
            let tail = self.records.tail();
            let text =
                format!("commit {tail} is not in the history that the set goes on with, and cannot be taken back");
            self.effects.push(Effect::Alarm(text));
        }
    }
}
