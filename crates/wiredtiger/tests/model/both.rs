//! One call after the other, given to the file system and to the model: both answer the same.

use super::{Answer, Posix, pattern};
use dspm_wiredtiger::{Failure, FileKind, FileSystem, OpenFile, OpenFlags};
use std::collections::HashMap;
use std::sync::Arc;

/// A call.
#[derive(Clone, Debug)]
pub enum Call {
    Exists(String),
    List(String, String),
    Open { path: String, kind: FileKind, create: bool, exclusive: bool },
    Close(String),
    Read { path: String, offset: u64, length: usize },
    Write { path: String, offset: u64, length: usize },
    Sync(String),
    Truncate(String, u64),
    Size(String),
    Remove(String),
    Rename(String, String),
}

impl Call {
    /// The names of a rename.
    pub fn renames(&self) -> Option<(&str, &str)> {
        match self {
            Call::Rename(from, to) => Some((from, to)),
            _ => None,
        }
    }
}

/// The file system, the model, and what is open in both.
pub struct Both {
    pub fs: Arc<FileSystem>,
    pub model: Posix,
    handles: HashMap<String, Vec<OpenFile>>,
    directories: HashMap<String, OpenFile>,
    calls: u64,
    /// Files whose bytes are durable with the last call, which the model does not know yet.
    durable: Vec<String>,
}

fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    result.map_err(|e| e.errno)
}

impl Both {
    pub fn new(fs: Arc<FileSystem>) -> Both {
        Both {
            fs,
            model: Posix::new(),
            handles: HashMap::new(),
            directories: HashMap::new(),
            calls: 0,
            durable: Vec::new(),
        }
    }

    /// A handle that is open.
    pub fn handle(&self, path: &str) -> Option<&OpenFile> {
        self.handles.get(path)?.last()
    }

    /// The process is gone, and the file system is opened again from what it left.
    pub fn reopen(&mut self, fs: Arc<FileSystem>) {
        self.handles.clear();
        self.fs = fs;
        self.model.adopt(&self.fs);
    }

    /// The number of entries of a listing, or 1 for what is there, of a successful call.
    pub fn call(&mut self, call: &Call) -> Answer<u64> {
        self.calls += 1;
        let (theirs, ours) = self.both(call);
        assert_eq!(ours, theirs, "call {}: {call:?}", self.calls);
        ours
    }

    /// What the last call made durable is so in the model too.
    pub fn settle(&mut self) {
        for path in std::mem::take(&mut self.durable) {
            self.model.settle(&path);
        }
    }

    fn both(&mut self, call: &Call) -> (Answer<u64>, Answer<u64>) {
        let open = self.handle_exists(call);
        let (fs, model) = (self.fs.clone(), &mut self.model);
        match call {
            Call::Exists(path) => (Ok(model.exists(path).into()), answer(fs.exists(path)).map(u64::from)),
            Call::Size(path) => {
                let ours = answer(fs.size(path));
                if let Some(handle) = self.handles.get(path).and_then(|all| all.last()) {
                    assert_eq!(answer(handle.size()), ours, "{call:?}");
                }
                (model.size(path), ours)
            }
            Call::Remove(path) => (model.remove(path).map(|()| 1), answer(fs.remove(path)).map(|()| 1)),
            Call::List(directory, prefix) => {
                let (theirs, ours) = (model.list(directory, prefix), answer(fs.list(directory, prefix)));
                assert_eq!(ours, theirs, "{call:?}");
                let count = |names: Answer<Vec<String>>| names.map(|n| n.len() as u64);
                (count(theirs), count(ours))
            }
            Call::Open { path, kind, create, exclusive } => {
                let theirs = model.open(path, *kind, *create, *exclusive);
                let flags = OpenFlags { create: *create, exclusive: *exclusive, ..OpenFlags::default() };
                let ours = answer(fs.open_file(path, *kind, flags));
                let ours = ours.map(|handle| {
                    if *kind == FileKind::Directory {
                        self.directories.insert(path.clone(), handle);
                    } else {
                        self.handles.entry(path.clone()).or_default().push(handle);
                    }
                });
                (theirs.map(|()| 1), ours.map(|()| 1))
            }
            Call::Rename(from, to) => {
                let (theirs, ours) = (model.rename(from, to), answer(fs.rename(from, to)));
                if ours.is_ok() && from != to {
                    let handles = self.handles.remove(from);
                    handles.map(|h| self.handles.insert(to.clone(), h));
                    self.durable.push(to.clone());
                }
                (theirs.map(|()| 1), ours.map(|()| 1))
            }
            Call::Sync(path) if !open => (Ok(1), answer(self.directories[path].sync()).map(|()| 1)),
            Call::Close(path) if !open => (Ok(1), answer(self.directories.remove(path).unwrap().close()).map(|()| 1)),
            Call::Close(path) => {
                self.durable.push(path.clone());
                let handle = self.handles.get_mut(path).and_then(Vec::pop).unwrap();
                let ours = answer(handle.close());
                model.close(path);
                (Ok(1), ours.map(|()| 1))
            }
            Call::Read { path, offset, length } => {
                let (mut theirs, mut ours) = (vec![1; *length], vec![2; *length]);
                let results = (
                    model.read(path, *offset, &mut theirs).map(|()| 1),
                    answer(self.open(path).read(*offset, &mut ours)).map(|()| 1),
                );
                assert!(results.1.is_err() || ours == theirs, "the bytes of {call:?}");
                results
            }
            Call::Write { path, offset, length } => {
                let data = pattern(self.calls, *length);
                let theirs = model.write(path, *offset, &data);
                (theirs.map(|()| 1), answer(self.open(path).write(*offset, &data)).map(|()| 1))
            }
            Call::Sync(path) => {
                self.durable.push(path.clone());
                (Ok(1), answer(self.open(path).sync()).map(|()| 1))
            }
            Call::Truncate(path, size) => {
                self.durable.push(path.clone());
                let theirs = model.truncate(path, *size);
                (theirs.map(|()| 1), answer(self.open(path).truncate(*size)).map(|()| 1))
            }
        }
    }

    /// True unless the call is for the handle of a directory.
    fn handle_exists(&self, call: &Call) -> bool {
        !matches!(call, Call::Sync(path) | Call::Close(path) if self.handle(path).is_none())
    }

    fn open(&self, path: &str) -> &OpenFile {
        self.handle(path).unwrap_or_else(|| panic!("{path} is not open"))
    }
}
