//! A disk that remembers every write, so that a test can ask what a crash at any byte may have left.
//!
//! Fault model: what was synced is there; of what was written since, any set of 512-byte sectors. Writes and syncs
//! can be made to fail, space to run out, and bits to flip.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::{Disk, DiskFile};

const SECTOR: usize = 512;

#[derive(Clone)]
enum Op {
    Write(PathBuf, u64, Vec<u8>),
    Len(PathBuf, u64),
    Sync(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Content at the beginning of the journal.
    start: BTreeMap<PathBuf, Vec<u8>>,
    journal: Vec<Op>,
    space: Option<u64>,
    fail_sync: Option<String>,
    fail_write: Option<String>,
}

#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<Inner>>);

/// What a crash leaves of writes that were not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unsynced {
    Kept,
    Lost,
    /// Each sector by a coin of this seed.
    Mixed(u64),
}

fn coin(seed: &mut u64) -> bool {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 63 == 1
}

fn put(files: &mut BTreeMap<PathBuf, Vec<u8>>, path: &Path, at: u64, bytes: &[u8]) {
    let f = files.entry(path.to_owned()).or_default();
    let end = at as usize + bytes.len();
    if f.len() < end {
        f.resize(end, 0);
    }
    f[at as usize..end].copy_from_slice(bytes);
}

impl SimDisk {
    /// Forgets the journal: crashes are from here on.
    pub(super) fn mark(&self) {
        let mut i = self.0.lock().unwrap();
        i.start = i.files.clone();
        i.journal.clear();
    }

    /// Operations since the mark.
    pub(super) fn ops(&self) -> usize {
        self.0.lock().unwrap().journal.len()
    }

    /// Bytes of the write that operation `op` is, if it is one.
    pub(super) fn write_len(&self, op: usize) -> Option<usize> {
        match self.0.lock().unwrap().journal.get(op) {
            Some(Op::Write(_, _, b)) => Some(b.len()),
            _ => None,
        }
    }

    /// The disk after a crash during operation `op`, of which `bytes` were written.
    pub(super) fn crashed(&self, op: usize, bytes: usize, unsynced: Unsynced) -> SimDisk {
        let i = self.0.lock().unwrap();
        let mut files = i.start.clone();
        let op = op.min(i.journal.len());
        let synced = |at: usize, path: &Path| i.journal[at..op].iter().any(|o| matches!(o, Op::Sync(p) if p == path));
        let mut seed = if let Unsynced::Mixed(s) = unsynced { s } else { 0 };
        for (n, o) in i.journal[..(op + 1).min(i.journal.len())].iter().enumerate() {
            match o {
                Op::Write(p, at, b) => {
                    let b = if n == op { &b[..bytes.min(b.len())] } else { &b[..] };
                    let whole = synced(n, p) || matches!(unsynced, Unsynced::Kept);
                    for (s, sector) in b.chunks(SECTOR).enumerate() {
                        if whole || (matches!(unsynced, Unsynced::Mixed(_)) && coin(&mut seed)) {
                            put(&mut files, p, at + (s * SECTOR) as u64, sector);
                        }
                    }
                }
                Op::Len(p, len) if n < op && (synced(n, p) || !matches!(unsynced, Unsynced::Lost)) => {
                    files.entry(p.clone()).or_default().resize(*len as usize, 0);
                }
                Op::Remove(p) if n < op => drop(files.remove(p)),
                Op::Rename(a, b) if n < op => {
                    let f = files.remove(a).unwrap_or_default();
                    files.insert(b.clone(), f);
                }
                _ => {}
            }
        }
        SimDisk(Arc::new(Mutex::new(Inner { start: files.clone(), files, ..Inner::default() })))
    }

    /// The disk after the process, and not the machine, ended behind operation `op`: all of it can be read, and what
    /// was not synced can still be lost.
    pub(super) fn killed(&self, op: usize) -> SimDisk {
        let files = std::mem::take(&mut self.crashed(op, usize::MAX, Unsynced::Kept).0.lock().unwrap().files);
        let i = self.0.lock().unwrap();
        let journal = i.journal[..(op + 1).min(i.journal.len())].to_vec();
        SimDisk(Arc::new(Mutex::new(Inner { start: i.start.clone(), files, journal, ..Inner::default() })))
    }

    /// A copy with other content in one byte.
    pub(super) fn flipped(&self, path: &Path, at: usize, bit: u8) -> SimDisk {
        let mut files = self.0.lock().unwrap().files.clone();
        files.get_mut(path).unwrap()[at] ^= 1 << bit;
        SimDisk(Arc::new(Mutex::new(Inner { start: files.clone(), files, ..Inner::default() })))
    }

    /// A copy of which one file is shorter.
    pub(super) fn cut_short(&self, path: &Path, len: usize) -> SimDisk {
        let mut files = self.0.lock().unwrap().files.clone();
        files.get_mut(path).unwrap().truncate(len);
        SimDisk(Arc::new(Mutex::new(Inner { start: files.clone(), files, ..Inner::default() })))
    }

    pub(super) fn copy(&self) -> SimDisk {
        self.crashed(usize::MAX - 1, 0, Unsynced::Kept)
    }

    /// Names and contents whose path contains `part`.
    pub(super) fn files(&self, part: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let i = self.0.lock().unwrap();
        i.files
            .iter()
            .filter(|(p, _)| p.to_string_lossy().contains(part))
            .map(|(p, b)| (p.clone(), b.clone()))
            .collect()
    }

    /// From now on a file may not grow when all together exceed this.
    pub(super) fn set_space(&self, bytes: Option<u64>) {
        self.0.lock().unwrap().space = bytes;
    }

    pub(super) fn used(&self) -> u64 {
        self.0.lock().unwrap().files.values().map(|f| f.len() as u64).sum()
    }

    /// Syncs of paths that contain this fail.
    pub(super) fn fail_sync(&self, part: Option<&str>) {
        self.0.lock().unwrap().fail_sync = part.map(str::to_owned);
    }

    /// Writes to paths that contain this fail.
    pub(super) fn fail_write(&self, part: Option<&str>) {
        self.0.lock().unwrap().fail_write = part.map(str::to_owned);
    }
}

/// Paths of all lives of a node are the same: what follows its data directory.
fn key(path: &Path) -> PathBuf {
    let parts: Vec<_> = path.components().collect();
    let from = parts.iter().rposition(|c| c.as_os_str() == "data").map_or(0, |i| i + 1);
    parts[from..].iter().collect()
}

fn fails(what: &Option<String>, path: &Path) -> io::Result<()> {
    match what {
        Some(part) if path.to_string_lossy().contains(part.as_str()) => Err(io::Error::other("injected")),
        _ => Ok(()),
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let path = &*key(path);
        let mut i = self.0.lock().unwrap();
        if !i.files.contains_key(path) {
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            i.files.insert(path.to_owned(), Vec::new());
        }
        Ok(Box::new(SimFile { disk: self.clone(), path: path.to_owned() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut i = self.0.lock().unwrap();
        i.files.remove(&key(path));
        i.journal.push(Op::Remove(key(path)));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut i = self.0.lock().unwrap();
        let f = i.files.remove(&key(from)).ok_or(io::ErrorKind::NotFound)?;
        i.files.insert(key(to), f);
        i.journal.push(Op::Rename(key(from), key(to)));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let i = self.0.lock().unwrap();
        Ok(i.files.keys().filter(|p| p.parent() == Some(&*key(dir))).cloned().collect())
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskFile for SimFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let i = self.disk.0.lock().unwrap();
        let f = i.files.get(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let from = f.get(at as usize..).unwrap_or_default();
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut i = self.disk.0.lock().unwrap();
        fails(&i.fail_write, &self.path)?;
        let len = i.files.get(&self.path).map_or(0, Vec::len) as u64;
        let grows = (at + bytes.len() as u64).saturating_sub(len);
        let used: u64 = i.files.values().map(|f| f.len() as u64).sum();
        if grows > 0 && i.space.is_some_and(|s| used + grows > s) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(&mut i.files, &self.path, at, bytes);
        i.journal.push(Op::Write(self.path.clone(), at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut i = self.disk.0.lock().unwrap();
        fails(&i.fail_sync, &self.path)?;
        i.journal.push(Op::Sync(self.path.clone()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut i = self.disk.0.lock().unwrap();
        i.files.entry(self.path.clone()).or_default().resize(len as usize, 0);
        i.journal.push(Op::Len(self.path.clone(), len));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let i = self.disk.0.lock().unwrap();
        Ok(i.files.get(&self.path).map_or(0, Vec::len) as u64)
    }
}
