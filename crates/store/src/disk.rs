//! Files, behind a small trait so that tests can make them fail and tear.
//!
//! Fault model: any call may fail; after a crash, bytes written since the last [`DiskFile::sync`] may be there or
//! not, in any mixture of 512-byte sectors; bytes read may be others than those written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

/// What offset, length and address of a write that goes past the page cache are multiples of.
pub(crate) const ALIGN: usize = 4096;

/// A directory's files.
pub trait Disk: Send + Sync {
    /// Opens for reading and writing, made with mode 0600 if `create` and absent.
    ///
    /// # Errors
    /// Those of the operating system.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>>;
    /// [`Disk::open`] of a file whose aligned writes should go past the page cache where the file system can do that.
    ///
    /// # Errors
    /// Those of the operating system.
    fn open_direct(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        self.open(path, create)
    }
    /// Removes a file; it is no error when it is absent.
    ///
    /// # Errors
    /// Those of the operating system.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// Those of the operating system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes names of a directory durable.
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Paths in a directory, which is made if absent.
    ///
    /// # Errors
    /// Those of the operating system.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
}

/// One file.
pub trait DiskFile: Send + Sync {
    /// Reads up to the file's end; returns the bytes read.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all.
    ///
    /// # Errors
    /// Those of the operating system.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes content and size durable.
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync(&self) -> io::Result<()>;
    /// Sets the size.
    ///
    /// # Errors
    /// Those of the operating system.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The size.
    ///
    /// # Errors
    /// Those of the operating system.
    fn size(&self) -> io::Result<u64>;
}

/// The real thing.
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(options(create).open(path)?))
    }

    fn open_direct(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = options(create).open(path)?;
        let direct = options(false).custom_flags(OFlags::DIRECT.bits() as i32).open(path);
        Ok(match direct {
            Ok(direct) => Box::new(Direct { file, direct, refused: AtomicBool::new(false) }),
            Err(_) => Box::new(file), // not every file system has it
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(dir)?;
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
        paths.sort();
        Ok(paths)
    }
}

fn options(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    options
}

/// A file that is written much and read hardly ever: the page cache would only cost a copy and a page for each.
struct Direct {
    file: File,
    direct: File,
    /// It takes other alignments than ours: the page cache does it.
    refused: AtomicBool,
}

impl DiskFile for Direct {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        DiskFile::read_at(&self.file, out, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let align = ALIGN as u64;
        let aligned = [bytes.as_ptr() as u64, bytes.len() as u64, at].iter().all(|n| n % align == 0);
        if aligned && !self.refused.load(Ordering::Relaxed) {
            match self.direct.write_all_at(bytes, at) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => self.refused.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        self.file.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        DiskFile::size(&self.file)
    }
}

/// A buffer of a fixed size at an aligned address.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Aligned {
    /// An empty one; `size` bytes, rounded up to [`ALIGN`].
    pub(crate) fn new(size: usize) -> Aligned {
        let size = size.next_multiple_of(ALIGN);
        let mut bytes: Vec<u8> = Vec::with_capacity(size + ALIGN); // never more, so it stays where it is
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        bytes.resize(start, 0);
        Aligned { bytes, start, size }
    }

    /// Appends as much as fits; returns what does not.
    pub(crate) fn push<'a>(&mut self, more: &'a [u8]) -> &'a [u8] {
        let (now, later) = more.split_at(more.len().min(self.room()));
        self.bytes.extend_from_slice(now);
        later
    }

    /// Bytes that fit.
    pub(crate) fn room(&self) -> usize {
        self.size - self.filled().len()
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Fills the last [`ALIGN`] bytes up with zeros.
    pub(crate) fn pad(&mut self) {
        let len = self.start + self.filled().len().next_multiple_of(ALIGN);
        self.bytes.resize(len, 0);
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }
}

impl DiskFile for File {
    fn read_at(&self, mut out: &mut [u8], mut at: u64) -> io::Result<usize> {
        let mut total = 0;
        while !out.is_empty() {
            match FileExt::read_at(self, out, at) {
                Ok(0) => break,
                Ok(n) => {
                    total += n;
                    at += n as u64;
                    out = &mut out[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aligned_buffer_stays_aligned_and_whole() {
        let mut buffer = Aligned::new(2 * ALIGN - 1);
        assert_eq!(buffer.room(), 2 * ALIGN);
        let bytes: Vec<u8> = (0..3 * ALIGN).map(|i| (i % 251) as u8).collect();
        for first in [1, ALIGN - 1, ALIGN, 2 * ALIGN] {
            let later = buffer.push(&bytes[..first]);
            assert!(later.is_empty());
            assert_eq!(buffer.push(&bytes[first..]).len(), ALIGN);
            assert_eq!((buffer.filled(), buffer.room()), (&bytes[..2 * ALIGN], 0));
            assert_eq!(buffer.filled().as_ptr() as usize % ALIGN, 0);
            buffer.clear();
        }
        let _ = buffer.push(&[7; ALIGN + 1]);
        buffer.pad();
        assert_eq!(buffer.filled().len(), 2 * ALIGN);
        assert!(buffer.filled()[ALIGN + 1..].iter().all(|b| *b == 0));
        assert_eq!(buffer.filled().as_ptr() as usize % ALIGN, 0);
    }

    #[test]
    fn writes_past_the_page_cache_and_through_it_are_one_file() {
        // Not in /dev/shm, where tests' directories are otherwise: tmpfs may not have it.
        let path = std::env::temp_dir().join(format!("dspm-direct-{}", std::process::id()));
        let file = RealDisk.open_direct(&path, true).unwrap();
        RealDisk.remove(&path).unwrap();
        let mut buffer = Aligned::new(4 * ALIGN);
        let _ = buffer.push(&[1; 4 * ALIGN]);
        file.write_at(buffer.filled(), 0).unwrap();
        file.write_at(&[2; 100], ALIGN as u64 - 50).unwrap(); // unaligned: through the page cache, and dirty there
        file.write_at(&buffer.filled()[..ALIGN], 2 * ALIGN as u64).unwrap();
        file.sync().unwrap();
        buffer.clear();
        let _ = buffer.push(&[3; ALIGN]);
        file.write_at(buffer.filled(), 3 * ALIGN as u64).unwrap();
        let mut found = vec![9; 5 * ALIGN];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), 4 * ALIGN);
        assert_eq!(
            found,
            [vec![1; ALIGN - 50], vec![2; 100], vec![1; 2 * ALIGN - 50], vec![3; ALIGN], vec![9; ALIGN]].concat()
        );
    }
}
