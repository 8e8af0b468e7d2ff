//! Random ids and salts.

use dspm_proto::Error;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// A random number that is never 0 (0 means "none" where ids stand). By the system call, which needs no descriptor.
pub(crate) fn random() -> Result<u64, Error> {
    let mut b = [0u8; 8];
    loop {
        match getrandom(&mut b, GetRandomFlags::empty()) {
            Ok(8) => return Ok(u64::from_le_bytes(b).max(1)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(std::io::Error::from(e).into()),
        }
    }
}
