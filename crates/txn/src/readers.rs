//! Read leases: clients that may begin to read at the primary's committed tail without asking.
//!
//! Invariant: while a read lease at LSN s lasts, nobody is shown or told anything above s. The primary withholds its
//! own acknowledgement of s + 1, the end of a settle that completes it, and its answers to readers and to outcome
//! questions, until the lease came back or lapsed. A writer needs the primary's acknowledgement, so that is enough.
//!
//! A lease is granted to a client that already knew the newest state when it asked, and when nothing was committed for a
//! moment: where others write between its reads, leases would cost every commit a call-back and save the reader nothing. It is called back by LSN: "below n"
//! also ends a lease whose grant is still on its way. It is not renewed; a reader asks again after L.

use crate::RESEND;
use crate::effect::Effect;
use crate::replica::{Records, Replica};
use dspm_proto::message::Recalled;
use dspm_proto::{ClientId, Instant, Lsn, Session};
use std::collections::BTreeMap;
use std::time::Duration;

/// A group in which nothing was committed for so long is worth a call-back at the next commit.
const QUIET: Duration = Duration::from_millis(5);

/// Clients with a read lease at most; who comes later asks each time.
const READERS_MAX: usize = 1024;

/// The read leases of one group, at its primary.
#[derive(Default)]
pub(crate) struct Readers(BTreeMap<ClientId, ReadLease>);

struct ReadLease {
    session: Session,
    at: Lsn,
    until: Instant,
    called: Option<Instant>,
}

impl Readers {
    /// The highest LSN that may be shown or acknowledged.
    fn limit(&self, now: Instant) -> Lsn {
        self.0.values().filter(|l| now < l.until).map(|l| l.at).min().unwrap_or(Lsn(u64::MAX))
    }

    /// When the first of the leases that hold `tail` back is to be looked at again.
    pub(crate) fn wake(&self, tail: Lsn) -> Option<Instant> {
        let behind = self.0.values().filter(|l| l.at < tail);
        behind.map(|l| l.called.map_or(l.until, |c| c.after(RESEND).min(l.until))).min()
    }
}

impl<R: Records> Replica<R> {
    /// True while a read lease below `lsn` lasts: nobody may learn of it.
    pub(crate) fn is_held_back(&self, lsn: Lsn, now: Instant) -> bool {
        self.readers.limit(now) < lsn
    }

    /// The highest LSN that read leases let be shown.
    pub(crate) fn read_limit(&self, now: Instant) -> Lsn {
        self.readers.limit(now)
    }

    /// A read lease for a client that knew the newest state; zero: none.
    pub(crate) fn grant_read(&mut self, session: Session, known: Lsn, now: Instant) -> Duration {
        let tail = self.records.tail().lsn;
        let newest = known == tail && self.records.committed() == tail && now.since(self.views.grown()) >= QUIET;
        let room = self.readers.0.len() < READERS_MAX || self.readers.0.contains_key(&session.client);
        if !newest || !room || !self.serves(now) || self.settle.is_some() {
            return Duration::ZERO;
        }
        let lease = self.lease(now);
        let until = now.after(lease);
        self.readers.0.insert(session.client, ReadLease { session, at: tail, until, called: None });
        crate::lease::promised(lease)
    }

    /// The writer's own process begins nothing under a read lease while its record is on its way.
    pub(crate) fn drop_reader(&mut self, client: ClientId) {
        self.readers.0.remove(&client);
    }

    /// Calls back what holds the tail back, and forgets what lapsed.
    pub(crate) fn recall_readers(&mut self, now: Instant) {
        let below = self.records.tail().lsn;
        self.readers.0.retain(|_, l| now < l.until);
        for lease in self.readers.0.values_mut().filter(|l| l.at < below) {
            if lease.called.is_none_or(|c| now.since(c) >= RESEND) {
                lease.called = Some(now);
                self.effects.push(Effect::Recall { session: lease.session, below });
            }
        }
    }

    /// A client begins nothing below that LSN any more.
    pub fn recalled(&mut self, m: &Recalled, now: Instant) {
        if self.readers.0.get(&m.session.client).is_some_and(|l| l.session == m.session && l.at < m.below) {
            self.readers.0.remove(&m.session.client);
            self.let_go(now);
        }
    }

    /// What waited for read leases goes on as far as it may.
    pub(crate) fn let_go(&mut self, now: Instant) {
        self.acknowledge(now);
        self.drive_settle(now);
        self.answer_views(now);
    }
}
