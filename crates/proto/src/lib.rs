//! The vocabulary of dspm: a newtype for every quantity, the one record format that wire, arena and log share,
//! the messages, and the one error taxonomy.
//!
//! Invariants: nothing is allocated before a header was checked against [`limits`]; every decoder is total (bytes of
//! a peer are hostile) and never panics; encoding what was decoded gives the same bytes.

pub mod auth;
pub mod codec;
pub mod control;
pub mod error;
pub mod header;
pub mod ids;
pub mod limits;
pub mod message;
pub mod part;
pub mod record;
pub mod view;

pub use error::{Error, Refusal};
pub use header::{Header, Kind};
pub use ids::*;
pub use part::{Link, Part};

/// Bytes of one page, the unit of versions, frames and checksums.
pub const PAGE_SIZE: usize = 4096;

/// The checksum of everything that dspm writes (XXH3, 64 bit, seed 0).
#[inline]
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// [`checksum`] of bytes that come in pieces.
#[derive(Default)]
pub struct Checksum(xxhash_rust::xxh3::Xxh3);

impl Checksum {
    /// The next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all of them.
    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * PAGE_SIZE + 5).map(|i| (i * i) as u8).collect();
        for piece in [1, 64, 240, 1000, PAGE_SIZE, bytes.len()] {
            let mut sum = Checksum::default();
            bytes.chunks(piece).for_each(|b| sum.add(b));
            assert_eq!(sum.value(), checksum(&bytes), "pieces of {piece}");
        }
    }
}
