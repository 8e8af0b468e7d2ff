//! Reading the past, at the primary: what clients keep of it, and which state a question means.
//!
//! Invariants: while a client's last word about the past is younger than [`SESSION_MAX`] and nothing was revoked, the
//! horizon does not pass what that word keeps. A word counts from the moment it arrives, so what a question asks for
//! stays from then on, also while its answer waits. No state is shown that is not known to be committed, or that may
//! be gone here already.
//!
//! Fault model: words are lost, repeated, late and out of order. They are counted: unlike a floor, what a client keeps of
//! the past may fall, and a late word must not raise it again.

use crate::SESSION_MAX;
use crate::effect::{Caller, Effect};
use crate::replica::{Records, Replica};
use crate::view::{Reader, Wants};
use dspm_proto::message::{AsOf, Keep};
use dspm_proto::{ClientId, Error, Instant, Lsn, Session};
use std::collections::HashMap;
use std::time::Duration;

/// What clients read of the past of one group.
#[derive(Default)]
pub(crate) struct Keeps(HashMap<ClientId, Word>);

struct Word {
    number: u64,
    keep: Option<Lsn>,
    heard: Instant,
}

/// Which past state.
#[derive(Clone, Copy)]
pub(crate) enum Moment {
    At(Lsn),
    Ago(Duration),
}

impl Keeps {
    /// A client's word, if it is a newer one. What is below the horizon cannot be kept any more; what it reads above can.
    fn hear(&mut self, session: Session, number: u64, keep: Lsn, horizon: Lsn, now: Instant) {
        if self.0.get(&session.client).is_some_and(|w| w.number >= number) {
            return;
        }
        let keep = (keep > Lsn(0)).then_some(keep.max(horizon));
        self.0.insert(session.client, Word { number, keep, heard: now });
    }

    /// The oldest state that somebody keeps.
    pub(crate) fn lowest(&self) -> Option<(Lsn, ClientId)> {
        self.0.iter().filter_map(|(client, w)| w.keep.map(|k| (k, *client))).min()
    }

    /// It takes more room than one reader may.
    pub(crate) fn revoke(&mut self, client: ClientId) {
        if let Some(w) = self.0.get_mut(&client) {
            w.keep = None;
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        self.0.retain(|_, w| now.since(w.heard) < SESSION_MAX);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<R: Records> Replica<R> {
    /// A client asks for a past state.
    pub fn as_of(&mut self, from: Caller, m: &AsOf, now: Instant) {
        if !self.takes_reader(from, m.session) {
            return;
        }
        let moment = if m.at > Lsn(0) { Moment::At(m.at) } else { Moment::Ago(Duration::from_nanos(m.ago_ns)) };
        self.hear_keep(m.session, m.word, m.keep, now);
        self.views.waiting.push(Reader { caller: from, wants: Wants::Past(moment) });
        self.answer_views(now);
    }

    /// A client says what it reads of the past.
    pub fn keep(&mut self, m: &Keep, now: Instant) {
        if self.setup.is_primary() && self.same_session(m.session) {
            self.hear_keep(m.session, m.word, m.keep, now);
            self.raise_horizon();
        }
    }

    fn hear_keep(&mut self, session: Session, word: u64, keep: Lsn, now: Instant) {
        let horizon = self.oldest();
        self.views.keeps.hear(session, word, keep, horizon, now);
    }

    /// The oldest state that can be read: nothing below is kept here, or has to be.
    fn oldest(&self) -> Lsn {
        self.views.horizon.max(self.records.horizon())
    }

    /// What is known to be committed needs no word of the other members.
    pub(crate) fn answer_past(&mut self, now: Instant) {
        let committed = self.records.committed().min(self.read_limit(now));
        let known = |r: &Reader| match r.wants {
            Wants::Past(Moment::At(at)) => at <= committed,
            Wants::Past(Moment::Ago(_)) => true,
            Wants::Newest { .. } => false,
        };
        let (past, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.views.waiting).into_iter().partition(known);
        self.views.waiting = rest;
        for reader in past {
            if let Wants::Past(moment) = reader.wants {
                self.show_past(reader.caller, moment, committed, now);
            }
        }
    }

    /// Answers a question for a past state; `committed` is the newest that may be shown.
    pub(crate) fn show_past(&mut self, to: Caller, moment: Moment, committed: Lsn, now: Instant) {
        let oldest = self.oldest();
        let wanted = match moment {
            Moment::At(at) => Ok(at),
            Moment::Ago(ago) => {
                let then = now.0.checked_sub(ago.as_nanos() as u64).map(Instant);
                let newest = then.and_then(|t| self.views.past.newest_at(t)).map(|lsn| lsn.min(committed));
                newest.ok_or_else(|| {
                    let ago = ago.as_secs_f64();
                    format!("what was newest {ago} s ago is not known: `history` or its primary began later")
                })
            }
        };
        let kept = wanted.and_then(|at| match at >= oldest {
            true => Ok(at),
            false => Err(format!("commit {at} is no longer kept")),
        });
        let error = match kept {
            Ok(lsn) if lsn <= committed => return self.effects.push(Effect::AsOf { to, lsn, newest: committed }),
            Ok(at) => Error::Usage(format!("commit {at} is not there yet; the newest is {committed}")),
            Err(text) => {
                let oldest = oldest.max(committed.min(Lsn(1))); // who asks for 0 gets the present
                Error::TooOld(format!("{text}; the oldest that can be read is {oldest}"))
            }
        };
        self.effects.push(Effect::Fail { to, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(client: u64) -> Session {
        Session { client: ClientId(client), number: 1 }
    }

    #[test]
    fn a_late_word_neither_raises_nor_lowers_what_is_kept() {
        let mut keeps = Keeps::default();
        let t = Instant(0);
        keeps.hear(session(1), 1, Lsn(90), Lsn(5), t);
        keeps.hear(session(1), 3, Lsn(20), Lsn(5), t);
        keeps.hear(session(1), 2, Lsn(90), Lsn(5), t);
        assert_eq!(keeps.lowest(), Some((Lsn(20), ClientId(1))));
        keeps.hear(session(1), 4, Lsn(0), Lsn(5), t);
        keeps.hear(session(1), 3, Lsn(20), Lsn(5), t);
        assert_eq!(keeps.lowest(), None);
    }

    #[test]
    fn what_is_kept_lapses_and_is_not_below_the_horizon() {
        let mut keeps = Keeps::default();
        keeps.hear(session(1), 1, Lsn(3), Lsn(5), Instant(0));
        keeps.hear(session(2), 1, Lsn(9), Lsn(5), Instant(1));
        assert_eq!(keeps.lowest(), Some((Lsn(5), ClientId(1))));
        keeps.revoke(ClientId(1));
        assert_eq!(keeps.lowest(), Some((Lsn(9), ClientId(2))));
        keeps.tick(Instant(0).after(SESSION_MAX));
        assert_eq!((keeps.lowest(), keeps.is_empty()), (Some((Lsn(9), ClientId(2))), false));
        keeps.tick(Instant(1).after(SESSION_MAX));
        assert!(keeps.is_empty());
    }
}
