//! What keeps a segment from being freed: records that no checkpoint covers, and rebases whose base has not come.
//!
//! Invariant: what an entry makes void keeps nothing, in the entry's segment or before it; so a group that was cut or
//! rebased and then rests does not hold the log.

use dspm_proto::{GroupId, Header, Kind, Lsn};

use super::batch::FLAG_DROP;
use super::segment::Segment;

/// What an entry means for the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The segment is needed until a checkpoint of the group reaches the LSN.
    Record(Lsn),
    /// Records above are void.
    Cut(Lsn),
    /// All is void. The entry is needed until the next checkpoint: nothing else says that the group is not whole.
    Rebase,
    /// The base came, if it was awaited.
    Checkpoint,
}

impl Mark {
    /// Of an entry that was read.
    pub(super) fn of(h: &Header) -> Option<(GroupId, Mark)> {
        let mark = match h.kind {
            Kind::Commit => Mark::Record(h.lsn),
            Kind::Complete if h.flags & FLAG_DROP == 0 => Mark::Cut(h.lsn),
            Kind::Rebase => Mark::Rebase,
            Kind::Checkpoint => Mark::Checkpoint,
            _ => return None,
        };
        Some((h.group, mark))
    }
}

/// Notes marks of entries that stand in the last of these segments.
pub(super) fn note(segments: &mut [Segment], marks: &[(GroupId, Mark)]) {
    for (group, mark) in marks {
        match mark {
            Mark::Record(lsn) => {
                if let Some(s) = segments.last_mut() {
                    let newest = s.groups.entry(*group).or_default();
                    *newest = (*newest).max(*lsn);
                }
            }
            Mark::Cut(to) => {
                segments.iter_mut().filter_map(|s| s.groups.get_mut(group)).for_each(|l| *l = (*l).min(*to));
            }
            Mark::Rebase => {
                for s in &mut *segments {
                    s.groups.remove(group);
                    s.rebases.remove(group);
                }
                if let Some(s) = segments.last_mut() {
                    s.rebases.insert(*group);
                }
            }
            Mark::Checkpoint => {
                for s in &mut *segments {
                    s.rebases.remove(group);
                }
            }
        }
    }
}
