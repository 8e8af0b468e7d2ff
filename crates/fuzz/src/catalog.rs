//! Every message of the wire: what its metadata is made of, and the decoder that has to bear anything in its place.
//!
//! A shape is written in letters: `8` and `4` are numbers of so many bytes, `b` a truth value, `[…]` a list. That a shape
//! is the message's is checked by decoding what is generated from it.

use crate::rng::Rng;
use dspm_proto::auth::{Challenge, Hello, Proof};
use dspm_proto::control::{Control, Done, Listing, Located, NodeStatus, Pong, View};
use dspm_proto::message::{self as m, Field};
use dspm_proto::record::Record;
use dspm_proto::{Error, Header, Kind, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// One message.
pub struct Message {
    /// Kind in the header.
    pub kind: Kind,
    /// It answers a request.
    pub reply: bool,
    /// What its metadata is made of; for JSON and records something else makes it.
    pub shape: &'static str,
    /// Decodes; true if it could be decoded. Panics where a decoder breaks its word.
    pub check: fn(&Header, &[u8]) -> bool,
}

const fn message(kind: Kind, reply: bool, shape: &'static str, check: fn(&Header, &[u8]) -> bool) -> Message {
    Message { kind, reply, shape, check }
}

/// Shape of JSON, and of a commit record.
pub const JSON: &str = "json";
pub const RECORD: &str = "record";
/// A record with a settle's token in front.
pub const REPLICATED: &str = "replicated";

/// An error reply, which may answer any kind.
pub const ERROR: &str = "error";

/// Of every kind that carries metadata, each way.
pub static MESSAGES: [Message; 41] = [
    message(Kind::Hello, false, JSON, |_, b| json::<Hello>(b) | json::<Proof>(b)),
    message(Kind::Hello, true, JSON, |_, b| json::<Challenge>(b)),
    message(Kind::Control, false, JSON, |_, b| json::<Control>(b)),
    message(Kind::Control, true, JSON, control_reply),
    message(Kind::Renew, false, "88[8888 844]", binary::<m::Renew>),
    message(Kind::Renew, true, "[8 844 8]", binary::<m::Renewed>),
    message(Kind::Snapshot, false, "88 8 8 b", binary::<m::Snapshot>),
    message(Kind::Snapshot, true, "888 8[88]b[888][888] 8", binary::<m::SnapshotReply>),
    message(Kind::Acquire, false, "88 8 8 8 8 b 844", binary::<m::Acquire>),
    message(Kind::Acquire, true, "8 844 8 888 8[88]b[888][888]", binary::<m::Acquired>),
    message(Kind::Release, false, "88 844 b 888", binary::<m::Release>),
    message(Kind::Callback, false, "844", binary::<m::Callback>),
    message(Kind::Recall, false, "8", binary::<m::Recall>),
    message(Kind::Recalled, false, "88 8", binary::<m::Recalled>),
    message(Kind::AsOf, false, "88 8 8 8 8", binary::<m::AsOf>),
    message(Kind::AsOf, true, "8 8[88]", binary::<m::AsOfReply>),
    message(Kind::Keep, false, "88 8 8", binary::<m::Keep>),
    message(Kind::Commit, false, RECORD, record),
    message(Kind::Commit, true, "888 8", binary::<m::Ack>),
    message(Kind::Note, false, "844 888", binary::<m::Note>),
    message(Kind::Read, false, "88 8 8[8]", binary::<m::Read>),
    message(Kind::Read, true, "[88b]", binary::<m::ReadReply>),
    message(Kind::Outcome, false, "88 844 888", binary::<m::Outcome>),
    message(Kind::Outcome, true, "b 888", binary::<m::OutcomeReply>),
    message(Kind::Fence, false, "844", binary::<m::Fence>),
    message(Kind::Fence, true, "844 888 bb", binary::<m::Fenced>),
    message(Kind::Complete, false, "844 888", binary::<m::Complete>),
    message(Kind::Complete, true, "844 888", binary::<m::Completed>),
    message(Kind::Fetch, false, "844 8 8", binary::<m::Fetch>),
    message(Kind::Replicate, false, REPLICATED, replicated),
    message(Kind::Probe, false, "844 8", binary::<m::Probe>),
    message(Kind::Probe, true, "844 8 888", binary::<m::Probed>),
    message(Kind::Horizon, false, "8 888 b", binary::<m::Horizon>),
    message(Kind::Unsettled, false, "888", binary::<m::Unsettled>),
    message(Kind::Grant, false, "88", binary::<m::Grant>),
    message(Kind::Grant, true, "88", binary::<m::Grant>),
    message(Kind::Rebase, false, "844 888", binary::<m::Rebase>),
    message(Kind::Inquiry, false, "8 8 888844", binary::<m::Inquiry>),
    message(Kind::Decision, false, "8 888 8 b", binary::<m::Decision>),
    message(Kind::Resolved, false, "8 888", binary::<m::Resolved>),
    message(Kind::Control, true, ERROR, error),
];

/// A decoder of binary metadata: what it takes it gives back byte for byte.
fn binary<T: Field>(_: &Header, bytes: &[u8]) -> bool {
    match m::decode::<T>(bytes) {
        Ok(x) => {
            assert_eq!(m::encode(&x), bytes, "decoded and encoded again");
            true
        }
        Err(Error::Corrupt(_)) => false,
        Err(e) => panic!("a decoder answered {e:?}"),
    }
}

/// A decoder of JSON: what it takes it takes again from its own text.
fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(x) = serde_json::from_slice::<T>(bytes) else { return false };
    let text = serde_json::to_vec(&x).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&x), "JSON of its own");
    true
}

fn control_reply(_: &Header, b: &[u8]) -> bool {
    json::<Located>(b)
        | json::<Listing>(b)
        | json::<NodeStatus>(b)
        | json::<Pong>(b)
        | json::<View>(b)
        | json::<Done>(b)
}

/// Total: whatever it is, it is an error, and it can be told to others.
fn error(_: &Header, bytes: &[u8]) -> bool {
    let error = Error::decode(bytes);
    let again = Error::decode(&error.encode());
    assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&error), "an error told again");
    !error.to_string().is_empty()
}

/// A record keeps its identity when a member sends it again, in full.
fn record(header: &Header, meta: &[u8]) -> bool {
    match Record::decode(header, meta) {
        Ok(r) => {
            assert_eq!(r.data_len(), header.data_len as usize);
            let (full, again) = r.in_full();
            let sent = full.header(Kind::Replicate, &again, header.store, 0);
            assert_eq!(Record::decode(&sent, &again).as_ref(), Ok(&full), "a record sent again");
            assert_eq!(full.id, r.id);
            true
        }
        Err(Error::Corrupt(_)) => false,
        Err(e) => panic!("a decoder answered {e:?}"),
    }
}

fn replicated(header: &Header, meta: &[u8]) -> bool {
    let Some((token, rest)) = meta.split_at_checked(16) else { return false };
    // The receiver checks the whole, then reads the record behind the token.
    m::decode::<Token>(token).is_ok() && record(&header.for_meta(rest), rest)
}

/// Metadata of that shape.
pub fn fill(shape: &str, rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    fill_into(&mut shape.bytes(), rng, &mut out);
    out
}

fn fill_into(shape: &mut (impl Iterator<Item = u8> + Clone), rng: &mut Rng, out: &mut Vec<u8>) {
    while let Some(c) = shape.next() {
        match c {
            b'8' => out.extend(rng.number().to_le_bytes()),
            b'4' => out.extend((rng.number() as u32).to_le_bytes()),
            b'b' => out.push(rng.below(2) as u8),
            b'[' => {
                let items = if rng.one_in(50) { 300 } else { rng.below(5) };
                out.extend((items as u32).to_le_bytes());
                let item: Vec<u8> = shape.by_ref().take_while(|c| *c != b']').collect();
                (0..items).for_each(|_| fill_into(&mut item.iter().copied(), rng, out));
            }
            _ => {}
        }
    }
}
