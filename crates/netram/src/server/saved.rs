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
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

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

/// Whose turn it is to change the catalog and its file.
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

impl Node {
    /// Waits until nobody else changes the catalog.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn(self.saving.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A newer view replaces the older one as soon as it is in the file; an older one is ignored.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it contradicts what is known, those of the file system: all stays as it was.
    pub(crate) fn take_view(&self, _: &Turn<'_>, view: View) -> Result<(), Error> {
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
        _: &Turn<'_>,
        whole: bool,
        more: bool,
        put: Vec<DatasetEntry>,
        del: Vec<String>,
    ) -> Result<(), Error> {
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
    use super::super::connection::{Body, Message};
    use super::super::free::tests::start;
    use super::super::sender::Sender;
    use super::*;
    use crate::wire::json;
    use dspm_proto::auth::{Hello, Role};
    use dspm_proto::control::{Control, NodeEntry};
    use dspm_proto::{Header, Kind, StoreId};
    use std::sync::Arc;
    use std::time::Duration;

    fn connection() -> (Arc<Sender>, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(Sender::new(1, mio::net::TcpStream::from_std(stream))), listener)
    }

    fn view(version: u64, cluster: &str) -> View {
        View { version, cluster: cluster.into(), ..View::default() }
    }

    /// Guards a takeover: who asks what this node knows on a new connection is not told less than what it obeys later.
    #[test]
    fn a_view_that_waits_for_its_turn_is_refused_when_the_registry_speaks_on_a_newer_connection() {
        let dir = std::env::temp_dir().join(format!("dspm-catalog-turn-{}", std::process::id()));
        let node = start(&dir);
        let (old, new) = (connection(), connection());
        node.forwarded.registry_is(&old.0);
        let turn = node.turn();
        let told = std::thread::scope(|scope| {
            let teller = scope.spawn(|| {
                let (name, nonce, cluster) = Default::default();
                let (role, store) = (Role::Registry, StoreId(0));
                let hello = Hello { role, name, cluster, nonce, session: None, store, callbacks: false };
                let meta = json(&Control::View(view(3, "c")));
                let header = Header::new(Kind::Control);
                node.control(&hello, &old.0, &Message { header, meta, body: Body::None })
            });
            std::thread::sleep(Duration::from_millis(50)); // for it to be at its turn; the result is the same if it is not
            node.forwarded.registry_is(&new.0);
            drop(turn);
            teller.join().unwrap()
        });
        assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
        assert_eq!(node.catalog().view.version, 0);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_view_counts_when_it_is_in_the_file_and_contradicts_nothing() {
        let dir = std::env::temp_dir().join(format!("dspm-catalog-view-{}", std::process::id()));
        let node = start(&dir);
        let file = dir.join("data/catalog.json");
        assert_eq!(node.catalog().sum(), 0);
        node.take_view(&node.turn(), view(3, "c")).unwrap();
        let sum = node.catalog().sum();
        let blocker = file.with_extension("next");
        std::fs::create_dir_all(blocker.join("x")).unwrap(); // the file can be written no more
        assert!(matches!(node.take_view(&node.turn(), view(4, "c")), Err(Error::Unavailable(_) | Error::Failed(_))));
        let is = |version, sum, refused| {
            let c = node.catalog();
            (c.view.version, c.sum(), !c.refused().is_empty()) == (version, sum, refused)
        };
        assert!(is(3, sum, true), "half taken over");
        std::fs::remove_dir_all(&blocker).unwrap();
        node.take_view(&node.turn(), view(4, "c")).unwrap();
        let sum = node.catalog().sum();
        assert!(is(4, sum, false));
        let entry = NodeEntry { name: "n".into(), address: "h:1".into(), machine: "m".into() };
        let other = View { nodes: vec![entry], ..view(4, "c") };
        assert!(matches!(node.take_view(&node.turn(), other), Err(Error::Conflict(_))));
        assert_eq!(Catalog::open(&file).unwrap().view, view(4, "c"));
        node.take_view(&node.turn(), view(2, "old")).unwrap();
        assert!(is(4, sum, true), "an older one changes nothing");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
