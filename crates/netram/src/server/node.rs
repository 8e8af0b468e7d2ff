//! The node as a whole: what its threads share, and how it starts.

use super::catalog::Catalog;
use super::control::Forwarded;
use super::group::SharedGroup;
use super::joins::Joins;
use super::links::Links;
use super::removal::Removals;
use super::scrub::Scrub;
use super::sender::Sender;
use super::sessions::Sessions;
use super::sets::Sets;
use super::shortage::Shortages;
use super::timers::Timers;
use super::twophase::Words;
use super::worker::{self, Mailbox};
use super::{flush, join, metrics, scrub, sets};
use dspm_proto::auth::ClusterKey;
use dspm_proto::{Error, GroupId, StoreId};
use dspm_store::{Flusher, Opened, Store, StoreOptions};
use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Unique in the cluster.
    pub name: String,
    /// Name of the cluster.
    pub cluster: String,
    /// What fails at once with this node.
    pub machine: String,
    /// host:port of the data path; port 0 takes a free one.
    pub listen: String,
    /// host:port of the metrics; port 0 takes a free one.
    pub metrics: Option<String>,
    /// Catalog, log and base files.
    pub data_dir: PathBuf,
    /// The arena file.
    pub arena: PathBuf,
    /// Bytes of the arena file.
    pub memory: u64,
    /// The cluster's secret.
    pub key: ClusterKey,
    /// Lease length L.
    pub lease: Duration,
    /// A record is flushed at the latest after this.
    pub flush_interval: Duration,
    /// Unflushed bytes at which commits wait.
    pub dirty_max: u64,
    /// Most bytes that one reader may pin.
    pub history_max: u64,
    /// How long the outcome of a commit can be asked.
    pub outcome_retention: Duration,
    /// Bytes of pages a second that come to groups that the node joins; 0: as many as come.
    pub join_rate: u64,
    /// Bytes a second that are looked at for damage; 0: only what somebody asks for.
    pub scrub_rate: u64,
    /// From the end of one look at everything to the beginning of the next.
    pub scrub_interval: Duration,
    /// Threads that serve connections.
    pub workers: usize,
}

/// A node that serves. Dropped, it makes a last flush.
pub struct Serving {
    /// Where.
    pub address: String,
    /// Where metrics are, empty if nowhere.
    pub metrics: String,
    /// What it remembers, and how it came to.
    pub opened: Opened,
    flusher: Flusher,
}

impl Serving {
    /// Brings everything that is dirty to disk and ends the flusher. Nothing that is acknowledged needs it; after it a
    /// power cut loses nothing of what came before.
    pub fn stop(self) {
        drop(self.flusher);
    }
}

/// Shared by the node's threads.
pub struct Node {
    pub(crate) options: NodeOptions,
    pub(crate) store: Arc<Store>,
    pub(crate) store_id: StoreId,
    pub(crate) boot: u32,
    pub(crate) started: dspm_proto::Instant,
    pub(crate) opened: Opened,
    catalog: Mutex<Catalog>,
    /// Held by who writes the catalog's file.
    pub(crate) saving: Mutex<()>,
    pub(crate) groups: RwLock<HashMap<GroupId, SharedGroup>>,
    pub(crate) sessions: Sessions,
    pub(crate) links: Links,
    pub(crate) sets: Sets,
    pub(crate) joins: Joins,
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) removals: Removals,
    pub(crate) timers: Timers,
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) senders: RwLock<HashMap<u64, Arc<Sender>>>,
    pub(crate) forwarded: Forwarded,
    pub(crate) words: Words,
    /// Held by the thread that frees removed datasets.
    pub(crate) freeing: Mutex<()>,
    leaving: Mutex<HashSet<GroupId>>,
    pub(crate) counters: Counters,
    pub(crate) scrub: Scrub,
    connections: AtomicU64,
}

/// What the node counts.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    /// Commit records that found no room and were sent back.
    pub(crate) without_room: AtomicU64,
    pub(crate) pages_read: AtomicU64,
    /// Pages that came to groups that this node joins.
    pub(crate) pages_copied: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    /// Questions of prepared records for what became of their transaction.
    pub(crate) inquiries: AtomicU64,
    pub(crate) checksum_errors: AtomicU64,
    pub(crate) alarms: AtomicU64,
}

impl Node {
    /// Opens the store, listens, and starts the threads. They run until the process ends.
    ///
    /// # Errors
    /// Those of the file system, of the socket (port in use), [`Error::Corrupt`] for damaged files.
    pub fn start(options: NodeOptions) -> Result<(Arc<Node>, Serving), Error> {
        let listener = TcpListener::bind(&options.listen).map_err(|e| cannot_listen(&options.listen, &e))?;
        let address = listener.local_addr()?.to_string();
        std::fs::create_dir_all(&options.data_dir)?;
        let saved = options.data_dir.join("catalog.json");
        check_cluster(&Catalog::open(&saved)?, &options)?; // before anything of a foreign directory is changed
        let (store, opened) = Store::open(StoreOptions {
            arena: options.arena.clone(),
            memory: options.memory,
            data_dir: options.data_dir.clone(),
            flush_interval: options.flush_interval,
            dirty_max: options.dirty_max,
            history_max: options.history_max,
            outcome_retention: options.outcome_retention,
        })?;
        let catalog = Catalog::open(&saved)?;
        let (mailboxes, inboxes) = worker::mailboxes(options.workers)?;
        let node = Arc::new(Node {
            store,
            store_id: opened.store,
            boot: opened.boot,
            started: crate::clock::now(),
            opened: opened.clone(),
            catalog: Mutex::new(catalog),
            saving: Mutex::default(),
            groups: RwLock::default(),
            sessions: Sessions::default(),
            links: Links::default(),
            sets: Sets::default(),
            joins: Joins::default(),
            shortages: Arc::default(),
            removals: Removals::default(),
            timers: Timers::default(),
            mailboxes,
            senders: RwLock::default(),
            forwarded: Forwarded::default(),
            words: Words::default(),
            freeing: Mutex::default(),
            leaving: Mutex::default(),
            counters: Counters::default(),
            scrub: Scrub::default(),
            connections: AtomicU64::new(1),
            options,
        });
        let metrics = metrics::serve(&node)?;
        let groups = node.take_sets();
        node.activate(groups);
        node.recover();
        let flusher = flush::start(&node)?;
        worker::start(&node, listener, inboxes)?;
        node.refresh_links();
        sets::start(&node)?;
        join::start(&node)?;
        scrub::start(&node)?;
        let serving = Serving { address, metrics, opened, flusher };
        Ok((node, serving))
    }

    /// Opens the groups that the store remembers, so that they are settled without waiting for a client. One whose set
    /// does not count on this node's memory stays closed until a newer view says otherwise.
    fn recover(self: &Arc<Self>) {
        for id in self.store.recovered_groups() {
            if let Ok(group) = self.group(id) {
                let mut g = group.lock();
                g.replica.tick(crate::clock::now());
                self.run_effects(&mut g);
            }
        }
    }

    /// A new view: sets and their groups follow it.
    pub(crate) fn refresh_groups(self: &Arc<Self>) {
        let groups = self.take_sets();
        for group in self.open_groups() {
            let mut g = group.lock();
            let found = self.catalog().group(g.entry.group);
            if let Ok((entry, set)) = found {
                g.replica.configure(self.setup_of(&entry, &set), crate::clock::now());
                self.run_effects(&mut g);
            }
        }
        self.activate(groups);
        self.recover();
    }

    /// Opens groups that this node has to settle before their set is active.
    pub(crate) fn activate(self: &Arc<Self>, groups: Vec<GroupId>) {
        for id in groups {
            if let Ok(group) = self.group(id) {
                let mut g = group.lock();
                g.replica.tick(crate::clock::now());
                self.run_effects(&mut g);
            }
        }
    }

    /// What the node knows of the cluster.
    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Groups that are being freed.
    pub(crate) fn leaving(&self) -> MutexGuard<'_, HashSet<GroupId>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new connection.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Connections that are open.
    pub(crate) fn connection_count(&self) -> usize {
        self.senders.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The sending half of a connection that is still there.
    pub(crate) fn sender(&self, connection: u64) -> Option<Arc<Sender>> {
        self.senders.read().unwrap_or_else(PoisonError::into_inner).get(&connection).cloned()
    }
}

/// What a node of another cluster left would be taken for this one's: its view is newer, and its data nobody's.
fn check_cluster(catalog: &Catalog, options: &NodeOptions) -> Result<(), Error> {
    let (has, wanted) = (&catalog.view.cluster, &options.cluster);
    if has.is_empty() || wanted.is_empty() || has == wanted {
        return Ok(());
    }
    let dir = options.data_dir.display();
    Err(Error::Usage(format!("the directory {dir} is of a node of the cluster {has:?}, not of {wanted:?}")))
}

fn cannot_listen(address: &str, e: &std::io::Error) -> Error {
    let text = format!("cannot listen on {address}: {e}");
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Permission(text),
        _ => Error::Failed(text),
    }
}
