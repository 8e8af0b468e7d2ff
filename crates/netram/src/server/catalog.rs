//! What the node knows of the cluster: nodes, sets, datasets. Kept in a file, so that a node that starts without the
//! registry serves what it served before.
//!
//! Invariants: a change that comes in several messages counts when the last one is there, so that a catalog that is
//! being told anew is the old one until then, in memory and in the file. A view is taken over when it is in the file, and never
//! when it contradicts the one that is known. Nothing is destroyed because a name is missing.

use super::saved::{self, Draft, Saved};
use dspm_proto::control::{DatasetEntry, Located, NodeEntry, SetEntry, View};
use dspm_proto::{Error, GroupId, SetId, limits};
use dspm_txn::NodeNo;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Most bytes of an entry's JSON, its name aside, and of one byte of a name.
const TEXT_OF_ENTRY: usize = 288;
const ESCAPED: usize = 6;

/// The cached placement.
#[derive(Default)]
pub(crate) struct Catalog {
    path: PathBuf,
    pub(crate) view: View,
    sum: u64,
    refused: String,
    datasets: BTreeMap<String, DatasetEntry>,
    groups: HashMap<GroupId, String>,
    /// Groups whose datasets are about to be removed, by what [`DatasetEntry::removing`] says.
    removing: BTreeMap<GroupId, u64>,
    numbers: Vec<String>,
    coming: Coming,
    /// The file does not have all that memory has.
    unsaved: bool,
}

/// The parts of a change that are there; the others follow.
#[derive(Default)]
struct Coming {
    whole: bool,
    put: Vec<DatasetEntry>,
    del: Vec<String>,
}

impl Catalog {
    /// What was saved, or nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file is not one; [`Error::Unavailable`] when it cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Catalog, Error> {
        let mut catalog = Catalog { path: path.to_owned(), ..Catalog::default() };
        let Some(saved) = saved::read(path)? else { return Ok(catalog) };
        (catalog.sum, catalog.view) = (saved.view.checksum(), saved.view);
        saved.datasets.into_iter().for_each(|d| catalog.put(d));
        Ok(catalog)
    }

    /// What is to be in the file.
    pub(crate) fn draft(&self) -> Draft {
        let content = Saved { view: self.view.clone(), datasets: self.datasets.values().cloned().collect() };
        Draft { path: self.path.clone(), content }
    }

    /// The file with a newer view in it, which is taken over when it is written; None for an older one.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it contradicts what is known.
    pub(crate) fn offer(&self, view: View) -> Result<Option<Draft>, Error> {
        if view.version < self.view.version {
            return Ok(None);
        }
        if let Some(why) = self.view.contradiction(&view).filter(|_| self.view.version > 0) {
            return Err(Error::Conflict(why));
        }
        let mut draft = self.draft();
        draft.content.view = view;
        Ok(Some(draft))
    }

    /// Takes over a view that is in the file, or why it is not.
    ///
    /// # Errors
    /// That reason: all stays as it was.
    pub(crate) fn adopt(&mut self, taken: Result<View, Error>) -> Result<(), Error> {
        self.refused = taken.as_ref().err().map(ToString::to_string).unwrap_or_default();
        self.view = taken?;
        (self.sum, self.unsaved) = (self.view.checksum(), false);
        Ok(())
    }

    /// The file has all that memory has.
    pub(crate) fn is_saved(&mut self) {
        self.unsaved = false;
    }

    /// Checksum of the view, 0 if there is none.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// Why the newest view was not taken over; empty when it was.
    pub(crate) fn refused(&self) -> &str {
        &self.refused
    }

    /// Takes a part of a change in; true when it was the last one, and the change is made. One that begins a whole
    /// catalog ends what an earlier connection left unfinished.
    pub(crate) fn take_part(&mut self, whole: bool, more: bool, put: Vec<DatasetEntry>, del: Vec<String>) -> bool {
        if whole {
            self.coming = Coming { whole, ..Coming::default() };
        }
        self.coming.put.extend(put);
        self.coming.del.extend(del);
        if !more {
            let Coming { whole, put, del } = std::mem::take(&mut self.coming);
            self.update(whole, put, &del);
            self.unsaved = true;
        }
        !more
    }

    /// Takes entries in. No data goes by a name that is missing or given to another: what a whole catalog does not
    /// name is only forgotten here (the registry may have been restored from an old backup).
    fn update(&mut self, whole: bool, put: Vec<DatasetEntry>, del: &[String]) {
        if whole {
            self.datasets.clear();
            self.groups.clear();
            self.removing.clear();
        }
        put.into_iter().for_each(|entry| self.put(entry));
        for name in del {
            let Some(entry) = self.datasets.remove(name) else { continue };
            if self.groups.get(&entry.group) == Some(name) {
                self.groups.remove(&entry.group);
                self.removing.remove(&entry.group);
            }
        }
    }

    /// True while a dataset of the catalog has that group.
    pub(crate) fn has_group(&self, id: GroupId) -> bool {
        self.groups.contains_key(&id)
    }

    fn put(&mut self, entry: DatasetEntry) {
        self.groups.insert(entry.group, entry.name.clone());
        match entry.removing {
            0 => self.removing.remove(&entry.group),
            mark => self.removing.insert(entry.group, mark),
        };
        let (name, group) = (entry.name.clone(), entry.group);
        let Some(before) = self.datasets.insert(name.clone(), entry) else { return };
        // Removed and created again between two words: the name stands for the new one only.
        if before.group != group && self.groups.get(&before.group) == Some(&name) {
            self.groups.remove(&before.group);
            self.removing.remove(&before.group);
        }
    }

    /// Groups whose datasets are about to be removed, and whether the file says so: what this process says of them the next
    /// one has to keep to.
    pub(crate) fn removing(&self) -> (BTreeMap<GroupId, u64>, bool) {
        (self.removing.clone(), !self.unsaved)
    }

    /// The datasets above that name, in order, as many as a page takes; and whether there are more.
    pub(crate) fn page(&self, after: &str, limit: usize) -> (Vec<DatasetEntry>, bool) {
        let limit = if limit == 0 { limits::LISTED_MAX } else { limit.min(limits::LISTED_MAX) };
        let mut above = self.datasets.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).map(|(_, d)| d);
        let (mut page, mut bytes) = (Vec::new(), 0);
        for d in above.by_ref().take(limit) {
            bytes += TEXT_OF_ENTRY + ESCAPED * d.name.len();
            page.push(d.clone());
            if bytes >= limits::LISTED_BYTES {
                break;
            }
        }
        (page, above.next().is_some())
    }

    /// The groups of a set.
    pub(crate) fn groups_of(&self, set: SetId) -> impl Iterator<Item = GroupId> + '_ {
        self.datasets.values().filter(move |d| d.set == set).map(|d| d.group)
    }

    /// The set that holds a dataset of that group.
    pub(crate) fn set_of(&self, group: GroupId) -> Option<&SetEntry> {
        let entry = &self.datasets[self.groups.get(&group)?];
        self.view.sets.iter().find(|s| s.id == entry.set)
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

    /// The number of a node that a set names, or named. Who else speaks gets none: a name is as long as a peer likes.
    pub(crate) fn known_number(&self, name: &str) -> Option<NodeNo> {
        self.numbers.iter().position(|n| n == name).map(|at| at as NodeNo)
    }

    /// This process's number of a node that a set names; it keeps it, so there are as many as sets named nodes since the
    /// process began.
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

#[cfg(test)]
mod tests {
    use super::*;
    use dspm_proto::{DatasetId, SetId};

    fn entry(name: &str, group: u64) -> DatasetEntry {
        let (dataset, group, set) = (DatasetId(group + 100), GroupId(group), SetId(1));
        let durability = dspm_proto::control::Durability::Memory;
        DatasetEntry {
            name: name.into(),
            dataset,
            group,
            set,
            durability,
            copies: 2,
            min_copies: 1,
            history_ms: 0,
            removing: 0,
        }
    }

    fn all(c: &Catalog) -> Vec<DatasetEntry> {
        c.page("", 0).0
    }

    #[test]
    fn pages_hold_every_name_once_and_no_more_than_a_message() {
        let mut c = Catalog::default();
        let long = "\u{1}".repeat(limits::NAME_MAX - 4); // six bytes of JSON each
        let names: Vec<String> = (0..2500).map(|i| format!("{long}{i:04}")).collect();
        c.update(true, names.iter().zip(1..).map(|(n, g)| entry(n, g)).collect(), &[]);
        for limit in [0, 7, 5000] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let (page, more) = c.page(&after, limit);
                let text = serde_json::to_vec(&page).unwrap().len();
                assert!(text <= limits::META_MAX as usize / 2, "{text} bytes");
                assert!(!page.is_empty() && (limit == 0 || page.len() <= limit));
                found.extend(page.into_iter().map(|d| d.name));
                after = found.last().unwrap().clone();
                if !more {
                    break;
                }
            }
            assert_eq!(found, names);
        }
        assert_eq!(c.page("\u{2}", 0), (vec![], false));
    }

    #[test]
    fn a_change_counts_when_all_of_it_is_there() {
        let mut c = Catalog::default();
        c.update(true, vec![entry("old", 1)], &[]);
        assert!(!c.take_part(true, true, vec![entry("a", 2)], vec![]));
        assert_eq!(all(&c), [entry("old", 1)]);
        // The connection broke; the next one begins again.
        assert!(!c.take_part(true, true, vec![entry("b", 3)], vec![]));
        assert!(c.take_part(false, false, vec![entry("c", 4)], vec![]));
        assert_eq!(all(&c), [entry("b", 3), entry("c", 4)]);
        assert!(c.take_part(false, false, vec![entry("d", 4)], vec!["c".into()]));
        assert_eq!(all(&c), [entry("b", 3), entry("d", 4)]);
    }

    #[test]
    fn a_renamed_dataset_keeps_its_group_in_any_order_of_parts() {
        for put_first in [true, false] {
            let mut c = Catalog::default();
            c.update(true, vec![entry("old", 1)], &[]);
            if put_first {
                c.update(false, vec![entry("new", 1)], &[]);
                c.update(false, vec![], &["old".into()]);
            } else {
                c.update(false, vec![], &["old".into()]);
                c.update(false, vec![entry("new", 1)], &[]);
            }
            assert!(c.has_group(GroupId(1)) && all(&c) == [entry("new", 1)]);
        }
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_comes_back() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("dspm-catalog-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("catalog.json");
        // What an older version, or a crash of it, left open to others.
        for old in [&path, &path.with_extension("next")] {
            std::fs::write(old, b"{").unwrap();
            std::fs::set_permissions(old, std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        assert!(matches!(Catalog::open(&path), Err(Error::Corrupt(_))));
        let mut c = Catalog { path: path.clone(), ..Catalog::default() };
        c.update(true, vec![entry("a", 1)], &[]);
        c.draft().write().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(all(&Catalog::open(&path).unwrap()), [entry("a", 1)]);
        assert!(Catalog::open(&dir).is_err(), "what cannot be read is not an empty catalog");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_name_given_to_another_dataset_takes_nothing_from_the_first() {
        let mut c = Catalog::default();
        c.update(true, vec![entry("a", 1)], &[]);
        c.update(false, vec![entry("a", 2)], &[]);
        c.update(false, vec![entry("b", 1)], &[]);
        assert!(c.has_group(GroupId(1)) && c.has_group(GroupId(2)));
    }

    #[test]
    fn a_dataset_removed_and_created_again_between_two_words_leaves_its_old_group() {
        let mut c = Catalog::default();
        c.update(true, vec![entry("a", 1)], &[]);
        c.update(false, vec![entry("a", 2)], &[]);
        assert!(matches!(c.group(GroupId(1)), Err(Error::NotFound(_))));
        assert!(!c.has_group(GroupId(1)), "it could never be freed");
    }
}
