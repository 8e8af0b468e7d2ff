//! A group as one owner has it: [`Volume`] over the cluster.
//!
//! The owner's reservation stays open, so its lease is kept when others ask for it, and is renewed by the background
//! thread. The snapshot that commits follow is the newest state, and every read is of it: whoever committed in between
//! makes [`GroupClient::regain`] fail, for reads as for commits.
//!
//! Fault model: a process that stood still finds its lease lapsed by the clock before it reads or after it commits; then
//! it asks for the lease again, and gets it with the same newest state or never.

use super::core::Client;
use super::dataset::ClusterDataset;
use super::group::GroupClient;
use super::reader::Reader;
use crate::clock;
use dspm_proto::control::CreateOptions;
use dspm_proto::{DatasetId, Error, Lsn, limits};
use dspm_txn::dataset::{Change, Dataset, DatasetStatus, Intent, Reserved, Snapshot};
use dspm_txn::volume::{ReadAhead, Volume};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pause before a lease that somebody holds is asked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// The datasets of a group.
pub struct ClusterVolume {
    main: ClusterDataset,
    group: Arc<GroupClient>,
    /// The newest state, while this is the owner. Locked for as long as a commit takes.
    owned: Mutex<Option<Snapshot>>,
    /// The same state for readers, who do not wait for commits.
    shown: Mutex<Option<Shown>>,
}

/// What a reader needs of the newest state.
#[derive(Clone, Copy)]
struct Shown {
    lsn: Lsn,
    epoch: u64,
}

impl Client {
    /// Opens a group by the name of the dataset that it was created with, created first if it is missing and `create`
    /// says how.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    pub fn open_volume(self: &Arc<Self>, name: &str, create: Option<CreateOptions>) -> Result<ClusterVolume, Error> {
        let main = self.open(name, create)?;
        let group = main.group().clone();
        Ok(ClusterVolume { main, group, owned: Mutex::new(None), shown: Mutex::new(None) })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterVolume {
    fn show(&self, snapshot: &Snapshot) {
        *locked(&self.shown) = Some(Shown { lsn: snapshot.lsn, epoch: snapshot.epoch });
    }

    /// The newest state, and with it certainty that nobody else is the owner at a moment after the call began.
    fn newest(&self) -> Result<Shown, Error> {
        let shown = locked(&self.shown).ok_or_else(|| self.not_owner())?;
        // A lease alone is not enough: another thread may have got it back a moment ago, behind another owner's commits.
        if self.group.lock().holder.owns(clock::now()) {
            return Ok(shown);
        }
        let mut owned = locked(&self.owned); // a commit on its way finds out for both
        let snapshot = owned.as_ref().ok_or_else(|| self.not_owner())?;
        let shown = Shown { lsn: snapshot.lsn, epoch: snapshot.epoch };
        self.group.regain(snapshot).map(|()| shown).map_err(|e| self.failed(&mut owned, e))
    }

    /// True when this process committed something behind that. The members may hear of a commit before readers here do.
    fn has_moved_on(&self, lsn: Lsn) -> bool {
        let _shown_by_then = locked(&self.owned);
        locked(&self.shown).is_some_and(|s| s.lsn > lsn)
    }

    fn not_owner(&self) -> Error {
        Error::Conflict(format!("{} is not owned by this process", self.group.entry.name))
    }

    /// Who was replaced is no owner any more, and keeps no lease from the next one.
    fn failed(&self, owned: &mut Option<Snapshot>, e: Error) -> Error {
        match e {
            Error::Conflict(why) | Error::TooOld(why) => {
                self.give_back(owned);
                let name = &self.group.entry.name;
                Error::Conflict(format!("another process took {name} over while this one stood still: {why}"))
            }
            e => e,
        }
    }

    fn give_back(&self, owned: &mut Option<Snapshot>) {
        locked(&self.shown).take();
        if let Some(snapshot) = owned.take() {
            self.main.hold(false);
            self.main.release_write();
            self.main.release(snapshot);
        }
    }

    /// One try to become the owner. None: somebody else is.
    fn try_claim(&self, wait: Duration) -> Result<Option<Snapshot>, Error> {
        let snapshot = self.main.snapshot(Intent::Write { ticket: None, wait })?;
        if let Some(ticket) = snapshot.ticket {
            self.main.forget(ticket);
            self.main.release(snapshot);
            return Ok(None);
        }
        match self.main.reserve(&snapshot, None) {
            Ok(Reserved::Granted) => Ok(Some(snapshot)),
            other => {
                self.main.release(snapshot);
                if let Reserved::Busy(ticket) = other? {
                    self.main.forget(ticket);
                }
                Ok(None)
            }
        }
    }
}

impl Volume for ClusterVolume {
    fn main(&self) -> DatasetId {
        self.main.id()
    }

    fn claim(&self, wait: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + wait;
        let mut owned = locked(&self.owned);
        while owned.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            *owned = self.try_claim(left)?;
            match owned.as_ref() {
                Some(snapshot) => {
                    self.show(snapshot);
                    self.main.hold(true);
                }
                None if Instant::now() >= deadline => {
                    let name = &self.group.entry.name;
                    return Err(Error::Busy(format!(
                        "{name} is owned by another process, which goes on; close it there first"
                    )));
                }
                None => std::thread::sleep(AGAIN),
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        self.newest().map(|_| ())
    }

    fn sizes(&self) -> Result<Vec<(DatasetId, u64)>, Error> {
        self.newest()?;
        Ok(self.group.lock().sizes.iter().map(|(d, size)| (*d, *size)).collect())
    }

    fn read(&self, dataset: DatasetId, size: u64, at: u64, buf: &mut [u8], ahead: &ReadAhead) -> Result<(), Error> {
        loop {
            let Shown { lsn, epoch } = self.newest()?;
            // Not pinned: the owner's own snapshot is, and moves on only with what this process committed.
            let snapshot = Snapshot { lsn, size, pin: lsn.0, turn: 0, ticket: None, epoch, past: false };
            match (Reader { group: &self.group, dataset, ahead }).read(&snapshot, at, buf) {
                // A commit of this process came in between, and what it replaced is not kept for anybody.
                Err(Error::TooOld(_)) if self.has_moved_on(lsn) => {}
                result => return result,
            }
        }
    }

    fn commit(&self, changes: &[(DatasetId, Change<'_>)]) -> Result<Lsn, Error> {
        let mut owned = locked(&self.owned);
        let snapshot = owned.as_mut().ok_or_else(|| self.not_owner())?;
        let lsn = self.group.commit(snapshot, changes.iter().map(|(d, c)| (*d, c)).collect());
        if lsn.is_ok() {
            self.show(snapshot);
        }
        lsn.map_err(|e| self.failed(&mut owned, e))
    }

    fn pages_max(&self) -> usize {
        let peers = self.group.place();
        let most = peers.peers.iter().filter_map(|p| p.link.record_pages_max()).min();
        most.map_or(limits::RECORD_PAGES_MIN, |n| (n as usize).clamp(1, limits::RECORD_PAGES_MAX))
    }

    fn disown(&self) {
        self.give_back(&mut locked(&self.owned));
    }

    fn status(&self) -> DatasetStatus {
        self.main.status()
    }
}

impl Drop for ClusterVolume {
    fn drop(&mut self) {
        if self.group.client.is_own() {
            self.disown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, group_of};
    use super::*;
    use dspm_proto::{Generation, RecordId, Token};

    /// Guards reads beside the call that finds out: the lease is here again by then, at another state.
    #[test]
    fn who_was_replaced_reads_nothing_when_its_lease_comes_back() {
        let node = FakeNode::start(|_, _| None);
        let group = group_of(&node);
        let main = ClusterDataset { group: group.clone(), dataset: DatasetId(1) };
        let (owned, shown) = (Mutex::new(None), Mutex::new(None));
        let volume = ClusterVolume { main, group: group.clone(), owned, shown };
        let grant = |n, lsn| {
            let tail = RecordId { generation: Generation(1), lsn: Lsn(lsn), hash: lsn };
            let (token, now) = (Token { generation: Generation(1), boot: 1, n }, clock::now());
            assert!(group.lock().holder.granted(token, now, Duration::from_secs(600), tail, now));
        };
        grant(1, 4);
        group.lock().holder.open(clock::now());
        let snapshot = Snapshot { lsn: Lsn(4), size: 0, pin: 4, turn: 0, ticket: None, epoch: 0, past: false };
        volume.show(&snapshot);
        *locked(&volume.owned) = Some(snapshot);
        assert_eq!(volume.check(), Ok(()));
        group.lock().holder.give_up();
        grant(2, 4);
        assert_eq!(volume.check(), Ok(()), "nobody wrote meanwhile");
        group.lock().holder.give_up();
        grant(3, 9);
        for _ in 0..2 {
            assert!(matches!(volume.check(), Err(Error::Conflict(_))));
            let read = volume.read(DatasetId(1), 4096, 0, &mut [0], &ReadAhead::default());
            assert!(matches!(read, Err(Error::Conflict(_))), "{read:?}");
        }
        let state = group.lock();
        assert!(!state.holder.is_open() && !state.holder.keeps(), "the next owner waits for this process's end");
    }
}
