//! Joining members in a settle: like members, except that their tails are no source, and that one whose history is not
//! the primary's, or ends before what the primary keeps, starts over from the settled tail (a rebase).
//!
//! Invariants kept here: a member never forgets anything on a peer's word, only a joining one does; a rebase is carried
//! out once a token, and never on a word that the process before a restart may have been sent; where the tail of a
//! joining member equals the primary's record at that LSN, so does everything before it.
//!
//! Fault model: the joining member restarts at any moment, its base half there; words arrive twice and late.

use crate::effect::{Effect, PeerMessage};
use crate::replica::{NodeNo, Records, Replica};
use dspm_proto::message::{Complete, Completed, Fenced, Rebase};
use dspm_proto::{RecordId, Token};

impl<R: Records> Replica<R> {
    /// Whether a joining member has to start over, by what it said of itself.
    pub(crate) fn must_rebase(&self, held: &Fenced, target: RecordId) -> bool {
        if held.unsettled && !held.whole {
            return true; // the copy of its base ended with the process
        }
        if held.tail.lsn > target.lsn {
            return false; // it is asked to go back
        }
        let ours = self.identity(held.tail.lsn) == Some(held.tail);
        !ours || (held.tail.lsn < target.lsn && !self.records.keeps_from(held.tail.lsn.next()))
    }

    /// A joining member says that it cannot have the settled tail: it starts over. False: it is a member, which may not.
    pub(crate) fn rebase_instead(&mut self, member: NodeNo) -> bool {
        let joining = self.setup.is_joining(member);
        if let Some(settle) = self.settle.as_mut().filter(|_| joining) {
            settle.rebase.insert(member);
        }
        joining
    }

    // --- the joining member's side

    /// True when a settle's word counts here: it is of the current token, and not of before a restart.
    pub(crate) fn obeys(&self, from: NodeNo, token: Token) -> bool {
        let old = self.unsettled && token <= self.born;
        from == self.setup.primary && token == self.records.fence().token && !old
    }

    pub(crate) fn on_rebase(&mut self, from: NodeNo, m: &Rebase) {
        if !self.obeys(from, m.token) || !self.setup.joins() {
            return;
        }
        if self.completed != Some(m.token) {
            if self.vouched {
                return; // it is a member soon, and the settle begins again with it
            }
            self.records.rebase(m.tail);
            if self.records.is_whole() || self.records.tail() != m.tail {
                return; // there was no room for it: it is said again
            }
            self.completed = Some(m.token);
        }
        // What comes behind its new tail it is given; it is settled when it has the settle's.
        self.say_completed(from, m.token);
    }

    /// A joining member goes back to the settled tail, if that is in its history: nobody may have seen what is above.
    pub(crate) fn go_back(&mut self, m: &Complete) {
        if self.completed == Some(m.token) {
            return; // a repeat: more was committed since
        }
        if !self.setup.joins() {
            return self.give_way(m.tail);
        }
        if self.records.tail().lsn > m.tail.lsn && self.identity(m.tail.lsn) == Some(m.tail) {
            self.records.cut(m.tail.lsn); // where it cannot the answer says so
        }
    }

    /// Tells the primary how far this member is.
    pub(crate) fn say_completed(&mut self, to: NodeNo, token: Token) {
        let completed = Completed { token, tail: self.records.tail() };
        self.effects.push(Effect::Send { to, message: PeerMessage::Completed(completed) });
    }
}
