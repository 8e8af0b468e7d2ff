//! What a [`Replica`](crate::Replica) asks its runtime to do.

use crate::replica::NodeNo;
use dspm_proto::message::{
    Ack, Complete, Completed, Decision, Fence, Fenced, Fetch, Horizon, Probe, Probed, Rebase, Resolved, Unsettled,
};
use dspm_proto::{Error, GroupId, Link, Lsn, RecordId, Refusal, Session, Token};
use std::time::Duration;

/// Where an answer goes: a connection of the runtime and the request number that the asker chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller {
    /// The runtime's number of the connection.
    pub connection: u64,
    /// The asker's number of the request.
    pub request: u64,
}

/// A message between members. Group, generation and the addressee's store id are added by the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is described where it is defined, in dspm_proto::message
pub enum PeerMessage {
    Fence(Fence),
    Fenced(Fenced),
    Complete(Complete),
    Completed(Completed),
    Fetch(Fetch),
    Probe(Probe),
    Probed(Probed),
    Horizon(Horizon),
    Unsettled(Unsettled),
    Rebase(Rebase),
}

/// Something to do. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the writer that its record is held.
    Ack {
        /// The writer.
        to: Caller,
        /// What it is told.
        ack: Ack,
    },
    /// Tell the asker no.
    Refuse {
        /// The asker.
        to: Caller,
        /// Why.
        why: Refusal,
    },
    /// Tell the asker that it went wrong.
    Fail {
        /// The asker.
        to: Caller,
        /// What.
        error: Error,
    },
    /// Answer a snapshot; the runtime adds sizes and changes in `(known, tail]`.
    Snapshot {
        /// The reader.
        to: Caller,
        /// What the reader knew.
        known: Lsn,
        /// The state it gets.
        tail: RecordId,
        /// Read lease, zero if none.
        lease: Duration,
    },
    /// Answer a question for a past state; the runtime adds sizes.
    AsOf {
        /// The reader.
        to: Caller,
        /// The commit that it gets.
        lsn: Lsn,
        /// The newest one.
        newest: Lsn,
    },
    /// Answer an acquire; the runtime adds sizes and changes in `(known, tail]`.
    Granted {
        /// The new holder.
        to: Caller,
        /// What it knew.
        known: Lsn,
        /// The state it gets.
        tail: RecordId,
        /// Its token.
        token: Token,
        /// Its lease, counted from when it sent the request.
        lease: Duration,
    },
    /// Answer an acquire: wait for your turn.
    Busy {
        /// The waiter.
        to: Caller,
        /// Its place.
        ticket: u64,
    },
    /// Answer an acquire: no lease is to be had for as long as the primaries of these groups are silent. The waiter has no
    /// place any more.
    Awaits {
        /// The waiter.
        to: Caller,
        /// They have part in a transaction that is not finished.
        groups: Vec<GroupId>,
    },
    /// Answer an outcome question.
    Outcome {
        /// The asker.
        to: Caller,
        /// Committed or not, finally.
        committed: bool,
        /// The settled tail.
        tail: RecordId,
    },
    /// Tell the holder that another asks.
    Callback {
        /// The holder.
        session: Session,
        /// Its token.
        token: Token,
    },
    /// Tell a reader that a commit waits for its read lease.
    Recall {
        /// The reader.
        session: Session,
        /// The commit.
        below: Lsn,
    },
    /// Send to a member.
    Send {
        /// Which.
        to: NodeNo,
        /// What.
        message: PeerMessage,
    },
    /// Send own records from `from` on to a member as Replicate, in order: at least one, at most to `last`, as many as
    /// the connection takes at once. What is left is asked for again.
    SendRecords {
        /// Which.
        to: NodeNo,
        /// Token of the settle.
        token: Token,
        /// First.
        from: Lsn,
        /// Last.
        last: Lsn,
    },
    /// Ask the primary of the link's group what became of that record; this group's record `lsn` is prepared for it. Where
    /// that group is known to be no more: [`crate::Replica::decision`], committed.
    Inquire {
        /// As the prepared record has it.
        link: Link,
        /// The prepared record.
        lsn: Lsn,
    },
    /// Tell the primary of a participant what became of this group's record. Where that group is known to be no more:
    /// [`crate::Replica::resolved`].
    Decide {
        /// The participant.
        to: GroupId,
        /// What it is told.
        decision: Decision,
    },
    /// Tell the primary of a decider that it need not be told again.
    Resolved {
        /// The decider.
        to: GroupId,
        /// What it is told.
        resolved: Resolved,
    },
    /// At the primary of a generation that is not active yet: this group is settled with all members and joining ones,
    /// a prepared tail aside.
    /// Said again now and then until the configuration is active. The runtime tells the registry when all groups are.
    Activated,
    /// Something that cannot happen happened; the message says what. The runtime logs it loudly and counts it.
    Alarm(String),
}
