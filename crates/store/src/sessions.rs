//! Client processes that a group remembers: each one's highest session number and newest record.
//!
//! Whoever asks whether a record was committed asks about the newest one of its process, for a process has one in
//! flight. So one identity a process answers long after the record itself has left the ring.
//!
//! Invariant: a process that is here with a record has no newer one in the group. What skips records (a group rebuilt
//! from a checkpoint) begins without any; what takes records back forgets theirs.

use dspm_proto::codec::{Reader, Writer};
use dspm_proto::{ClientId, Error, Generation, Lsn, RecordId, Session};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;

/// Processes that a group remembers; one that was not heard of for longest is forgotten for a new one.
pub(crate) const SESSIONS_MAX: usize = 1024;

#[derive(Clone, Copy)]
struct Known {
    session: Session,
    /// Its newest record, all zero if none is known.
    newest: RecordId,
    /// When that was published, ms of the kernel's boot time: it outlives the node's process as the arena does.
    at_ms: u64,
}

/// The processes; the one heard of longest ago first.
#[derive(Clone, Default)]
pub(crate) struct Sessions(VecDeque<Known>);

impl Sessions {
    fn find(&self, client: ClientId) -> Option<&Known> {
        self.0.iter().rev().find(|k| k.session.client == client) // those that write are at the end
    }

    /// The highest session number seen of a client, 0 if none.
    pub(crate) fn number(&self, client: ClientId) -> u64 {
        self.find(client).map_or(0, |k| k.session.number)
    }

    /// The client's newest record, if it is remembered.
    pub(crate) fn newest(&self, client: ClientId) -> Option<RecordId> {
        self.find(client).map(|k| k.newest).filter(|id| id.lsn > Lsn(0))
    }

    /// The process at the end of the list, with at least that session number.
    fn hear(&mut self, session: Session) -> &mut Known {
        let fresh = Known { session, newest: RecordId::default(), at_ms: 0 };
        let at = self.0.iter().rposition(|k| k.session.client == session.client);
        let mut known = match at {
            Some(at) if at + 1 == self.0.len() => self.0.pop_back().unwrap_or(fresh),
            Some(at) => self.0.remove(at).unwrap_or(fresh),
            None => fresh,
        };
        known.session.number = known.session.number.max(session.number);
        if self.0.len() == SESSIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(known);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// A session began.
    pub(crate) fn note(&mut self, session: Session) {
        self.hear(session);
    }

    /// A record of the session was published.
    pub(crate) fn wrote(&mut self, session: Session, id: RecordId) {
        let known = self.hear(session);
        (known.newest, known.at_ms) = (id, now_ms());
    }

    /// The record at that LSN was taken back: its process has none there, and that is what it may ask about.
    pub(crate) fn took_back(&mut self, lsn: Lsn) {
        self.0.iter_mut().filter(|k| k.newest.lsn == lsn).for_each(|k| k.newest.hash = 0);
    }

    /// Records above were cut off.
    pub(crate) fn cut(&mut self, to: Lsn) {
        self.0.iter_mut().filter(|k| k.newest.lsn > to).for_each(|k| k.newest = RecordId::default());
    }

    /// Number of processes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The session numbers of all, then the newest records that are not older than `retention_ms`.
    pub(crate) fn encode(&self, w: &mut Writer, retention_ms: u64) {
        for k in &self.0 {
            w.u64(k.session.client.0).u64(k.session.number);
        }
        let now = now_ms();
        let young = |k: &&Known| k.newest.lsn > Lsn(0) && now.saturating_sub(k.at_ms) < retention_ms;
        let kept: Vec<&Known> = self.0.iter().filter(young).collect();
        w.u32(kept.len() as u32).u32(0);
        for k in kept {
            let id = k.newest;
            w.u64(k.session.client.0).u64(id.generation.0).u64(id.lsn.0).u64(id.hash).u64(k.at_ms);
        }
    }

    /// What [`Sessions::encode`] wrote, of that many processes.
    pub(crate) fn decode(r: &mut Reader<'_>, count: u32) -> Result<Sessions, Error> {
        let mut all = Sessions::default();
        for _ in 0..count {
            all.note(Session { client: ClientId(r.u64()?), number: r.u64()? });
        }
        let (newest, _) = (r.u32()?, r.u32()?);
        for _ in 0..newest {
            let client = ClientId(r.u64()?);
            let id = RecordId { generation: Generation(r.u64()?), lsn: Lsn(r.u64()?), hash: r.u64()? };
            let at_ms = r.u64()?;
            let known = all.0.iter_mut().find(|k| k.session.client == client);
            let known = known.ok_or_else(|| Error::Corrupt("a record of a session that is not listed".into()))?;
            (known.newest, known.at_ms) = (id, at_ms);
        }
        Ok(all)
    }
}

fn now_ms() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(lsn: u64) -> RecordId {
        RecordId { generation: Generation(1), lsn: Lsn(lsn), hash: lsn * 7 }
    }

    fn session(client: u64) -> Session {
        Session { client: ClientId(client), number: 1 }
    }

    fn reread(s: &Sessions, retention_ms: u64) -> Sessions {
        let mut w = Writer::default();
        s.encode(&mut w, retention_ms);
        let mut r = Reader::new(&w.bytes);
        let read = Sessions::decode(&mut r, s.len() as u32).unwrap();
        r.end().unwrap();
        read
    }

    #[test]
    fn the_one_not_heard_of_for_longest_is_forgotten() {
        let mut s = Sessions::default();
        for client in 0..SESSIONS_MAX as u64 {
            s.wrote(session(client), id(client + 1));
        }
        s.wrote(session(0), id(5000)); // it is the newest now
        s.note(session(1 << 40));
        assert_eq!((s.len(), s.newest(ClientId(0)), s.newest(ClientId(1))), (SESSIONS_MAX, Some(id(5000)), None));
        assert_eq!((s.number(ClientId(1)), s.number(ClientId(2)), s.newest(ClientId(1 << 40))), (0, 1, None));
    }

    #[test]
    fn records_are_kept_as_long_as_they_are_asked_for() {
        let mut s = Sessions::default();
        s.wrote(session(1), id(4));
        s.note(session(2));
        s.wrote(Session { client: ClientId(1), number: 3 }, id(9));
        let (long, none) = (reread(&s, u64::MAX), reread(&s, 0));
        assert_eq!((long.newest(ClientId(1)), long.number(ClientId(1)), long.number(ClientId(2))), (Some(id(9)), 3, 1));
        assert_eq!(long.newest(ClientId(2)), None);
        assert_eq!(none.number(ClientId(1)), 3, "the session itself is not forgotten");
        s.cut(Lsn(8));
        assert_eq!(s.newest(ClientId(1)), None, "it may have had another record before");
    }
}
