//! A handle of a file.

use crate::failure::Failure;
use crate::file::File;
use crate::fs::FileSystem;
use crate::queue::Work;
use dspm_txn::volume::ReadAhead;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An open file or directory. Methods may be called by several threads at once. A handle that is dropped without
/// [`OpenFile::close`] leaves what was not synced to later commits.
pub struct OpenFile {
    fs: Arc<FileSystem>,
    /// None: a directory, which has no bytes.
    file: Option<Arc<File>>,
    read_only: bool,
    ahead: ReadAhead,
}

impl OpenFile {
    pub(crate) fn directory(fs: &Arc<FileSystem>) -> OpenFile {
        OpenFile { fs: fs.clone(), file: None, read_only: true, ahead: ReadAhead::default() }
    }

    pub(crate) fn file(fs: &Arc<FileSystem>, file: Arc<File>, read_only: bool) -> OpenFile {
        file.opened.fetch_add(1, Ordering::Relaxed);
        OpenFile { fs: fs.clone(), file: Some(file), read_only, ahead: ReadAhead::default() }
    }

    fn readable(&self) -> Result<&Arc<File>, Failure> {
        self.fs.check()?;
        self.file.as_ref().ok_or_else(|| Failure::new(libc::EISDIR, "a directory has no bytes"))
    }

    fn writable(&self) -> Result<&Arc<File>, Failure> {
        match self.read_only && self.file.is_some() {
            true => Err(Failure::new(libc::EACCES, "the file was opened for reading")),
            false => self.readable(),
        }
    }

    /// Fills the buffer from that byte on.
    ///
    /// # Errors
    /// EIO where the file ends before, or no good copy is left.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Failure> {
        self.readable()?.read(&*self.fs.volume, offset, buf, &self.ahead)
    }

    /// Writes; seen by every read from here on, durable after the next [`OpenFile::sync`].
    ///
    /// # Errors
    /// ENOSPC, EFBIG, EACCES.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let file = self.writable()?;
        let written = file.write(&*self.fs.volume, offset, data);
        file.owe();
        written?;
        self.fs.limit_dirty()
    }

    /// Writes, durably: all members hold it when this returns. A [`OpenFile::sync`] beside it does not wait for it, so
    /// who syncs after each write of its own goes on while others' writes are gathered for the next record.
    ///
    /// # Errors
    /// Those of [`OpenFile::write`] and [`OpenFile::sync`]; a later sync tries again.
    pub fn write_through(&self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let file = self.writable()?;
        let written = file.write(&*self.fs.volume, offset, data);
        let done = written.and_then(|()| match file.is_dirty() {
            true => self.fs.queue.commit(Work::Sync(vec![file.clone()])),
            false => Ok(()), // another's record took it along
        });
        done.inspect_err(|_| file.owe())
    }

    /// Commits what was written: all members hold it when this returns.
    ///
    /// # Errors
    /// ENOSPC, EIO.
    pub fn sync(&self) -> Result<(), Failure> {
        self.fs.check()?;
        match &self.file {
            Some(file) if file.is_owed() => self.fs.queue.commit(Work::Sync(vec![file.clone()])),
            _ => Ok(()), // names are durable when they change
        }
    }

    /// Cuts or extends the file, durably.
    ///
    /// # Errors
    /// ENOSPC, EFBIG, EACCES.
    pub fn truncate(&self, size: u64) -> Result<(), Failure> {
        let file = self.writable()?;
        File::check_size(size)?;
        match file.size() == size && !file.is_dirty() {
            true => Ok(()),
            false => self.fs.queue.commit(Work::Resize(file.clone(), size)),
        }
    }

    /// Bytes.
    ///
    /// # Errors
    /// EISDIR.
    pub fn size(&self) -> Result<u64, Failure> {
        Ok(self.readable()?.size())
    }

    /// Commits what was written and not synced, and ends the handle.
    ///
    /// # Errors
    /// Those of [`OpenFile::sync`]; the handle has ended in any case.
    pub fn close(self) -> Result<(), Failure> {
        match &self.file {
            Some(_) if !self.read_only => self.sync(),
            _ => Ok(()),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.opened.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
