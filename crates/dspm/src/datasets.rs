//! Datasets and snapshots as the C ABI hands them out: safe objects that end what they began.
//!
//! Invariant: in a forked child every call fails and nothing is touched, for the locks, sockets and leases behind these
//! objects are the parent's.

use crate::clients::{self, Configured};
use dspm_netram::client::ClusterDataset;
use dspm_proto::control::{Control, CreateOptions, Done, Durability, Located};
use dspm_proto::{Error, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{AsOf, Dataset, Intent, Snapshot};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most pages of a dataset: its size in bytes fits 63 bits.
const PAGES_MAX: u64 = 1 << 51;

/// How a dataset is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// Made if it is missing.
    pub(crate) create: bool,
    /// With `create`: fails if it exists.
    pub(crate) exclusive: bool,
    /// No transactions.
    pub(crate) read_only: bool,
}

/// The JSON of options: how a dataset is created, and keys of the configuration for the client that opens it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    durability: Option<Durability>,
    copies: Option<u32>,
    min_copies: Option<u32>,
    settings: BTreeMap<String, String>,
}

impl Options {
    pub(crate) fn parse(json: &str) -> Result<Options, Error> {
        serde_json::from_str(json).map_err(|e| Error::Usage(format!("options: {e}")))
    }
}

/// One opened dataset.
pub(crate) struct OpenDataset {
    dataset: ClusterDataset,
    name: String,
    read_only: bool,
    pid: u32,
}

impl OpenDataset {
    pub(crate) fn open(
        config: Option<&str>,
        name: &str,
        flags: Flags,
        options: &Options,
    ) -> Result<OpenDataset, Error> {
        let settings: Vec<(String, String)> = options.settings.clone().into_iter().collect();
        let Configured { client, config } = clients::client(config, &settings)?;
        let name = config.dataset_name(name)?;
        let usual = client.create_options();
        let create = CreateOptions {
            durability: options.durability.or(usual.durability),
            copies: options.copies.or(usual.copies),
            // The cluster's own rule gives it to a number of copies that was asked for here.
            min_copies: options.min_copies.or(if options.copies.is_some() { None } else { usual.min_copies }),
            history_ms: usual.history_ms,
            exclusive: flags.exclusive,
        };
        let dataset = client.open(&name, flags.create.then_some(create))?;
        Ok(OpenDataset { dataset, name, read_only: flags.read_only, pid: std::process::id() })
    }

    /// The store's side of it; an error in a forked child.
    pub(crate) fn store(&self) -> Result<&ClusterDataset, Error> {
        match self.is_own() {
            true => Ok(&self.dataset),
            false => {
                Err(Error::Usage(format!("dataset {} was opened before a fork; open it again in the child", self.name)))
            }
        }
    }

    pub(crate) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u64 {
        self.dataset.id().0
    }

    /// The store's side of it for somebody who wants to write.
    pub(crate) fn writable(&self) -> Result<&ClusterDataset, Error> {
        match self.read_only {
            true => Err(Error::Permission(format!("dataset {} was opened for reading only", self.name))),
            false => self.store(),
        }
    }

    /// Whether some handle of this process is writing; never in a forked child.
    pub(crate) fn is_reserved(&self) -> bool {
        self.store().is_ok_and(Dataset::is_reserved)
    }

    /// Keeps the lease with this process, or no longer.
    pub(crate) fn hold(&self, keep: bool) -> Result<(), Error> {
        self.writable()?.hold(keep);
        Ok(())
    }

    pub(crate) fn status(&self) -> Result<String, Error> {
        let s = self.store()?.status();
        let json = serde_json::json!({
            "mode": s.mode, "config": s.config, "dataset": self.name, "lsn": s.lsn.0, "durability": s.durability,
            "copies": s.copies, "copies_now": s.copies_now, "lease": s.lease, "transport": s.transport,
            "round_trips": s.round_trips, "cache_hits": s.cache_hits, "cache_misses": s.cache_misses,
        });
        Ok(json.to_string())
    }
}

/// A consistent state, until it is dropped.
pub(crate) struct OpenSnapshot {
    dataset: Arc<OpenDataset>,
    /// None only while it is dropped.
    snapshot: Option<Snapshot>,
}

impl OpenSnapshot {
    pub(crate) fn begin(dataset: Arc<OpenDataset>) -> Result<OpenSnapshot, Error> {
        let snapshot = dataset.store()?.snapshot(Intent::Read)?;
        Ok(OpenSnapshot::of(dataset, snapshot))
    }

    /// A state of the past, or the newest where the text says so.
    pub(crate) fn begin_as_of(dataset: Arc<OpenDataset>, time: &str) -> Result<OpenSnapshot, Error> {
        let Some(at) = AsOf::parse(time)? else { return OpenSnapshot::begin(dataset) };
        let snapshot = dataset.store()?.snapshot_as_of(at)?;
        Ok(OpenSnapshot::of(dataset, snapshot))
    }

    /// Takes over a snapshot of that dataset.
    pub(crate) fn of(dataset: Arc<OpenDataset>, snapshot: Snapshot) -> OpenSnapshot {
        OpenSnapshot { dataset, snapshot: Some(snapshot) }
    }

    /// The store's side of it.
    pub(crate) fn store(&self) -> Result<&Snapshot, Error> {
        self.snapshot.as_ref().ok_or_else(|| Error::Usage("the snapshot was released".into()))
    }

    /// True if it shows a state of that dataset.
    pub(crate) fn is_of(&self, dataset: &OpenDataset) -> bool {
        self.dataset.id() == dataset.id()
    }

    /// LSN and size in bytes.
    pub(crate) fn shows(&self) -> (u64, u64) {
        self.snapshot.as_ref().map_or((0, 0), |s| (s.lsn.0, s.size))
    }

    pub(crate) fn read(&self, pages: impl Iterator<Item = u64>, out: &mut [u8]) -> Result<(), Error> {
        read_pages(self.dataset.store()?, self.store()?, pages, out)
    }
}

impl Drop for OpenSnapshot {
    fn drop(&mut self) {
        if let (Some(snapshot), Ok(store)) = (self.snapshot.take(), self.dataset.store()) {
            store.release(snapshot);
        }
    }
}

/// Copies whole pages; one for every 4 KiB of the buffer.
pub(crate) fn read_pages(
    store: &ClusterDataset,
    snapshot: &Snapshot,
    pages: impl Iterator<Item = u64>,
    out: &mut [u8],
) -> Result<(), Error> {
    for (no, to) in pages.zip(out.chunks_exact_mut(PAGE_SIZE)) {
        store.read(snapshot, page(no)?, 0, to)?;
    }
    Ok(())
}

/// The page of that number.
pub(crate) fn page(no: u64) -> Result<PageNo, Error> {
    match no < PAGES_MAX {
        true => Ok(PageNo(no)),
        false => Err(Error::Usage(format!("page {no}: a dataset has at most {PAGES_MAX} pages"))),
    }
}

/// The catalog as JSON.
pub(crate) fn list(config: Option<&str>) -> Result<String, Error> {
    let datasets = clients::client(config, &[])?.client.list()?;
    Ok(serde_json::json!({ "datasets": datasets }).to_string())
}

/// Where a dataset is, as JSON.
pub(crate) fn locate(config: Option<&str>, name: &str) -> Result<String, Error> {
    let Configured { client, config } = clients::client(config, &[])?;
    let located: Located = client.locate(&config.dataset_name(name)?, None)?;
    Ok(serde_json::json!(located).to_string())
}

pub(crate) fn remove(config: Option<&str>, name: &str) -> Result<(), Error> {
    let Configured { client, config } = clients::client(config, &[])?;
    client.remove(&config.dataset_name(name)?)
}

/// Gives a dataset another name, and the one that has that name now the third.
pub(crate) fn rename(config: Option<&str>, name: &str, to: &str, aside: Option<&str>) -> Result<(), Error> {
    let Configured { client, config } = clients::client(config, &[])?;
    let (name, to) = (config.dataset_name(name)?, config.dataset_name(to)?);
    let aside = aside.map(|a| config.dataset_name(a)).transpose()?;
    client.control::<Done>(&Control::Rename { name, to, aside }).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let o = Options::parse(r#"{"durability":"disk","copies":3,"settings":{"cache.size":"1MiB"}}"#).unwrap();
        assert_eq!((o.durability, o.copies, o.min_copies), (Some(Durability::Disk), Some(3), None));
        for bad in [r#"{"copys":3}"#, r#"{"copies":"3"}"#, r#"{"copies":-1}"#, r#"{"durability":"ram"}"#, "[", "7"] {
            assert!(matches!(Options::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn page_numbers_that_overflow_bytes_are_refused() {
        assert_eq!(page(PAGES_MAX - 1).unwrap(), PageNo(PAGES_MAX - 1));
        assert!(page(PAGES_MAX).is_err() && page(u64::MAX).is_err());
    }
}
