//! A member's own records of one group, in the simulator's memory: a log of records whose pages are single numbers.
//!
//! Fault model: the process dies and comes back with everything (`Records` stand at a publication boundary); power
//! fails and what was not synced is gone; the machine's memory is lost and so are these. Fence, session numbers and
//! log are one: where the log outlives a power cut they do, because a fence is synced before it is answered.

use dspm_proto::record::Record;
use dspm_proto::{ClientId, Lsn, PageNo, RecordId, Refusal, Session};
use dspm_txn::{Fence, Records};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Records behind the newest committed one whose identity is remembered: so few that questions come too late.
const IDENTITIES: u64 = 6;
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
}

/// The records.
#[derive(Clone, Debug, Default)]
pub struct SimRecords {
    log: Vec<Rc<Record>>,
    committed: Lsn,
    synced: Lsn,
    fence: Fence,
    sessions: BTreeMap<ClientId, u64>,
    /// Each client's newest record, the one that wrote longest ago first.
    newest: Vec<(ClientId, RecordId)>,
    horizon: Lsn,
    pub(crate) lies: Lies,
}

impl SimRecords {
    /// The record at an LSN.
    pub fn record(&self, lsn: Lsn) -> Option<&Rc<Record>> {
        self.log.get((lsn.0 as usize).checked_sub(1)?)
    }

    /// True when the record is here.
    pub fn holds(&self, id: RecordId) -> bool {
        id.lsn == Lsn(0) || self.record(id.lsn).is_some_and(|r| r.id == id)
    }

    /// Up to where the log is synced, whatever is said about it.
    pub fn synced(&self) -> Lsn {
        self.synced
    }

    /// Last LSN.
    pub fn last(&self) -> Lsn {
        Lsn(self.log.len() as u64)
    }

    /// Versions that only snapshots below saw are gone.
    pub fn horizon(&self) -> Lsn {
        self.horizon
    }

    /// A sync returned: everything up to here is on disk.
    pub fn sync(&mut self, upto: Lsn) {
        self.synced = self.synced.max(upto.min(self.last()));
    }

    /// Power failed: what is not synced is gone.
    pub fn power_cut(&mut self) {
        self.truncate(self.synced);
        self.horizon = Lsn(0);
    }

    pub(crate) fn truncate(&mut self, last: Lsn) {
        self.log.truncate(last.0 as usize);
        self.newest.retain(|(_, id)| id.lsn <= last);
        self.committed = self.committed.min(last);
        self.synced = self.synced.min(last);
    }

    pub(crate) fn forget_fence(&mut self) {
        self.fence = Fence::default();
    }

    /// A page as of a commit; 0 when it was never written.
    pub fn page(&self, page: PageNo, at: Lsn) -> u64 {
        page_of(&self.log[..(at.0 as usize).min(self.log.len())], page)
    }
}

/// A page's value in a sequence of records: its "checksum" is its content.
fn page_of(log: &[Rc<Record>], page: PageNo) -> u64 {
    let newest = log.iter().rev().find_map(|r| r.pages.iter().find(|p| p.page == page));
    newest.map_or(0, |p| p.checksum)
}

impl Records for SimRecords {
    type Payload = ();

    fn tail(&self) -> RecordId {
        if self.lies.fresh {
            return RecordId::default();
        }
        self.log.last().map_or(RecordId::default(), |r| r.id)
    }

    fn id_at(&self, lsn: Lsn) -> Option<RecordId> {
        self.record(lsn).filter(|r| r.id.lsn.0 + IDENTITIES > self.committed.0).map(|r| r.id)
    }

    fn fence(&self) -> Fence {
        if self.lies.fresh { Fence::default() } else { self.fence }
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
        if self.lies.synced { self.last() } else { self.synced }
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

    fn append(&mut self, record: &Record, (): ()) -> Result<(), Refusal> {
        let client = record.session.client;
        self.newest.retain(|(c, _)| *c != client);
        if self.newest.len() == WRITERS_MAX {
            self.newest.remove(0);
        }
        self.newest.push((client, record.id));
        self.log.push(Rc::new(record.clone()));
        Ok(())
    }

    fn set_horizon(&mut self, horizon: Lsn) {
        self.horizon = self.horizon.max(horizon);
    }
}
