//! The clients of this process, one a cluster. A forked child starts with none of its parent's: neither its clients,
//! whose threads are not in the child, nor its sockets, nor the lock around them, which some thread may have held.

use dspm_config::Config;
use dspm_netram::client::{Client, ClientOptions};
use dspm_netram::socket::close_inherited;
use dspm_proto::Error;
use dspm_proto::control::CreateOptions;
use dspm_sqlite::{PerProcess, run_in_children};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};

/// A client and the names that its configuration gives to datasets.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) client: Arc<Client>,
    pub(crate) config: Arc<Config>,
}

/// By what the program asked for.
type BySource = HashMap<Vec<(String, String)>, Configured>;

static CLIENTS: PerProcess<Mutex<BySource>> = PerProcess::new();
static CHILDREN_CLOSE: Once = Once::new();

/// The client for what a program asked for: `config` is the URI's, `overrides` are other keys of the URI.
pub(crate) fn client(config: Option<&str>, overrides: &[(String, String)]) -> Result<Configured, Error> {
    let mut source = overrides.to_vec();
    source.push(("config".into(), config.unwrap_or("").into()));
    source.push(("environment".into(), std::env::var("DSPM_CONFIG").unwrap_or_default()));
    CHILDREN_CLOSE.call_once(|| run_in_children(close_inherited));
    // Held over reading files, never over a network.
    let mut clients = CLIENTS.get().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = clients.get(&source) {
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
    clients.insert(source, made.clone());
    Ok(made)
}

fn create_options(config: &Config) -> CreateOptions {
    CreateOptions {
        durability: Some(config.durability),
        copies: Some(config.copies),
        min_copies: Some(config.min_copies),
        history_ms: Some(config.history.as_millis() as u64),
        exclusive: false,
    }
}
