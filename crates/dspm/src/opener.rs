//! Where the VFS gets its datasets: from the cluster that the program, the environment or a config file names.

use crate::clients::{self, Configured};
use dspm_netram::client::ClusterDataset;
use dspm_proto::Error;
use dspm_proto::control::CreateOptions;
use dspm_sqlite::{Access, OpenRequest, Opener, PerProcess};
use dspm_txn::dataset::Dataset;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Opens datasets of clusters; one object a dataset and process, and in a forked child none of the parent's.
#[derive(Default)]
pub(crate) struct ClusterOpener {
    open: PerProcess<Mutex<ByName>>,
}

/// By client and name.
type ByName = HashMap<(usize, String), Weak<ClusterDataset>>;

/// URI parameters that are keys of the configuration.
const CONFIG_KEYS: [&str; 4] = ["cluster", "nodes", "key_file", "namespace"];

impl ClusterOpener {
    fn open(&self) -> MutexGuard<'_, ByName> {
        self.open.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configured(request: &OpenRequest<'_>) -> Result<Configured, Error> {
        let overrides: Vec<(String, String)> =
            request.parameters.iter().filter(|(k, _)| CONFIG_KEYS.contains(&k.as_str())).cloned().collect();
        clients::client(request.parameter("config"), &overrides)
    }
}

impl Opener for ClusterOpener {
    fn open(&self, request: &OpenRequest<'_>) -> Result<Arc<dyn Dataset>, Error> {
        let Configured { client, config } = ClusterOpener::configured(request)?;
        let name = config.dataset_name(request.name)?;
        let key = (Arc::as_ptr(&client) as usize, name.clone());
        let create = match request.access {
            Access::ReadOnly | Access::ReadWrite => None,
            Access::Create => Some(client.create_options()),
            Access::CreateNew => Some(CreateOptions { exclusive: true, ..client.create_options() }),
        };
        // Nobody else's open waits for this one's node.
        let dataset = Arc::new(client.open(&name, create)?);
        let mut open = self.open();
        // The name may mean another one since: renamed, or removed and made again.
        if let Some(first) = open.get(&key).and_then(Weak::upgrade).filter(|d| d.id() == dataset.id()) {
            return Ok(first);
        }
        open.retain(|_, d| d.strong_count() > 0);
        open.insert(key, Arc::downgrade(&dataset));
        Ok(dataset)
    }

    fn exists(&self, name: &str) -> Result<bool, Error> {
        let Configured { client, config } = clients::client(None, &[])?;
        match client.locate(&config.dataset_name(name)?, None) {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        let Configured { client, config } = clients::client(None, &[])?;
        client.remove(&config.dataset_name(name)?)
    }
}
