//! Snapshots at the primary, and how long old versions are kept.
//!
//! A snapshot shows only what all members hold: a tail that is not known to be committed is asked for at the others
//! first. An answer that was asked for before a snapshot was wanted says nothing about commits acknowledged in
//! between, so a snapshot waits for a round that began after it.

use crate::asof::{Keeps, Moment};
use crate::effect::{Caller, Effect, PeerMessage};
use crate::past::Past;
use crate::replica::{NodeNo, Records, Replica};
use crate::{RESEND, SESSION_MAX, SNAPSHOTS_MAX};
use dspm_proto::message::{Horizon, Probe, Probed, Snapshot};
use dspm_proto::{ClientId, Error, Instant, Lsn, RecordId, Refusal, Session};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Readers of one group at its primary.
pub(crate) struct Views {
    /// Nothing below is read any more.
    pub(crate) horizon: Lsn,
    told: Lsn,
    told_committed: Lsn,
    told_closed: bool,
    told_at: Instant,
    floors: HashMap<ClientId, (Lsn, Instant)>,
    /// What clients read of the past: below their floors.
    pub(crate) keeps: Keeps,
    pub(crate) past: Past,
    pub(crate) waiting: Vec<Reader>,
    probe: Option<Round>,
    rounds: u64,
    /// Since when the tail is not known to be committed.
    unconfirmed: Instant,
    /// Restarted, or primary since a moment ago: until then floors are unknown of sessions that live.
    pub(crate) floors_known: Option<Instant>,
}

/// Who asked for a state.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    pub(crate) caller: Caller,
    pub(crate) wants: Wants,
}

/// What state.
#[derive(Clone, Copy)]
pub(crate) enum Wants {
    /// The newest, knowing that much; and a read lease for that session besides.
    Newest { known: Lsn, lease: Option<Session> },
    /// An old one.
    Past(Moment),
}

struct Round {
    number: u64,
    upto: RecordId,
    tails: BTreeMap<NodeNo, RecordId>,
    readers: Vec<Reader>,
    sent: Instant,
}

impl Views {
    pub(crate) fn new(history: Duration, now: Instant) -> Views {
        Views {
            horizon: Lsn(0),
            told: Lsn(0),
            told_committed: Lsn(0),
            told_closed: false,
            told_at: now,
            floors: HashMap::new(),
            keeps: Keeps::default(),
            past: Past::new(history, now),
            waiting: Vec::new(),
            probe: None,
            rounds: 0,
            unconfirmed: now,
            floors_known: None,
        }
    }

    /// Another was primary before: what it kept for whom is not known until a lease after this one begins to serve.
    pub(crate) fn take_over(&mut self, history: Duration, now: Instant) {
        self.floors_known = Some(Instant(u64::MAX));
        self.past = Past::new(history, now);
    }

    /// The members are to hear again what they may give back: they may be others.
    pub(crate) fn retell(&mut self) {
        self.told_committed = Lsn(u64::MAX);
    }

    /// The generation is over: readers who are to be told.
    pub(crate) fn send_away(&mut self) -> Vec<Caller> {
        self.abandon_probe();
        std::mem::take(&mut self.waiting).into_iter().map(|r| r.caller).collect()
    }

    pub(crate) fn somebody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A client's own word on what it still reads. What is below the horizon cannot be kept any more (the floor was
    /// revoked, or its session had lapsed); what the client reads besides can.
    pub(crate) fn floor(&mut self, session: Session, floor: Lsn, now: Instant) {
        self.floors.insert(session.client, (floor.max(self.horizon), now));
    }

    pub(crate) fn floor_of(&self, client: ClientId) -> Lsn {
        self.floors.get(&client).map_or(Lsn(u64::MAX), |f| f.0)
    }

    /// A settle confirms more than a round does: the round's readers wait for it.
    pub(crate) fn abandon_probe(&mut self) {
        if let Some(round) = self.probe.take() {
            self.waiting.extend(round.readers);
        }
    }

    /// True when no more readers may wait for an answer.
    pub(crate) fn are_full(&self) -> bool {
        self.waiting.len() + self.probe.as_ref().map_or(0, |round| round.readers.len()) >= SNAPSHOTS_MAX
    }

    pub(crate) fn unconfirmed(&mut self, now: Instant) {
        self.unconfirmed = now;
    }

    /// When the last record came.
    pub(crate) fn grown(&self) -> Instant {
        self.unconfirmed
    }
}

impl<R: Records> Replica<R> {
    /// A client asks for the newest state.
    pub fn snapshot(&mut self, from: Caller, m: &Snapshot, now: Instant) {
        if !self.takes_reader(from, m.session) {
            return;
        }
        // Until it is answered the reader pins what is there now: the answer is not older. One that knows nothing yet
        // reads nothing older either.
        let first = m.known == Lsn(0) && !self.views.floors.contains_key(&m.session.client);
        let floor = if first { self.records.committed() } else { m.floor.min(self.records.committed()) };
        self.views.floor(m.session, floor, now);
        let lease = m.read_lease.then_some(m.session);
        self.views.waiting.push(Reader { caller: from, wants: Wants::Newest { known: m.known, lease } });
        self.answer_views(now);
    }

    /// Whether a reader may wait here; who may not is told why.
    pub(crate) fn takes_reader(&mut self, from: Caller, session: Session) -> bool {
        let effect = if !self.setup.is_primary() {
            Effect::Refuse { to: from, why: Refusal::NotMember }
        } else if !self.same_session(session) {
            Effect::Refuse { to: from, why: Refusal::SessionOver }
        } else if self.views.are_full() {
            let text = format!("{SNAPSHOTS_MAX} transactions wait to begin on this dataset already");
            Effect::Fail { to: from, error: Error::Unavailable(text) } // and asks again
        } else {
            return true;
        };
        self.effects.push(effect);
        false
    }

    /// Answers readers if the tail is committed, else asks the other members.
    pub(crate) fn answer_views(&mut self, now: Instant) {
        if self.views.waiting.is_empty() || !self.may_serve(now) {
            return;
        }
        if !self.serving {
            return self.start_settle(now);
        }
        self.answer_past(now);
        let tail = self.records.tail();
        if self.records.committed() == self.newest() {
            // Also while a settle waits for a member, or for who decides: nothing is acknowledged that is not here.
            let Some(shown) = self.identity(self.records.committed()) else { return };
            let readers = std::mem::take(&mut self.views.waiting);
            return self.show(readers, shown, now);
        }
        if self.settle.is_some() {
            return;
        }
        if self.views.probe.is_none() && !self.views.waiting.is_empty() {
            self.views.rounds += 1;
            let readers = std::mem::take(&mut self.views.waiting);
            let number = self.views.rounds;
            self.views.probe = Some(Round { number, upto: tail, tails: BTreeMap::new(), readers, sent: now });
            self.send_probe(now);
        }
    }

    fn send_probe(&mut self, now: Instant) {
        let token = self.records.fence().token;
        let Some(round) = self.views.probe.as_mut() else { return };
        round.sent = now;
        for m in self.setup.others().filter(|m| !round.tails.contains_key(&m.node)) {
            let probe = Probe { token, round: round.number };
            self.effects.push(Effect::Send { to: m.node, message: PeerMessage::Probe(probe) });
        }
    }

    pub(crate) fn on_probe(&mut self, from: NodeNo, m: Probe) {
        if from == self.setup.primary && m.token == self.records.fence().token && !self.unsettled {
            let mut tail = self.records.tail();
            if self.setup.disk && self.records.flushed() < tail.lsn {
                let durable = self.records.flushed();
                let Some(id) = self.identity(durable) else { return };
                tail = id;
            }
            let probed = Probed { token: m.token, round: m.round, tail };
            self.effects.push(Effect::Send { to: from, message: PeerMessage::Probed(probed) });
        }
    }

    pub(crate) fn on_probed(&mut self, from: NodeNo, m: Probed, now: Instant) {
        let Some(round) = self.views.probe.as_mut() else { return };
        if m.round != round.number || m.token != self.records.fence().token {
            return;
        }
        round.tails.insert(from, m.tail);
        if self.setup.others().any(|o| !round.tails.contains_key(&o.node)) {
            return;
        }
        let held = round.tails.values().map(|t| t.lsn).min().unwrap_or(round.upto.lsn).min(round.upto.lsn);
        let held = if self.setup.disk { held.min(self.records.flushed()) } else { held };
        let readers = std::mem::take(&mut round.readers);
        self.views.probe = None;
        let held = held.min(self.read_limit(now));
        self.confirm(held);
        match self.identity(self.records.committed()) {
            Some(id) if self.serves(now) => self.show(readers, id, now),
            _ => self.views.waiting.extend(readers),
        }
        self.answer_views(now);
    }

    fn show(&mut self, readers: Vec<Reader>, tail: RecordId, now: Instant) {
        for Reader { caller: to, wants } in readers {
            match wants {
                Wants::Newest { known, lease } => {
                    let lease = lease.map_or(Duration::ZERO, |session| self.grant_read(session, known, now));
                    self.effects.push(Effect::Snapshot { to, known, tail, lease });
                }
                Wants::Past(moment) => self.show_past(to, moment, tail.lsn, now),
            }
        }
    }

    /// Versions below every floor may go. Nothing at or above the last committed state ever does.
    pub(crate) fn raise_horizon(&mut self) {
        if !self.setup.is_primary() || self.views.floors_known.is_some() {
            return;
        }
        loop {
            let lowest = self.views.floors.iter().map(|(client, f)| (f.0, *client)).min();
            let kept = self.views.keeps.lowest();
            let floor = lowest.iter().chain(&kept).map(|l| l.0).min().unwrap_or(Lsn(u64::MAX));
            let past = self.views.past.limit();
            let horizon = floor.min(past).min(self.records.committed());
            if horizon > self.views.horizon {
                self.views.horizon = horizon;
                self.records.set_horizon(horizon);
            }
            // A stuck reader does not stop writers: it will be told that its versions are no longer kept.
            if floor.min(past) >= self.records.committed() || !self.records.is_pinned_too_much() {
                return;
            }
            match (lowest.filter(|l| l.0 <= past), kept.filter(|l| l.0 <= past)) {
                (_, Some((at, client))) if at == floor => self.views.keeps.revoke(client),
                (Some((_, client)), _) => drop(self.views.floors.remove(&client)),
                _ if !self.views.past.shorten(self.records.committed()) => return,
                _ => {}
            }
        }
    }

    pub(crate) fn on_horizon(&mut self, from: NodeNo, m: Horizon) {
        if from != self.setup.primary {
            return;
        }
        if self.records.id_at(m.committed.lsn) == Some(m.committed) {
            self.confirm(m.committed.lsn);
            if m.closed {
                self.records.close(m.committed.lsn);
            }
        }
        let horizon = m.horizon.min(self.records.committed());
        if horizon > self.views.horizon {
            self.views.horizon = horizon;
            self.records.set_horizon(horizon);
        }
    }

    pub(crate) fn tick_views(&mut self, now: Instant) {
        if !self.setup.is_primary() {
            return;
        }
        if self.views.probe.as_ref().is_some_and(|r| now.since(r.sent) >= RESEND) {
            self.send_probe(now);
        }
        if self.views.floors_known == Some(Instant(u64::MAX)) && self.serves(now) {
            self.views.floors_known = Some(now.after(self.setup.lease));
        }
        self.views.floors_known = self.views.floors_known.filter(|at| now < *at);
        self.views.floors.retain(|_, f| now.since(f.1) < SESSION_MAX);
        self.views.keeps.tick(now);
        self.views.past.mark(self.records.committed(), now);
        self.raise_horizon();
        self.tell_horizon(now);
        let open = self.serving && self.setup.active && self.settle.is_none();
        let open = open && self.records.committed() < self.records.tail().lsn;
        if open && now.since(self.views.unconfirmed) >= self.setup.lease && !self.leases.live(now) {
            self.start_settle(now);
        }
        self.answer_views(now);
    }

    fn tell_horizon(&mut self, now: Instant) {
        let due = now.since(self.views.told_at) >= self.setup.lease / 3;
        if !due || !self.untold() {
            return;
        }
        let Some(committed) = self.identity(self.records.committed()) else { return };
        let horizon = self.told_horizon();
        let closed = self.is_closed();
        (self.views.told, self.views.told_committed, self.views.told_at) = (horizon, committed.lsn, now);
        self.views.told_closed = closed;
        for m in self.setup.others() {
            let message = PeerMessage::Horizon(Horizon { horizon, committed, closed });
            self.effects.push(Effect::Send { to: m.node, message });
        }
    }

    /// What the others may give back. A primary since a moment ago may have given up, when it was one before, what the one in
    /// between still kept for a reader.
    fn told_horizon(&self) -> Lsn {
        if self.views.floors_known.is_some() { Lsn(0) } else { self.views.horizon }
    }

    /// The others do not know yet what they may give back: neither old versions nor what is not known to be committed.
    fn untold(&self) -> bool {
        let committed = self.views.told_committed != self.records.committed();
        committed || self.views.told != self.told_horizon() || (self.is_closed() && !self.views.told_closed)
    }

    pub(crate) fn wake_views(&self, now: Instant) -> Option<Instant> {
        if !self.setup.is_primary() {
            return None;
        }
        let v = &self.views;
        let mut times = vec![];
        times.extend(v.probe.as_ref().map(|r| r.sent.after(RESEND)));
        if self.untold() || !v.floors.is_empty() || !v.keeps.is_empty() {
            times.push(v.told_at.after(self.setup.lease / 3).max(now.after(self.setup.lease / 6)));
        }
        if self.serving && self.setup.active && self.records.committed() < self.records.tail().lsn {
            times.push(v.unconfirmed.after(self.setup.lease).max(now.after(self.setup.lease / 6)));
        }
        times.extend(v.past.wake(self.records.committed()));
        if now < self.quarantine && !v.waiting.is_empty() {
            times.push(self.quarantine);
        }
        times.extend(v.floors_known.filter(|at| at.0 < u64::MAX));
        times.into_iter().min()
    }
}
