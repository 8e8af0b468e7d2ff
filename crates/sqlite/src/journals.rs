//! The journals of a process, by name.
//!
//! Keyed by the name's bytes, not by where SQLite keeps them: stacked VFSes pass copies. Shared among the process's
//! handles, so that one sees that another's journal is there, and by the reservation that it is not hot.

use crate::journal::Journal;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

type Table = HashMap<Box<[u8]>, Arc<Journal>>;

/// All journals and super-journals of the process.
#[derive(Default)]
pub struct Journals {
    table: RwLock<Table>,
    /// So that the question "is there a journal", which every read transaction asks, needs no lock when there is none.
    count: AtomicUsize,
}

impl Journals {
    /// The journal of that name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Journal>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// True if there is one.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.count.load(Ordering::Acquire) != 0
            && self.table.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// True if there is one that a transaction has begun to write. What `journal_mode` PERSIST and TRUNCATE leave does
    /// not count: it would make each read transaction look for a hot journal in it.
    pub fn is_in_use(&self, name: &[u8]) -> bool {
        self.count.load(Ordering::Acquire) != 0
            && self.table.read().unwrap_or_else(PoisonError::into_inner).get(name).is_some_and(|j| !j.is_blank())
    }

    /// The journal of that name, made if there is none; `None` if it had to be new and is not.
    pub fn create(&self, name: &[u8], must_be_new: bool) -> Option<Arc<Journal>> {
        self.change(|table| match table.get(name) {
            Some(_) if must_be_new => None,
            Some(journal) => Some(journal.clone()),
            None => Some(table.entry(name.into()).or_default().clone()),
        })
    }

    /// Forgets it; those who have it open keep its content. False if there was none.
    pub fn delete(&self, name: &[u8]) -> bool {
        self.contains(name) && self.change(|table| table.remove(name).is_some())
    }

    /// Deletes the journal of a transaction that has ended without finalizing it. The store was never changed, so there
    /// is nothing that it could roll back; what `journal_mode` PERSIST and TRUNCATE leave stays.
    pub fn delete_leftover(&self, name: &[u8]) {
        if self.is_in_use(name) {
            self.delete(name);
        }
    }

    fn change<T>(&self, how: impl FnOnce(&mut Table) -> T) -> T {
        let mut table: RwLockWriteGuard<'_, Table> = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let answer = how(&mut table);
        self.count.store(table.len(), Ordering::Release);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_there_until_it_is_deleted() {
        let journals = Journals::default();
        assert!(!journals.contains(b"a") && journals.get(b"a").is_none() && !journals.delete(b"a"));
        let a = journals.create(b"a", true).unwrap();
        assert!(journals.create(b"a", true).is_none());
        a.write(0, b"x").unwrap();
        assert_eq!(journals.create(b"a", false).unwrap().size(), 1);
        assert!(journals.contains(b"a") && !journals.contains(b"b"));
        assert!(journals.delete(b"a") && !journals.contains(b"a"));
        assert_eq!(a.size(), 1, "who has it open keeps it");
    }

    #[test]
    fn only_a_header_makes_a_leftover() {
        let journals = Journals::default();
        journals.create(b"persisted", true).unwrap().write(0, &[0; 28]).unwrap();
        journals.create(b"left", true).unwrap().write(0, &[0xd9; 28]).unwrap();
        for name in [&b"persisted"[..], b"left", b"none"] {
            journals.delete_leftover(name);
        }
        assert!(journals.contains(b"persisted") && !journals.contains(b"left"));
    }
}
