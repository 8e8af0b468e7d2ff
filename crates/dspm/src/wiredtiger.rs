//! Where WiredTiger's file system gets its database path: from the cluster that the extension's configuration, the
//! environment or a config file names.

use crate::clients::{self, Configured};
use dspm_proto::Error;
use dspm_wiredtiger::abi::Options;
use dspm_wiredtiger::{Failure, FileSystem};
use std::sync::Arc;
use std::time::Duration;

/// How long an owner that is going away is waited for: a killed one's lease lapses well within.
const WAIT: Duration = Duration::from_secs(5);

/// Becomes the owner of the database path that the configuration names; it is made if it is missing.
pub(crate) fn open(options: &Options) -> Result<Arc<FileSystem>, Failure> {
    let wait = options.wait.as_deref().map_or(Ok(WAIT), wait)?;
    let Configured { client, config } = clients::client(options.config.as_deref(), &[]).map_err(told)?;
    let name = config.dataset_name(&options.dataset).map_err(told)?;
    let volume = client.open_volume(&name, Some(client.create_options())).map_err(told)?;
    FileSystem::open(Arc::new(volume), wait)
}

fn wait(text: &str) -> Result<Duration, Failure> {
    let wrong =
        || Error::Usage(format!("config=[wait={text}] of the dspm extension: expected a time, like 500ms or 5s"));
    dspm_config::time(text).ok_or_else(|| wrong().into())
}

/// An error of the store with its remedy: this is all that the program's log shows.
fn told(e: Error) -> Failure {
    let (hint, failure) = (e.hint(), Failure::from(e.clone()));
    let text = if hint.is_empty() { failure.text } else { format!("{}; {hint}", failure.text) };
    Failure { errno: failure.errno, text }
}
