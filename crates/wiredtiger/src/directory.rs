//! The directory: which name has which dataset, in the pages of the group's main dataset (docs/formats/directory.md).
//!
//! A slot keeps its dataset for ever. Freed, the dataset is made empty in the same commit, and serves the next file: so
//! there are never more datasets than there were files at one time.

use crate::failure::Failure;
use crate::names;
use dspm_proto::{DatasetId, PAGE_SIZE, PageNo};
use dspm_txn::dataset::PageBuf;
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &[u8; 8] = b"dspmdir\0";
const VERSION: u32 = 1;
const SLOT: usize = 512;
const SLOTS: usize = PAGE_SIZE / SLOT;
const NAME_AT: usize = SLOT - names::NAME_MAX;

/// What a slot says; an empty name: it is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    dataset: DatasetId,
    name: String,
}

/// All slots, and their names.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    slots: Vec<Slot>,
    names: BTreeMap<String, usize>,
    free: BTreeSet<usize>,
}

/// A change that is not committed yet.
pub(crate) struct Edit {
    slots: Vec<(usize, Slot)>,
    /// Pages of the main dataset, ascending.
    pub(crate) pages: Vec<(PageNo, Box<PageBuf>)>,
    /// Size of the main dataset afterwards.
    pub(crate) size: u64,
    /// Datasets that hold nothing afterwards.
    pub(crate) emptied: Vec<DatasetId>,
}

impl Directory {
    /// The header's page, of a directory without files.
    pub(crate) fn header() -> Box<PageBuf> {
        let mut page = Box::new([0; PAGE_SIZE]);
        page[..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&(SLOT as u32).to_le_bytes());
        page
    }

    /// Checks the first page of the main dataset.
    ///
    /// # Errors
    /// EINVAL where it is something else.
    pub(crate) fn check(bytes: &[u8]) -> Result<(), Failure> {
        let header = &Directory::header()[..];
        if bytes.len() < PAGE_SIZE || bytes[..8] != header[..8] {
            let text = "the dataset holds something else than WiredTiger's files; name another one";
            return Err(Failure::new(libc::EINVAL, text));
        }
        if bytes[..PAGE_SIZE] != *header {
            let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            let text = format!("the directory is of format {version}; this dspm reads {VERSION}: use a newer one");
            return Err(Failure::new(libc::EINVAL, text));
        }
        Ok(())
    }

    /// Reads the main dataset.
    ///
    /// # Errors
    /// Those of [`Directory::check`]; EIO where it contradicts itself.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Directory, Failure> {
        Directory::check(bytes)?;
        let mut directory = Directory::default();
        for (number, slot) in bytes[PAGE_SIZE..].chunks_exact(SLOT).enumerate() {
            let slot = Slot::decode(slot).ok_or_else(|| damaged(number, "makes no sense"))?;
            let used = !slot.name.is_empty();
            if used && directory.names.insert(slot.name.clone(), number).is_some() {
                return Err(damaged(number, &format!("has the name {} once more", slot.name)));
            }
            if !used {
                directory.free.insert(number);
            }
            directory.slots.push(slot);
        }
        Ok(directory)
    }

    /// The dataset of a file.
    pub(crate) fn find(&self, name: &str) -> Option<DatasetId> {
        Some(self.slots[*self.names.get(name)?].dataset)
    }

    /// All files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, DatasetId)> {
        self.names.iter().map(|(name, slot)| (&name[..], self.slots[*slot].dataset))
    }

    /// True if files lie below, or it needs none.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        names::is_given(path) || self.names.range(format!("{path}/")..).next().is_some_and(|(n, _)| below(path, n))
    }

    /// What a listing of that directory shows, sorted, each once.
    pub(crate) fn list(&self, directory: &str, prefix: &str) -> Vec<String> {
        let all = self.names.keys().filter_map(|name| names::child(directory, name));
        let shown: BTreeSet<&str> = all.filter(|name| name.starts_with(prefix)).collect();
        shown.into_iter().map(String::from).collect()
    }

    /// A file of that name, which is not there, in a free slot or a new one with that dataset.
    pub(crate) fn create(&self, name: &str, new: DatasetId) -> (Edit, DatasetId) {
        let number = self.free.first().copied().unwrap_or(self.slots.len());
        let dataset = self.slots.get(number).map(|s| s.dataset).filter(|d| *d != DatasetId(0)).unwrap_or(new);
        (self.edit(vec![(number, Slot { dataset, name: name.into() })], Vec::new()), dataset)
    }

    /// Without that file.
    pub(crate) fn remove(&self, name: &str) -> Option<Edit> {
        let freed = self.freed(name)?;
        let emptied = vec![freed.1.dataset];
        Some(self.edit(vec![freed], emptied))
    }

    /// With another name for that file, in whose place no other one is left.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Option<Edit> {
        let number = *self.names.get(from)?;
        let renamed = Slot { name: to.into(), ..self.slots[number].clone() };
        let freed = self.freed(to);
        let emptied = freed.iter().map(|f| f.1.dataset).collect();
        Some(self.edit(freed.into_iter().chain([(number, renamed)]).collect(), emptied))
    }

    fn freed(&self, name: &str) -> Option<(usize, Slot)> {
        let number = *self.names.get(name)?;
        Some((number, Slot { name: String::new(), ..self.slots[number].clone() }))
    }

    fn edit(&self, slots: Vec<(usize, Slot)>, emptied: Vec<DatasetId>) -> Edit {
        let count = slots.iter().map(|(n, _)| n + 1).chain([self.slots.len()]).max().unwrap_or(0);
        let numbers: BTreeSet<usize> = slots.iter().map(|(n, _)| n / SLOTS).collect();
        let page = |number: usize| {
            let mut page = Box::new([0; PAGE_SIZE]);
            for (n, bytes) in (number * SLOTS..).zip(page.chunks_exact_mut(SLOT)) {
                let changed = slots.iter().find(|s| s.0 == n).map(|s| &s.1);
                if let Some(slot) = changed.or_else(|| self.slots.get(n)) {
                    slot.encode(bytes);
                }
            }
            (PageNo(number as u64 + 1), page)
        };
        let pages = numbers.into_iter().map(page).collect();
        let size = (1 + count.div_ceil(SLOTS) as u64) * PAGE_SIZE as u64;
        Edit { slots, pages, size, emptied }
    }

    /// The edit is committed. It was made from this state.
    pub(crate) fn apply(&mut self, edit: &Edit) {
        for (number, slot) in edit.slots.clone() {
            while self.slots.len() <= number {
                self.free.insert(self.slots.len());
                self.slots.push(Slot::default());
            }
            let old = std::mem::replace(&mut self.slots[number], slot.clone());
            if self.names.get(&old.name) == Some(&number) {
                self.names.remove(&old.name);
            }
            if slot.name.is_empty() {
                self.free.insert(number);
            } else {
                self.free.remove(&number);
                self.names.insert(slot.name, number);
            }
        }
    }
}

impl Slot {
    fn encode(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.dataset.0.to_le_bytes());
        bytes[8..10].copy_from_slice(&(self.name.len() as u16).to_le_bytes());
        bytes[NAME_AT..NAME_AT + self.name.len()].copy_from_slice(self.name.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Slot> {
        let dataset = DatasetId(u64::from_le_bytes(bytes[..8].try_into().ok()?));
        let length = u16::from_le_bytes(bytes[8..10].try_into().ok()?) as usize;
        let name = std::str::from_utf8(bytes[NAME_AT..].get(..length)?).ok()?;
        let fits = name.is_empty() || dataset != DatasetId(0) && names::check(name).is_ok();
        fits.then(|| Slot { dataset, name: name.into() })
    }
}

fn below(directory: &str, name: &str) -> bool {
    names::child(directory, name).is_some()
}

fn damaged(slot: usize, why: &str) -> Failure {
    Failure::new(libc::EIO, format!("the directory is damaged: slot {slot} {why}"))
}

#[cfg(test)]
mod tests;
