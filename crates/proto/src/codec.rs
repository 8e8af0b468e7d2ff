//! Little-endian reading and writing, total: a reader past the end answers [`Error::Corrupt`], it never panics.

use crate::error::Error;

/// The u16 at `at`; the caller checked the length.
#[inline]
pub fn get_u16(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// The u32 at `at`; the caller checked the length.
#[inline]
pub fn get_u32(b: &[u8], at: usize) -> u32 {
    let mut v = [0; 4];
    v.copy_from_slice(&b[at..at + 4]);
    u32::from_le_bytes(v)
}

/// The u64 at `at`; the caller checked the length.
#[inline]
pub fn get_u64(b: &[u8], at: usize) -> u64 {
    let mut v = [0; 8];
    v.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(v)
}

/// Reads fields one after the other.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next n bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when fewer are left.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        if self.rest.len() < n {
            return Err(Error::Corrupt(format!("message ends {} bytes early", n - self.rest.len())));
        }
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    /// The next u16.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the end.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(get_u16(self.take(2)?, 0))
    }

    /// The next u32.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the end.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(get_u32(self.take(4)?, 0))
    }

    /// The next u64.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the end.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(get_u64(self.take(8)?, 0))
    }

    /// A count that the rest can hold at `each` bytes, so that a lying count never makes a large allocation.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the rest is too short for it.
    #[inline]
    pub fn count(&mut self, each: usize) -> Result<usize, Error> {
        let n = self.u32()? as usize;
        if n.saturating_mul(each) > self.rest.len() {
            return Err(Error::Corrupt(format!("a list of {n} items in {} bytes", self.rest.len())));
        }
        Ok(n)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when something is.
    pub fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::Corrupt(format!("{} bytes too many", self.rest.len())))
    }
}

/// Writes fields one after the other.
#[derive(Default)]
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer with room for n bytes.
    pub fn with_capacity(n: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(n) }
    }

    /// Appends a byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.bytes.push(v);
        self
    }

    /// Appends a u16.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// Appends a u32.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// Appends a u64.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// Appends bytes.
    pub fn raw(&mut self, v: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(v);
        self
    }
}
