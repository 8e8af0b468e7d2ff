//! Where datasets come from: the embedder's side of the VFS.

use dspm_proto::Error;
use dspm_txn::dataset::Dataset;
use std::sync::Arc;

/// How a program wants to open a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It must exist, and is only read (`mode=ro`, `immutable=1`).
    ReadOnly,
    /// It must exist (`mode=rw`).
    ReadWrite,
    /// It is made if it does not exist.
    Create,
    /// It must not exist yet.
    CreateNew,
}

/// One `xOpen` of a main database.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The dataset's name, as [`Opener::full_name`] answered.
    pub name: &'a str,
    /// What the program asked for.
    pub access: Access,
    /// URI parameters in their order (`cluster=`, `config=`, …), SQLite's own among them.
    pub parameters: Vec<(String, String)>,
}

impl OpenRequest<'_> {
    /// The first URI parameter of that name.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// Opens datasets by name. Shared by every copy of SQLite that it was registered in, called by any thread.
///
/// After a fork the child asks the parent's opener too: it has to notice that by itself.
pub trait Opener: Send + Sync + 'static {
    /// The dataset. One process has one object a dataset: all its handles share it, since the write lease, the writer
    /// mutex and [`Dataset::is_reserved`] are the process's.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist and may not be made; what the store says otherwise.
    fn open(&self, request: &OpenRequest<'_>) -> Result<Arc<dyn Dataset>, Error>;

    /// True when the dataset exists.
    ///
    /// # Errors
    /// What the store says.
    fn exists(&self, name: &str) -> Result<bool, Error>;

    /// Deletes the dataset.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what the store says.
    fn delete(&self, name: &str) -> Result<(), Error>;

    /// The dataset's name for what a program typed: relative as typed, absolute with its full path, lexically cleaned.
    fn full_name(&self, typed: &str) -> String {
        crate::names::clean(typed)
    }

    /// Most bytes that one transaction may write before it gets SQLITE_FULL; they are kept in the process's memory
    /// until the commit.
    fn transaction_max(&self) -> u64 {
        1 << 30
    }
}
