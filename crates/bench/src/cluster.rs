//! The cluster that the configuration names, and a dataset of our own in it that goes when the measurement ends.

use crate::stop;
use dspm_config::Config;
use dspm_netram::client::{Client, ClientOptions, ClusterDataset};
use dspm_netram::random;
use dspm_netram::wire::Dialer;
use dspm_proto::auth::Role;
use dspm_proto::control::{CreateOptions, Located, MemberEntry};
use dspm_proto::{ClientId, Error, PAGE_SIZE, PageNo, Session, StoreId};
use dspm_txn::dataset::{Change, Dataset, Intent, PageBuf, Reserved, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages of one commit while a dataset is filled.
const BATCH: usize = 256;

/// What a measurement's client keeps.
pub(crate) enum Cache {
    /// As good as nothing, and nothing is fetched ahead: every read asks a node.
    None,
    /// What the configuration says.
    Configured,
}

/// A configured cluster.
pub(crate) struct Cluster {
    pub(crate) config: Config,
}

impl Cluster {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub(crate) fn configured() -> Result<Cluster, Error> {
        Ok(Cluster { config: Config::load(None, &[])? })
    }

    /// A new client: nothing is in its cache.
    ///
    /// # Errors
    /// Those of [`Client::new`].
    pub(crate) fn client(&self, cache: &Cache) -> Result<Arc<Client>, Error> {
        let c = &self.config;
        let (cache_size, prefetch) = match cache {
            Cache::None => (0, false),
            Cache::Configured => (c.cache_size_bytes, c.cache_prefetch),
        };
        Client::new(ClientOptions {
            config: c.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            cluster: c.cluster.clone(),
            nodes: c.nodes.clone(),
            key: c.key()?,
            commit_timeout: c.commit_timeout,
            cache_size,
            prefetch,
            lease_reads: c.lease_reads,
            create: CreateOptions {
                durability: Some(c.durability),
                copies: Some(c.copies),
                min_copies: Some(c.min_copies),
                history_ms: None,
                exclusive: true,
            },
        })
    }

    /// How to dial a node past the client core, under a session of its own.
    ///
    /// # Errors
    /// Those of [`Config::key`].
    pub(crate) fn dialer(&self) -> Result<Dialer, Error> {
        Ok(Dialer {
            role: Role::Client,
            name: format!("pid {}", std::process::id()),
            cluster: self.config.cluster.clone(),
            key: self.config.key()?,
            session: Some(Session { client: ClientId(random::id()), number: 1 }),
            store: StoreId(0),
            callbacks: false,
        })
    }
}

/// A dataset of random pages. It is removed when this is dropped.
pub(crate) struct Scratch {
    client: Arc<Client>,
    pub(crate) name: String,
    pub(crate) located: Located,
    pub(crate) data: ClusterDataset,
    pub(crate) pages: usize,
}

impl Scratch {
    /// Makes and fills it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Full`].
    pub(crate) fn create(cluster: &Cluster, what: &str, pages: usize) -> Result<Scratch, Error> {
        let client = cluster.client(&Cache::None)?;
        let name = cluster.config.dataset_name(&format!("dspm-bench-{what}-{:016x}", random::id()))?;
        let located = client.locate(&name, Some(client.create_options()))?;
        let opened = client.open(&name, None).inspect_err(|_| {
            let _ = client.remove(&name);
        })?;
        let scratch = Scratch { client, name, located, data: opened, pages };
        scratch.fill()?;
        Ok(scratch)
    }

    fn fill(&self) -> Result<(), Error> {
        let mut source = Numbers::new();
        for first in (0..self.pages).step_by(BATCH) {
            stop::check()?;
            let numbers = first..(first + BATCH).min(self.pages);
            let contents: Vec<Box<PageBuf>> = numbers.clone().map(|_| random_page(&mut source)).collect();
            let pages: Vec<(PageNo, &PageBuf)> =
                numbers.clone().zip(&contents).map(|(n, c)| (PageNo(n as u64), &**c)).collect();
            let size = (numbers.end * PAGE_SIZE) as u64;
            self.write(&Change { pages: &pages, size })?;
        }
        Ok(())
    }

    /// One transaction, as a database engine does it: snapshot, reservation, commit, release.
    ///
    /// # Errors
    /// Those of [`Dataset`]; [`Error::Busy`] when somebody else writes, which nobody should.
    pub(crate) fn write(&self, change: &Change<'_>) -> Result<(), Error> {
        let mut snapshot = self.data.snapshot(Intent::Read)?;
        let done = self.reserve(&mut snapshot).and_then(|()| {
            let committed = self.data.commit(&mut snapshot, change);
            self.data.release_write();
            committed.map(|_| ())
        });
        self.data.release(snapshot);
        done
    }

    fn reserve(&self, snapshot: &mut Snapshot) -> Result<(), Error> {
        let end = Instant::now() + Duration::from_secs(5);
        let mut ticket = None;
        loop {
            match self.data.reserve(snapshot, ticket)? {
                Reserved::Granted => return Ok(()),
                Reserved::Busy(t) => ticket = Some(t),
                Reserved::Stale => {
                    let newer = self.data.snapshot(Intent::Read)?;
                    self.data.release(std::mem::replace(snapshot, newer));
                }
            }
            if Instant::now() > end {
                return Err(Error::Busy(format!("somebody else writes {}", self.name)));
            }
        }
    }

    /// Addresses and store ids of its nodes, the primary first.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the cluster names a node without an address.
    pub(crate) fn addresses(&self) -> Result<Vec<(String, StoreId)>, Error> {
        let Located { set, nodes, .. } = &self.located;
        let mut members: Vec<_> = set.members.iter().collect();
        members.sort_by_key(|m| m.node != set.primary);
        let address = |m: &&MemberEntry| {
            let node = nodes.iter().find(|n| n.name == m.node);
            let node = node.ok_or_else(|| Error::Protocol(format!("no address of node {}", m.node)))?;
            Ok((node.address.clone(), m.store))
        };
        members.iter().map(address).collect()
    }

    /// How many nodes hold it.
    pub(crate) fn members(&self) -> usize {
        self.located.set.members.len()
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        (self.pages * PAGE_SIZE) as u64
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = self.client.remove(&self.name) {
            eprintln!("dspm: warning: dataset {} is left: {e}", self.name);
        }
    }
}

/// A page that neither compresses nor resembles another one.
pub(crate) fn random_page(numbers: &mut Numbers) -> Box<PageBuf> {
    let mut page = Box::new([0; PAGE_SIZE]);
    page.chunks_exact_mut(8).for_each(|c| c.copy_from_slice(&numbers.next().to_le_bytes()));
    page
}

/// Random enough, and fast: xorshift.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Another sequence each time.
    pub(crate) fn new() -> Numbers {
        Numbers(random::id())
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
