//! The contract between engines and the store: snapshot, read, reserve, commit — over one dataset.
//!
//! Engines (the SQLite VFS first) know nothing else of the cluster. `dspm-netram` implements it for a cluster,
//! `memory` for tests of engines.
//!
//! Fault model: every call may fail with [`Error::Unavailable`] after `commit_timeout`; none hangs longer. A failed
//! [`Dataset::commit`] or [`Dataset::commit_with`] left nothing behind, in no dataset, unless it is
//! [`Error::OutcomeUnknown`].

use dspm_proto::{Error, Lsn, PAGE_SIZE, PageNo, limits};
use std::any::Any;
use std::time::Duration;

/// One page as it is committed.
pub type PageBuf = [u8; PAGE_SIZE];

/// A consistent state of the dataset that stays readable until it is released.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The group's commit that it shows.
    pub lsn: Lsn,
    /// Size of the dataset in bytes at that commit.
    pub size: u64,
    /// What the implementation needs to release it.
    pub pin: u64,
    /// The turn among the process's writers that came with it; zero if none did.
    pub turn: u64,
    /// The place in the queue that its begin was sent away with: the lease is in use elsewhere.
    pub ticket: Option<Ticket>,
    /// The history that it belongs to, as this process counts them. A group that lost all its memories goes on from an
    /// older state, and LSNs come again with other content: states of different epochs have nothing in common, and a
    /// snapshot of an epoch that is over is [`Error::TooOld`] in every call. It never falls.
    pub epoch: u64,
    /// It was asked for as a state of the past: nothing is written on it.
    pub past: bool,
}

/// A state of the past, as somebody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// That commit.
    Lsn(Lsn),
    /// What was the newest commit so long ago.
    Ago(Duration),
}

impl AsOf {
    /// Reads what people write: a commit's number, or how long ago ("-30s", "-1500ms", "-10m", "-2h"). None is the
    /// present: "0" or "now".
    ///
    /// # Errors
    /// [`Error::Usage`], saying what is expected.
    pub fn parse(text: &str) -> Result<Option<AsOf>, Error> {
        let expected = || {
            let text: String = text.chars().take(40).collect();
            Error::Usage(format!("as_of '{text}': expected a commit's number (PRAGMA dspm_lsn), -30s, -10m or now"))
        };
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("now") {
            return Ok(None);
        }
        if let Some(ago) = trimmed.strip_prefix('-') {
            let digits = ago.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
            let number: u64 = ago[..digits].parse().map_err(|_| expected())?;
            let milliseconds = match &ago[digits..] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(expected()),
            };
            let ago = number.checked_mul(milliseconds).filter(|ms| *ms <= AGO_MS_MAX).ok_or_else(expected)?;
            return Ok(Some(AsOf::Ago(Duration::from_millis(ago))));
        }
        let lsn = Some(trimmed).filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok());
        let lsn: u64 = lsn.filter(|lsn| *lsn <= limits::LSN_MAX).ok_or_else(expected)?;
        Ok((lsn > 0).then_some(AsOf::Lsn(Lsn(lsn))))
    }
}

/// A hundred years.
const AGO_MS_MAX: u64 = 100 * 366 * 24 * 3_600_000;

/// What a transaction that begins is going to do, as far as its engine can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing is asked for but the newest state.
    Read,
    /// It will probably write, so the lease is fetched first: a snapshot taken before the lease arrives is stale when
    /// others write. Not being right costs others a hand-over, never an answer.
    Write {
        /// The place in the queue of an earlier try.
        ticket: Option<Ticket>,
        /// How long it waits for an open transaction of somebody else; an idle lease is always waited for.
        wait: Duration,
    },
}

/// A place in the queue for the write lease, kept over retries by the handle that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Answer to [`Dataset::reserve`].
#[derive(Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The caller is the group's only writer until [`Dataset::release_write`]; the snapshot is the newest state.
    Granted,
    /// The lease is here, but a commit came after the snapshot: begin again (SQLite: BUSY_SNAPSHOT, 517).
    Stale,
    /// An open transaction holds it. The ticket keeps the place in the queue (SQLite: BUSY, 5).
    Busy(Ticket),
}

/// What one commit changes.
#[derive(Debug)]
pub struct Change<'a> {
    /// New content of pages, in ascending order of their numbers, none twice.
    pub pages: &'a [(PageNo, &'a PageBuf)],
    /// Size of the dataset in bytes afterwards. Pages at or beyond it read as zeros from then on.
    pub size: u64,
}

/// Another dataset of a commit over several.
pub struct Other<'a> {
    /// The dataset, under a reservation too.
    pub dataset: &'a dyn Dataset,
    /// The state that its change is based on.
    pub snapshot: &'a mut Snapshot,
    /// What changes in it.
    pub change: &'a Change<'a>,
}

/// Figures for `PRAGMA dspm_status`; answered from memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetStatus {
    /// "cluster" (later "embedded").
    pub mode: String,
    /// The config file in use, empty if none.
    pub config: String,
    /// The dataset's name.
    pub dataset: String,
    /// The newest commit that this process knows.
    pub lsn: Lsn,
    /// "memory", "pm" or "disk".
    pub durability: String,
    /// Copies asked for.
    pub copies: u32,
    /// Members that acknowledged this process last.
    pub copies_now: u32,
    /// "none", "held" or "lapsed".
    pub lease: String,
    /// "tcp", "shm" or "rdma".
    pub transport: String,
    /// How often a thread of this process waited for a node's answer since the process started.
    pub round_trips: u64,
    /// Pages found in the process's cache.
    pub cache_hits: u64,
    /// Pages asked of a node.
    pub cache_misses: u64,
}

/// One dataset, shared by all threads and handles of a process.
///
/// # Errors
/// All methods: [`Error::Unavailable`] (outage longer than `commit_timeout`), [`Error::Corrupt`] (no good copy),
/// [`Error::TooOld`] (the snapshot is no longer kept), [`Error::Full`], and those named at the method.
pub trait Dataset: Send + Sync {
    /// Begins a read: a state at least as new as every commit acknowledged, to anybody, before the call. No round trip
    /// under a valid write lease.
    fn snapshot(&self, intent: Intent) -> Result<Snapshot, Error>;

    /// Begins a read of the past, or fails: a state that is shown stays readable until it is released, as any other.
    ///
    /// # Errors
    /// [`Error::TooOld`]: it is no longer kept. [`Error::Usage`]: that commit is not there yet.
    fn snapshot_as_of(&self, at: AsOf) -> Result<Snapshot, Error>;

    /// Ends a read. Never fails, never waits.
    fn release(&self, snapshot: Snapshot);

    /// Copies bytes `at..at + buf.len()` of a page; both inside one page. What lies beyond the size is zeros.
    fn read(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error>;

    /// Takes the process's writer mutex and the group's write lease. Waits only for a lease that is idle elsewhere, and
    /// only for the process's own other threads as long as one call-back round (a few ms).
    fn reserve(&self, snapshot: &Snapshot, ticket: Option<Ticket>) -> Result<Reserved, Error>;

    /// Gives up a place in the queue.
    fn forget(&self, ticket: Ticket);

    /// Commits under a reservation; all members hold it when this returns. The snapshot becomes the commit's own state.
    ///
    /// # Errors
    /// [`Error::Conflict`] (fenced, and the settled tail is not the snapshot), [`Error::OutcomeUnknown`].
    fn commit(&self, snapshot: &mut Snapshot, change: &Change<'_>) -> Result<Lsn, Error>;

    /// Commits in this dataset and the others, or in none of them, whatever dies; under a reservation of each. Every
    /// snapshot becomes the commit's own state; the answer is this dataset's LSN. Without others it is
    /// [`Dataset::commit`]. Readers of several datasets may see the commit in one a moment before another.
    ///
    /// # Errors
    /// As [`Dataset::commit`]: certain failures left nothing in any of them. [`Error::Usage`] for datasets of two
    /// clusters, and for two of one group.
    fn commit_with(&self, snapshot: &mut Snapshot, change: &Change<'_>, others: &mut [Other<'_>])
    -> Result<Lsn, Error>;

    /// The implementation itself: a commit over several datasets has to know its own kind.
    fn as_any(&self) -> &dyn Any;

    /// Ends a transaction that reserved and wrote nothing: asks, with one round trip, whether the caller is still the
    /// group's writer. Without it the COMMIT of a transaction that was fenced while its process stood still would say
    /// OK, and programs that use an empty write transaction as a lock would both go on.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not.
    fn confirm(&self, snapshot: &Snapshot) -> Result<(), Error>;

    /// Ends a reservation, committed or not. Keeps the lease for the process's next writer. Never fails, never waits.
    fn release_write(&self);

    /// True when some handle of this process holds the reservation.
    fn is_reserved(&self) -> bool;

    /// Keeps the lease with this process (`locking_mode=EXCLUSIVE`) until called with false.
    fn hold(&self, keep: bool);

    /// Figures, from memory.
    fn status(&self) -> DatasetStatus;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_for_a_past_state() {
        let ago = |ms| Some(AsOf::Ago(Duration::from_millis(ms)));
        let good = [
            ("0", None),
            ("now", None),
            ("NOW", None),
            (" 17 ", Some(AsOf::Lsn(Lsn(17)))),
            ("-30s", ago(30_000)),
            ("-0s", ago(0)),
            ("-250ms", ago(250)),
            ("-10m", ago(600_000)),
            ("-2h", ago(7_200_000)),
        ];
        for (text, expected) in good {
            assert_eq!(AsOf::parse(text), Ok(expected), "{text}");
        }
        let huge = u64::MAX.to_string();
        for bad in ["", "-", "-30", "30s", "-s", "+3", "1.5", "-1d", "yesterday", "-99999999999h", "１", &huge] {
            assert!(matches!(AsOf::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
    }
}
