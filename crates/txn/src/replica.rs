//! One member of one group: what it holds, what it accepts, whom it obeys.
//!
//! Invariants kept here: publication is one critical section (generation, token, session, LSN and predecessor are
//! checked where the record is appended); within a generation nothing is discarded; a fence is durable before it is
//! answered; a member that restarted accepts and serves nothing before a settle completed it.
//!
//! Fault model: messages are lost, repeated, delayed and reordered, from old connections too; the member itself may
//! stop for any time and go on, or restart with its [`Records`] intact.

use crate::config::Setup;
use crate::effect::{Caller, Effect, PeerMessage};
use crate::lease::Leases;
use crate::readers::Readers;
use crate::settle::Settle;
use crate::twophase::Decided;
use crate::view::Views;
use dspm_proto::message::{Ack, Fetch};
use dspm_proto::record::Record;
use dspm_proto::{ClientId, Generation, GroupId, Instant, Link, Lsn, Part, RecordId, Refusal, Session, StoreId, Token};

/// The runtime's number of a node.
pub type NodeNo = u32;

/// The fence of a member: below it nothing counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    /// Highest generation obeyed.
    pub generation: Generation,
    /// Highest token obeyed.
    pub token: Token,
}

/// Who asks for a record to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its writer. It waits when room is short, and leaves the reserve alone.
    Commit,
    /// A settle: another member holds the record, so this one has to. It takes from the reserve.
    Settle,
}

/// A member's own records of one group, and what else outlives the process. Everything set is durable (as the arena
/// is) when the call returns.
pub trait Records {
    /// The page data that comes with a record.
    type Payload;
    /// The last record; all zero when there is none.
    fn tail(&self) -> RecordId;
    /// The record at an LSN, while its identity is remembered.
    fn id_at(&self, lsn: Lsn) -> Option<RecordId>;
    /// The newest record of a client, while it is remembered: there is no newer one of it, resolutions aside. One with that
    /// LSN and hash 0 says that its newest was taken back. Members that cut records off, or skip some, forget those whom
    /// that may concern.
    fn newest_of(&self, client: ClientId) -> Option<RecordId>;
    /// A record's part in a transaction over several groups; [`Part::Alone`] where it is not kept as a record. A prepared
    /// tail is, and so is a decision at the tail until it is closed, in memory and on disk.
    fn part(&self, lsn: Lsn) -> Part;
    /// The records of other groups that a record names; none where it is not kept as a record.
    fn links(&self, lsn: Lsn) -> Vec<Link>;
    /// Nobody will ask about the decision at the tail: it may be forgotten as any other record.
    fn close(&mut self, decision: Lsn);
    /// What comes with a record without pages: its metadata.
    fn without_pages(meta: Vec<u8>) -> Self::Payload;
    /// The fence.
    fn fence(&self) -> Fence;
    /// Raises the fence.
    fn set_fence(&mut self, fence: Fence);
    /// Up to where records are known to be committed.
    fn committed(&self) -> Lsn;
    /// Raises it.
    fn set_committed(&mut self, lsn: Lsn);
    /// Up to where records are in the synced log.
    fn flushed(&self) -> Lsn;
    /// Highest session number of a client.
    fn session(&self, client: ClientId) -> u64;
    /// Raises it.
    fn set_session(&mut self, session: Session);
    /// Publishes a record behind the tail. One that aborts takes the pages, zeros and sizes of the prepared one before it
    /// back: no snapshot sees them, present or past.
    ///
    /// # Errors
    /// The refusal to answer with (full, a delta's base is missing); nothing changed. One that aborts finds no room before
    /// the prepared one is in the synced log: from there it goes to where the log is replayed.
    fn append(&mut self, record: &Record, payload: Self::Payload, origin: Origin) -> Result<(), Refusal>;
    /// True when pages of before the tail are all here; false between [`Records::rebase`] and the end of the base's copy.
    fn is_whole(&self) -> bool;
    /// True when all records from `lsn` to the tail are kept with their pages.
    fn keeps_from(&self, lsn: Lsn) -> bool;
    /// Drops the records above `to`. False: that cannot be done any more (what was taken back does not come again), and
    /// nothing changed.
    fn cut(&mut self, to: Lsn) -> bool;
    /// Forgets all records and pages: `tail` is tail and committed, what it needs of before is still to come. Fence and
    /// sessions stay.
    fn rebase(&mut self, tail: RecordId);
    /// The oldest snapshot that can be read here.
    fn horizon(&self) -> Lsn;
    /// Versions that only snapshots below can see may go.
    fn set_horizon(&mut self, horizon: Lsn);
    /// True when readers pin more than one may: the lowest floor is revoked.
    fn is_pinned_too_much(&self) -> bool;
}

/// What a commit record is to a member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admitted {
    /// The record behind the tail.
    Next,
    /// A record that is here already.
    Held,
}

/// What `status` shows of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Holder of the write lease.
    pub writer: Option<Session>,
    /// Clients in the queue.
    pub waiting: usize,
    /// A settle is under way.
    pub settling: bool,
    /// Restarted and not settled yet.
    pub unsettled: bool,
    /// The tail is prepared, and this group decides about it: its answer is waited for.
    pub decider: Option<GroupId>,
}

/// The state machine.
pub struct Replica<R: Records> {
    /// What outlives the process.
    pub records: R,
    pub(crate) setup: Setup,
    /// The member restarted: no publication, no service before a settle.
    pub(crate) unsettled: bool,
    pub(crate) said_unsettled: Instant,
    /// The fence that it restarted with: what was sent under it may have been sent to the process before.
    pub(crate) born: Token,
    /// Settled in its generation: the tail was completed, or taken over.
    pub(crate) placed: bool,
    /// The settle whose tail this member has, or had: its words are carried out once.
    pub(crate) completed: Option<Token>,
    /// A joining member said that it is whole: in this generation it may be a member already.
    pub(crate) vouched: bool,
    pub(crate) said_activated: Instant,
    /// Primary: settled since its start, or since its generation began.
    pub(crate) serving: bool,
    /// Primary: leases and grants given before the restart may live until then.
    pub(crate) quarantine: Instant,
    pub(crate) settles: u32,
    pub(crate) settle: Option<Settle>,
    /// Primary: the token of the last settle whose tail was called committed in this generation. What a writer under a
    /// lower one sent is in the history up to that tail, or never will be.
    pub(crate) confirmed: Token,
    /// What became of a prepared record, finally.
    pub(crate) verdict: Option<(RecordId, bool)>,
    /// Primary: the decision at the tail.
    pub(crate) decided: Option<Decided>,
    pub(crate) leases: Leases,
    pub(crate) views: Views,
    /// Primary: who may begin to read without asking.
    pub(crate) readers: Readers,
    /// Writers that wait for the log's sync, or for read leases to end.
    pub(crate) withheld: Vec<(Caller, RecordId)>,
    /// The settle whose completion waits for the log's sync.
    pub(crate) completing: Option<(NodeNo, Token, RecordId)>,
    pub(crate) effects: Vec<Effect>,
}

impl<R: Records> Replica<R> {
    /// A replica over what its node remembers. It starts unsettled unless it remembers nothing.
    pub fn new(records: R, setup: Setup, now: Instant) -> Self {
        let fresh = records.tail().lsn == Lsn(0) && records.fence() == Fence::default();
        // Records are no proof that no lease was given: one whose commits were all in lost memories looks fresh.
        let quarantine = match (fresh, setup.boot) {
            (true, 0 | 1) => now,
            (true, _) => setup.started.after(setup.lease),
            (false, _) => now.after(setup.lease),
        };
        let mut views = Views::new(setup.history, now);
        if !fresh {
            views.floors_known = Some(quarantine);
        }
        let born = records.fence().token;
        let first = setup.generation <= Generation(1);
        let mut replica = Replica {
            records,
            unsettled: !fresh,
            said_unsettled: Instant(0),
            born,
            placed: false,
            completed: None,
            vouched: false,
            said_activated: Instant(0),
            serving: false,
            quarantine,
            settles: 0,
            settle: None,
            confirmed: Token::default(),
            verdict: None,
            decided: None,
            leases: Leases::default(),
            views,
            readers: Readers::default(),
            withheld: Vec::new(),
            completing: None,
            effects: Vec::new(),
            setup,
        };
        if !(fresh && first) && replica.raise_generation() {
            replica.views.take_over(replica.setup.history, now);
        }
        replica
    }

    /// The record at an LSN; LSN 0 is the empty group's.
    pub(crate) fn identity(&self, lsn: Lsn) -> Option<RecordId> {
        if lsn == Lsn(0) { Some(RecordId::default()) } else { self.records.id_at(lsn) }
    }

    /// What is to be done, in order; empties the list.
    pub fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// The configuration.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// True when this member holds all records and pages of the group, settled in its generation.
    pub fn is_whole(&self) -> bool {
        let current = self.records.fence().generation == self.setup.generation;
        current && (self.placed || self.serving) && !self.unsettled && self.records.is_whole()
    }

    /// A joining member that is whole is about to say so. From then on it forgets nothing in this generation: whoever hears
    /// of it makes it a member, and it learns of that later than a word that was sent before. False: it is not whole.
    pub fn vouch(&mut self) -> bool {
        self.vouched = self.is_whole();
        self.vouched
    }

    /// What `status` shows.
    pub fn situation(&self) -> Situation {
        Situation {
            writer: self.leases.holder(),
            waiting: self.leases.waiting(),
            settling: self.settle.is_some(),
            unsettled: self.unsettled,
            decider: self.asked_decider(),
        }
    }

    /// The check before bytes are taken in: refuses early what publication would refuse.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_addressee(&self, generation: Generation, store: StoreId) -> Result<(), Refusal> {
        if store != self.setup.me.store || generation != self.setup.generation {
            return Err(Refusal::Fenced);
        }
        Ok(())
    }

    /// A commit record with its page data, addressed to `store`.
    pub fn commit(&mut self, from: Caller, store: StoreId, record: &Record, payload: R::Payload, now: Instant) {
        let done = self.publish(store, record, payload, now);
        match done {
            Ok(()) => self.hold(from, record.id, now),
            Err(why) => self.effects.push(Effect::Refuse { to: from, why }),
        }
    }

    /// A commit record whose page data found no room. What it says of the record before it counts all the same, and may
    /// be what makes room; one that is here already needs none, and one that could not be published anyway is told so:
    /// "no room" means that the same record may be sent again.
    pub fn commit_without_room(&mut self, from: Caller, store: StoreId, record: &Record, now: Instant) {
        match self.admit(store, record, now) {
            Ok(Admitted::Held) => self.hold(from, record.id, now),
            Ok(Admitted::Next) => self.effects.push(Effect::Refuse { to: from, why: Refusal::Full }),
            Err(why) => self.effects.push(Effect::Refuse { to: from, why }),
        }
    }

    /// The record is here: its writer is told when it may know.
    fn hold(&mut self, writer: Caller, id: RecordId, now: Instant) {
        self.withheld.push((writer, id));
        self.acknowledge(now);
    }

    /// The one critical section: every check, then the append.
    fn publish(&mut self, store: StoreId, record: &Record, payload: R::Payload, now: Instant) -> Result<(), Refusal> {
        if self.admit(store, record, now)? == Admitted::Held {
            return Ok(());
        }
        self.records.append(record, payload, Origin::Commit)?;
        self.views.unconfirmed(now);
        self.drop_reader(record.session.client);
        self.recall_readers(now);
        Ok(())
    }

    /// Every check of a commit record. What is behind the tail then tells that the tail is committed.
    fn admit(&mut self, store: StoreId, record: &Record, now: Instant) -> Result<Admitted, Refusal> {
        self.check_addressee(record.id.generation, store)?;
        let fence = self.records.fence();
        if self.unsettled {
            return Err(Refusal::Unsettled);
        }
        if fence.generation != self.setup.generation || record.token != fence.token {
            return Err(Refusal::Fenced);
        }
        if record.session.number < self.records.session(record.session.client) {
            return Err(Refusal::SessionOver);
        }
        let tail = self.records.tail();
        if record.id.lsn <= tail.lsn {
            let same = self.records.id_at(record.id.lsn) == Some(record.id);
            return if same { Ok(Admitted::Held) } else { Err(Refusal::NotNext) };
        }
        if record.id.lsn != tail.lsn.next() || record.predecessor != tail.hash {
            return Err(Refusal::NotNext);
        }
        if !self.may_follow(record) {
            return Err(Refusal::NotNext);
        }
        self.records.set_session(record.session);
        // The one writer of this token sends n + 1 only when all members hold n.
        self.confirm(tail.lsn);
        self.views.floor(record.session, record.floor, now);
        self.raise_horizon();
        Ok(Admitted::Next)
    }

    /// Acknowledges what is durable as asked, and what no read lease holds back.
    pub(crate) fn acknowledge(&mut self, now: Instant) {
        let durable = if self.setup.disk { self.records.flushed() } else { Lsn(u64::MAX) };
        let upto = durable.min(self.read_limit(now));
        let (effects, horizon) = (&mut self.effects, self.views.horizon);
        self.withheld.retain(|(to, id)| {
            if id.lsn <= upto {
                effects.push(Effect::Ack { to: *to, ack: Ack { id: *id, horizon } });
            }
            id.lsn > upto
        });
    }

    /// The log is synced up to [`Records::flushed`].
    pub fn flushed(&mut self, now: Instant) {
        self.acknowledge(now);
        self.complete_when_durable();
        self.drive_settle(now);
    }

    /// The holder says what all members acknowledged.
    pub fn note(&mut self, token: Token, id: RecordId) {
        let known = token.generation == self.setup.generation && self.records.id_at(id.lsn) == Some(id);
        if known && id.lsn > self.records.committed() {
            self.confirm(id.lsn);
            self.raise_horizon();
        }
    }

    /// Remembers that a process began a new session; lower ones are dead from here on.
    pub fn hello(&mut self, session: Session) {
        if session.number > self.records.session(session.client) {
            self.records.set_session(session);
        }
    }

    /// A message from a member. `store` is the sender's own store id.
    pub fn peer(&mut self, from: NodeNo, store: StoreId, message: PeerMessage, now: Instant) {
        let known = self.setup.others().any(|m| m.node == from && m.store == store);
        if !known {
            return;
        }
        match message {
            PeerMessage::Fence(m) => self.on_fence(from, m),
            PeerMessage::Fenced(m) => self.on_fenced(from, m, now),
            PeerMessage::Complete(m) => self.on_complete(from, &m),
            PeerMessage::Completed(m) => self.on_completed(from, m, now),
            PeerMessage::Fetch(m) => self.on_fetch(from, m),
            PeerMessage::Probe(m) => self.on_probe(from, m),
            PeerMessage::Probed(m) => self.on_probed(from, m, now),
            PeerMessage::Horizon(m) => self.on_horizon(from, m),
            PeerMessage::Rebase(m) => self.on_rebase(from, &m),
            PeerMessage::Unsettled(_) => self.on_unsettled(now),
        }
    }

    /// A record sent again under a settle's token.
    pub fn replicate(&mut self, from: NodeNo, token: Token, record: &Record, payload: R::Payload, now: Instant) {
        let tail = self.records.tail();
        let next = record.id.lsn == tail.lsn.next() && record.predecessor == tail.hash;
        if !self.setup.includes(from) || token != self.records.fence().token {
            return;
        }
        if !next {
            return self.makes_way(record); // or it is old, or repeated: the settle asks again for what is still missing
        }
        match self.records.append(record, payload, Origin::Settle) {
            Ok(()) => {}
            Err(Refusal::Full) => return, // even the reserve is used up: the settle sends it again
            Err(why) => {
                let text = format!("record {} of a settle was refused: {why}", record.id);
                return self.effects.push(Effect::Alarm(text));
            }
        }
        self.views.unconfirmed(now);
        self.drive_settle(now);
    }

    fn on_fetch(&mut self, from: NodeNo, m: Fetch) {
        let last = m.to.min(self.records.tail().lsn);
        if m.token == self.records.fence().token && m.from <= last {
            self.effects.push(Effect::SendRecords { to: from, token: m.token, from: m.from, last });
        }
    }

    /// Time passes: resends, lapses, deadlines. Call it at [`Replica::wake`], at the latest.
    pub fn tick(&mut self, now: Instant) {
        self.recall_readers(now);
        self.acknowledge(now);
        self.drive_settle(now);
        self.tick_settle(now);
        self.tick_config(now);
        self.tick_views(now);
        self.tell_participants(now);
        if self.is_settled() {
            self.answer_outcomes(now);
        }
        self.advance(now);
    }

    /// When [`Replica::tick`] is due.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let readers = self.readers.wake(self.records.tail().lsn);
        let others = [self.wake_settle(now), self.leases.wake(now, self), self.wake_views(now), self.wake_config(now)];
        others.into_iter().flatten().chain(readers).chain(self.wake_decided(now)).min()
    }
}
