//! The one error taxonomy of the Rust side. `code` crosses the wire and the C ABI; dspm/errors.py mirrors it.

use crate::codec::{Reader, Writer};

/// What a user of the store can meet. One sentence each; [`Error::hint`] says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something failed that has no better name.
    #[error("{0}")]
    Failed(String),
    /// Wrong arguments or configuration.
    #[error("{0}")]
    Usage(String),
    /// Nobody answered within `commit_timeout`, or no cluster is there.
    #[error("{0}")]
    Unavailable(String),
    /// Bytes are damaged or foreign.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// Another process holds the write lease inside a transaction.
    #[error("{0}")]
    Busy(String),
    /// Another commit came first.
    #[error("{0}")]
    Conflict(String),
    /// The snapshot is no longer kept.
    #[error("{0}")]
    TooOld(String),
    /// A commit was sent and nobody could be asked whether it happened.
    #[error("{0}")]
    OutcomeUnknown(String),
    /// A limit was reached: arena, disk, message.
    #[error("{0}")]
    Full(String),
    /// The cluster key is wrong.
    #[error("{0}")]
    Auth(String),
    /// The operating system said no.
    #[error("{0}")]
    Permission(String),
    /// The peer speaks another version, or none.
    #[error("{0}")]
    Protocol(String),
    /// No dataset of that name.
    #[error("{0}")]
    NotFound(String),
    /// A member refused; what it means depends on the request ([`Refusal`]).
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// Why a member refused a message of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// The generation, the token or the store id is not the current one.
    #[error("the writer was fenced")]
    Fenced = 1,
    /// A higher session of the same process exists, or the session lapsed.
    #[error("the session is over")]
    SessionOver = 2,
    /// LSN or predecessor do not follow the tail.
    #[error("the record does not follow the tail")]
    NotNext = 3,
    /// The node is not the group's primary, or no member of its set.
    #[error("this node does not serve that group")]
    NotMember = 4,
    /// The member restarted and was not settled yet.
    #[error("the member has not settled yet")]
    Unsettled = 5,
    /// No room in the arena.
    #[error("the arena is full")]
    Full = 6,
    /// A delta's base version or a staged part is missing here.
    #[error("a part of the record is missing")]
    Missing = 7,
    /// Content does not match its checksum.
    #[error("checksum mismatch")]
    Corrupt = 8,
}

impl Refusal {
    /// The refusal of that number.
    pub fn from_u8(v: u8) -> Option<Refusal> {
        use Refusal::*;
        [Fenced, SessionOver, NotNext, NotMember, Unsettled, Full, Missing, Corrupt].into_iter().find(|r| *r as u8 == v)
    }
}

impl Error {
    /// Number on the wire and in the C ABI (DSPM_E_*). 1–4 are also the command line's exit codes.
    pub fn code(&self) -> u8 {
        match self {
            Error::Failed(_) => 1,
            Error::Usage(_) => 2,
            Error::Unavailable(_) => 3,
            Error::Corrupt(_) => 4,
            Error::Busy(_) => 5,
            Error::Conflict(_) => 6,
            Error::TooOld(_) => 7,
            Error::OutcomeUnknown(_) => 8,
            Error::Full(_) => 9,
            Error::Auth(_) => 10,
            Error::Permission(_) => 11,
            Error::Protocol(_) => 12,
            Error::NotFound(_) => 13,
            Error::Refused(_) => 14,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::Unavailable(_) => "see `dspm status`; `dspm up --dir D` starts what is missing",
            Error::Corrupt(_) => "the copy was not used; `dspm status` shows which node reported it",
            Error::Busy(_) => "set a busy timeout, or try again",
            Error::Conflict(_) => "roll back and run the transaction again",
            Error::TooOld(_) => {
                "begin a new transaction, or read a newer commit; a database made with more `history` keeps more"
            }
            Error::OutcomeUnknown(_) => {
                "read the rows back once the cluster answers again before repeating the transaction"
            }
            Error::Full(_) => "add memory or disk to the nodes, or commit smaller transactions",
            Error::Auth(_) => "use the cluster's own key file (`key_file` in the config)",
            Error::Protocol(_) => "run the same dspm version on clients and nodes",
            Error::NotFound(_) => "`dspm ls` lists the datasets",
            _ => "",
        }
    }

    /// Metadata of an error reply: code, detail, text.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        let text = match self {
            Error::Refused(_) => String::new(),
            Error::Corrupt(t) => t.clone(),
            other => other.to_string(),
        };
        let detail = if let Error::Refused(r) = self { *r as u8 } else { 0 };
        w.u8(self.code()).u8(detail).raw(text.as_bytes());
        w.bytes
    }

    /// Reads an error reply's metadata. Total: what cannot be read is [`Error::Protocol`].
    pub fn decode(meta: &[u8]) -> Error {
        let mut r = Reader::new(meta);
        let (Ok(code), Ok(detail)) = (r.u8(), r.u8()) else { return Error::Protocol("an empty error reply".into()) };
        let text = String::from_utf8_lossy(&meta[2..]).into_owned();
        match code {
            1 => Error::Failed(text),
            2 => Error::Usage(text),
            3 => Error::Unavailable(text),
            4 => Error::Corrupt(text),
            5 => Error::Busy(text),
            6 => Error::Conflict(text),
            7 => Error::TooOld(text),
            8 => Error::OutcomeUnknown(text),
            9 => Error::Full(text),
            10 => Error::Auth(text),
            11 => Error::Permission(text),
            13 => Error::NotFound(text),
            14 => Refusal::from_u8(detail)
                .map_or_else(|| Error::Protocol(format!("unknown refusal {detail}")), Error::Refused),
            _ => Error::Protocol(text),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::PermissionDenied => Error::Permission(e.to_string()),
            _ => Error::Unavailable(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_cross_the_wire() {
        for e in [
            Error::Failed("a".into()),
            Error::Corrupt("b".into()),
            Error::Refused(Refusal::Fenced),
            Error::NotFound("c".into()),
        ] {
            assert_eq!(Error::decode(&e.encode()), e);
        }
        assert!(matches!(Error::decode(&[]), Error::Protocol(_)));
        assert!(matches!(Error::decode(&[14, 99]), Error::Protocol(_)));
    }
}
