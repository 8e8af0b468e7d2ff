//! Random ids and salts.

use dspm_proto::Error;
use std::fs::File;
use std::io::Read;

/// A random number that is never 0 (0 means "none" where ids stand).
pub(crate) fn random() -> Result<u64, Error> {
    let mut b = [0u8; 8];
    File::open("/dev/urandom")?.read_exact(&mut b)?;
    Ok(u64::from_le_bytes(b).max(1))
}
