//! What the node knows of the cluster: nodes, sets, datasets. Kept in a file, so that a node that starts without the
//! registry serves what it served before.

use dspm_proto::control::{DatasetEntry, Located, NodeEntry, SetEntry, View};
use dspm_proto::{Error, GroupId};
use dspm_txn::NodeNo;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The cached placement.
#[derive(Default)]
pub(crate) struct Catalog {
    path: PathBuf,
    pub(crate) view: View,
    datasets: HashMap<String, DatasetEntry>,
    groups: HashMap<GroupId, String>,
    numbers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    view: View,
    datasets: Vec<DatasetEntry>,
}

impl Catalog {
    /// What was saved, or nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file cannot be read as one.
    pub(crate) fn open(path: &Path) -> Result<Catalog, Error> {
        let mut catalog = Catalog { path: path.to_owned(), ..Catalog::default() };
        let Ok(text) = std::fs::read(path) else { return Ok(catalog) };
        let saved: Saved =
            serde_json::from_slice(&text).map_err(|e| Error::Corrupt(format!("{}: {e}", path.display())))?;
        catalog.view = saved.view;
        for d in saved.datasets {
            catalog.put(d);
        }
        Ok(catalog)
    }

    /// Writes the file: whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let saved = Saved { view: self.view.clone(), datasets: self.datasets.values().cloned().collect() };
        let text = serde_json::to_vec(&saved).map_err(|e| Error::Failed(e.to_string()))?;
        let next = self.path.with_extension("next");
        let mut f = std::fs::File::create(&next)?;
        f.write_all(&text)?;
        f.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        Ok(())
    }

    /// A newer view replaces the older one; an older one is ignored.
    pub(crate) fn set_view(&mut self, view: View) {
        if view.version >= self.view.version {
            self.view = view;
        }
    }

    /// Takes entries in; answers the groups that were removed. Data goes only by name: a dataset that a whole catalog
    /// does not name is forgotten here, and its pages stay (the registry may have been restored from an old backup).
    pub(crate) fn update(&mut self, whole: bool, put: Vec<DatasetEntry>, del: &[String]) -> Vec<GroupId> {
        if whole {
            self.datasets.clear();
            self.groups.clear();
        }
        let mut groups: Vec<GroupId> = Vec::new();
        for name in del {
            if let Some(entry) = self.datasets.remove(name) {
                self.groups.remove(&entry.group);
                groups.push(entry.group);
            }
        }
        for entry in put {
            groups.extend(self.put(entry));
        }
        groups.retain(|g| !self.groups.contains_key(g)); // renamed, not gone
        groups
    }

    /// Takes an entry in; answers the group of an earlier dataset of that name, which was removed meanwhile.
    fn put(&mut self, entry: DatasetEntry) -> Option<GroupId> {
        self.groups.insert(entry.group, entry.name.clone());
        let group = entry.group;
        let before = self.datasets.insert(entry.name.clone(), entry)?.group;
        (before != group).then(|| self.groups.remove(&before)).map(|_| before)
    }

    /// All datasets, by name.
    pub(crate) fn list(&self) -> Vec<DatasetEntry> {
        let mut all: Vec<_> = self.datasets.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// How many datasets.
    pub(crate) fn count(&self) -> u64 {
        self.datasets.len() as u64
    }

    /// A group's dataset and set.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn group(&self, id: GroupId) -> Result<(DatasetEntry, SetEntry), Error> {
        let name = self.groups.get(&id).ok_or_else(|| Error::NotFound(format!("no dataset has group {id}")))?;
        let entry = &self.datasets[name];
        Ok((entry.clone(), self.set(entry)?))
    }

    fn set(&self, entry: &DatasetEntry) -> Result<SetEntry, Error> {
        let found = self.view.sets.iter().find(|s| s.id == entry.set).cloned();
        found.ok_or_else(|| Error::Unavailable(format!("the replica set of {} is not known here yet", entry.name)))
    }

    /// Where a dataset is; None when it is not known here.
    pub(crate) fn locate(&self, name: &str, lease_ms: u64) -> Option<Located> {
        let entry = self.datasets.get(name)?.clone();
        let set = self.set(&entry).ok()?;
        let member = |n: &&NodeEntry| set.members.iter().chain(&set.joining).any(|m| m.node == n.name);
        let nodes = self.view.nodes.iter().filter(member).cloned().collect();
        Some(Located { entry, set, nodes, lease_ms, created: false })
    }

    /// This process's number of a node.
    pub(crate) fn number(&mut self, name: &str) -> NodeNo {
        let at = self.numbers.iter().position(|n| n == name).unwrap_or_else(|| {
            self.numbers.push(name.to_owned());
            self.numbers.len() - 1
        });
        at as NodeNo
    }

    /// The name behind a number.
    pub(crate) fn name(&self, number: NodeNo) -> Option<&str> {
        self.numbers.get(number as usize).map(String::as_str)
    }
}
