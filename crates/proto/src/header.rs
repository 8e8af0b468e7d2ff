//! The 64-byte header that starts every message, every record of the arena's ring and every entry of the disk log.
//!
//! ```text
//!  0  4  magic "DSPM"            24  8  group
//!  4  1  version (1)             32  8  generation
//!  5  1  kind                    40  8  lsn
//!  6  2  flags                   48  8  store id of the addressee (wire); salt of the segment (arena, log)
//!  8  4  bytes of metadata       56  4  low half of xxh3(bytes 0..56)
//! 12  4  bytes of page data      60  4  low half of xxh3(metadata)
//! 16  8  request (wire); sequence (arena, log)
//! ```

use crate::codec::{get_u16, get_u32, get_u64};
use crate::error::Error;
use crate::ids::{Generation, GroupId, Lsn, StoreId};
use crate::{checksum, limits};

/// Bytes of a header.
pub const HEADER_SIZE: usize = 64;
/// First bytes of every header.
pub const MAGIC: [u8; 4] = *b"DSPM";
/// Version of wire, arena and log.
pub const VERSION: u8 = 1;

/// The message answers the request of the same number.
pub const FLAG_REPLY: u16 = 1;
/// The message is an error reply; its metadata is an encoded [`Error`].
pub const FLAG_ERROR: u16 = 2;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:expr,)*) => {
        /// What a message or record is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            /// The kind of that number.
            pub fn from_u8(v: u8) -> Option<Kind> {
                match v { $($value => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// First message of a connection, and its answers ([`crate::auth`]).
    Hello = 1,
    /// JSON between clients, nodes and registry ([`crate::control`]).
    Control = 2,
    /// Renews a session and its leases, carries floors.
    Renew = 3,
    /// Asks for a snapshot.
    Snapshot = 4,
    /// Asks for the write lease.
    Acquire = 5,
    /// Gives the write lease back.
    Release = 6,
    /// Primary to holder: another asks for the lease.
    Callback = 7,
    /// Primary to a queued client: the lease is yours.
    Granted = 8,
    /// A commit record.
    Commit = 9,
    /// "Committed up to n".
    Note = 10,
    /// Asks for pages of a snapshot.
    Read = 11,
    /// Asks whether a record was committed.
    Outcome = 12,
    /// Part of a large transaction, sent ahead.
    Stage = 13,
    /// Primary to reader: your read lease ends.
    Recall = 14,
    /// Reader to primary: it has ended.
    Recalled = 15,
    /// Asks for the database as it was at an LSN, or a while ago.
    AsOf = 16,
    /// Client to primary: the oldest past state that it still reads.
    Keep = 17,
    /// Primary to member: raise the token, tell your tail.
    Fence = 20,
    /// Primary to member: your tail shall be this one.
    Complete = 21,
    /// Member to member: send me these records.
    Fetch = 22,
    /// A record sent again under a settle's token.
    Replicate = 23,
    /// Primary to member: do you hold this LSN?
    Probe = 24,
    /// Primary to member: nothing below is read any more.
    Horizon = 25,
    /// Member to primary: I restarted, settle with me.
    Unsettled = 26,
    /// Primary to member: grant me another L.
    Grant = 27,
    /// Primary to joining member: forget the group, this is its tail; the base comes.
    Rebase = 28,
    /// Primary of a participant to that of its decider: was your record committed?
    Inquiry = 29,
    /// Primary of a decider to that of a participant: it was, or was not.
    Decision = 30,
    /// To the primary of a decider: the participant's prepared record is resolved.
    Resolved = 31,
    /// Disk log: end of a flush batch.
    BatchEnd = 40,
    /// Disk log: a dataset's base file holds everything up to an LSN.
    Checkpoint = 41,
}

impl Kind {
    /// False for what no node answers, not even with an error: the sender may use any connection for it.
    pub fn has_answer(self) -> bool {
        use Kind::*;
        !matches!(self, Release | Recalled | Note | Keep | Inquiry | Decision | Resolved)
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// FLAG_*.
    pub flags: u16,
    /// Bytes of metadata behind the header.
    pub meta_len: u32,
    /// Bytes of page data behind the metadata.
    pub data_len: u32,
    /// Number that the asker chose; a reply repeats it.
    pub request: u64,
    /// The group it is about, 0 if none.
    pub group: GroupId,
    /// Generation that the sender is in.
    pub generation: Generation,
    /// Depends on the kind.
    pub lsn: Lsn,
    /// What the addressee is expected to remember; 0 where that does not matter.
    pub store: StoreId,
    /// Low half of xxh3(metadata).
    pub meta_sum: u32,
}

impl Header {
    /// A header without content.
    pub fn new(kind: Kind) -> Header {
        Header {
            kind,
            flags: 0,
            meta_len: 0,
            data_len: 0,
            request: 0,
            group: GroupId(0),
            generation: Generation(0),
            lsn: Lsn(0),
            store: StoreId(0),
            meta_sum: 0,
        }
    }

    /// Sets length and checksum for this metadata.
    pub fn for_meta(mut self, meta: &[u8]) -> Header {
        self.meta_len = meta.len() as u32;
        self.meta_sum = checksum(meta) as u32;
        self
    }

    /// True when the message answers a request.
    pub fn is_reply(&self) -> bool {
        self.flags & FLAG_REPLY != 0
    }

    /// True when the message is an error reply.
    pub fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// The 64 bytes.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut b = [0u8; HEADER_SIZE];
        b[0..4].copy_from_slice(&MAGIC);
        b[4] = VERSION;
        b[5] = self.kind as u8;
        b[6..8].copy_from_slice(&self.flags.to_le_bytes());
        b[8..12].copy_from_slice(&self.meta_len.to_le_bytes());
        b[12..16].copy_from_slice(&self.data_len.to_le_bytes());
        b[16..24].copy_from_slice(&self.request.to_le_bytes());
        b[24..32].copy_from_slice(&self.group.0.to_le_bytes());
        b[32..40].copy_from_slice(&self.generation.0.to_le_bytes());
        b[40..48].copy_from_slice(&self.lsn.0.to_le_bytes());
        b[48..56].copy_from_slice(&self.store.0.to_le_bytes());
        let sum = checksum(&b[..56]) as u32;
        b[56..60].copy_from_slice(&sum.to_le_bytes());
        b[60..64].copy_from_slice(&self.meta_sum.to_le_bytes());
        b
    }

    /// Checks 64 bytes of a peer, a ring or a log.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a foreign or newer version, [`Error::Corrupt`] for a damaged header or one over the limits.
    pub fn decode(b: &[u8; HEADER_SIZE]) -> Result<Header, Error> {
        if b[0..4] != MAGIC {
            return Err(Error::Protocol("not a dspm message (wrong magic)".into()));
        }
        if b[4] != VERSION {
            return Err(Error::Protocol(format!("dspm format version {} where {VERSION} is spoken", b[4])));
        }
        if get_u32(b, 56) != checksum(&b[..56]) as u32 {
            return Err(Error::Corrupt("header checksum".into()));
        }
        let kind = Kind::from_u8(b[5]).ok_or_else(|| Error::Protocol(format!("unknown message kind {}", b[5])))?;
        let header = Header {
            kind,
            flags: get_u16(b, 6),
            meta_len: get_u32(b, 8),
            data_len: get_u32(b, 12),
            request: get_u64(b, 16),
            group: GroupId(get_u64(b, 24)),
            generation: Generation(get_u64(b, 32)),
            lsn: Lsn(get_u64(b, 40)),
            store: StoreId(get_u64(b, 48)),
            meta_sum: get_u32(b, 60),
        };
        let (meta_max, data_max) = limits::of_kind(kind);
        if header.meta_len > meta_max || header.data_len > data_max {
            return Err(Error::Corrupt(format!("message of {} + {} bytes", header.meta_len, header.data_len)));
        }
        Ok(header)
    }

    /// Checks the metadata against the header.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when length or checksum differ.
    pub fn verify_meta(&self, meta: &[u8]) -> Result<(), Error> {
        if meta.len() == self.meta_len as usize && checksum(meta) as u32 == self.meta_sum {
            return Ok(());
        }
        Err(Error::Corrupt("metadata checksum".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_bit_flip_is_seen() {
        let mut h = Header::new(Kind::Commit).for_meta(b"meta");
        h.request = 7;
        h.lsn = Lsn(42);
        let bytes = h.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), h);
        for bit in 0..60 * 8 {
            let mut b = bytes;
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&b).is_err(), "bit {bit}");
        }
        for bit in 60 * 8..64 * 8 {
            let mut b = bytes;
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&b).unwrap().verify_meta(b"meta").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn limits_are_checked_before_anything_is_allocated() {
        for kind in [Kind::Hello, Kind::Read, Kind::Commit, Kind::Replicate] {
            let (meta_max, data_max) = limits::of_kind(kind);
            let with = |meta_len, data_len| Header { meta_len, data_len, ..Header::new(kind) };
            assert!(Header::decode(&with(meta_max, data_max).encode()).is_ok());
            for h in [with(meta_max + 1, 0), with(0, data_max + 1)] {
                assert!(matches!(Header::decode(&h.encode()), Err(Error::Corrupt(_))), "{kind:?}");
            }
        }
    }

    #[test]
    fn metadata_of_the_largest_record_fits() {
        let lists = 24 * limits::DATASETS_MAX + 32 * limits::RECORD_PAGES_MAX;
        assert!(16 + 88 + lists <= limits::RECORD_META_MAX as usize);
    }
}
