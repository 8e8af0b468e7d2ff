//! What all datasets of a process share: session, links to nodes, page cache, counters.

use super::background;
use super::cache::PageCache;
use super::group::GroupClient;
use super::link::Link;
use crate::random;
use crate::wire::Dialer;
use dspm_proto::auth::{ClusterKey, Role};
use dspm_proto::control::CreateOptions;
use dspm_proto::{ClientId, Error, GroupId, Session, StoreId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a process reaches its cluster.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where the options came from, for messages and `PRAGMA dspm_status`.
    pub config: String,
    /// Name of the cluster, empty: any.
    pub cluster: String,
    /// Some nodes, host:port.
    pub nodes: Vec<String>,
    /// The cluster's secret.
    pub key: ClusterKey,
    /// Longest wait of one commit or new snapshot.
    pub commit_timeout: Duration,
    /// Bytes of the page cache.
    pub cache_size: u64,
    /// Sequential reads are fetched ahead.
    pub prefetch: bool,
    /// Transactions begin without a round trip under a lease.
    pub lease_reads: bool,
    /// What a dataset is created with.
    pub create: CreateOptions,
}

/// One process's client.
pub struct Client {
    pub(crate) options: ClientOptions,
    pub(crate) session: Session,
    pub(crate) cache: PageCache,
    pub(crate) round_trips: AtomicU64,
    links: Mutex<HashMap<String, Arc<Link>>>,
    groups: Mutex<HashMap<GroupId, Arc<GroupClient>>>,
    pid: u32,
}

impl Client {
    /// A client and its background thread. Nothing is dialled yet.
    ///
    /// # Errors
    /// [`Error::Usage`] when no node is named; [`Error::Failed`] without room for a thread.
    pub fn new(options: ClientOptions) -> Result<Arc<Client>, Error> {
        if options.nodes.is_empty() {
            return Err(Error::Unavailable("the configuration names no nodes".into()));
        }
        let cache = PageCache::new(options.cache_size);
        let client = Arc::new(Client {
            session: Session { client: ClientId(random::id()), number: 1 },
            cache,
            round_trips: AtomicU64::new(0),
            links: Mutex::default(),
            groups: Mutex::default(),
            pid: std::process::id(),
            options,
        });
        background::start(&client)?;
        Ok(client)
    }

    /// True in the process that made the client, false in a forked child.
    pub fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// What datasets are created with.
    pub fn create_options(&self) -> CreateOptions {
        self.options.create.clone()
    }

    pub(crate) fn dialer(&self, callbacks: bool) -> Dialer {
        Dialer {
            role: Role::Client,
            name: format!("pid {}", self.pid),
            cluster: self.options.cluster.clone(),
            key: self.options.key.clone(),
            session: Some(self.session),
            store: StoreId(0),
            callbacks,
        }
    }

    /// The link to a node.
    pub(crate) fn link(&self, address: &str) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry(address.to_owned()).or_insert_with(|| Arc::new(Link::new(address))).clone()
    }

    pub(crate) fn groups(&self) -> MutexGuard<'_, HashMap<GroupId, Arc<GroupClient>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Groups that are in use.
    pub(crate) fn all_groups(&self) -> Vec<Arc<GroupClient>> {
        self.groups().values().cloned().collect()
    }

    /// A thread waited for a node's answer.
    pub(crate) fn count_round_trip(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }
}
