//! A record's part in a transaction over several groups, and the records of other groups that it names.
//!
//! One group is the decider: its record *decides* for all. The others have a record each that is *prepared*: it counts when
//! the record behind it says so. That one is empty, or it *aborts*: it takes the prepared record's pages back.

use crate::codec::{Reader, Writer};
use crate::error::Error;
use crate::ids::{GroupId, Lsn, Token};
use crate::limits;
use crate::message::Field;

/// What a record is to records of other groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Part {
    /// Nothing. Without datasets, behind a prepared record: that one is committed.
    #[default]
    Alone = 0,
    /// It is committed if the record that its link names is. The record behind it tells.
    Prepared = 1,
    /// The prepared records that its links name are committed if it is.
    Decides = 2,
    /// The prepared record before it is void: its pages, zeros and sizes are as if it had never been.
    Aborts = 3,
}

impl Part {
    /// The part of that number.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none.
    pub fn from_u32(v: u32) -> Result<Part, Error> {
        Ok(match v {
            0 => Part::Alone,
            1 => Part::Prepared,
            2 => Part::Decides,
            3 => Part::Aborts,
            other => return Err(Error::Corrupt(format!("record: part {other}"))),
        })
    }
}

/// A record of another group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// The group.
    pub group: GroupId,
    /// Its place there.
    pub lsn: Lsn,
    /// Its hash; 0 in a deciding record, which the prepared ones name with its own.
    pub hash: u64,
    /// Token of the writer there.
    pub token: Token,
}

impl Field for Link {
    const LEAST: usize = Link::BYTES;
    fn put(&self, w: &mut Writer) {
        w.u64(self.group.0).u64(self.lsn.0).u64(self.hash);
        self.token.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Link, Error> {
        Ok(Link { group: GroupId(r.u64()?), lsn: Lsn(r.u64()?), hash: r.u64()?, token: Token::get(r)? })
    }
}

impl Link {
    /// Bytes of one.
    pub const BYTES: usize = 40;
}

/// Whether a record of `group` with that part may name these.
pub(crate) fn check(group: GroupId, part: Part, links: &[Link], is_empty: bool) -> Result<(), Error> {
    let count = match part {
        Part::Alone | Part::Aborts => links.is_empty(),
        Part::Prepared => links.len() == 1,
        Part::Decides => (1..=limits::LINKS_MAX).contains(&links.len()),
    };
    let others = links.iter().enumerate().all(|(i, l)| {
        let new = links[..i].iter().all(|before| before.group != l.group);
        new && l.group != group && l.lsn > Lsn(0) && (part != Part::Decides || l.hash == 0)
    });
    match count && others && (is_empty || part != Part::Aborts) {
        true => Ok(()),
        false => Err(Error::Corrupt(format!("record: {} links do not make it {part:?}", links.len()))),
    }
}
