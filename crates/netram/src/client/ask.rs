//! Questions to the primary of a group, until it answers.
//!
//! Fault model: the primary is away, not ready, or replaced; connections break, stand and carry nothing, or carry bytes
//! that make no sense. A question is asked again as long as there is time, so only what may be repeated is asked here.

use super::group::{GroupClient, Peer};
use crate::clock;
use dspm_proto::{Error, Kind, Refusal, message};
use std::time::{Duration, Instant};

/// A question that was not answered for so many lease lengths is asked again, on another connection: the answer may be
/// lost while its connection stands. What is asked of the primary may be: it keeps one place in its queue and one
/// question about an outcome for each process, an outcome is final, a renewal and a snapshot take nothing from anybody.
pub(super) const PATIENCE: u32 = 2;

/// A question that was answered.
pub(crate) struct Asked {
    /// A clock read before it went out.
    pub(crate) sent: dspm_proto::Instant,
    /// The epoch that it was asked in.
    pub(crate) epoch: u64,
}

impl GroupClient {
    /// Asks the primary; tries again until the deadline while it cannot be reached or is not ready. Answers when the
    /// question was sent, and in which epoch: an answer of one that is over says nothing about this one.
    pub(crate) fn ask_primary<T: message::Field, R: message::Field>(
        &self,
        kind: Kind,
        deadline: Instant,
        mut question: impl FnMut() -> T,
    ) -> Result<(R, Asked), Error> {
        loop {
            if self.place().primary().link.is_down() {
                self.look_again(deadline)?; // who is replaced need not be asked once more first
            }
            let place = self.place();
            let peer = place.primary();
            let meta = message::encode(&question());
            let sent = clock::now();
            self.client.count_round_trip();
            let dialer = || self.client.dialer(false);
            let until = deadline.min(Instant::now() + self.lease * PATIENCE);
            let answer = peer.link.ask(dialer, self.header(kind, &place, peer), &meta, until);
            match answer.and_then(|a| message::decode(&a.meta)) {
                Ok(reply) => return Ok((reply, Asked { sent, epoch: place.epoch })),
                Err(e) if !is_outage(&e) => return Err(e),
                Err(e) if Instant::now() >= deadline => {
                    let writes = matches!(kind, Kind::Acquire | Kind::Outcome);
                    let short = self.short_of_copies().filter(|_| writes);
                    return Err(short.unwrap_or_else(|| self.outage(peer, &e)));
                }
                Err(e) => {
                    if !matches!(e, Error::Refused(Refusal::Unsettled)) {
                        self.look_again(deadline)?;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Asks where the group is now; that nobody can tell is no error yet.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the dataset is gone.
    pub(super) fn look_again(&self, deadline: Instant) -> Result<(), Error> {
        match self.relocate(deadline) {
            Err(e @ Error::NotFound(_)) => Err(e),
            _ => Ok(()),
        }
    }

    /// The error that users see when a member does not answer in time.
    pub(crate) fn outage(&self, peer: &Peer, e: &Error) -> Error {
        let (name, most) = (&self.entry.name, self.client.options.commit_timeout.as_millis());
        let (node, address) = (&peer.name, &peer.link.address);
        let text =
            format!("dataset {name}: node {node} ({address}) did not answer within commit_timeout ({most} ms): {e}");
        Error::Unavailable(text)
    }

    /// Why no write goes on, where too few copies are complete.
    pub(crate) fn short_of_copies(&self) -> Option<Error> {
        let (copies, least) = (self.place().complete().count(), self.entry.min_copies as usize);
        let text = || {
            let (name, most) = (&self.entry.name, self.client.options.commit_timeout.as_millis());
            format!(
                "dataset {name}: {copies} of its copies is complete and min_copies = {least}; writes wait for another, at \
                 most for commit_timeout ({most} ms)"
            )
        };
        (copies < least).then(|| Error::Unavailable(text()))
    }
}

/// True for errors that may pass while the caller waits.
pub(crate) fn is_outage(e: &Error) -> bool {
    let passing = |r: &Refusal| matches!(r, Refusal::Unsettled | Refusal::Fenced | Refusal::NotMember);
    matches!(e, Error::Unavailable(_)) || matches!(e, Error::Refused(r) if passing(r))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, group_of};
    use super::*;
    use crate::wire::{error_reply, frame, reply_to};
    use dspm_proto::message::{Outcome, OutcomeReply};
    use dspm_proto::{Header, RecordId};

    const LONG: Duration = Duration::from_secs(60);

    fn ask(node: &FakeNode, most: Duration) -> Result<OutcomeReply, Error> {
        let question = || Outcome { session: Default::default(), token: Default::default(), id: RecordId::default() };
        group_of(node).ask_primary(Kind::Outcome, Instant::now() + most, question).map(|(reply, _)| reply)
    }

    fn committed(h: &Header) -> Vec<u8> {
        let reply = OutcomeReply { committed: true, ..OutcomeReply::default() };
        frame(reply_to(h), &message::encode(&reply), 0)
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_on_another_connection() {
        let node = FakeNode::start(|n, h| (n > 0).then(|| committed(h)));
        assert!(ask(&node, LONG).unwrap().committed);
        let asked: Vec<_> = node.asked().into_iter().filter(|(_, kind)| *kind == Kind::Outcome).collect();
        assert!(asked.len() == 2 && asked[0].0 < asked[1].0, "on one connection: {asked:?}");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_asked_for_again_on_another_connection() {
        let node = FakeNode::start(|n, h| {
            let mut bytes = committed(h);
            if n == 0 {
                bytes[8] ^= 1;
            }
            Some(bytes)
        });
        assert!(ask(&node, LONG).unwrap().committed);
        let asked: Vec<_> = node.asked().into_iter().filter(|(_, kind)| *kind == Kind::Outcome).collect();
        assert!(asked.len() == 2 && asked[0].0 < asked[1].0, "on one connection: {asked:?}");
    }

    #[test]
    fn where_the_group_is_now_is_asked_for_within_the_same_time() {
        let node = FakeNode::start(|_, h| {
            let refusal = Error::Refused(Refusal::NotMember);
            (h.kind == Kind::Outcome).then(|| error_reply(h.kind, h.request, &refusal))
        });
        assert!(matches!(ask(&node, Duration::from_secs(2)), Err(Error::Unavailable(_))));
        let located = node.asked().iter().filter(|(_, kind)| *kind == Kind::Control).count();
        assert!(located > 1, "the first answer was lost, and waited for as long as commit_timeout");
    }
}
