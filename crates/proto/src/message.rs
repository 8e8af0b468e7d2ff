//! Metadata of the data path's messages: fields in order, little-endian, no padding; a list is its u32 count and its
//! items. docs/formats/wire.md draws each. Group, generation, LSN and the addressee's store id stand in the header.

use crate::codec::{Reader, Writer};
use crate::error::Error;
use crate::ids::*;
use crate::part::Link;

/// Something that metadata is made of.
pub trait Field: Sized {
    /// Fewest bytes that one takes; bounds the allocation of a list.
    const LEAST: usize;
    /// Appends it.
    fn put(&self, w: &mut Writer);
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes cannot be one.
    fn get(r: &mut Reader<'_>) -> Result<Self, Error>;
}

impl Field for u64 {
    const LEAST: usize = 8;
    fn put(&self, w: &mut Writer) {
        w.u64(*self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Error> {
        r.u64()
    }
}

impl Field for u32 {
    const LEAST: usize = 4;
    fn put(&self, w: &mut Writer) {
        w.u32(*self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Error> {
        r.u32()
    }
}

impl Field for bool {
    const LEAST: usize = 1;
    fn put(&self, w: &mut Writer) {
        w.u8(u8::from(*self));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Error> {
        match r.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::Corrupt(format!("{other} is no truth value"))),
        }
    }
}

macro_rules! newtype_fields {
    ($($t:ident),*) => { $(impl Field for $t {
        const LEAST: usize = 8;
        fn put(&self, w: &mut Writer) { w.u64(self.0); }
        fn get(r: &mut Reader<'_>) -> Result<Self, Error> { Ok($t(r.u64()?)) }
    })* };
}
newtype_fields!(PageNo, Lsn, Generation, DatasetId, GroupId, SetId, StoreId, ClientId);

impl<T: Field> Field for Vec<T> {
    const LEAST: usize = 4;
    fn put(&self, w: &mut Writer) {
        w.u32(self.len() as u32);
        self.iter().for_each(|x| x.put(w));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Error> {
        let n = r.count(T::LEAST)?;
        (0..n).map(|_| T::get(r)).collect()
    }
}

/// Defines a struct whose fields are written in order.
macro_rules! message {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $t:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $t,)* }

        impl Field for $name {
            const LEAST: usize = 0 $(+ <$t as Field>::LEAST)*;
            fn put(&self, w: &mut Writer) { $(self.$field.put(w);)* }
            fn get(r: &mut Reader<'_>) -> Result<Self, Error> { Ok($name { $($field: <$t>::get(r)?,)* }) }
        }
    )* };
}

macro_rules! plain_fields {
    ($($name:ident { $($field:ident: $t:ty),* })*) => { $(impl Field for $name {
        const LEAST: usize = 0 $(+ <$t as Field>::LEAST)*;
        fn put(&self, w: &mut Writer) { $(self.$field.put(w);)* }
        fn get(r: &mut Reader<'_>) -> Result<Self, Error> { Ok($name { $($field: <$t>::get(r)?,)* }) }
    })* };
}
plain_fields! {
    Session { client: ClientId, number: u64 }
    Token { generation: Generation, boot: u32, n: u32 }
    RecordId { generation: Generation, lsn: Lsn, hash: u64 }
}

message! {
    /// Client to node every L/3: the session lives, so do these leases.
    Renew {
        /// Whose.
        session: Session,
        /// One item a group that the client uses at this node.
        groups: Vec<RenewGroup>,
    }
    /// Part of [`Renew`].
    RenewGroup {
        /// Which.
        group: GroupId,
        /// The generation of its set, as the header of every other message about a group has it.
        generation: Generation,
        /// The addressee's store id in that set, likewise.
        store: StoreId,
        /// Nothing below is read by this client any more.
        floor: Lsn,
        /// The write lease that is renewed, all zero if none.
        token: Token,
    }
    /// Answer to [`Renew`].
    Renewed {
        /// Leases that go on.
        groups: Vec<RenewedGroup>,
    }
    /// Part of [`Renewed`].
    RenewedGroup {
        /// Which.
        group: GroupId,
        /// The token that was renewed.
        token: Token,
        /// Nanoseconds from the sending of the [`Renew`]; 0: the lease is over.
        lease_ns: u64,
    }

    /// Client to primary: the newest state, please.
    Snapshot {
        /// Whose.
        session: Session,
        /// The state that the client knows already.
        known: Lsn,
        /// Nothing below is read by this client any more.
        floor: Lsn,
        /// Asks for a read lease besides.
        read_lease: bool,
    }
    /// What changed since the LSN that the client knew.
    State {
        /// Last committed record.
        tail: RecordId,
        /// Nothing below is read any more.
        horizon: Lsn,
        /// Size in bytes of every dataset of the group.
        sizes: Vec<DatasetSize>,
        /// False: the lists are not whole, drop what you know.
        whole: bool,
        /// Pages changed since, with their newest version.
        changed: Vec<Changed>,
        /// Datasets shrunk since: `page` is the first page that was cut off.
        truncated: Vec<Changed>,
    }
    /// Part of [`State`].
    DatasetSize {
        /// Which.
        dataset: DatasetId,
        /// Bytes.
        size: u64,
    }
    /// Part of [`State`].
    Changed {
        /// Which.
        dataset: DatasetId,
        /// Which page.
        page: PageNo,
        /// The commit that changed it last.
        lsn: Lsn,
    }
    /// Answer to [`Snapshot`].
    SnapshotReply {
        /// The state.
        state: State,
        /// Read lease in nanoseconds from the sending of the request; 0: none.
        lease_ns: u64,
    }

    /// Client to primary: a past state, please. With `keep` below `at` it stays readable from here on.
    AsOf {
        /// Whose.
        session: Session,
        /// As in [`Keep`].
        word: u64,
        /// As in [`Keep`]; where `at` is an LSN, at most that.
        keep: Lsn,
        /// The commit; 0: what was the newest one `ago_ns` ago.
        at: Lsn,
        /// Nanoseconds.
        ago_ns: u64,
    }
    /// Answer to [`AsOf`].
    AsOfReply {
        /// The commit.
        lsn: Lsn,
        /// The newest one known to be committed.
        newest: Lsn,
        /// Size in bytes of every dataset of the group at that commit.
        sizes: Vec<DatasetSize>,
    }
    /// Client to primary, no answer: what it reads of the past.
    Keep {
        /// Whose.
        session: Session,
        /// Counts this client's words about the group: one that is not above the last heard is ignored.
        word: u64,
        /// No past state below is read by it any more; 0: none at all.
        keep: Lsn,
    }

    /// Client to primary: the write lease, please.
    Acquire {
        /// Whose.
        session: Session,
        /// The state that the client knows already.
        known: Lsn,
        /// Nothing below is read by this client any more.
        floor: Lsn,
        /// Place in the queue from an earlier answer, 0: none yet.
        ticket: u64,
        /// How long the client waits for a lease that is in use, nanoseconds.
        wait_ns: u64,
        /// True: takes the place back and wants nothing.
        forget: bool,
        /// The highest token that the client gave up; it will never use one at or below it again.
        returned: Token,
    }
    /// Answer to [`Acquire`].
    Acquired {
        /// 0: granted. Else the place in the queue; the rest is empty.
        ticket: u64,
        /// Token of the lease.
        token: Token,
        /// Nanoseconds from the sending of the request.
        lease_ns: u64,
        /// The newest state.
        state: State,
    }
    /// Holder to primary, no answer.
    Release {
        /// Whose.
        session: Session,
        /// Which lease.
        token: Token,
        /// True: called back inside a transaction; it is given back at its end.
        kept: bool,
        /// The last record that all members acknowledged.
        committed: RecordId,
    }
    /// Primary to holder: another asks.
    Callback {
        /// Which lease.
        token: Token,
    }
    /// Primary to reader: begin nothing below this LSN any more without asking.
    Recall {
        /// The commit that waits for it.
        below: Lsn,
    }
    /// Reader to primary, no answer: it will not.
    Recalled {
        /// Whose read lease.
        session: Session,
        /// As asked.
        below: Lsn,
    }

    /// Answer to a commit record.
    Ack {
        /// The record that the member holds.
        id: RecordId,
        /// Nothing below is read any more (0: not known here).
        horizon: Lsn,
    }
    /// Holder to members, no answer: committed up to here.
    Note {
        /// Token of the lease.
        token: Token,
        /// The last record that all members acknowledged.
        id: RecordId,
    }

    /// Client to member: pages of a dataset as of a commit.
    Read {
        /// Whose.
        session: Session,
        /// Which.
        dataset: DatasetId,
        /// The snapshot.
        at: Lsn,
        /// Which pages.
        pages: Vec<PageNo>,
    }
    /// Answer to [`Read`]: one item a page, in the order asked; their full content follows as data, zero pages left out.
    ReadReply {
        /// Versions.
        pages: Vec<PageVersion>,
    }
    /// Part of [`ReadReply`].
    PageVersion {
        /// The commit that wrote it; 0: never written.
        lsn: Lsn,
        /// Checksum of the content.
        checksum: u64,
        /// True: the page is zeros and has no data.
        zero: bool,
    }

    /// Client to primary: was my record committed?
    Outcome {
        /// Whose.
        session: Session,
        /// Token that it was sent under; dead from now on.
        token: Token,
        /// The record.
        id: RecordId,
    }
    /// Answer to [`Outcome`], final.
    OutcomeReply {
        /// It was.
        committed: bool,
        /// The settled tail.
        tail: RecordId,
    }

    /// Primary to member. The answer is [`Fenced`].
    Fence {
        /// From now on nothing below counts.
        token: Token,
    }
    /// Answer to [`Fence`].
    Fenced {
        /// The token asked for.
        token: Token,
        /// The member's last record.
        tail: RecordId,
        /// True: it restarted and accepts nothing before [`Complete`].
        unsettled: bool,
        /// False: it is joining, and pages of before its tail are still to come.
        whole: bool,
    }
    /// Primary to member: have exactly this tail. The answer is [`Completed`].
    Complete {
        /// The settle.
        token: Token,
        /// The tail.
        tail: RecordId,
    }
    /// Answer to [`Complete`].
    Completed {
        /// The settle.
        token: Token,
        /// The member's tail; when it is not the one asked for, records are missing here.
        tail: RecordId,
    }
    /// Primary to joining member: forget all records and pages of the group, have this tail; the pages come in the
    /// background. The answer is [`Completed`].
    Rebase {
        /// The settle.
        token: Token,
        /// The settled tail.
        tail: RecordId,
    }
    /// Member to member: send records `from..=to` again.
    Fetch {
        /// The settle.
        token: Token,
        /// First.
        from: Lsn,
        /// Last.
        to: Lsn,
    }
    /// Primary to member. The answer is [`Probed`].
    Probe {
        /// Current token.
        token: Token,
        /// Chosen by the primary.
        round: u64,
    }
    /// Answer to [`Probe`].
    Probed {
        /// The token asked with.
        token: Token,
        /// The round asked with.
        round: u64,
        /// The member's last record.
        tail: RecordId,
    }
    /// Primary to member, no answer: nothing below is read any more.
    Horizon {
        /// The lowest LSN that may still be read.
        horizon: Lsn,
        /// Committed up to here.
        committed: RecordId,
        /// That record decides for others, and all of them have been told: nobody will ask for it.
        closed: bool,
    }
    /// Primary of a participant to that of its decider, said until a [`Decision`] comes: was the linked record committed?
    Inquiry {
        /// The participant.
        asker: GroupId,
        /// Its prepared record.
        lsn: Lsn,
        /// As the prepared record has it.
        link: Link,
    }
    /// Primary of a decider to that of a participant: an answer to [`Inquiry`], or on its own until [`Resolved`] comes.
    Decision {
        /// The decider.
        decider: GroupId,
        /// The record that decides.
        id: RecordId,
        /// The participant's prepared record.
        lsn: Lsn,
        /// The deciding record is committed, finally; or never will be.
        committed: bool,
    }
    /// To the primary of a decider, from that of a participant or from the writer, no answer: its prepared record is resolved.
    Resolved {
        /// The participant.
        participant: GroupId,
        /// The record that decided.
        id: RecordId,
    }
    /// Primary to member, for all groups of a set: serve on for another L. The answer, a [`Grant`] too, is the word that
    /// this member obeys nobody else meanwhile. Generation and store id are in the header.
    Grant {
        /// Which set.
        set: SetId,
        /// The primary's clock when it asked, nanoseconds; said back in the answer.
        sent_ns: u64,
    }
    /// Member to primary: I restarted, settle with me.
    Unsettled {
        /// Its tail.
        tail: RecordId,
    }
}

/// Metadata of a message.
pub fn encode<T: Field>(m: &T) -> Vec<u8> {
    let mut w = Writer::with_capacity(64);
    m.put(&mut w);
    w.bytes
}

/// Reads a message's metadata, all of it.
///
/// # Errors
/// [`Error::Corrupt`] when it is not exactly one `T`.
pub fn decode<T: Field>(meta: &[u8]) -> Result<T, Error> {
    let mut r = Reader::new(meta);
    let m = T::get(&mut r)?;
    r.end()?;
    Ok(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip_and_nothing_left_over() {
        let m = Acquired {
            ticket: 0,
            token: Token { generation: Generation(1), boot: 2, n: 3 },
            lease_ns: 300,
            state: State {
                tail: RecordId { generation: Generation(1), lsn: Lsn(4), hash: 5 },
                horizon: Lsn(3),
                sizes: vec![DatasetSize { dataset: DatasetId(1), size: 4096 }],
                whole: true,
                changed: vec![Changed { dataset: DatasetId(1), page: PageNo(0), lsn: Lsn(4) }],
                truncated: vec![],
            },
        };
        let mut bytes = encode(&m);
        assert_eq!(decode::<Acquired>(&bytes).unwrap(), m);
        bytes.push(0);
        assert!(decode::<Acquired>(&bytes).is_err());
        assert!(decode::<Acquired>(&bytes[..20]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Renew>(&bytes);
            let _ = decode::<Acquired>(&bytes);
            let _ = decode::<ReadReply>(&bytes);
            let _ = decode::<Read>(&bytes);
            let _ = decode::<Renewed>(&bytes);
        }
    }
}
