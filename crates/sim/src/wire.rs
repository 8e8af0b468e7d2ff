//! Messages in flight. What the real wire puts into headers (group, generation, store ids, request numbers) stands in
//! the envelope; the metadata are the wire's own.

use crate::cache::Changes;
use crate::records::Copied;
use crate::set::SetConfig;
use dspm_proto::message::{self, Ack, Note, Release};
use dspm_proto::record::Record;
use dspm_proto::{Error, Generation, Instant, Lsn, PageNo, RecordId, Refusal, Session, StoreId, Token};
use dspm_txn::PeerMessage;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A member, or not, of some groups.
    Node(u32),
    /// A place where client processes run, one after another.
    Client(u32),
    /// Where sets change.
    Registry,
}

impl Who {
    pub(crate) fn code(self) -> u64 {
        match self {
            Who::Node(n) => u64::from(n),
            Who::Client(n) => 1000 + u64::from(n),
            Who::Registry => 2000,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Node(n) => write!(f, "node{n}"),
            Who::Client(n) => write!(f, "client{n}"),
            Who::Registry => write!(f, "registry"),
        }
    }
}

/// A message.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Sender.
    pub from: Who,
    /// Addressee.
    pub to: Who,
    /// Connection between a client and a node; 0 between nodes.
    pub link: u64,
    /// The group it is about; the set, of grants and of what is said to the registry.
    pub group: usize,
    /// Content.
    pub body: Body,
}

/// Content of a message.
#[derive(Clone, Debug)]
pub enum Body {
    /// Client to node.
    Ask {
        /// Chosen by the client, unique on its connection.
        request: u64,
        /// The generation of the set as the client knows it.
        generation: Generation,
        /// What the node is expected to remember.
        store: StoreId,
        /// The question.
        ask: Ask,
    },
    /// Node to client.
    Answer {
        /// Of the question.
        request: u64,
        /// The answer.
        answer: Answer,
    },
    /// Node to client: another asks for the lease.
    Callback {
        /// Whose lease.
        session: Session,
        /// Which.
        token: Token,
    },
    /// Node to client: a commit waits for its read lease.
    Recall {
        /// Whose lease.
        session: Session,
        /// The commit.
        below: Lsn,
    },
    /// Node to node.
    Peer {
        /// The sender's.
        generation: Generation,
        /// What the addressee is expected to remember.
        store: StoreId,
        /// The sender's own store id.
        sender: StoreId,
        /// Content.
        message: PeerMessage,
    },
    /// Between the primaries of groups of one transaction.
    Cross {
        /// What the addressee is expected to remember.
        store: StoreId,
        /// Content.
        message: CrossMessage,
    },
    /// Registry to node: all sets.
    View(Vec<Rc<SetConfig>>),
    /// Node to registry: it lives.
    Beat {
        /// What it remembers.
        store: StoreId,
        /// The sets' records that it knows.
        known: Vec<Rc<SetConfig>>,
        /// The registry's connection that it answers on.
        line: u64,
    },
    /// Primary to registry: settled.
    Activated {
        /// The generation.
        generation: Generation,
    },
    /// Joining node to registry: it holds everything.
    Whole {
        /// The generation.
        generation: Generation,
        /// Its store.
        store: StoreId,
    },
    /// Primary to member, and back.
    Grant {
        /// The set's.
        generation: Generation,
        /// What the addressee is expected to remember.
        store: StoreId,
        /// The sender's own store id.
        sender: StoreId,
        /// The primary's clock when it asked.
        sent: Instant,
        /// True on the way back.
        answer: bool,
    },
    /// Joining node to primary: the base, please.
    CopyAsk {
        /// The set's.
        generation: Generation,
        /// What the addressee is expected to remember.
        store: StoreId,
    },
    /// Primary to joining node.
    CopyReply {
        /// The set's.
        generation: Generation,
        /// The pages of some committed state.
        base: Rc<Copied>,
    },
    /// Node to node: a record of a settle.
    Replicate {
        /// The sender's.
        generation: Generation,
        /// What the addressee is expected to remember.
        store: StoreId,
        /// The settle.
        token: Token,
        /// The record.
        record: Rc<Record>,
    },
}

/// A message between the primaries of groups of one transaction.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is described where it is defined, in dspm_proto::message
pub enum CrossMessage {
    Inquiry(message::Inquiry),
    Decision(message::Decision),
    Resolved(message::Resolved),
}

/// A client's question.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is described where it is defined, in dspm_proto::message
pub enum Ask {
    Hello(Session),
    /// Where is the group?
    Locate,
    Renew {
        session: Session,
        token: Token,
        floor: Lsn,
    },
    Snapshot(message::Snapshot),
    AsOf(message::AsOf),
    Keep(message::Keep),
    Acquire(message::Acquire),
    Release(Release),
    Commit(Rc<Record>),
    Note(Note),
    Read(message::Read),
    Outcome(message::Outcome),
    Recalled(message::Recalled),
    Resolved(message::Resolved),
}

/// A node's answer.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is described where it is defined, in dspm_proto::message
pub enum Answer {
    Hello,
    Located(Rc<SetConfig>),
    Renewed {
        token: Token,
        lease: Duration,
    },
    Snapshot {
        tail: RecordId,
        changes: Changes,
        lease: Duration,
    },
    AsOf {
        id: RecordId,
    },
    Granted {
        tail: RecordId,
        changes: Changes,
        token: Token,
        lease: Duration,
    },
    Busy {
        ticket: u64,
    },
    Ack(Ack),
    /// Each with the commit that made the version.
    Pages(Vec<(PageNo, Lsn, u64)>),
    Outcome {
        committed: bool,
        tail: RecordId,
    },
    Refused(Refusal),
    Failed(Error),
}

fn listed(changes: &Changes) -> u64 {
    changes.as_ref().map_or(u64::MAX, |c| c.iter().fold(0, |h, (page, lsn)| h.rotate_left(9) ^ page.0 ^ lsn.0))
}

fn code(token: Token) -> u64 {
    u64::from(token.boot) << 32 | u64::from(token.n)
}

impl Body {
    /// Numbers that tell messages apart, for the trace's hash.
    pub(crate) fn digest(&self) -> [u64; 3] {
        match self {
            Body::Ask { request, ask, .. } => {
                let (kind, value) = ask.digest();
                [kind, *request, value]
            }
            Body::Answer { request, answer } => {
                let (kind, value) = answer.digest();
                [20 + kind, *request, value]
            }
            Body::Callback { session, token } => [40, session.client.0, code(*token)],
            Body::Recall { session, below } => [61, session.client.0, below.0],
            Body::Peer { message, sender, .. } => {
                let (kind, token, value) = peer(message);
                [41 + kind, code(token) ^ sender.0, value]
            }
            Body::Replicate { token, record, .. } => [60, code(*token), record.id.hash],
            Body::Cross { store, message } => {
                let (kind, value) = message.digest();
                [70 + kind, store.0, value]
            }
            Body::View(sets) => [62, sets.iter().map(|c| c.version).sum(), 0],
            Body::Beat { store, known, .. } => [63, store.0, known.iter().map(|c| c.version).sum()],
            Body::Activated { generation } => [64, generation.0, 0],
            Body::Whole { generation, store } => [65, generation.0, store.0],
            Body::Grant { generation, sent, answer, .. } => [66, generation.0 << 1 | u64::from(*answer), sent.0],
            Body::CopyAsk { generation, .. } => [67, generation.0, 0],
            Body::CopyReply { base, .. } => [68, base.at().0, 0],
        }
    }
}

impl CrossMessage {
    fn digest(&self) -> (u64, u64) {
        match self {
            CrossMessage::Inquiry(m) => (0, m.link.hash ^ m.lsn.0),
            CrossMessage::Decision(m) => (1, m.id.hash ^ m.lsn.0 << 1 ^ u64::from(m.committed)),
            CrossMessage::Resolved(m) => (2, m.id.hash ^ m.participant.0),
        }
    }
}

impl Ask {
    fn digest(&self) -> (u64, u64) {
        match self {
            Ask::Hello(s) => (1, s.number),
            Ask::Locate => (13, 0),
            Ask::Renew { token, floor, .. } => (2, code(*token) ^ floor.0),
            Ask::Snapshot(m) => (3, m.floor.0),
            Ask::Acquire(m) => (4, m.ticket ^ code(m.returned) ^ u64::from(m.forget) << 63),
            Ask::Release(m) => (5, code(m.token) ^ u64::from(m.kept) << 63),
            Ask::Commit(r) => (6, r.id.hash),
            Ask::Note(n) => (7, n.id.hash),
            Ask::Read(r) => (8, r.at.0),
            Ask::Outcome(o) => (9, o.id.hash),
            Ask::Recalled(m) => (10, m.below.0),
            Ask::Resolved(m) => (14, m.id.hash ^ m.participant.0),
            Ask::AsOf(m) => (11, m.at.0 ^ m.keep.0 << 20 ^ m.word << 40),
            Ask::Keep(m) => (12, m.keep.0 << 20 ^ m.word << 40),
        }
    }
}

impl Answer {
    fn digest(&self) -> (u64, u64) {
        match self {
            Answer::Hello => (1, 0),
            Answer::Located(c) => (12, c.version),
            Answer::Renewed { lease, .. } => (2, lease.as_nanos() as u64),
            Answer::Snapshot { tail, changes, lease } => (3, tail.hash ^ listed(changes) ^ lease.as_nanos() as u64),
            Answer::Granted { tail, token, changes, .. } => (4, tail.hash ^ code(*token) ^ listed(changes)),
            Answer::Busy { ticket } => (5, *ticket),
            Answer::Ack(a) => (6, a.id.hash),
            Answer::Pages(p) => (7, p.iter().fold(0, |h, (n, _, v)| h ^ n.0 ^ v)),
            Answer::Outcome { committed, tail } => (8, tail.hash ^ u64::from(*committed)),
            Answer::Refused(r) => (9, *r as u64),
            Answer::Failed(e) => (10, u64::from(e.code())),
            Answer::AsOf { id } => (11, id.hash),
        }
    }
}

fn peer(m: &PeerMessage) -> (u64, Token, u64) {
    match m {
        PeerMessage::Fence(m) => (1, m.token, 0),
        PeerMessage::Fenced(m) => (2, m.token, m.tail.hash),
        PeerMessage::Complete(m) => (3, m.token, m.tail.hash),
        PeerMessage::Completed(m) => (4, m.token, m.tail.hash),
        PeerMessage::Fetch(m) => (5, m.token, m.from.0),
        PeerMessage::Probe(m) => (6, m.token, m.round),
        PeerMessage::Probed(m) => (7, m.token, m.tail.hash),
        PeerMessage::Horizon(m) => (8, Token::default(), m.horizon.0 ^ m.committed.hash),
        PeerMessage::Rebase(m) => (10, m.token, m.tail.hash),
        PeerMessage::Unsettled(m) => (9, Token::default(), m.tail.hash),
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} g{} ", self.from, self.to, self.group)?;
        match &self.body {
            Body::Ask { request, ask: Ask::Commit(r), .. } => write!(f, "?{request} Commit {} under {}", r.id, r.token),
            Body::Ask { request, ask, .. } => write!(f, "?{request} {ask:?}"),
            Body::Answer { request, answer } => write!(f, "!{request} {answer:?}"),
            Body::Callback { token, .. } => write!(f, "Callback {token}"),
            Body::Recall { below, .. } => write!(f, "Recall below {below}"),
            Body::Peer { message, .. } => write!(f, "{message:?}"),
            Body::Replicate { token, record, .. } => write!(f, "Replicate {} under {token}", record.id),
            Body::Cross { message, .. } => write!(f, "{message:?}"),
            Body::View(sets) => write!(f, "View {:?}", sets.iter().map(|c| c.version).collect::<Vec<_>>()),
            Body::Beat { .. } => write!(f, "lives"),
            Body::Activated { generation } => write!(f, "Activated g{generation}"),
            Body::Whole { generation, .. } => write!(f, "Whole g{generation}"),
            Body::Grant { generation, sent, answer, .. } => {
                write!(f, "Grant g{generation} of {}{}", sent.0, if *answer { " given" } else { "" })
            }
            Body::CopyAsk { .. } => write!(f, "asks for the base"),
            Body::CopyReply { base, .. } => write!(f, "the base as of {}", base.at()),
        }
    }
}
