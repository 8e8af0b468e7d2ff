//! Transactions over several groups: a prepared record at a participant, a decision at the decider.
//!
//! Invariants kept here: a prepared record is never the newest committed one, so nobody is shown half a transaction; it is
//! resolved by the record behind it alone, and every settle appends that before it ends, as the decider says. The decider
//! says "committed" only of what is known to be, and "not" only where nothing under the writer's token can come any more.
//! It gives no token to another writer while a participant of the decision at its tail may still ask: so nobody asks about
//! a decision that is forgotten.
//!
//! A set becomes active with prepared tails in it: who decides may be a group of the same set, or one that waits in turn.
//!
//! Fault model: as of [`crate::Replica`]. Words are lost, repeated, late; the decider's set is away for any time: then the
//! participant shows what was before, and takes no writer.

use crate::RESEND;
use crate::effect::Effect;
use crate::replica::{Origin, Records, Replica};
use dspm_proto::message::{Decision, Inquiry, Resolved};
use dspm_proto::record::Record;
use dspm_proto::{GroupId, Instant, Link, Lsn, Part, RecordId, Refusal, Session, Token};

/// A decision at the tail, and who may still ask for it.
pub(crate) struct Decided {
    id: RecordId,
    open: Vec<Link>,
    sent: Option<Instant>,
    /// When they were told first.
    since: Option<Instant>,
}

impl<R: Records> Replica<R> {
    /// The newest record that can be shown once all members hold it.
    pub(crate) fn newest(&self) -> Lsn {
        self.committable(self.records.tail().lsn)
    }

    fn committable(&self, lsn: Lsn) -> Lsn {
        if self.records.part(lsn) == Part::Prepared { Lsn(lsn.0 - 1) } else { lsn }
    }

    /// All members hold what is up to here.
    pub(crate) fn confirm(&mut self, lsn: Lsn) {
        let lsn = self.committable(lsn);
        if lsn > self.records.committed() {
            self.records.set_committed(lsn);
        }
    }

    /// The prepared record at the tail.
    pub(crate) fn unresolved(&self) -> Option<RecordId> {
        Some(self.records.tail()).filter(|tail| self.records.part(tail.lsn) == Part::Prepared)
    }

    /// True when the record behind it took it back.
    pub(crate) fn is_aborted(&self, lsn: Lsn) -> bool {
        self.records.part(lsn.next()) == Part::Aborts
    }

    /// Behind a prepared record comes its resolution, and no resolution comes behind another one.
    pub(crate) fn may_follow(&self, record: &Record) -> bool {
        let resolves = record.is_empty() && matches!(record.part, Part::Alone | Part::Aborts);
        resolves == self.unresolved().is_some()
    }

    // --- the participant's side

    /// A settle has brought the prepared tail to all members: asks the decider.
    pub(crate) fn inquire(&mut self, now: Instant) {
        let Some(tail) = self.unresolved().filter(|_| self.may_serve(now)) else { return };
        if let Some(link) = self.records.links(tail.lsn).first() {
            self.effects.push(Effect::Inquire { link: *link, lsn: tail.lsn });
        }
    }

    /// The decider's primary says what became of a prepared record; or the runtime, where the decider is no more.
    pub fn decision(&mut self, m: &Decision, now: Instant) {
        if !self.may_serve(now) || self.confirmed.generation != self.setup.generation {
            return; // it is said again
        }
        let names = |l: &Link| (l.group, l.lsn, l.hash) == (m.decider, m.id.lsn, m.id.hash);
        let links = self.records.links(m.lsn);
        let unreadable = self.records.part(m.lsn) == Part::Prepared && links.is_empty();
        let prepared = links.iter().any(names) && self.records.part(m.lsn) == Part::Prepared;
        match self.unresolved() {
            _ if self.records.committed() >= m.lsn => self.say_resolved(m),
            Some(tail) if prepared && tail.lsn == m.lsn => {
                self.verdict = Some((tail, m.committed));
                self.start_settle(now);
                self.drive_settle(now);
            }
            // Its resolution is here, and nobody says that all hold it: who wrote it may keep its lease and be silent.
            _ if prepared && now.since(self.views.grown()) >= self.setup.lease => self.start_settle(now),
            _ if prepared => {}        // its resolution is on its way
            _ if unreadable => {}      // whom it names is not known while it is damaged
            _ => self.say_resolved(m), // it is gone: the set lost all its memories, which the registry says
        }
    }

    fn say_resolved(&mut self, m: &Decision) {
        if m.committed {
            let resolved = Resolved { participant: self.setup.group, id: m.id };
            self.effects.push(Effect::Resolved { to: m.decider, resolved });
        }
    }

    /// Appends the resolution of the tail under a settle's token, if it is known. None: not yet, or no room.
    pub(crate) fn append_resolution(&mut self, token: Token, now: Instant) -> Option<RecordId> {
        let tail = self.unresolved()?;
        let committed = self.verdict.filter(|v| v.0 == tail)?.1;
        let mut record = Record {
            group: self.setup.group,
            id: RecordId { generation: self.setup.generation, lsn: tail.lsn.next(), hash: 0 },
            token,
            session: Session::default(), // nobody's
            transaction: 0,
            predecessor: tail.hash,
            floor: Lsn(0),
            part: if committed { Part::Alone } else { Part::Aborts },
            datasets: Vec::new(),
            links: Vec::new(),
            pages: Vec::new(),
        };
        let meta = record.seal();
        match self.records.append(&record, R::without_pages(meta), Origin::Settle) {
            Ok(()) => {
                self.views.unconfirmed(now);
                self.recall_readers(now);
                Some(record.id)
            }
            Err(Refusal::Full) => None, // or the log does not have what is to be taken back yet
            Err(why) => {
                self.effects.push(Effect::Alarm(format!("the resolution {} was refused: {why}", record.id)));
                None
            }
        }
    }

    // --- the decider's side

    /// The primary of a participant asks whether a record of this group is committed. Where that is open a settle closes
    /// it, and it asks again.
    pub fn inquiry(&mut self, m: &Inquiry, now: Instant) {
        let link = m.link;
        let ours = link.group == self.setup.group && link.token.generation <= self.setup.generation;
        if !ours || !self.may_serve(now) {
            return;
        }
        let committed = if link.lsn <= self.records.committed() {
            // One that is forgotten is not the decision that is asked for: that one would be waited for.
            self.identity(link.lsn).is_some_and(|id| id.hash == link.hash)
        } else if self.confirmed > link.token || self.was_never_given(link.token) {
            false
        } else {
            return self.start_settle(now);
        };
        if committed && !self.has_copies() {
            return; // that would acknowledge it
        }
        let id = RecordId { generation: link.token.generation, lsn: link.lsn, hash: link.hash };
        let decision = Decision { decider: link.group, id, lsn: m.lsn, committed };
        self.effects.push(Effect::Decide { to: m.asker, decision });
    }

    /// A settle of this process's time came after it, and yet the token is above all that were raised: no writer has it,
    /// and settles would never pass it.
    fn was_never_given(&self, token: Token) -> bool {
        self.confirmed.generation == self.setup.generation && token > self.records.fence().token
    }

    /// A participant has resolved its record, or is no more: it will not ask about the decision.
    pub fn resolved(&mut self, m: &Resolved, now: Instant) {
        if !self.setup.is_primary() || m.id != self.records.tail() {
            return;
        }
        let Some(decided) = self.decided() else { return };
        decided.open.retain(|link| link.group != m.participant);
        if decided.open.is_empty() {
            let lsn = decided.id.lsn;
            self.records.close(lsn);
            self.advance(now);
        }
    }

    /// The decision at the tail.
    fn decided(&mut self) -> Option<&mut Decided> {
        let tail = self.records.tail();
        if self.records.part(tail.lsn) != Part::Decides {
            self.decided = None;
        } else if self.decided.as_ref().is_none_or(|d| d.id != tail) {
            // It names somebody: where nobody can be read it is damaged, and stays open.
            let open = Some(self.records.links(tail.lsn)).filter(|links| !links.is_empty());
            self.decided = open.map(|open| Decided { id: tail, open, sent: None, since: None });
        }
        self.decided.as_mut()
    }

    /// True while somebody may ask about the record, which is the tail.
    pub(crate) fn is_open(&self, id: RecordId) -> bool {
        let closed = self.decided.as_ref().is_some_and(|d| d.id == id && d.open.is_empty());
        id == self.records.tail() && self.records.part(id.lsn) == Part::Decides && !closed
    }

    /// True when the newest committed record is a decision that nobody will ask about.
    pub(crate) fn is_closed(&self) -> bool {
        let tail = self.records.tail();
        let decided = self.records.part(tail.lsn) == Part::Decides && self.records.committed() == tail.lsn;
        decided && !self.is_open(tail)
    }

    /// Its dataset is about to be removed. True when nobody will ask any more whether a record of this group was committed,
    /// and hear "yes": no decision comes behind the tail, and what the tail decided is resolved everywhere. So "no" is the
    /// answer for a group that was removed. A writer is fenced for it.
    pub fn is_quiet(&mut self, now: Instant) -> bool {
        if !self.setup.removing || !self.may_serve(now) {
            return false;
        }
        if self.settle.is_none() && !self.leases.token_unused {
            self.start_settle(now);
        }
        let settled = self.has_no_writer() && self.confirmed.generation == self.setup.generation;
        settled && !self.is_open(self.records.tail())
    }

    /// Where a joining member begins anew that is to have this tail: the record itself goes to it as such, for the others
    /// know by it that somebody is asked, or may ask.
    pub(crate) fn rebase_target(&self, tail: RecordId) -> Option<RecordId> {
        let prepared = self.records.part(tail.lsn) == Part::Prepared;
        if !prepared && !self.is_open(tail) {
            return Some(tail);
        }
        if self.records.keeps_from(tail.lsn) {
            return self.identity(Lsn(tail.lsn.0 - 1));
        }
        // A prepared one is damaged here; it is said again when it was repaired, or resolved. A decision that is not kept
        // with its pages may have been closed before this process started: a primary that serves finds out.
        Some(tail).filter(|_| !prepared && !self.serving)
    }

    /// Tells the participants of the decision at the tail, until each has resolved it. Its writer does the same, in one
    /// round trip: while it lives it has L for that.
    pub(crate) fn tell_participants(&mut self, now: Instant) {
        let Some(due) = self.wake_decided(now) else { return };
        let Some(decided) = self.decided().filter(|_| due <= now) else { return };
        decided.sent = Some(now);
        decided.since.get_or_insert(now);
        let (id, open) = (decided.id, decided.open.clone());
        for link in open {
            let decision = Decision { decider: self.setup.group, id, lsn: link.lsn, committed: true };
            self.effects.push(Effect::Decide { to: link.group, decision });
        }
    }

    /// Groups that did not answer for a lease, so that this one gives none: participants that did not resolve the decision at
    /// the tail, or who decides about it.
    pub(crate) fn awaited(&mut self, now: Instant) -> Vec<GroupId> {
        let tail = self.records.tail();
        let (since, links) = match self.inquires_since() {
            Some(since) => (Some(since), self.records.links(tail.lsn)),
            None if self.is_open(tail) => self.decided().map_or((None, Vec::new()), |d| (d.since, d.open.clone())),
            None => (None, Vec::new()),
        };
        let long = since.is_some_and(|since| now.since(since) >= self.setup.lease);
        links.into_iter().filter(|_| long).map(|link| link.group).collect()
    }

    /// When [`Replica::tell_participants`] is due.
    pub(crate) fn wake_decided(&self, now: Instant) -> Option<Instant> {
        let tail = self.records.tail();
        let committed = self.records.committed() >= tail.lsn && self.serves(now) && self.has_copies();
        if !committed || !self.is_open(tail) {
            return None;
        }
        let sent = self.decided.as_ref().filter(|d| d.id == tail).and_then(|d| d.sent);
        Some(match (sent, self.leases.holder()) {
            (Some(sent), _) => sent.after(RESEND),
            (None, Some(_)) => self.views.grown().after(self.setup.lease),
            (None, None) => now,
        })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
