//! The file system: names, and the files that are open.

use crate::directory::{Directory, Edit};
use crate::failure::Failure;
use crate::file::File;
use crate::names;
use crate::open_file::OpenFile;
use crate::queue::{Queue, Work};
use dspm_proto::{DatasetId, PAGE_SIZE};
use dspm_txn::dataset::Change;
use dspm_txn::volume::{ReadAhead, Volume};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pages that are written and not committed: from there on, who writes commits them (64 MiB).
const DIRTY_MAX: usize = 16 << 10;

/// What a file is used for, as the program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A data file opened as a checkpoint.
    Checkpoint,
    /// A data file.
    Data,
    /// A directory.
    Directory,
    /// A log file.
    Log,
    /// Any other.
    Regular,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// It is made if it is missing.
    pub create: bool,
    /// It must be missing.
    pub exclusive: bool,
    /// It is not written.
    pub read_only: bool,
    /// Its name is durable when the call returns; names always are.
    pub durable: bool,
}

/// The files of one database path, of which this process is the owner.
pub struct FileSystem {
    pub(crate) volume: Arc<dyn Volume>,
    pub(crate) queue: Queue,
    names: Mutex<Names>,
    dirty: Arc<AtomicUsize>,
}

struct Names {
    directory: Directory,
    files: HashMap<DatasetId, Arc<File>>,
}

impl FileSystem {
    /// Becomes the owner of the path and reads which files there are. `wait`: how long an owner that is there is waited
    /// for.
    ///
    /// # Errors
    /// EBUSY: another process is the owner. EINVAL: the dataset holds something else.
    pub fn open(volume: Arc<dyn Volume>, wait: Duration) -> Result<Arc<FileSystem>, Failure> {
        volume.claim(wait)?;
        let loaded = FileSystem::load(volume.clone());
        if loaded.is_err() {
            volume.disown();
        }
        loaded
    }

    fn load(volume: Arc<dyn Volume>) -> Result<Arc<FileSystem>, Failure> {
        let main = volume.main();
        let sizes: HashMap<DatasetId, u64> = volume.sizes()?.into_iter().collect();
        let size = sizes.get(&main).copied().unwrap_or(0);
        let directory = if size == 0 {
            let header = Directory::header();
            let change = Change { pages: &[(dspm_proto::PageNo(0), &*header)], size: PAGE_SIZE as u64 };
            volume.commit(&[(main, change)])?;
            Directory::default()
        } else {
            let mut first = vec![0; PAGE_SIZE.min(size as usize)];
            volume.read(main, size, 0, &mut first, &ReadAhead::default())?;
            Directory::check(&first)?; // before all of what may be a large database is read
            let mut bytes = vec![0; size as usize];
            volume.read(main, size, 0, &mut bytes, &ReadAhead::default())?;
            Directory::decode(&bytes)?
        };
        let dirty = Arc::new(AtomicUsize::new(0));
        let file = |(_, dataset): (&str, DatasetId)| {
            let size = sizes.get(&dataset).copied().unwrap_or(0);
            (dataset, Arc::new(File::new(dataset, size, dirty.clone())))
        };
        let files = directory.files().map(file).collect();
        let names = Mutex::new(Names { directory, files });
        Ok(Arc::new(FileSystem { queue: Queue::new(volume.clone()), volume, names, dirty }))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where this process is not the owner, or the file system has ended.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.queue.check()?;
        self.volume.check().map_err(|e| {
            self.queue.note(&e);
            e.into()
        })
    }

    /// True if there is a file, or a directory, of that name.
    ///
    /// # Errors
    /// As every method: EIO once this process is not the owner any more, or the store does not answer.
    pub fn exists(&self, path: &str) -> Result<bool, Failure> {
        self.check()?;
        let names = self.names();
        Ok(names.directory.find(path).is_some() || names.directory.has_directory(path))
    }

    /// Names in a directory that begin with the prefix.
    ///
    /// # Errors
    /// ENOENT.
    pub fn list(&self, directory: &str, prefix: &str) -> Result<Vec<String>, Failure> {
        self.check()?;
        let names = self.names();
        match names.directory.has_directory(directory) {
            true => Ok(names.directory.list(directory, prefix)),
            false => Err(Failure::missing(directory)),
        }
    }

    /// Opens a file or a directory.
    ///
    /// # Errors
    /// ENOENT, EEXIST, EISDIR, ENOTDIR.
    pub fn open_file(self: &Arc<Self>, path: &str, kind: FileKind, flags: OpenFlags) -> Result<OpenFile, Failure> {
        self.check()?;
        let mut names = self.names();
        let found = names.directory.find(path);
        if kind == FileKind::Directory {
            return match (found, names.directory.has_directory(path)) {
                (_, true) => Ok(OpenFile::directory(self)),
                (Some(_), _) => Err(Failure::new(libc::ENOTDIR, format!("{path} is a file"))),
                (None, _) => Err(Failure::missing(path)),
            };
        }
        let file = match found {
            Some(_) if flags.create && flags.exclusive => {
                return Err(Failure::new(libc::EEXIST, format!("{path} exists already")));
            }
            Some(dataset) => names.files.get(&dataset).cloned().ok_or_else(|| Failure::missing(path))?,
            None if names.directory.has_directory(path) => {
                return Err(Failure::new(libc::EISDIR, format!("{path} is a directory")));
            }
            None if flags.create => self.create(&mut names, path)?,
            None => return Err(Failure::missing(path)),
        };
        Ok(OpenFile::file(self, file, flags.read_only))
    }

    fn create(&self, names: &mut Names, path: &str) -> Result<Arc<File>, Failure> {
        names::check(path)?;
        names.check_way(path)?;
        let (edit, dataset) = names.directory.create(path, new_dataset()?);
        self.edit(names, edit, None)?;
        let file = Arc::new(File::new(dataset, 0, self.dirty.clone()));
        names.files.insert(dataset, file.clone());
        Ok(file)
    }

    fn edit(&self, names: &mut Names, edit: Edit, carried: Option<Arc<File>>) -> Result<(), Failure> {
        let edit = Arc::new(edit);
        let removed = edit.emptied.iter().filter_map(|d| names.files.get(d).cloned()).collect();
        self.queue.commit(Work::Edit(edit.clone(), carried, removed))?;
        names.directory.apply(&edit);
        for dataset in &edit.emptied {
            names.files.remove(dataset);
        }
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// ENOENT, EBUSY while it is open.
    pub fn remove(&self, path: &str) -> Result<(), Failure> {
        self.check()?;
        let mut names = self.names();
        let edit = names.directory.remove(path).ok_or_else(|| Failure::missing(path))?;
        names.check_closed(path)?;
        self.edit(&mut names, edit, None)
    }

    /// Gives a file another name; a file that had it is no more.
    ///
    /// # Errors
    /// ENOENT, EBUSY while the other one is open, EISDIR, ENOTDIR.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        self.check()?;
        names::check(to)?;
        let mut names = self.names();
        let dataset = names.directory.find(from).ok_or_else(|| Failure::missing(from))?;
        if from == to {
            return Ok(());
        }
        if names.directory.has_directory(to) {
            return Err(Failure::new(libc::EISDIR, format!("{to} is a directory")));
        }
        names.check_way(to)?;
        names.check_closed(to)?;
        let edit = names.directory.rename(from, to).ok_or_else(|| Failure::missing(from))?;
        let carried = names.files.get(&dataset).cloned();
        self.edit(&mut names, edit, carried)
    }

    /// A file's size in bytes.
    ///
    /// # Errors
    /// ENOENT.
    pub fn size(&self, path: &str) -> Result<u64, Failure> {
        self.check()?;
        let names = self.names();
        let file = names.directory.find(path).and_then(|d| names.files.get(&d));
        file.map(|f| f.size()).ok_or_else(|| Failure::missing(path))
    }

    /// Commits what files that are still open have, and gives the path back.
    ///
    /// # Errors
    /// Those of the last commit; the path is given back in any case.
    pub fn close(&self) -> Result<(), Failure> {
        let result = self.queue.check().and_then(|()| self.write_back());
        self.queue.end();
        self.volume.disown();
        result
    }

    /// Makes room where much is written that nobody syncs.
    pub(crate) fn limit_dirty(&self) -> Result<(), Failure> {
        if self.dirty.load(Ordering::Relaxed) < DIRTY_MAX { Ok(()) } else { self.write_back() }
    }

    fn write_back(&self) -> Result<(), Failure> {
        let all = self.names().files.values().filter(|f| f.is_dirty()).cloned().collect();
        self.queue.commit(Work::Sync(all))
    }
}

impl Names {
    /// No part of a name but the last is a file's.
    fn check_way(&self, path: &str) -> Result<(), Failure> {
        let mut on_the_way = path.match_indices('/').map(|(at, _)| &path[..at]);
        match on_the_way.find(|p| self.directory.find(p).is_some()) {
            Some(file) => Err(Failure::new(libc::ENOTDIR, format!("{path}: {file} is a file"))),
            None => Ok(()),
        }
    }

    fn check_closed(&self, path: &str) -> Result<(), Failure> {
        let file = self.directory.find(path).and_then(|d| self.files.get(&d));
        match file.is_some_and(|f| f.opened.load(Ordering::Relaxed) > 0) {
            true => Err(Failure::new(libc::EBUSY, format!("{path} is open"))),
            false => Ok(()),
        }
    }
}

/// The id of a dataset that there never was.
fn new_dataset() -> Result<DatasetId, Failure> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Failure::new(libc::EIO, format!("no random number: {e}")))?;
    Ok(DatasetId(u64::from_le_bytes(bytes).max(1)))
}
