//! The clients of this process, one a cluster. A forked child starts with none of its parent's.

use dspm_config::Config;
use dspm_netram::client::{Client, ClientOptions};
use dspm_proto::Error;
use dspm_proto::control::CreateOptions;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A client and the names that its configuration gives to datasets.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) client: Arc<Client>,
    pub(crate) config: Arc<Config>,
}

struct All {
    pid: u32,
    by_source: HashMap<Vec<(String, String)>, Configured>,
}

static CLIENTS: Mutex<Option<All>> = Mutex::new(None);

/// The client for what a program asked for: `config` is the URI's, `overrides` are other keys of the URI.
pub(crate) fn client(config: Option<&str>, overrides: &[(String, String)]) -> Result<Configured, Error> {
    let mut source = overrides.to_vec();
    source.push(("config".into(), config.unwrap_or("").into()));
    source.push(("environment".into(), std::env::var("DSPM_CONFIG").unwrap_or_default()));
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parents) = clients.take_if(|c| c.pid != std::process::id()) {
        // Not dropped: its threads are not in this process, and its sockets and locks are the parent's.
        std::mem::forget(parents);
    }
    let all = clients.get_or_insert_with(|| All { pid: std::process::id(), by_source: HashMap::new() });
    if let Some(found) = all.by_source.get(&source) {
        return Ok(found.clone());
    }
    let config = Config::load(config.map(Path::new), overrides)?;
    let client = Client::new(ClientOptions {
        config: config.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        cluster: config.cluster.clone(),
        nodes: config.nodes.clone(),
        key: config.key()?,
        commit_timeout: config.commit_timeout,
        cache_size: config.cache_size_bytes,
        prefetch: config.cache_prefetch,
        lease_reads: config.lease_reads,
        create: create_options(&config),
    })?;
    let made = Configured { client, config: Arc::new(config) };
    all.by_source.insert(source, made.clone());
    Ok(made)
}

fn create_options(config: &Config) -> CreateOptions {
    CreateOptions {
        durability: Some(config.durability),
        copies: Some(config.copies),
        min_copies: Some(config.min_copies),
        exclusive: false,
    }
}
