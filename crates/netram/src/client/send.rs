//! A sealed record on its way to all members, until all hold it.
//!
//! A member without room, or without the version that a delta is made against, says so and holds nothing of the
//! request. It gets the same record again, under the same token, until `commit_timeout`: the writer keeps its lease and
//! its base, and nothing is refused for conflict because of space. Everything else puts the record in doubt.
//!
//! Fault model: members refuse, fall silent, or answer late, from connections that broke.

use super::group::{GroupClient, Peer, Place};
use super::spread;
use crate::clock;
use crate::wire::{Answer, Connection};
use dspm_proto::message::{self, Ack};
use dspm_proto::record::{PageChange, Payload, Record};
use dspm_proto::{DatasetId, Error, Kind, Lsn, Part, Refusal};
use dspm_txn::dataset::{Change, Snapshot};
use std::time::{Duration, Instant};

/// A member that says nothing for this many lease lengths is not waited for any longer: the primary is asked.
const SILENCE: u32 = 2;
/// A link slower than this (10 MB/s) makes large commits doubtful, and large reads go to another member.
pub(super) const SLOWEST_NS_PER_BYTE: u64 = 100;
/// A record of at most so many bytes is sent to one member after the other: their sockets take it without waiting.
const AT_ONCE: usize = 64 << 10;
/// Pauses before a member without room is asked again: the first, each next one twice as long, up to the last.
const PAUSE_MIN: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Pause between two looks where the group is, while a member has no room.
const LOOK: Duration = Duration::from_millis(250);

/// A sealed record and the page data that travels with it.
pub(super) struct Built {
    pub(super) record: Record,
    pub(super) meta: Vec<u8>,
    /// Encoded deltas, in the order of the record's pages.
    pub(super) deltas: Vec<Vec<u8>>,
    /// Full pages: which change, and the place there.
    pub(super) full: Vec<(usize, usize)>,
}

impl Built {
    fn data<'a>(&'a self, changes: &'a [Changed<'_>]) -> Vec<&'a [u8]> {
        let full = self.full.iter().map(|(c, i)| &changes[*c].1.pages[*i].1[..]);
        full.chain(self.deltas.iter().map(|d| &d[..])).collect()
    }

    /// The same record with every page in full.
    fn whole(&self, changes: &[Changed<'_>]) -> Built {
        let (record, meta) = self.record.in_full();
        let at = |p: &PageChange| {
            let c = p.dataset as usize;
            Some((c, changes[c].1.pages.binary_search_by_key(&p.page, |c| c.0).ok()?))
        };
        let pages = record.pages.iter().filter(|p| p.payload == Payload::Full);
        let full = pages.filter_map(at).collect();
        Built { record, meta, deltas: Vec::new(), full }
    }
}

/// What is committed: the transaction that waits for it.
pub(super) struct Commit<'a> {
    pub(super) snapshot: &'a mut Snapshot,
    /// In the snapshot's dataset, then in others of the group.
    pub(super) changes: Vec<Changed<'a>>,
}

/// What changes in a dataset.
pub(super) type Changed<'a> = (DatasetId, &'a Change<'a>);

/// What came of sending it to some members.
#[derive(Default)]
struct Round {
    /// All members hold it.
    done: bool,
    /// How many acknowledged it now.
    copies: u32,
    /// Members that hold nothing of it, and why.
    without: Vec<(usize, Error)>,
    /// Why it is in doubt.
    failed: Option<Error>,
}

/// A record went out on a connection, under a number; or not, or not whole.
type Sent = Result<(Connection, u64), Error>;

/// A record whose first requests are answered: what came of them, and who gets it next.
pub(super) struct Begun {
    later: Vec<usize>,
    round: Round,
    sent: Instant,
}

/// Requests whose answers nobody took yet.
struct Waiting {
    requests: Vec<(usize, Connection, u64)>,
    round: Round,
    sent: Instant,
    /// When who did not answer is not waited for any longer.
    until: Instant,
}

/// One of several records that go out side by side.
pub(super) struct Sending<'s, 'c> {
    pub(super) group: &'s GroupClient,
    pub(super) place: &'s Place,
    pub(super) built: &'s Built,
    pub(super) commit: &'s mut Commit<'c>,
}

impl Sending<'_, '_> {
    /// Goes on as [`GroupClient::send_to_all`] does after its first round.
    pub(super) fn go_on(&mut self, begun: Begun, room_until: Instant) -> Result<(), Error> {
        self.group.send_on(self.place, self.built, self.commit, begun, room_until)
    }
}

/// Sends each record to the members of its group before any answer is waited for: one round trip for all of them. The
/// results are in the order of the records.
pub(super) fn begin_side_by_side(sendings: &mut [Sending<'_, '_>], room_until: Instant) -> Vec<Begun> {
    let Some(first) = sendings.first() else { return Vec::new() };
    first.group.client.count_round_trip();
    let send = |s: &Sending<'_, '_>| {
        let (to, later) = order(s.place);
        let waiting = s.group.send_round(s.place, s.built, &to, &s.commit.changes, room_until);
        (later, waiting)
    };
    let sent: Vec<_> = sendings.iter().map(send).collect();
    // What was sent first had to wait for the others to be sent.
    let until = sent.iter().map(|(_, w)| w.until).max();
    let hear = |(s, (later, waiting)): (&mut Sending<'_, '_>, (_, Waiting))| {
        let (at, until) = (waiting.sent, until.unwrap_or(waiting.until));
        let round = s.group.hear_round(s.place, s.built, Waiting { until, ..waiting }, s.commit);
        Begun { later, round, sent: at }
    };
    sendings.iter_mut().zip(sent).map(hear).collect()
}

/// Who is sent a record first, and who then. Members that had no room for the last one are asked alone before the others
/// get anything: what the others held then would be brought to them by the settle, commit after commit, from the room
/// that is kept for settles.
fn order(place: &Place) -> (Vec<usize>, Vec<usize>) {
    let (short, rest): (Vec<usize>, _) = (0..place.peers.len()).partition(|i: &usize| place.peers[*i].link.is_short());
    if short.is_empty() { (rest, short) } else { (short, rest) }
}

impl GroupClient {
    /// Sends the record to every member, and again to those that have no room, until `room_until`. Any error: the
    /// record is in doubt.
    pub(super) fn send_to_all(
        &self,
        place: &Place,
        built: &Built,
        commit: &mut Commit<'_>,
        room_until: Instant,
    ) -> Result<(), Error> {
        let (to, later) = order(place);
        let begun = self.round(place, built, &to, later, commit, room_until);
        self.send_on(place, built, commit, begun, room_until)
    }

    /// Sends it to some members and waits for their answers.
    fn round(
        &self,
        place: &Place,
        built: &Built,
        to: &[usize],
        later: Vec<usize>,
        commit: &mut Commit<'_>,
        room_until: Instant,
    ) -> Begun {
        self.client.count_round_trip();
        let waiting = self.send_round(place, built, to, &commit.changes, room_until);
        let sent = waiting.sent;
        let round = self.hear_round(place, built, waiting, commit);
        Begun { later, round, sent }
    }

    /// What follows the first round, until all members hold it.
    fn send_on(
        &self,
        place: &Place,
        built: &Built,
        commit: &mut Commit<'_>,
        mut begun: Begun,
        room_until: Instant,
    ) -> Result<(), Error> {
        let (mut whole, mut copies, mut pause) = (None, 0, PAUSE_MIN);
        let (began, mut looked) = (begun.sent, begun.sent);
        let error = loop {
            let Begun { mut later, mut round, sent } = begun;
            copies += round.copies;
            if round.done {
                self.notify();
                return Ok(());
            }
            if let Some(e) = round.failed {
                break e;
            }
            let next = match round.without.pop() {
                None if later.is_empty() => break Error::Unavailable("not all members acknowledged".into()),
                None => std::mem::take(&mut later),
                Some((short, why)) => {
                    let again = round.without.iter().map(|w| w.0).chain([short]).collect();
                    if matches!(why, Error::Refused(Refusal::Missing)) && whole.is_none() {
                        whole = Some(built.whole(&commit.changes));
                    } else if Instant::now() >= room_until {
                        break no_room(&place.peers[short], &why, began.elapsed());
                    } else {
                        self.wait_for_room(pause, sent.elapsed(), room_until);
                        pause = (pause * 2).min(PAUSE_MAX);
                        if looked.elapsed() >= LOOK {
                            looked = Instant::now();
                            if self.has_moved_from(place, looked + LOOK) {
                                break Error::Unavailable("the set goes on without the member that has no room".into());
                            }
                        }
                    }
                    again
                }
            };
            begun = self.round(place, whole.as_ref().unwrap_or(built), &next, later, commit, room_until);
        };
        let mut state = self.lock();
        state.holder.doubt();
        (state.resolving, state.copies_now) = (true, copies);
        Err(error)
    }

    /// Pauses before a member without room is asked again. A large record is not sent more often than it took to send it.
    fn wait_for_room(&self, pause: Duration, sending: Duration, room_until: Instant) {
        self.lock().holder.stall();
        self.notify(); // who waits to read asks the primary
        std::thread::sleep(pause.max(sending).min(room_until.saturating_duration_since(Instant::now())));
    }

    /// A member without room may have been replaced, and not even have heard of it.
    fn has_moved_from(&self, place: &Place, deadline: Instant) -> bool {
        let _ = self.relocate(deadline); // nobody can tell: it is asked again
        self.place().set.generation > place.set.generation
    }

    /// Sends it to some members at once. A member that takes it in so slowly that the commit's time is over is not waited
    /// for, unless a link as slow as any may be would take longer.
    fn send_round(
        &self,
        place: &Place,
        built: &Built,
        to: &[usize],
        changes: &[Changed<'_>],
        until: Instant,
    ) -> Waiting {
        let sent = Instant::now();
        let data = built.data(changes);
        let bytes: usize = data.iter().map(|d| d.len()).sum();
        let mut round = Round::default();
        let mut requests = Vec::with_capacity(to.len());
        let slowest = Duration::from_nanos(bytes as u64 * SLOWEST_NS_PER_BYTE);
        let results = match bytes + built.meta.len() <= AT_ONCE {
            true => to.iter().map(|i| self.send_one(&place.peers[*i], built, &data)).collect(),
            false => self.send_spread(place, built, to, &data, until.max(sent + slowest)),
        };
        for (&i, result) in to.iter().zip(results) {
            match result {
                Ok((c, request)) => requests.push((i, c, request)),
                Err(e) => {
                    place.peers[i].link.lost();
                    round.failed = Some(unacknowledged(&place.peers[i], e));
                }
            }
        }
        Waiting { requests, round, sent, until: Instant::now() + self.lease * SILENCE + slowest }
    }

    /// Waits for every answer.
    fn hear_round(&self, place: &Place, built: &Built, waiting: Waiting, commit: &mut Commit<'_>) -> Round {
        let Waiting { requests, mut round, until, .. } = waiting;
        for (i, mut c, request) in requests {
            let answer = c.receive(request, until).and_then(Answer::accept);
            self.hear(place, built, i, (c, answer), commit, &mut round);
        }
        round
    }

    fn send_one(&self, peer: &Peer, built: &Built, data: &[&[u8]]) -> Sent {
        let mut c = peer.link.take(|| self.client.dialer(false))?;
        let request = c.send(built.record.header(Kind::Commit, &built.meta, peer.store, 0), &built.meta, data)?;
        Ok((c, request))
    }

    /// A large record, to all of them at the same time.
    fn send_spread(&self, place: &Place, built: &Built, to: &[usize], data: &[&[u8]], until: Instant) -> Vec<Sent> {
        let bytes = data.iter().map(|d| d.len()).sum();
        let mut heads = Vec::with_capacity(to.len());
        let mut head = |peer: &Peer| {
            let mut c = peer.link.take(|| self.client.dialer(false))?;
            let header = built.record.header(Kind::Commit, &built.meta, peer.store, 0);
            let (request, head) = c.request(header, &built.meta, bytes);
            heads.push(head);
            Ok((c, request))
        };
        let mut sent: Vec<Sent> = to.iter().map(|i| head(&place.peers[*i])).collect();
        let reached = sent.iter().flatten().zip(&heads).map(|((c, _), head)| (c.stream(), &head[..]));
        let results = spread::send_to_all(&reached.collect::<Vec<_>>(), data, until);
        for (sent, result) in sent.iter_mut().filter(|s| s.is_ok()).zip(results) {
            if let Err(e) = result {
                *sent = Err(e);
            }
        }
        sent
    }

    /// Takes a member's answer.
    fn hear(
        &self,
        place: &Place,
        built: &Built,
        i: usize,
        (c, answer): (Connection, Result<Answer, Error>),
        commit: &mut Commit<'_>,
        round: &mut Round,
    ) {
        let peer = &place.peers[i];
        match answer.and_then(|a| Ok((message::decode::<Ack>(&a.meta)?, a.header))) {
            Ok((ack, header)) if header.store == peer.store => {
                peer.link.give(c);
                peer.link.set_short(false);
                round.copies += 1;
                // The newest state and what this process has cached of it change at once.
                let mut state = self.lock();
                if place.epoch != self.epoch() {
                    return; // who says so has forgotten it since: the outcome is asked for
                }
                if state.holder.acked(peer.number, ack.id, clock::now()) {
                    round.done = true;
                    let lsn = ack.id.lsn;
                    match built.record.part {
                        Part::Prepared => state.holder.stall(), // not committed yet: who begins to read asks
                        // An empty record tells that the one before it is.
                        _ if built.record.is_empty() => {
                            self.absorb(&mut state, commit, Lsn(lsn.0 - 1), lsn, Some(ack.id));
                        }
                        _ => self.absorb(&mut state, commit, lsn, lsn, Some(ack.id)),
                    }
                }
            }
            Ok(_) => round.failed = Some(Error::Protocol("an acknowledgement of another store".into())),
            Err(e @ (Error::Full(_) | Error::Refused(Refusal::Full | Refusal::Missing))) => {
                peer.link.give(c);
                peer.link.set_short(!matches!(e, Error::Refused(Refusal::Missing)));
                round.without.push((i, e));
            }
            Err(e) => {
                match e {
                    Error::Refused(_) => peer.link.give(c),
                    _ => peer.link.lost(),
                }
                round.failed = Some(unacknowledged(peer, e));
            }
        }
    }
}

/// Names the member in the error that users see when it is the one that is missing.
fn unacknowledged(peer: &Peer, e: Error) -> Error {
    match e {
        Error::Unavailable(why) => {
            let text = format!("node {} ({}) did not acknowledge the commit: {why}", peer.name, peer.link.address);
            Error::Unavailable(text)
        }
        other => other,
    }
}

fn no_room(peer: &Peer, why: &Error, waited: Duration) -> Error {
    Error::Full(format!(
        "node {} ({}) has no room for the commit, which waited {} ms: {why}",
        peer.name,
        peer.link.address,
        waited.as_millis()
    ))
}
