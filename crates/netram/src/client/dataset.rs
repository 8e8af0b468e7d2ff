//! The engines' view: [`Dataset`] over a group of the cluster.

use super::core::Client;
use super::group::GroupClient;
use super::reader::Reader;
use super::send::Commit;
use super::together::{self, Share};
use dspm_proto::control::CreateOptions;
use dspm_proto::{DatasetId, Error, Lsn, PageNo};
use dspm_txn::dataset::{AsOf, Change, Dataset, DatasetStatus, Intent, Other, Reserved, Snapshot, Ticket};
use std::any::Any;
use std::sync::Arc;

/// A dataset of the cluster, opened by this process.
pub struct ClusterDataset {
    pub(super) group: Arc<GroupClient>,
    pub(super) dataset: DatasetId,
}

impl Client {
    /// Opens a dataset, created first if it is missing and `create` says how.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    pub fn open(self: &Arc<Self>, name: &str, create: Option<CreateOptions>) -> Result<ClusterDataset, Error> {
        let located = self.locate(name, create)?;
        let dataset = located.entry.dataset;
        let group = self.group(located)?;
        group.lock().handles += 1;
        Ok(ClusterDataset { group, dataset })
    }
}

impl Drop for ClusterDataset {
    /// The last handle of the process gives the leases back, so that nobody has to ask for them: a process that ended
    /// does not answer, and the next commit would wait for its read lease to lapse.
    fn drop(&mut self) {
        if !self.group.client.is_own() {
            return;
        }
        let mut state = self.group.lock();
        state.handles = state.handles.saturating_sub(1);
        if state.handles == 0 {
            state.holder.keep(false);
            if let Some(token) = state.holder.give_up() {
                let tail = state.holder.tail();
                self.group.answer_recall(&mut state, token, dspm_txn::Recall::Return(tail));
            }
            if let Some(below) = state.holder.end_read(crate::clock::now()) {
                self.group.end_read_lease(&mut state, below);
            }
        }
    }
}

impl ClusterDataset {
    /// Its id, which outlives its name.
    pub fn id(&self) -> DatasetId {
        self.dataset
    }

    /// The group that it is in.
    pub(super) fn group(&self) -> &Arc<GroupClient> {
        &self.group
    }

    /// Its share of a commit over several groups.
    fn share<'a>(&'a self, snapshot: &'a mut Snapshot, change: &'a Change<'a>) -> Share<'a> {
        Share { group: &self.group, commit: Commit { snapshot, changes: vec![(self.dataset, change)] } }
    }
}

impl Dataset for ClusterDataset {
    fn snapshot(&self, intent: Intent) -> Result<Snapshot, Error> {
        self.group.begin(self.dataset, intent)
    }

    fn snapshot_as_of(&self, at: AsOf) -> Result<Snapshot, Error> {
        self.group.begin_as_of(self.dataset, at)
    }

    fn release(&self, snapshot: Snapshot) {
        self.group.unpin(&snapshot);
    }

    fn read(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error> {
        let group = &self.group;
        Reader { group, dataset: self.dataset, ahead: &group.ahead }.read_page(snapshot, page, at, buf)
    }

    fn reserve(&self, snapshot: &Snapshot, ticket: Option<Ticket>) -> Result<Reserved, Error> {
        if snapshot.past {
            return Err(Error::Permission(format!("commit {} is of the past: it can only be read", snapshot.lsn)));
        }
        self.group.reserve(snapshot, ticket)
    }

    fn forget(&self, ticket: Ticket) {
        self.group.forget(ticket);
    }

    fn commit(&self, snapshot: &mut Snapshot, change: &Change<'_>) -> Result<Lsn, Error> {
        self.group.commit(snapshot, vec![(self.dataset, change)])
    }

    fn commit_with(
        &self,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
        others: &mut [Other<'_>],
    ) -> Result<Lsn, Error> {
        if others.is_empty() {
            return self.commit(snapshot, change);
        }
        let mut shares = vec![self.share(snapshot, change)];
        for other in others {
            let dataset = other.dataset.as_any().downcast_ref::<ClusterDataset>();
            let dataset = dataset.ok_or_else(|| Error::Usage("a dataset of another store in one commit".into()))?;
            shares.push(dataset.share(other.snapshot, other.change));
        }
        together::commit(shares)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn confirm(&self, snapshot: &Snapshot) -> Result<(), Error> {
        self.group.confirm(snapshot)
    }

    fn release_write(&self) {
        self.group.close();
    }

    fn is_reserved(&self) -> bool {
        self.group.lock().holder.is_open()
    }

    fn hold(&self, keep: bool) {
        self.group.lock().holder.keep(keep);
    }

    fn status(&self) -> DatasetStatus {
        let group = &self.group;
        let state = group.lock();
        let lease = match state.holder.token() {
            None => "none",
            Some(_) if state.holder.valid(crate::clock::now()) => "held",
            Some(_) => "lapsed",
        };
        let (cache_hits, cache_misses) = group.client.cache.counts();
        DatasetStatus {
            mode: "cluster".into(),
            config: group.client.options.config.clone(),
            dataset: group.entry.name.clone(),
            lsn: state.holder.tail().lsn,
            durability: group.entry.durability.name().into(),
            copies: group.entry.copies,
            copies_now: state.copies_now,
            lease: lease.into(),
            transport: "tcp".into(),
            round_trips: group.round_trips(),
            cache_hits,
            cache_misses,
        }
    }
}
