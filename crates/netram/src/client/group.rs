//! One group as a process sees it: the lease machine, the open snapshots, the members, and who waits for what.

use super::ask::PATIENCE;
use super::asof::Keeps;
use super::cache::OPEN;
use super::core::Client;
use super::line::Line;
use super::link::Link;
use super::pins::Pins;
use dspm_proto::control::{DatasetEntry, Located, SetEntry, SetState};
use dspm_proto::message::{self, Release, State as Changes};
use dspm_proto::{DatasetId, Error, Header, Kind, Lsn, PageNo, RecordId, StoreId, Token, limits};
use dspm_txn::dataset::Snapshot;
use dspm_txn::volume::ReadAhead;
use dspm_txn::{Holder, NodeNo, Recall};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How many pages that others changed are fetched together with the first of them that is read again.
const REFRESH_MOST: usize = 64;

/// A member as the client reaches it.
pub(crate) struct Peer {
    pub(crate) number: NodeNo,
    pub(crate) name: String,
    pub(crate) store: StoreId,
    /// False while it is joining: it acknowledges commits, and nothing is read from it.
    pub(crate) complete: bool,
    pub(crate) link: Arc<Link>,
}

/// Where the group is, as far as this process knows.
pub(crate) struct Place {
    /// The epoch of the group's history whose stores these are.
    pub(crate) epoch: u64,
    pub(crate) set: SetEntry,
    /// Who has to hold a commit, the primary first.
    pub(crate) peers: Vec<Peer>,
}

impl Place {
    fn new(client: &Client, located: &Located) -> Result<Place, Error> {
        let mut peers = Vec::new();
        let (members, joining) = (&located.set.members, &located.set.joining);
        for (i, m) in members.iter().chain(joining).enumerate() {
            let node = located.nodes.iter().find(|n| n.name == m.node);
            let node = node.ok_or_else(|| Error::Protocol(format!("no address of member {}", m.node)))?;
            let (link, complete) = (client.link(&node.address), i < members.len());
            peers.push(Peer { number: i as NodeNo, name: m.node.clone(), store: m.store, complete, link });
        }
        peers.sort_by_key(|p| p.name != located.set.primary);
        if !peers.first().is_some_and(|p| p.complete && p.name == located.set.primary) {
            return Err(Error::Protocol("a replica set whose primary is no member".into()));
        }
        Ok(Place { epoch: 0, set: located.set.clone(), peers })
    }

    pub(crate) fn primary(&self) -> &Peer {
        &self.peers[0]
    }

    /// True when the set serves with all its copies.
    pub(crate) fn is_whole(&self, entry: &DatasetEntry) -> bool {
        let whole = self.set.joining.is_empty() && self.complete().count() >= entry.copies as usize;
        whole && self.set.state == SetState::Active
    }

    /// Who has to hold a commit.
    pub(crate) fn members(&self) -> Vec<NodeNo> {
        self.peers.iter().map(|p| p.number).collect()
    }

    /// Members that hold everything.
    pub(crate) fn complete(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|p| p.complete)
    }

    /// True when the other one says nothing newer.
    fn is_at_least(&self, set: &SetEntry) -> bool {
        set.generation < self.set.generation || *set == self.set
    }
}

/// One group.
pub(crate) struct GroupClient {
    pub(crate) client: Arc<Client>,
    pub(crate) entry: DatasetEntry,
    place: RwLock<Arc<Place>>,
    pub(crate) lease: Duration,
    state: Mutex<State>,
    /// Changes under the state's lock only, with the place. A reader of the cache looks at it afterwards: pages of a
    /// new epoch are put there only when it has begun.
    epoch: AtomicU64,
    changed: Condvar,
    /// Threads in [`GroupClient::wait`]; a notification is a system call even when there are none.
    waiting: AtomicU64,
    /// Of the dataset that the group was created with.
    pub(crate) ahead: ReadAhead,
}

/// What is behind the lock.
pub(crate) struct State {
    pub(crate) holder: Holder,
    pub(crate) pins: Pins,
    /// What this process reads of the past.
    pub(crate) keeps: Keeps,
    /// Threads that want to write.
    pub(crate) line: Line,
    /// Pages that were cached and that others changed: who misses one will miss the others.
    pub(crate) ended: VecDeque<(DatasetId, PageNo)>,
    /// Sizes at the newest state known.
    pub(crate) sizes: HashMap<DatasetId, u64>,
    /// The last commit known to have changed a dataset, and the last that may have changed any.
    pub(crate) touched: HashMap<DatasetId, Lsn>,
    pub(crate) touched_any: Lsn,
    /// A thread asks the primary for the lease.
    pub(crate) asking: bool,
    /// A thread, or the background thread, asks for the outcome of the record in doubt.
    pub(crate) resolving: bool,
    /// Commits of this session.
    pub(crate) transactions: u64,
    /// The last record that the members were told to be committed.
    pub(crate) noted: RecordId,
    /// Members that acknowledged the last commit.
    pub(crate) copies_now: u32,
    /// Handles of the group that are open in this process.
    pub(crate) handles: u32,
    /// The floor that the primary was told last.
    pub(crate) told: Lsn,
    /// When a lingering lease is looked at again.
    pub(crate) linger: Option<dspm_proto::Instant>,
}

impl State {
    /// A commit changed it.
    pub(crate) fn touch(&mut self, dataset: DatasetId, lsn: Lsn) {
        let last = self.touched.entry(dataset).or_default();
        *last = lsn.max(*last);
    }

    /// Until when its pages are as the snapshot sees them. Open only where what came behind the snapshot would be known: the
    /// snapshot of a commit whose outcome was asked for may be ahead of what is known.
    pub(crate) fn unchanged_until(&self, dataset: DatasetId, snapshot: Lsn) -> Lsn {
        let last = self.touched.get(&dataset).map_or(self.touched_any, |l| self.touched_any.max(*l));
        if last <= snapshot && snapshot <= self.holder.tail().lsn { OPEN } else { snapshot.next() }
    }
}

impl GroupClient {
    /// A group over the nodes of its set.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the answer names a member without an address, or a lease that no cluster has.
    pub(crate) fn new(client: &Arc<Client>, located: Located) -> Result<GroupClient, Error> {
        if located.lease_ms > limits::LEASE_MS_MAX {
            return Err(Error::Protocol(format!("a lease of {} ms", located.lease_ms)));
        }
        let place = Place::new(client, &located)?;
        let copies_now = place.complete().count() as u32;
        Ok(GroupClient {
            client: client.clone(),
            lease: Duration::from_millis(located.lease_ms),
            entry: located.entry,
            place: RwLock::new(Arc::new(place)),
            state: Mutex::new(State {
                holder: Holder::new(),
                pins: Pins::default(),
                keeps: Keeps::default(),
                line: Line::new(),
                ended: VecDeque::new(),
                sizes: HashMap::new(),
                touched: HashMap::new(),
                touched_any: Lsn(0),
                asking: false,
                resolving: false,
                transactions: 0,
                noted: RecordId::default(),
                copies_now,
                handles: 0,
                told: Lsn(0),
                linger: None,
            }),
            epoch: AtomicU64::new(0),
            changed: Condvar::new(),
            waiting: AtomicU64::new(0),
            ahead: ReadAhead::default(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changed, or the deadline.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>, deadline: Instant) -> MutexGuard<'a, State> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        state
    }

    pub(crate) fn notify(&self) {
        // Who waits counted itself under the lock that guards what it waits for, so the change made under that lock
        // before this call either was seen by it, or comes after its count.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_all();
        }
    }

    /// Where the group is.
    pub(crate) fn place(&self) -> Arc<Place> {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A member said that it is not, or no longer, what we took it for, or says nothing: asks the nodes, once, where the
    /// group is now.
    pub(crate) fn relocate(&self, deadline: Instant) -> Result<(), Error> {
        let located = self.locate_again(deadline)?;
        let mut place = Place::new(&self.client, &located)?;
        let mut state = self.lock(); // threads that find out at the same time see one change
        let before = self.place();
        if before.is_at_least(&place.set) {
            return Ok(());
        }
        if place.set.history != before.set.history {
            self.restart(&mut state);
        }
        if place.set.generation > before.set.generation {
            state.holder.give_up(); // nobody takes its token any more
            state.told = Lsn(0); // nor knows what is still read here
        }
        place.epoch = self.epoch();
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(place);
        Ok(())
    }

    /// The set went on from an older state, in which what this process was told may be missing.
    fn restart(&self, state: &mut State) {
        self.epoch.fetch_add(1, Ordering::Release); // before the cache takes anything of the new one
        state.holder.restart();
        let sized = state.sizes.drain().map(|s| s.0);
        let cached: HashSet<DatasetId> = sized.chain(state.touched.drain().map(|t| t.0)).collect();
        cached.into_iter().for_each(|dataset| self.client.cache.forget(dataset));
        state.touched_any = Lsn(0);
    }

    /// The present epoch of the group's history. It stays while the caller holds the state's lock.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What is of an epoch that is over must not meet what is of this one.
    ///
    /// # Errors
    /// [`Error::TooOld`].
    pub(crate) fn check_epoch(&self, snapshot: &Snapshot) -> Result<(), Error> {
        if snapshot.epoch == self.epoch() {
            return Ok(());
        }
        let (what, again) = match snapshot.past {
            true => ("this state of the past was asked for", "ask for it again"),
            false => ("the transaction began", "begin again"),
        };
        Err(Error::TooOld(format!(
            "{what} before all copies of dataset {} lost their memory; the newest commits of then may be missing now: \
             {again}",
            self.entry.name
        )))
    }

    fn locate_again(&self, deadline: Instant) -> Result<Located, Error> {
        let known = self.place().set.generation;
        let locate = |name: &str| self.client.locate_newer(name, known, deadline, self.lease);
        match locate(&self.entry.name) {
            Ok(located) if located.entry.group == self.entry.group => return Ok(located),
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        let datasets = self.client.list_until(deadline, self.lease * PATIENCE)?;
        let renamed = datasets.into_iter().find(|d| d.group == self.entry.group);
        let renamed = renamed.ok_or_else(|| Error::NotFound(format!("dataset {} was removed", self.entry.name)))?;
        locate(&renamed.name)
    }

    /// The header of a message about this group to one of its members.
    pub(crate) fn header(&self, kind: Kind, place: &Place, peer: &Peer) -> Header {
        let mut h = Header::new(kind);
        h.group = self.entry.group;
        h.generation = place.set.generation;
        h.store = peer.store;
        h
    }

    /// Takes in what changed up to a newer state: versions that ended, sizes.
    pub(crate) fn learn(&self, state: &mut State, changes: &Changes) {
        let known = state.holder.tail().lsn;
        let cache = &self.client.cache;
        if !changes.whole {
            let datasets: Vec<DatasetId> = state.sizes.keys().copied().collect();
            let from = known.next(); // up to here every open version is right, whatever the asker knew
            datasets.into_iter().for_each(|d| cache.supersede_from(d, PageNo(0), from, known));
            state.touched_any = state.touched_any.max(changes.tail.lsn);
        }
        for c in changes.changed.iter().chain(&changes.truncated) {
            state.touch(c.dataset, c.lsn);
        }
        for c in &changes.changed {
            if cache.supersede(c.dataset, c.page, c.lsn, known) {
                state.ended.push_back((c.dataset, c.page));
            }
        }
        let surplus = state.ended.len().saturating_sub(REFRESH_MOST);
        state.ended.drain(..surplus);
        changes.truncated.iter().for_each(|c| cache.supersede_from(c.dataset, c.page, c.lsn, known));
        if changes.tail.lsn >= known {
            state.sizes = changes.sizes.iter().map(|s| (s.dataset, s.size)).collect();
        }
    }

    /// Nothing below is read by this process any more.
    pub(crate) fn floor(&self, state: &State) -> Lsn {
        // Never more than what is known: a word that arrives late must be true of every later snapshot too.
        let known = state.holder.floor();
        state.pins.lowest(self.epoch()).map_or(known, |p| p.min(known))
    }

    /// Does what the lease machine decided about a call-back.
    pub(crate) fn answer_recall(&self, state: &mut State, token: Token, recall: Recall) {
        let (kept, committed) = match recall {
            Recall::Return(tail) => (false, tail),
            Recall::Kept => (true, state.holder.tail()),
            Recall::Linger(at) => {
                state.linger = Some(at);
                return;
            }
            Recall::Nothing => return, // another look may be due all the same: the word was about an older lease
        };
        if !kept {
            state.noted = committed;
        }
        let release = Release { session: self.client.session, token, kept, committed };
        let place = self.place();
        self.tell(&place, place.primary(), Kind::Release, &release);
    }

    /// Sends a message that has no answer.
    pub(crate) fn tell<T: message::Field>(&self, place: &Place, peer: &Peer, kind: Kind, message: &T) {
        peer.link.tell(self.header(kind, place, peer), &message::encode(message));
    }

    /// When a call of this moment gives up.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.client.options.commit_timeout
    }

    /// The process's round trips so far.
    pub(crate) fn round_trips(&self) -> u64 {
        self.client.round_trips.load(Ordering::Relaxed)
    }
}

/// What a primary says of the newest state, if it can be: nobody computes with numbers out of range later.
///
/// # Errors
/// [`Error::Protocol`].
pub(crate) fn check_state(state: &Changes) -> Result<(), Error> {
    if state.tail.lsn.0 > limits::LSN_MAX {
        return Err(Error::Protocol(format!("a newest commit {}", state.tail.lsn)));
    }
    match state.sizes.iter().find(|s| s.size > limits::DATASET_MAX) {
        Some(s) => Err(Error::Protocol(format!("a dataset of {} bytes", s.size))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, group_of};
    use super::*;
    use dspm_proto::PAGE_SIZE;
    use dspm_proto::message::DatasetSize;
    use dspm_txn::dataset::{Change, PageBuf};

    const D: DatasetId = DatasetId(1);

    fn tail(lsn: u64) -> RecordId {
        RecordId { lsn: Lsn(lsn), hash: lsn, ..RecordId::default() }
    }

    /// A resolution in doubt, of which the members told that it is committed: what came behind it nobody told. Later a
    /// primary that has no list of changes says the newest state, and which pages changed it cannot say.
    #[test]
    fn what_is_ahead_of_the_newest_known_state_ends_with_it() {
        let node = FakeNode::start(|_, _| None);
        let group = group_of(&node);
        let mut state = group.lock();
        state.holder.learned(tail(4));
        let mut snapshot = Snapshot { lsn: Lsn(4), size: 0, pin: 4, turn: 0, ticket: None, epoch: 0, past: false };
        state.pins.add((0, Lsn(4)));
        let page: &PageBuf = &[7; PAGE_SIZE];
        let change = Change { pages: &[(PageNo(0), page)], size: PAGE_SIZE as u64 };
        let mut commit = super::super::send::Commit { snapshot: &mut snapshot, changes: vec![(D, &change)] };
        group.absorb(&mut state, &mut commit, Lsn(5), Lsn(6), None);
        let until = state.unchanged_until(D, Lsn(6));
        assert_eq!(until, Lsn(7), "of a page that the transaction fetches now");
        group.client.cache.put(D, PageNo(1), Lsn(5), until, page);
        let has = |page, at| group.client.cache.has(D, PageNo(page), Lsn(at));
        assert!((5..=6).all(|at| has(0, at) && has(1, at)));
        let size = DatasetSize { dataset: D, size: 2 * PAGE_SIZE as u64 };
        let told = Changes { tail: tail(20), sizes: vec![size], whole: false, ..Changes::default() };
        group.learn(&mut state, &told);
        state.holder.learned(told.tail);
        assert!(!has(0, 20) && !has(1, 20), "a stale page");
    }

    #[test]
    fn what_an_epoch_cached_does_not_outlive_it() {
        let node = FakeNode::start(|_, _| None);
        let group = group_of(&node);
        let mut state = group.lock();
        state.touch(D, Lsn(5)); // by a commit of this process, before anybody told the dataset's size
        group.client.cache.put(D, PageNo(0), Lsn(5), Lsn(7), &[7; PAGE_SIZE]);
        group.restart(&mut state);
        assert!(!group.client.cache.has(D, PageNo(0), Lsn(6)));
    }

    #[test]
    fn a_state_that_cannot_be_is_not_believed() {
        let state = |lsn: u64, size: u64| Changes {
            tail: RecordId { lsn: Lsn(lsn), ..RecordId::default() },
            sizes: vec![DatasetSize { dataset: DatasetId(1), size }],
            ..Changes::default()
        };
        assert_eq!(check_state(&state(limits::LSN_MAX, limits::DATASET_MAX)), Ok(()));
        for (lsn, size) in [(u64::MAX, 0), (limits::LSN_MAX + 1, 0), (1, limits::DATASET_MAX + 1)] {
            assert!(matches!(check_state(&state(lsn, size)), Err(Error::Protocol(_))), "{lsn} {size}");
        }
    }
}
