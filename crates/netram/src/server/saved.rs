//! The catalog's file, and how the node takes over what the registry tells it.
//!
//! Invariants: one writer at a time, in the order in which memory changes; a view counts when the file has it. Nobody
//! waits for the disk who only reads the catalog: grants and leases do.
//!
//! Fault model: the process dies at any step, the disk is full or fails; the file is the old one or the new one.

use super::node::Node;
use dspm_proto::Error;
use dspm_proto::control::{DatasetEntry, View};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// The file's content.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) view: View,
    pub(crate) datasets: Vec<DatasetEntry>,
}

/// What was saved; None when nothing was.
///
/// # Errors
/// [`Error::Corrupt`] when the file is not one; [`Error::Unavailable`] when it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<Saved>, Error> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::Unavailable(format!("{}: {e}", path.display()))),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| Error::Corrupt(format!("{}: {e}", path.display())))
}

/// What is to be in the file.
pub(crate) struct Draft {
    pub(crate) path: PathBuf,
    pub(crate) content: Saved,
}

impl Draft {
    /// Writes the file, whole or not at all; it is there for good when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(&self.content).map_err(|e| Error::Failed(e.to_string()))?;
        let next = self.path.with_extension("next");
        // A file that a crash left would keep the mode it was made with.
        match std::fs::remove_file(&next) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let mut f = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        f.write_all(&text)?;
        f.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        let dir = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir)?.sync_all()?;
        Ok(())
    }
}

impl Node {
    /// A newer view replaces the older one as soon as it is in the file; an older one is ignored.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it contradicts what is known, those of the file system: all stays as it was.
    pub(crate) fn take_view(&self, view: View) -> Result<(), Error> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let version = view.version;
        let offered = self.catalog().offer(view);
        let taken = match offered {
            Ok(None) => return Ok(()),
            Ok(Some(draft)) => draft.write().map(|()| draft.content.view),
            Err(e) => Err(e),
        };
        let mut catalog = self.catalog();
        let before = catalog.refused().to_owned();
        let done = catalog.adopt(taken);
        if let Err(e) = &done {
            if matches!(e, Error::Conflict(_)) {
                self.counters.alarms.fetch_add(1, Ordering::Relaxed);
            }
            if catalog.refused() != before {
                eprintln!("dspm-node: cannot take over version {version} of the view: {e}");
            }
        }
        done
    }

    /// Takes a part of a change of the catalog in (`Catalog::take_part`). When it was the last one, all of it is in the
    /// file when this returns.
    ///
    /// # Errors
    /// Those of the file system: memory knows what the file does not.
    pub(crate) fn take_part(
        &self,
        whole: bool,
        more: bool,
        put: Vec<DatasetEntry>,
        del: Vec<String>,
    ) -> Result<(), Error> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = self.catalog();
        if !catalog.take_part(whole, more, put, del) {
            return Ok(());
        }
        let draft = catalog.draft();
        drop(catalog);
        draft.write()?;
        self.catalog().is_saved();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::Catalog;
    use super::super::free::tests::start;
    use super::*;
    use dspm_proto::control::NodeEntry;

    fn view(version: u64, cluster: &str) -> View {
        View { version, cluster: cluster.into(), ..View::default() }
    }

    #[test]
    fn a_view_counts_when_it_is_in_the_file_and_contradicts_nothing() {
        let dir = std::env::temp_dir().join(format!("dspm-catalog-view-{}", std::process::id()));
        let node = start(&dir);
        let file = dir.join("data/catalog.json");
        assert_eq!(node.catalog().sum(), 0);
        node.take_view(view(3, "c")).unwrap();
        let sum = node.catalog().sum();
        let blocker = file.with_extension("next");
        std::fs::create_dir_all(blocker.join("x")).unwrap(); // the file can be written no more
        assert!(matches!(node.take_view(view(4, "c")), Err(Error::Unavailable(_) | Error::Failed(_))));
        let is = |version, sum, refused| {
            let c = node.catalog();
            (c.view.version, c.sum(), !c.refused().is_empty()) == (version, sum, refused)
        };
        assert!(is(3, sum, true), "half taken over");
        std::fs::remove_dir_all(&blocker).unwrap();
        node.take_view(view(4, "c")).unwrap();
        let sum = node.catalog().sum();
        assert!(is(4, sum, false));
        let entry = NodeEntry { name: "n".into(), address: "h:1".into(), machine: "m".into() };
        let other = View { nodes: vec![entry], ..view(4, "c") };
        assert!(matches!(node.take_view(other), Err(Error::Conflict(_))));
        assert_eq!(Catalog::open(&file).unwrap().view, view(4, "c"));
        node.take_view(view(2, "old")).unwrap();
        assert!(is(4, sum, true), "an older one changes nothing");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
