//! One commit over several groups: two-phase commit with presumed abort, from the writer's side
//! (docs/decisions/0015-atomic-commit-over-groups.md).
//!
//! The first group is the decider. Its record is built first, since the others' prepared records name its hash, and sent
//! when all members of all of them hold theirs. Then each participant gets the record that resolves its own. What the
//! participants get goes out side by side, so any number of groups costs three round trips; where something is in doubt
//! they are asked side by side, within one time.
//!
//! Invariants: the decision goes out only when every prepared record is acknowledged by all; a certain "no" only when
//! each prepared record that went out is known to be taken back; Ok only when decision and resolutions are held by all;
//! the decider's lease is given up where a participant is left unresolved, so that nothing is sent behind the decision.
//! No two groups' locks are held by a thread at once.
//!
//! Fault model: that of a single commit, at every step and in every group.

use super::commit::{conflict, with_cause};
use super::group::{GroupClient, Place, State};
use super::send::{Built, Commit, Sending, begin_side_by_side};
use dspm_proto::message::Resolved;
use dspm_proto::record::Record;
use dspm_proto::{Error, Kind, Link, Lsn, Part, RecordId, Token, limits};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// One group's share of the commit.
pub(super) struct Share<'a> {
    pub(super) group: &'a GroupClient,
    pub(super) commit: Commit<'a>,
}

/// A prepared record that went out.
struct Prepared {
    id: RecordId,
    token: Token,
    place: Arc<Place>,
}

/// Commits all shares, of which there are at least two, or none. Answers the first one's LSN.
///
/// # Errors
/// As [`dspm_txn::dataset::Dataset::commit_with`].
pub(super) fn commit(mut shares: Vec<Share<'_>>) -> Result<Lsn, Error> {
    check(&shares)?;
    let deadline = shares[0].group.deadline();
    let mut places = Vec::with_capacity(shares.len());
    for share in &shares {
        places.push(share.group.make_ready(&share.commit, deadline)?);
    }
    let (decider, participants) = shares.split_first_mut().ok_or_else(|| Error::Usage("nothing to commit".into()))?;
    let mut links = Vec::with_capacity(participants.len());
    for share in participants.iter() {
        let (token, base) = share.group.standing(&share.group.lock(), share.commit.snapshot)?;
        links.push(Link { group: share.group.entry.group, lsn: base.lsn.next(), hash: 0, token });
    }
    let decision = decider.group.build(&places[0], &decider.commit, true, Part::Decides, links)?;
    let mut sent = Vec::with_capacity(participants.len());
    if let Err(error) = prepare(&decision, participants, &places[1..], &mut sent, deadline) {
        return Err(take_back(decider, participants, &sent, error, deadline));
    }
    match decide(decider, &decision, &places[0], deadline) {
        Ok(()) => resolve(decider, participants, &sent, decision.record.id, deadline)?,
        Err(e @ Error::OutcomeUnknown(_)) => {
            participants.iter().for_each(|share| share.group.leave_in_doubt());
            return Err(e);
        }
        Err(error) => return Err(take_back(decider, participants, &sent, error, deadline)),
    }
    Ok(decision.record.id.lsn)
}

/// Refuses what no cluster could take.
fn check(shares: &[Share<'_>]) -> Result<(), Error> {
    let most = limits::LINKS_MAX + 1;
    if shares.len() > most {
        return Err(Error::Usage(format!("{} datasets in one commit; at most {most} are possible", shares.len())));
    }
    for (i, share) in shares.iter().enumerate() {
        share.commit.check()?;
        let (first, name) = (shares[0].group, &share.group.entry.name);
        if !Arc::ptr_eq(&share.group.client, &first.client) {
            let text = format!(
                "datasets {} and {name} cannot commit together: they are of two clusters, or were opened with \
                 different settings",
                first.entry.name
            );
            return Err(Error::Usage(text));
        }
        if shares[..i].iter().any(|s| s.group.entry.group == share.group.entry.group) {
            return Err(Error::Usage(format!("dataset {name} is in one commit twice; write it in one transaction")));
        }
    }
    Ok(())
}

/// Sends the participants' records side by side, until all members of all groups hold theirs. One is among `sent` once
/// it may have reached a member.
fn prepare(
    decision: &Built,
    participants: &mut [Share<'_>],
    places: &[Arc<Place>],
    sent: &mut Vec<Prepared>,
    deadline: Instant,
) -> Result<(), Error> {
    let build = |(share, place): (&Share<'_>, &Arc<Place>)| build_prepared(decision, share, place);
    let built: Vec<Built> = participants.iter().zip(places).map(build).collect::<Result<_, _>>()?;
    for ((share, place), built) in participants.iter().zip(places).zip(&built) {
        share.group.take_off(place, built)?;
        share.group.let_others_ask();
        sent.push(Prepared { id: built.record.id, token: built.record.token, place: place.clone() });
    }
    let outgoing = participants.iter_mut().zip(places).zip(&built);
    let mut outgoing: Vec<_> = outgoing.map(|((share, place), built)| share.sending(place, built)).collect();
    let begun = begin_side_by_side(&mut outgoing, deadline);
    outgoing.iter_mut().zip(begun).try_for_each(|(s, begun)| s.go_on(begun, deadline))
}

/// A participant's record, which names the decision.
fn build_prepared(decision: &Built, share: &Share<'_>, place: &Place) -> Result<Built, Error> {
    let decider = &decision.record;
    let link = Link { group: decider.group, lsn: decider.id.lsn, hash: decider.id.hash, token: decider.token };
    let built = share.group.build(place, &share.commit, true, Part::Prepared, vec![link])?;
    let Record { id, token, group, .. } = built.record;
    match decider.links.contains(&Link { group, lsn: id.lsn, hash: 0, token }) {
        true => Ok(built),
        false => Err(conflict()), // the lease that the decision names was lost, and another is here
    }
}

/// Sends the decision. [`Error::OutcomeUnknown`]: nobody can tell; any other error: it is not, and never will be.
fn decide(decider: &mut Share<'_>, decision: &Built, place: &Place, deadline: Instant) -> Result<(), Error> {
    let (group, commit) = (decider.group, &mut decider.commit);
    group.take_off(place, decision)?;
    let Err(error) = group.send_to_all(place, decision, commit, deadline) else { return Ok(()) };
    let id = decision.record.id;
    let absorb = |state: &mut State| group.absorb(state, commit, id.lsn, id.lsn, Some(id));
    match group.resolve(group.last_word(deadline), absorb) {
        Ok(true) => Ok(()),
        Ok(false) => Err(error),
        Err(e) => Err(with_cause(e, &error)),
    }
}

/// The decision stands: each participant's record is resolved as committed, side by side.
fn resolve(
    decider: &Share<'_>,
    participants: &mut [Share<'_>],
    sent: &[Prepared],
    id: RecordId,
    deadline: Instant,
) -> Result<(), Error> {
    let until = decider.group.last_word(deadline);
    let held = send_resolutions(participants, sent, until);
    let open = participants.iter_mut().zip(sent).zip(&held).filter(|(_, held)| !**held);
    let learn = |((share, prepared), _): ((&mut Share<'_>, &Prepared), _)| {
        let told = share.group.learn_resolution(prepared, &mut share.commit, until);
        (share.group.entry.group, told)
    };
    let unresolved: Vec<_> =
        side_by_side(open.collect(), learn).into_iter().filter(|(_, told)| told.is_err()).collect();
    for group in participants.iter().map(|share| share.group.entry.group) {
        if !unresolved.iter().any(|(g, _)| *g == group) {
            // A hint: where it is lost, the decider's primary asks before it gives the lease to anybody.
            let place = decider.group.place();
            let resolved = Resolved { participant: group, id };
            decider.group.tell(&place, place.primary(), Kind::Resolved, &resolved);
        }
    }
    let Some((group, Err(why))) = unresolved.into_iter().next() else { return Ok(()) };
    decider.group.give_lease_back();
    let first = &decider.group.entry.name;
    let name = participants.iter().map(|s| s.group).find(|g| g.entry.group == group).map_or("", |g| &g.entry.name);
    Err(Error::OutcomeUnknown(format!("commit {} of dataset {first} is unknown in dataset {name}: {why}", id.lsn)))
}

/// Sends what resolves the prepared records. Which of them all members hold; of the others the outcome is to be asked for.
fn send_resolutions(participants: &mut [Share<'_>], sent: &[Prepared], until: Instant) -> Vec<bool> {
    let built: Vec<Option<Built>> = participants.iter().zip(sent).map(|(s, p)| s.group.resolution(p)).collect();
    let mut held = vec![false; built.len()];
    let (mut outgoing, mut which) = (Vec::with_capacity(built.len()), Vec::with_capacity(built.len()));
    for (i, ((share, prepared), built)) in participants.iter_mut().zip(sent).zip(&built).enumerate() {
        match built {
            Some(built) => {
                outgoing.push(share.sending(&prepared.place, built));
                which.push(i);
            }
            None => share.group.doubt(),
        }
    }
    let begun = begin_side_by_side(&mut outgoing, until);
    for ((sending, begun), i) in outgoing.iter_mut().zip(begun).zip(which) {
        held[i] = sending.go_on(begun, until).is_ok();
    }
    held
}

/// There will be no decision: waits until every prepared record is known to be taken back. Answers what to tell.
fn take_back(
    decider: &Share<'_>,
    participants: &[Share<'_>],
    sent: &[Prepared],
    error: Error,
    deadline: Instant,
) -> Error {
    if sent.is_empty() {
        return error;
    }
    decider.group.give_lease_back(); // or its primary could not say "no" before the lease lapses
    let touched: Vec<&GroupClient> = participants.iter().zip(sent).map(|(share, _)| share.group).collect();
    touched.iter().for_each(|group| group.doubt());
    let until = decider.group.last_word(deadline);
    let ask = |group: &GroupClient| match group.resolve(until, |_| {}) {
        Ok(false) => None,
        Ok(true) => Some(Error::OutcomeUnknown(format!("dataset {} has it without a decision", group.entry.name))),
        Err(e) => Some(e),
    };
    let unknown = side_by_side(touched, ask).into_iter().flatten().next();
    match (unknown, error) {
        (Some(unknown), error) => with_cause(unknown, &error),
        (None, error @ Error::Unavailable(_)) if Instant::now() < deadline => {
            Error::Conflict(format!("the transaction was taken back and can be tried again: {error}"))
        }
        (None, error) => error,
    }
}

/// Runs it for each item, by as many threads as there are items: none waits for what another one waits for. The results
/// are in the order of the items. Where there is no room for a thread, the others do its work.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, run: impl Fn(T) -> R + Sync) -> Vec<R> {
    let helpers = items.len().saturating_sub(1);
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut done = Vec::new();
        while let Some((i, item)) = next() {
            done.push((i, run(item)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let helper = |_| thread::Builder::new().name("dspm-outcome".into()).spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (0..helpers).filter_map(helper).collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

impl<'a> Share<'a> {
    fn sending<'s>(&'s mut self, place: &'s Place, built: &'s Built) -> Sending<'s, 'a> {
        Sending { group: self.group, place, built, commit: &mut self.commit }
    }
}

impl GroupClient {
    /// The lease is here, and so is room for the record at every member.
    fn make_ready(&self, commit: &Commit<'_>, deadline: Instant) -> Result<Arc<Place>, Error> {
        if self.lock().holder.token().is_none() {
            self.regain(commit.snapshot)?;
        }
        let place = self.place();
        self.check_room_for(&place, commit.pages(), deadline)?;
        Ok(place)
    }

    /// The record that says that the prepared one is committed is in doubt, or was not sent: learns what became of it.
    fn learn_resolution(&self, prepared: &Prepared, commit: &mut Commit<'_>, until: Instant) -> Result<(), Error> {
        let lsn = prepared.id.lsn;
        match self.resolve(until, |state| self.absorb(state, commit, lsn, lsn.next(), None))? {
            true => Ok(()),
            false => Err(Error::Protocol("it was taken back against its decision".into())),
        }
    }

    /// The empty record behind a prepared one, in flight in its place. None: it may not go under that lease any more.
    fn resolution(&self, prepared: &Prepared) -> Option<Built> {
        let mut state = self.lock();
        state.transactions += 1;
        let Prepared { id, token, place } = prepared;
        let mut record = Record {
            group: self.entry.group,
            id: RecordId { generation: place.set.generation, lsn: id.lsn.next(), hash: 0 },
            token: *token,
            session: self.client.session,
            transaction: state.transactions,
            predecessor: id.hash,
            floor: self.floor(&state),
            part: Part::Alone,
            datasets: Vec::new(),
            links: Vec::new(),
            pages: Vec::new(),
        };
        let meta = record.seal();
        state.holder.follow(record.id, place.members())?;
        Some(Built { record, meta, deltas: Vec::new(), full: Vec::new() })
    }

    /// How long the other groups take nobody knows: who begins to read meanwhile asks the primary, which shows what was
    /// before.
    fn let_others_ask(&self) {
        self.lock().holder.stall();
        self.notify();
    }

    /// Nobody but a settle can tell what becomes of the record in flight, and the caller is going to ask for it.
    fn doubt(&self) {
        let mut state = self.lock();
        state.holder.doubt();
        state.resolving = true;
    }

    /// The same, but the background thread asks.
    fn leave_in_doubt(&self) {
        self.lock().holder.doubt();
    }

    /// The primary may settle at once.
    fn give_lease_back(&self) {
        let mut state = self.lock();
        if let Some(token) = state.holder.give_up() {
            let tail = state.holder.tail();
            self.answer_recall(&mut state, token, dspm_txn::Recall::Return(tail));
        }
    }
}

#[cfg(test)]
mod tests;
