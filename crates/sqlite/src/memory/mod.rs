//! A store in the memory of one process that keeps the contract of [`Dataset`] to the letter, for tests.
//!
//! Several processes are played by the URI parameter `process=N`: each N has its own [`MemoryDataset`] of the same
//! [`Group`], with its own writer mutex, and they contend for one lease as processes would.
//!
//! Fault model: any call of any process can be made to fail ([`Group::fail`]), a commit also after it took effect.
//! Lsn and size are checked at every commit as a real store would.

mod dataset;
mod faults;
mod group;
mod lease;

pub use dataset::MemoryDataset;
pub use faults::Call;
pub use group::Group;

use crate::opener::{Access, OpenRequest, Opener};
use crate::process::locked;
use dspm_proto::Error;
use dspm_txn::dataset::Dataset;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// All datasets, by name.
#[derive(Default)]
pub struct MemoryStore {
    groups: Mutex<HashMap<String, Arc<Group>>>,
    /// One object a process and dataset, as the contract of [`Opener::open`] asks.
    open: Mutex<HashMap<(String, u64), Arc<MemoryDataset>>>,
    transaction_max: AtomicU64,
}

impl MemoryStore {
    /// The dataset as process 0 has it, made if needed.
    pub fn dataset(&self, name: &str) -> Arc<MemoryDataset> {
        self.dataset_of(name, 0)
    }

    /// The dataset as that process has it, made if needed.
    pub fn dataset_of(&self, name: &str, process: u64) -> Arc<MemoryDataset> {
        let group = self.group(name);
        let mut open = locked(&self.open);
        open.entry((name.into(), process)).or_insert_with(|| Arc::new(MemoryDataset::new(group, process))).clone()
    }

    /// What all processes share of a dataset, made if needed.
    pub fn group(&self, name: &str) -> Arc<Group> {
        locked(&self.groups).entry(name.into()).or_insert_with(|| Arc::new(Group::new(name))).clone()
    }

    /// Limits transactions to that many bytes; 0 is no limit.
    pub fn limit_transactions(&self, bytes: u64) {
        self.transaction_max.store(bytes, Ordering::Relaxed);
    }
}

impl Opener for MemoryStore {
    fn open(&self, request: &OpenRequest<'_>) -> Result<Arc<dyn Dataset>, Error> {
        let exists = self.exists(request.name)?;
        match (request.access, exists) {
            (Access::ReadOnly | Access::ReadWrite, false) => {
                return Err(Error::NotFound(format!("no dataset '{}'", request.name)));
            }
            (Access::CreateNew, true) => return Err(Error::Failed(format!("'{}' exists", request.name))),
            _ => {}
        }
        let process = request.parameter("process").and_then(|p| p.parse().ok()).unwrap_or(0);
        self.group(request.name).check(Call::Open)?;
        Ok(self.dataset_of(request.name, process))
    }

    fn exists(&self, name: &str) -> Result<bool, Error> {
        Ok(locked(&self.groups).contains_key(name))
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        locked(&self.open).retain(|(other, _), _| other != name);
        match locked(&self.groups).remove(name) {
            Some(_) => Ok(()),
            None => Err(Error::NotFound(format!("no dataset '{name}'"))),
        }
    }

    fn transaction_max(&self) -> u64 {
        match self.transaction_max.load(Ordering::Relaxed) {
            0 => u64::MAX,
            bytes => bytes,
        }
    }
}
