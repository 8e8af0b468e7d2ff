//! The content of one journal: memory, beyond [`MEMORY_MAX`] an unlinked temporary file.
//!
//! A journal serves only the rollback of the transaction that wrote it, in this process: nothing of it is durable.

use crate::process::locked;
use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes of one journal in memory.
pub const MEMORY_MAX: usize = 8 << 20;

/// A journal, shared by all who have it open.
pub struct Journal(Mutex<Content>);

enum Content {
    Memory(Vec<u8>),
    Spilled { file: File, size: u64 },
}

impl Default for Journal {
    fn default() -> Self {
        Journal(Mutex::new(Content::Memory(Vec::new())))
    }
}

impl Journal {
    /// Bytes it has.
    pub fn size(&self) -> u64 {
        locked(&self.0).size()
    }

    /// Fills the buffer from `offset`; answers how many bytes there were.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let content = locked(&self.0);
        let there = content.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        match &*content {
            _ if there == 0 => {}
            Content::Memory(bytes) => buf[..there].copy_from_slice(&bytes[offset as usize..offset as usize + there]),
            Content::Spilled { file, .. } => file.read_exact_at(&mut buf[..there], offset)?,
        }
        Ok(there)
    }

    /// Writes, growing as needed. A gap reads as zeros.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = locked(&self.0);
        let end = offset + data.len() as u64;
        if let Content::Memory(bytes) = &mut *content {
            if end <= MEMORY_MAX as u64 {
                if bytes.len() < end as usize {
                    bytes.resize(end as usize, 0);
                }
                bytes[offset as usize..end as usize].copy_from_slice(data);
                return Ok(());
            }
            let file = unlinked_file()?;
            file.write_all_at(bytes, 0)?;
            *content = Content::Spilled { file, size: bytes.len() as u64 };
        }
        if let Content::Spilled { file, size } = &mut *content {
            file.write_all_at(data, offset)?;
            *size = end.max(*size);
        }
        Ok(())
    }

    /// Cuts it off, or lets it grow with zeros.
    pub fn truncate(&self, to: u64) -> io::Result<()> {
        let mut content = locked(&self.0);
        match &mut *content {
            // A journal that was emptied begins again in memory, and gives its memory back.
            other if to == 0 => *other = Content::Memory(Vec::new()),
            Content::Memory(bytes) if to <= MEMORY_MAX as u64 => bytes.resize(to as usize, 0),
            Content::Memory(_) => return Err(io::ErrorKind::InvalidInput.into()),
            Content::Spilled { file, size } => {
                file.set_len(to)?;
                *size = to;
            }
        }
        Ok(())
    }

    /// True unless it begins with a journal's header: a transaction that has ended leaves it so.
    pub fn is_blank(&self) -> bool {
        let mut first = [0];
        !matches!(self.read(0, &mut first), Ok(1)) || first[0] == 0
    }
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Spilled { size, .. } => *size,
        }
    }
}

/// A file that no name leads to: gone with the process, whatever ends it.
fn unlinked_file() -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dspm-journal-{}-{n}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                remove_file(&path)?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(journal: &Journal) -> Vec<u8> {
        let mut all = vec![0xff; journal.size() as usize + 1];
        let n = journal.read(0, &mut all).unwrap();
        assert_eq!(n, journal.size() as usize);
        all.truncate(n);
        all
    }

    #[test]
    fn it_reads_back_over_the_limit_of_memory() {
        let journal = Journal::default();
        assert!(journal.is_blank());
        let mut model = Vec::new();
        for (at, byte) in [(0, 1u8), (100, 2), (MEMORY_MAX - 5, 3), (MEMORY_MAX + 70, 4), (3, 5)] {
            journal.write(at as u64, &[byte; 20]).unwrap();
            model.resize(model.len().max(at + 20), 0);
            model[at..at + 20].fill(byte);
            assert_eq!(content(&journal), model);
        }
        assert!(matches!(&*locked(&journal.0), Content::Spilled { .. }));
        assert!(!journal.is_blank());
        journal.truncate(50).unwrap();
        model.truncate(50);
        assert_eq!(content(&journal), model);
        let mut past = [7; 4];
        assert_eq!(journal.read(1 << 40, &mut past).unwrap(), 0);
        journal.truncate(0).unwrap();
        assert!(matches!(&*locked(&journal.0), Content::Memory(_)));
        assert!(journal.is_blank() && journal.size() == 0);
    }
}
