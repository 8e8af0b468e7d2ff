//! Changes of the configuration at one member of one group: adopt a generation, go on in it, serve when it is active.
//!
//! Invariants kept here: a higher generation is in the fence, durably, before anything else follows from it, and from
//! then on nothing of a lower one counts; leases that this member gave as a primary go on counting until they lapse; the
//! settled tail of a generation is called committed when that generation is active and not before, for until then the
//! next one may go on from members that lack it; a joining member keeps of its own tail what it knows to be committed.
//!
//! Fault model: configurations come late, again and out of order; the member may learn of one only when it restarts.

use crate::RESEND;
use crate::effect::Effect;
use crate::grants::Term;
use crate::replica::{Fence, NodeNo, Records, Replica};
use dspm_proto::{Generation, GroupId, Instant, Refusal, StoreId, Token};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// A member of a replica set and what it must remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which node.
    pub node: NodeNo,
    /// Its store id when it became a member.
    pub store: StoreId,
}

/// The configuration that a replica works in.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whose replica it is.
    pub group: GroupId,
    /// Of the replica set.
    pub generation: Generation,
    /// Who serves.
    pub primary: NodeNo,
    /// Who holds every commit, the primary included.
    pub members: Vec<Member>,
    /// Who holds every commit too and does not count yet: it is not read from, and its tail is no source.
    pub joining: Vec<Member>,
    /// False: the primary settles every group first; nothing is served.
    pub active: bool,
    /// With fewer members no write is let in, and none is told to be committed.
    pub min_copies: usize,
    /// When the primary may serve; of this generation.
    pub term: Arc<Term>,
    /// The replica's own node.
    pub me: Member,
    /// Raised at each start of this node.
    pub boot: u32,
    /// When it started.
    pub started: Instant,
    /// Lease length L.
    pub lease: Duration,
    /// How long replaced versions are kept.
    pub history: Duration,
    /// True: a record counts as held only when it is in the synced log.
    pub disk: bool,
    /// Its dataset is about to be removed: no writer is let in.
    pub removing: bool,
}

impl Setup {
    /// The other members and joining ones.
    pub fn others(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().chain(&self.joining).copied().filter(|m| m.node != self.me.node)
    }

    /// True for a member or joining one.
    pub(crate) fn includes(&self, node: NodeNo) -> bool {
        self.members.iter().chain(&self.joining).any(|m| m.node == node)
    }

    /// True at the primary. A node that lost what made it one is named by its old store, and is none.
    pub fn is_primary(&self) -> bool {
        self.primary == self.me.node && self.members.contains(&self.me)
    }

    /// True where this node holds every commit and does not count.
    pub(crate) fn joins(&self) -> bool {
        self.joining.contains(&self.me) && !self.members.contains(&self.me)
    }

    /// True while a node holds every commit and does not count.
    pub(crate) fn is_joining(&self, node: NodeNo) -> bool {
        !self.members.iter().any(|m| m.node == node) && self.joining.iter().any(|m| m.node == node)
    }

    fn same_others(&self, old: &Setup) -> bool {
        self.others().count() == old.others().count() && self.others().all(|m| old.others().any(|o| o == m))
    }
}

impl<R: Records> Replica<R> {
    /// The configuration changed. An older generation is ignored; in the same one members may have come back with other
    /// store ids, with all that was acknowledged: settle with them; joining ones may have become members, and the
    /// configuration active. A higher one is adopted.
    pub fn configure(&mut self, setup: Setup, now: Instant) {
        match setup.generation.cmp(&self.setup.generation) {
            Ordering::Less => {}
            Ordering::Equal => self.refresh(setup, now),
            Ordering::Greater => self.adopt(setup, now),
        }
    }

    fn refresh(&mut self, mut setup: Setup, now: Instant) {
        setup.active |= self.setup.active; // a word from before
        let same = setup.same_others(&self.setup);
        let promoted = setup.members.len() != self.setup.members.len();
        let activated = setup.active && !self.setup.active;
        self.setup = setup;
        if !same || (promoted && self.settle.is_some()) {
            // What was heard so far came from stores that are gone; or a tail was no source that is one now.
            self.settle = None;
            self.start_settle(now);
        }
        if activated && self.is_settled() && self.serving {
            self.confirm_settled(now);
        }
        self.tick(now); // it may be the copy that writers waited for
    }

    fn adopt(&mut self, setup: Setup, now: Instant) {
        let led = self.setup.is_primary();
        self.setup = setup;
        self.raise_generation();
        self.send_away();
        (self.settle, self.completing, self.serving, self.placed) = (None, None, false, false);
        self.vouched = false;
        (self.confirmed, self.decided) = (Token::default(), None);
        self.leases.revoke();
        self.views.retell();
        if self.setup.is_primary() && !led {
            self.views.take_over(self.setup.history, now);
        }
        self.tick(now);
    }

    /// The fence goes up to the generation, and a joining member back to what is a prefix of every later history. False: it
    /// is there already.
    pub(crate) fn raise_generation(&mut self) -> bool {
        let (generation, fence) = (self.setup.generation, self.records.fence());
        if generation <= fence.generation {
            return false;
        }
        self.records.set_fence(Fence { generation, token: Token { generation, boot: 0, n: 0 } });
        let committed = self.records.committed();
        if self.setup.joins() && self.records.tail().lsn > committed {
            // Where it cannot the primary finds that its tail is not in the history, and it starts over.
            self.records.cut(committed);
        }
        true
    }

    /// Whoever waits for something of the old generation comes again where the new one is served.
    fn send_away(&mut self) {
        let commits = std::mem::take(&mut self.withheld).into_iter().map(|w| w.0);
        let mut callers: Vec<_> = commits.collect();
        callers.extend(self.views.send_away());
        callers.extend(self.leases.send_away());
        self.effects.extend(callers.into_iter().map(|to| Effect::Refuse { to, why: Refusal::Fenced }));
    }

    /// The settled tail is committed: the generation is active, no other goes on without it. A prepared one is resolved now.
    pub(crate) fn confirm_settled(&mut self, now: Instant) {
        self.confirm(self.records.tail().lsn);
        self.confirmed = self.records.fence().token;
        self.views.retell(); // who caught up in the settle could not know what it was told before
        self.raise_horizon();
        self.answer_outcomes(now);
        self.answer_views(now);
        self.ask_decider(now);
        self.tell_participants(now);
        self.advance(now);
    }

    /// True at the primary of an active generation, settled in it, while everybody else obeys it.
    pub fn serves(&self, now: Instant) -> bool {
        self.serving && self.may_serve(now)
    }

    /// Everything that serving takes but a settle.
    pub(crate) fn may_serve(&self, now: Instant) -> bool {
        self.setup.is_primary() && self.setup.active && now >= self.quarantine && self.setup.term.serves(now)
    }

    /// True while what a client says of its floor counts. Grants of a generation that is not active are no promise: the
    /// next one may go on without those who gave them.
    pub fn hears(&self, now: Instant) -> bool {
        self.setup.is_primary() && self.setup.active && now < self.setup.term.until()
    }

    /// Enough copies are complete that writes go on.
    pub(crate) fn has_copies(&self) -> bool {
        self.setup.members.len() >= self.setup.min_copies
    }

    /// The longest lease that may be given now: none outlasts the grants.
    pub(crate) fn lease(&self, now: Instant) -> Duration {
        self.setup.lease.min(self.setup.term.until().since(now))
    }

    /// Settled in a generation that is not active yet: says so, now and then. By then whatever was served before is over,
    /// and every member has obeyed this primary at least once: whoever is primary next waits for that.
    pub(crate) fn tick_config(&mut self, now: Instant) {
        let done = self.setup.is_primary() && !self.setup.active && self.serving && self.is_settled();
        if done && self.setup.term.serves(now) && now.since(self.said_activated) >= RESEND {
            self.said_activated = now;
            self.effects.push(Effect::Activated);
        }
    }

    pub(crate) fn wake_config(&self, now: Instant) -> Option<Instant> {
        if !self.setup.is_primary() {
            return None;
        }
        let waits = (!self.setup.active && self.serving) || self.leases.somebody_waits() || self.views.somebody_waits();
        let due = match self.setup.term.serves(now) {
            true if !self.setup.active && self.serving => self.said_activated.after(RESEND),
            true => return None,
            false => self.setup.term.from().max(now.after(RESEND)), // grants come when they come
        };
        waits.then_some(due)
    }
}
