//! What a file system of POSIX does, for comparison: a real directory, and beside it what may be there after a crash.
//!
//! Differences to a real one: directories are where files are; an open file is neither removed nor replaced; names,
//! truncations and closed files are durable when the call returns.
//!
//! What a crash may leave: of each page any content that it had since its file was synced, under any size since then.
#![allow(dead_code, clippy::unwrap_used)] // each test uses its part

pub mod both;
pub mod calls;

use dspm_wiredtiger::{FileKind, FileSystem, OpenFlags};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: u64 = 4096;

/// A result with an errno.
pub type Answer<T> = Result<T, i32>;

/// What a file was like since it was synced, the oldest first.
#[derive(Default)]
struct Since {
    sizes: Vec<u64>,
    pages: BTreeMap<u64, Vec<u64>>,
}

/// The directory; it goes with this.
pub struct Posix {
    root: PathBuf,
    opened: HashMap<String, usize>,
    since: HashMap<String, Since>,
}

impl Drop for Posix {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn errno(e: &std::io::Error) -> i32 {
    e.raw_os_error().unwrap_or(libc::EIO)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut page = [0; PAGE as usize];
    page[..bytes.len()].copy_from_slice(bytes);
    let mut hasher = DefaultHasher::new();
    hasher.write(&page);
    hasher.finish()
}

impl Posix {
    pub fn new() -> Posix {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("dspm-posix-{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("journal")).unwrap();
        Posix { root, opened: HashMap::new(), since: HashMap::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Directories on the way to a file.
    fn prepare(&self, path: &str) -> Answer<()> {
        fs::create_dir_all(self.at(path).parent().unwrap()).map_err(|_| libc::ENOTDIR)
    }

    /// Directories without files are not there.
    fn prune(&self, path: &str) {
        let mut directory = self.at(path);
        while directory.pop() && directory != self.root && directory != self.at("journal") {
            if fs::remove_dir(&directory).is_err() {
                break;
            }
        }
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    pub fn list(&self, directory: &str, prefix: &str) -> Answer<Vec<String>> {
        let entries = fs::read_dir(self.at(directory)).map_err(|_| libc::ENOENT)?;
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        // "journal" is there to be opened; a listing of the home shows it once it has files.
        let empty = |name: &str| directory.is_empty() && name == "journal" && self.list(name, "").unwrap().is_empty();
        let mut names: Vec<_> = names.filter(|n| n.starts_with(prefix) && !empty(n)).collect();
        names.sort();
        Ok(names)
    }

    /// All files.
    pub fn names(&self) -> BTreeSet<String> {
        let list = |directory: &str| self.list(directory, "").unwrap();
        walk(&list, &|path| self.at(path).is_dir())
    }

    pub fn open(&mut self, path: &str, kind: FileKind, create: bool, exclusive: bool) -> Answer<()> {
        let at = self.at(path);
        if kind == FileKind::Directory {
            return match (at.is_dir(), at.is_file()) {
                (true, _) => Ok(()),
                (_, true) => Err(libc::ENOTDIR),
                _ => Err(libc::ENOENT),
            };
        }
        if create {
            self.prepare(path)?;
        } else if !at.exists() {
            return Err(libc::ENOENT);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).create_new(create && exclusive && !at.is_dir());
        options.open(&at).map_err(|e| errno(&e))?;
        *self.opened.entry(path.into()).or_default() += 1;
        Ok(())
    }

    pub fn close(&mut self, path: &str) {
        *self.opened.get_mut(path).unwrap() -= 1;
    }

    fn is_open(&self, path: &str) -> bool {
        self.opened.get(path).is_some_and(|n| *n > 0)
    }

    fn file(&self, path: &str) -> Answer<File> {
        OpenOptions::new().read(true).write(true).open(self.at(path)).map_err(|e| errno(&e))
    }

    fn page(&self, file: &File, number: u64) -> u64 {
        let mut bytes = [0; PAGE as usize];
        read_some(file, number * PAGE, &mut bytes);
        hash(&bytes)
    }

    /// Does that to the file and notes what it was like before and what it is like then.
    fn change(&mut self, path: &str, range: std::ops::Range<u64>, act: impl FnOnce(&File)) -> Answer<()> {
        let file = self.file(path)?;
        let numbers = range.start / PAGE..range.end.div_ceil(PAGE);
        let mut since = self.since.remove(path).unwrap_or_default();
        if since.sizes.is_empty() {
            since.sizes.push(file.metadata().unwrap().len());
        }
        for n in numbers.clone() {
            since.pages.entry(n).or_insert_with(|| vec![self.page(&file, n)]);
        }
        act(&file);
        since.sizes.push(file.metadata().unwrap().len());
        for n in numbers {
            let now = self.page(&file, n);
            since.pages.get_mut(&n).unwrap().push(now);
        }
        self.since.insert(path.into(), since);
        Ok(())
    }

    pub fn write(&mut self, path: &str, offset: u64, data: &[u8]) -> Answer<()> {
        let range = offset..offset + data.len() as u64;
        self.change(path, range, |file| file.write_all_at(data, offset).unwrap())
    }

    pub fn truncate(&mut self, path: &str, size: u64) -> Answer<()> {
        let old = self.size(path)?;
        self.change(path, size.min(old)..old, |file| file.set_len(size).unwrap())
    }

    pub fn read(&self, path: &str, offset: u64, buf: &mut [u8]) -> Answer<()> {
        self.file(path)?.read_exact_at(buf, offset).map_err(|_| libc::EIO)
    }

    pub fn size(&self, path: &str) -> Answer<u64> {
        let found = fs::metadata(self.at(path)).ok().filter(|m| m.is_file());
        found.map(|m| m.len()).ok_or(libc::ENOENT)
    }

    /// Everything of the file is durable.
    pub fn settle(&mut self, path: &str) {
        self.since.remove(path);
    }

    pub fn remove(&mut self, path: &str) -> Answer<()> {
        self.size(path)?;
        if self.is_open(path) {
            return Err(libc::EBUSY);
        }
        fs::remove_file(self.at(path)).map_err(|e| errno(&e))?;
        self.prune(path);
        self.settle(path);
        Ok(())
    }

    pub fn rename(&mut self, from: &str, to: &str) -> Answer<()> {
        self.size(from)?;
        if from == to {
            return Ok(());
        }
        if self.at(to).is_dir() {
            return Err(libc::EISDIR); // a real one has more to say when it is on the way to the file
        }
        self.prepare(to)?;
        if self.is_open(to) {
            return Err(libc::EBUSY);
        }
        fs::rename(self.at(from), self.at(to)).map_err(|e| errno(&e))?;
        self.prune(from);
        let since = self.since.remove(from);
        self.since.remove(to);
        since.map(|s| self.since.insert(to.into(), s));
        let opened = self.opened.remove(from);
        opened.map(|n| self.opened.insert(to.into(), n));
        Ok(())
    }

    /// The file system, opened after a crash, has what it must have. `renamed`: in the middle of that, so the first
    /// name may be there instead of the second, and what the second one named before.
    pub fn verify(&self, fs: &Arc<FileSystem>, renamed: Option<(&str, &str)>) {
        let (there, mut expected) = (names(fs), self.names());
        let before = renamed.filter(|(from, _)| there.contains(*from));
        if let Some((from, to)) = before {
            expected.insert(from.into());
            if !there.contains(to) {
                expected.remove(to);
            }
        }
        assert_eq!(there, expected, "names after a crash");
        for name in &there {
            match before {
                Some((from, to)) if name == from => self.verify_file(fs, name, to),
                Some((_, to)) if name == to => {} // gone by now
                _ => self.verify_file(fs, name, name),
            }
        }
    }

    fn verify_file(&self, fs: &Arc<FileSystem>, name: &str, mine: &str) {
        let (handle, file) = (open(fs, name), self.file(mine).unwrap());
        let (size, none) = (handle.size().unwrap(), Since::default());
        let since = self.since.get(mine).unwrap_or(&none);
        let sizes = if since.sizes.is_empty() { vec![file.metadata().unwrap().len()] } else { since.sizes.clone() };
        assert!(sizes.contains(&size), "{name} has {size} bytes after a crash, had {sizes:?}");
        let mut bytes = vec![0; 1 << 20];
        for start in (0..size).step_by(bytes.len()) {
            let bytes = &mut bytes[..(size - start).min(1 << 20) as usize];
            handle.read(start, bytes).unwrap();
            let mut mine = vec![0; bytes.len()];
            read_some(&file, start, &mut mine);
            for (i, page) in bytes.chunks(PAGE as usize).enumerate() {
                let number = start / PAGE + i as u64;
                let at = i * PAGE as usize;
                let good = match since.pages.get(&number) {
                    Some(versions) => versions.contains(&hash(page)),
                    None => mine[at..at + page.len()] == *page,
                };
                assert!(good, "page {number} of {name} ({size} bytes) after a crash");
            }
        }
    }

    /// Becomes what the file system has; nothing is open.
    pub fn adopt(&mut self, fs: &Arc<FileSystem>) {
        fs::remove_dir_all(&self.root).unwrap();
        fs::create_dir_all(self.at("journal")).unwrap();
        (self.opened, self.since) = (HashMap::new(), HashMap::new());
        for name in names(fs) {
            let handle = open(fs, &name);
            let mut bytes = vec![0; handle.size().unwrap() as usize];
            handle.read(0, &mut bytes).unwrap();
            self.prepare(&name).unwrap();
            fs::write(self.at(&name), bytes).unwrap();
        }
    }
}

/// What lies behind the end stays as it is.
fn read_some(file: &File, start: u64, buf: &mut [u8]) {
    let mut filled = 0;
    while let Ok(n @ 1..) = file.read_at(&mut buf[filled..], start + filled as u64) {
        filled += n;
    }
}

fn open(fs: &Arc<FileSystem>, name: &str) -> dspm_wiredtiger::OpenFile {
    let flags = OpenFlags { read_only: true, ..OpenFlags::default() };
    fs.open_file(name, FileKind::Regular, flags).unwrap()
}

/// All files of a file system.
pub fn names(fs: &Arc<FileSystem>) -> BTreeSet<String> {
    let is_directory = |path: &str| fs.open_file(path, FileKind::Directory, OpenFlags::default()).is_ok();
    walk(&|directory| fs.list(directory, "").unwrap(), &is_directory)
}

fn walk(list: &dyn Fn(&str) -> Vec<String>, is_directory: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let (mut found, mut left) = (BTreeSet::new(), vec![String::new()]);
    while let Some(directory) = left.pop() {
        for name in list(&directory) {
            let path = Path::new(&directory).join(name).to_str().unwrap().to_string();
            if is_directory(&path) {
                left.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

/// Bytes that tell from which file, place and time they are.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
