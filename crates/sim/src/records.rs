//! A member's own records of one group, in the simulator's memory: a log of records whose pages are single numbers.
//!
//! Fault model: the process dies and comes back with everything (`Records` stand at a publication boundary); power
//! fails and what the disk says is left ([`crate::disk`]); the machine's memory is lost and so are these. Fence,
//! session numbers and log are one: where the log outlives a power cut they do, because a fence is synced before it is
//! answered.

use crate::cache::Changes;
use crate::disk::{Base, Credulous, Disk};
use crate::rng::Rng;
use dspm_proto::record::Record;
use dspm_proto::{ClientId, Link, Lsn, PageNo, Part, RecordId, Refusal, Session, Token};
use dspm_txn::{Fence, Origin, Records};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Records behind the newest committed one whose identity is remembered: so few that questions come too late.
const IDENTITIES: u64 = 6;
/// Records whose changed pages can be listed.
const RECORDS: u64 = 12;
/// Clients whose newest record is remembered.
const WRITERS_MAX: usize = 2;

/// Deliberate lies of these records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lies {
    /// Says that nothing was ever written or promised.
    pub(crate) fresh: bool,
    /// Says that everything is synced.
    pub(crate) synced: bool,
    /// Remembers no session numbers.
    pub(crate) no_sessions: bool,
    /// Keeps nothing back for settles.
    pub(crate) no_reserve: bool,
    /// Keeps what is to be cut off.
    pub(crate) no_cut: bool,
    /// Says that all pages are here.
    pub(crate) no_pages: bool,
    /// Knows of no prepared record.
    pub(crate) no_parts: bool,
    /// Keeps what is to be taken back.
    pub(crate) no_undo: bool,
    /// Takes this prepared record for resolved.
    pub(crate) resolved: Option<RecordId>,
    /// Takes this for the fence's token.
    pub(crate) token: Option<Token>,
}

/// Records behind the tail that are kept with their pages, for a joining member to catch up with.
const KEPT: u64 = 10;

/// A base as another member copies it: one value a page as of a commit.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    base: Base,
    /// For the checker: the records that it stands for.
    ids: Vec<RecordId>,
}

impl Copied {
    pub(crate) fn at(&self) -> Lsn {
        self.base.at
    }
}

/// The records.
#[derive(Clone, Debug, Default)]
pub struct SimRecords {
    /// Records behind `start`.
    log: Vec<Rc<Record>>,
    /// The last record of before the log: it is not here as a record, nor is anything before.
    start: RecordId,
    /// The pages of the records up to `start` are still to come.
    baseless: bool,
    /// For the checker: the records up to `start`, where their pages are here.
    ids: Vec<RecordId>,
    committed: Lsn,
    disk: Disk,
    /// What the log was replayed onto: older versions are not here.
    rebuilt: Base,
    fence: Fence,
    sessions: BTreeMap<ClientId, u64>,
    /// Each client's newest record, the one that wrote longest ago first.
    newest: Vec<(ClientId, RecordId)>,
    horizon: Lsn,
    /// Decisions up to here are closed: what they decided is forgotten.
    closed: Lsn,
    /// Durability disk.
    pub(crate) disk_counts: bool,
    /// The node has no room for commits now.
    pub(crate) short: bool,
    pub(crate) lies: Lies,
}

impl SimRecords {
    /// The record at an LSN.
    pub fn record(&self, lsn: Lsn) -> Option<&Rc<Record>> {
        self.log.get((lsn.0.checked_sub(self.start.lsn.0)? as usize).checked_sub(1)?)
    }

    /// The record at an LSN, though it may be here as pages only.
    pub(crate) fn was(&self, lsn: Lsn) -> Option<RecordId> {
        let before = self.ids.get((lsn.0 as usize).checked_sub(1)?).copied();
        self.record(lsn).map(|r| r.id).or(before)
    }

    /// True when the record is here.
    pub fn holds(&self, id: RecordId) -> bool {
        let before = self.ids.get((id.lsn.0 as usize).wrapping_sub(1)) == Some(&id);
        id.lsn == Lsn(0) || before || self.record(id.lsn).is_some_and(|r| r.id == id)
    }

    /// Up to where the log is synced, whatever is said about it.
    pub fn synced(&self) -> Lsn {
        self.disk.last()
    }

    /// Records not known to be committed: their room cannot be given back.
    pub(crate) fn uncommitted(&self) -> u64 {
        self.last().0 - self.committed.0
    }

    /// Last LSN.
    pub fn last(&self) -> Lsn {
        Lsn(self.start.lsn.0 + self.log.len() as u64)
    }

    /// Versions that only snapshots below saw are gone.
    pub fn horizon(&self) -> Lsn {
        self.horizon
    }

    /// A sync returned: everything up to here is on disk.
    /// (The fault: it had failed before, and says so only once.)
    pub(crate) fn sync(&mut self, upto: Lsn, failed: bool) {
        let index = |lsn: Lsn| lsn.0.saturating_sub(self.start.lsn.0) as usize;
        let (from, to) = (index(self.disk.last()), index(upto).min(self.log.len()));
        self.disk.sync(&self.log[from..to.max(from)], failed);
    }

    /// What nobody may need to read as it was, and the log has, goes to the base.
    pub(crate) fn checkpoint(&mut self, before_sync: bool) {
        let to = self.synced().min(self.committed).min(self.horizon);
        // What is prepared goes to the base with what says that it is committed.
        let prepared = self.record(to).is_some_and(|r| r.part == Part::Prepared);
        let to = if prepared { Lsn(to.0 - 1) } else { to };
        self.disk.checkpoint(&self.log, if before_sync { self.last() } else { to });
    }

    /// What was synced after that record tells damage to it from the log's end.
    pub(crate) fn is_before_end(&self, lsn: Lsn) -> bool {
        self.disk.is_before_end(lsn)
    }

    /// A synced record of the log reads with another bit from now on. False: there is none.
    pub(crate) fn flip_at(&mut self, lsn: Lsn) -> bool {
        self.disk.flip(lsn)
    }

    /// Power failed; with `torn`, in the middle of a write. False: the log is damaged.
    pub(crate) fn power_cut(&mut self, torn: Option<&mut Rng>, credulous: Credulous) -> bool {
        if let Some(rng) = torn {
            let synced = (self.disk.last().0 - self.start.lsn.0) as usize;
            self.disk.power_cut(&self.log[synced..], rng);
        }
        let Some(log) = self.disk.recover(credulous) else { return false };
        self.log = log;
        self.rebuilt = self.disk.base.clone();
        (self.start, self.baseless) = (self.disk.start, self.disk.baseless);
        self.truncate(self.last());
        self.horizon = self.rebuilt.at.min(self.last());
        true
    }

    pub(crate) fn truncate(&mut self, last: Lsn) {
        self.log.truncate(last.0.saturating_sub(self.start.lsn.0) as usize);
        // That a record was taken back is known by the one behind it.
        self.newest.retain(|(_, id)| id.lsn <= last && (id.hash != 0 || id.lsn < last));
        (self.committed, self.closed) = (self.committed.min(last), self.closed.min(last));
        self.disk.truncate(last);
    }

    /// A client's newest record. Resolutions do not count; that one was taken back does.
    fn remember(&mut self, record: &Record) {
        let (client, id) = match (record.part, record.is_empty()) {
            (Part::Aborts, _) => {
                let Some(void) = self.log.last() else { return };
                (void.session.client, RecordId { hash: 0, ..void.id })
            }
            (Part::Alone, true) => return,
            _ => (record.session.client, record.id),
        };
        self.newest.retain(|(c, _)| *c != client);
        if self.newest.len() == WRITERS_MAX {
            self.newest.remove(0);
        }
        self.newest.push((client, id));
    }

    /// True when the pages are here, whatever is said about it.
    pub(crate) fn has_base(&self) -> bool {
        !self.baseless
    }

    /// Oldest state that a base brought.
    pub(crate) fn base_at(&self) -> Lsn {
        self.rebuilt.at
    }

    /// The pages as of the last committed record.
    pub(crate) fn copy(&self) -> Copied {
        let at = self.committed;
        let pages = (0..crate::begin::PAGES).map(|p| self.version(PageNo(p), at)).map(|(page, _, value)| (page, value));
        let mut ids = self.ids.clone();
        ids.extend(self.log.iter().map(|r| r.id).filter(|id| id.lsn <= at));
        Copied { base: Base { at, pages: pages.collect() }, ids }
    }

    /// A base was written. False: it is not one of this history's states from the start on.
    pub(crate) fn install(&mut self, copied: Copied) -> bool {
        let at = copied.at();
        let fits = self.baseless && at >= self.start.lsn && at <= self.last();
        if fits {
            self.ids = copied.ids;
            self.ids.truncate(self.start.lsn.0 as usize);
            self.disk.install(copied.base.clone());
            (self.horizon, self.rebuilt, self.baseless) = (self.horizon.max(at), copied.base, false);
        }
        fits
    }

    pub(crate) fn forget_fence(&mut self) {
        self.fence = Fence::default();
    }

    /// A page as of a commit, with the commit that made it; 0 when it was never written. Of what lies in the base only
    /// that it is not newer is known.
    pub(crate) fn version(&self, page: PageNo, at: Lsn) -> (PageNo, Lsn, u64) {
        let index = |lsn: Lsn| lsn.0.saturating_sub(self.start.lsn.0) as usize;
        let end = index(at).min(self.log.len());
        let from = index(self.rebuilt.at).min(end);
        let newest = (from..end).rev().filter(|i| self.lies.no_undo || !self.is_void(*i)).find_map(|i| {
            let page = self.log[i].pages.iter().find(|p| p.page == page)?;
            Some((self.log[i].id.lsn, page.checksum))
        });
        let base = || (self.rebuilt.at.min(at), self.rebuilt.pages.get(&page).copied().unwrap_or(0));
        let (lsn, value) = newest.unwrap_or_else(base);
        (page, lsn, value)
    }

    /// A prepared record of the log that the one behind it took back.
    fn is_void(&self, index: usize) -> bool {
        self.log.get(index + 1).is_some_and(|r| r.part == Part::Aborts)
    }

    /// The newest commit of each page in `(known, tail]`; None when records of them are no longer kept.
    pub(crate) fn changes(&self, known: Lsn, tail: Lsn) -> Changes {
        let all_kept = known.0 + RECORDS >= tail.0 && known >= self.rebuilt.at.max(self.start.lsn) && known > Lsn(0);
        let index = |lsn: Lsn| lsn.0.saturating_sub(self.start.lsn.0) as usize;
        let records = self.log.get(index(known)..index(tail)).filter(|_| all_kept)?;
        let pages = |r: &Rc<Record>| r.pages.iter().map(|p| (p.page, r.id.lsn)).collect::<Vec<_>>();
        Some(records.iter().flat_map(pages).collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

impl Records for SimRecords {
    type Payload = ();

    fn tail(&self) -> RecordId {
        if self.lies.fresh {
            return RecordId::default();
        }
        self.log.last().map_or(self.start, |r| r.id)
    }

    fn id_at(&self, lsn: Lsn) -> Option<RecordId> {
        let id = if lsn == self.start.lsn { Some(self.start) } else { self.record(lsn).map(|r| r.id) };
        id.filter(|id| id.lsn.0 + IDENTITIES > self.committed.0)
    }

    fn fence(&self) -> Fence {
        match self.lies {
            Lies { fresh: true, .. } => Fence::default(),
            Lies { token: Some(token), .. } => Fence { token, ..self.fence },
            _ => self.fence,
        }
    }

    fn set_fence(&mut self, fence: Fence) {
        self.fence = fence;
    }

    fn committed(&self) -> Lsn {
        self.committed
    }

    fn set_committed(&mut self, lsn: Lsn) {
        self.committed = self.committed.max(lsn);
    }

    fn flushed(&self) -> Lsn {
        if self.lies.synced { self.last() } else { self.synced() }
    }

    fn session(&self, client: ClientId) -> u64 {
        let known = self.sessions.get(&client).copied().unwrap_or(0);
        if self.lies.no_sessions { 0 } else { known }
    }

    fn set_session(&mut self, session: Session) {
        let number = self.sessions.entry(session.client).or_default();
        *number = session.number.max(*number);
    }

    fn newest_of(&self, client: ClientId) -> Option<RecordId> {
        self.newest.iter().find(|(c, _)| *c == client).map(|n| n.1)
    }

    fn append(&mut self, record: &Record, (): (), origin: Origin) -> Result<(), Refusal> {
        if self.short && (origin == Origin::Commit || self.lies.no_reserve) {
            return Err(Refusal::Full);
        }
        if record.part == Part::Aborts && self.disk_counts && self.synced() < self.last() {
            return Err(Refusal::Full); // what it takes back is to be in the log before
        }
        self.remember(record);
        self.log.push(Rc::new(record.clone()));
        Ok(())
    }

    fn part(&self, lsn: Lsn) -> Part {
        let part = self.record(lsn).map_or(Part::Alone, |r| r.part);
        let forgotten = match part {
            Part::Decides => lsn <= self.closed,
            Part::Prepared => self.lies.no_parts || self.lies.resolved.is_some_and(|id| id.lsn == lsn),
            _ => false,
        };
        if forgotten { Part::Alone } else { part }
    }

    fn links(&self, lsn: Lsn) -> Vec<Link> {
        self.record(lsn).map_or_else(Vec::new, |r| r.links.clone())
    }

    fn close(&mut self, decision: Lsn) {
        self.closed = self.closed.max(decision);
    }

    fn without_pages(_: Vec<u8>) {}

    fn is_whole(&self) -> bool {
        !self.baseless || self.lies.no_pages
    }

    fn keeps_from(&self, lsn: Lsn) -> bool {
        lsn > self.start.lsn && lsn.0 + KEPT > self.last().0
    }

    fn cut(&mut self, to: Lsn) -> bool {
        let void = self.record(to.next()).is_some_and(|r| r.part == Part::Aborts);
        let cannot = to < self.horizon.max(self.start.lsn) || void || self.tail().hash % 8 == 0;
        if !cannot && !self.lies.no_cut {
            self.truncate(to);
        }
        !cannot
    }

    fn rebase(&mut self, tail: RecordId) {
        let (fence, sessions, lies) = (self.fence, std::mem::take(&mut self.sessions), self.lies);
        let mut disk = std::mem::take(&mut self.disk);
        disk.rebase(tail);
        let (baseless, committed, disk_counts) = (tail.lsn > Lsn(0), tail.lsn, self.disk_counts);
        let kept = SimRecords { fence, sessions, lies, disk, disk_counts, ..SimRecords::default() };
        *self = SimRecords { start: tail, baseless, committed, ..kept };
    }

    fn horizon(&self) -> Lsn {
        self.horizon
    }

    fn set_horizon(&mut self, horizon: Lsn) {
        self.horizon = self.horizon.max(horizon);
    }

    fn is_pinned_too_much(&self) -> bool {
        false
    }
}
