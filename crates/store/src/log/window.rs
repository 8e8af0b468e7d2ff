//! A file of the log read through a window: what is looked at one after the other costs few reads, and a segment, which
//! may be as large as the largest record, is never in memory as a whole.

use std::io;
use std::ops::Range;

use dspm_proto::Checksum;

use crate::disk::DiskFile;

/// Bytes that are read at once, unless more are asked for. Few in tests: the logs of those would fit one window.
pub(crate) const PIECE: usize = if cfg!(test) { 1 << 16 } else { 1 << 20 };

pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    /// Where the bytes here begin.
    at: u64,
    bytes: Vec<u8>,
    failed: Option<io::Error>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, len: u64) -> Window<'a> {
        Window { file, len, at: 0, bytes: Vec::new(), failed: None }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the file. None: it is shorter, or cannot be read, which [`Window::end`] tells.
    pub(crate) fn get(&mut self, at: u64, len: usize) -> Option<&[u8]> {
        let end = at.checked_add(len as u64).filter(|end| *end <= self.len)?;
        if at < self.at || end > self.at + self.bytes.len() as u64 {
            self.fill(at, len.max(PIECE));
        }
        if self.failed.is_some() {
            return None;
        }
        let from = (at - self.at) as usize;
        self.bytes.get(from..from + len)
    }

    fn fill(&mut self, at: u64, len: usize) {
        self.at = at;
        self.bytes.clear();
        self.bytes.resize(len.min((self.len - at) as usize), 0);
        if let Err(e) = self.file.read_at(&mut self.bytes, at) {
            self.failed = Some(e);
        }
    }

    /// Adds bytes of the file to a checksum. False: it is shorter, or cannot be read.
    pub(crate) fn sum(&mut self, sum: &mut Checksum, range: Range<u64>) -> bool {
        let mut at = range.start;
        while at < range.end {
            let n = PIECE.min((range.end - at) as usize);
            let Some(bytes) = self.get(at, n) else { return false };
            sum.add(bytes);
            at += n as u64;
        }
        true
    }

    /// What was read is all that is there.
    ///
    /// # Errors
    /// The file could not be read.
    pub(crate) fn end(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dspm_proto::checksum;

    struct Bytes(Vec<u8>);

    impl DiskFile for Bytes {
        fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
            if at > 9 * PIECE as u64 {
                return Err(io::ErrorKind::Other.into());
            }
            let from = &self.0[at as usize..];
            let n = out.len().min(from.len());
            out[..n].copy_from_slice(&from[..n]);
            Ok(n)
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
    }

    #[test]
    fn it_shows_the_file_and_holds_a_piece_of_it() {
        let file = Bytes((0..PIECE * 10).map(|i| (i / 7 + i / 4099) as u8).collect());
        let mut window = Window::new(&file, file.0.len() as u64);
        for (at, len) in [(0, 64), (10, 1), (PIECE - 3, 64), (5, 9), (PIECE * 4 + 1, PIECE), (PIECE * 8, 64)] {
            assert_eq!(window.get(at as u64, len), file.0.get(at..at + len), "{len} bytes at {at}");
            assert!(window.bytes.len() <= PIECE);
        }
        let mut sum = Checksum::default();
        assert!(window.sum(&mut sum, 5..PIECE as u64 * 8));
        assert_eq!(sum.value(), checksum(&file.0[5..PIECE * 8]));
        assert!(window.bytes.len() <= PIECE);
        assert_eq!(window.get(file.0.len() as u64 - 1, 2), None, "beyond the end");
        assert!(window.end().is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_no_end() {
        let file = Bytes(vec![1; PIECE * 10]);
        let mut window = Window::new(&file, file.0.len() as u64);
        assert!(!window.sum(&mut Checksum::default(), 8..file.0.len() as u64));
        assert!(window.end().is_err());
    }
}
