//! `locking_mode=EXCLUSIVE` of several handles on one dataset: the lease is held until the last one lets go.

use crate::process::locked;
use dspm_txn::dataset::Dataset;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How many handles of the process hold each dataset, by the address of the shared object.
#[derive(Default)]
pub struct Holds(Mutex<HashMap<usize, usize>>);

impl Holds {
    /// One more handle holds the dataset.
    pub fn take(&self, dataset: &Arc<dyn Dataset>) {
        let mut holds = locked(&self.0);
        let count = holds.entry(key(dataset)).or_default();
        *count += 1;
        if *count == 1 {
            dataset.hold(true);
        }
    }

    /// One handle less.
    pub fn drop(&self, dataset: &Arc<dyn Dataset>) {
        let mut holds = locked(&self.0);
        let key = key(dataset);
        let Some(count) = holds.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            holds.remove(&key);
            dataset.hold(false);
        }
    }
}

fn key(dataset: &Arc<dyn Dataset>) -> usize {
    Arc::as_ptr(dataset).cast::<()>() as usize
}
