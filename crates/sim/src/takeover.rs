//! A registry whose record is an old one goes on from what the nodes know.
//!
//! Rules: of each set it takes the record of the highest version that it heard of, and only when everybody whom that record
//! names (members, joining ones, last active set) was heard with the memory that it names, and nobody knows anything that
//! contradicts it. A generation that served was known to its members, one of whom was of the last active set before
//! it: so no later one served. It goes on from the last active set, far above every version and generation that anybody may
//! have heard of.
//!
//! Where that is not certain an operator says which record is the newest.

use crate::ctx::Ctx;
use crate::mutant::Mutant;
use crate::registry::Registry;
use crate::set::SetConfig;
use dspm_proto::{Generation, StoreId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Versions and generations that are left out: more than were ever decided and not heard of.
const LEAP: u64 = 1 << 20;

/// What the nodes said since the record was put back: what they remember, and the sets' records that they know.
pub(crate) type Known = BTreeMap<u32, (StoreId, Vec<Rc<SetConfig>>)>;

impl Registry {
    /// Takes over what the nodes know, if that is certain.
    pub(crate) fn take_over(&mut self, ctx: &mut Ctx<'_>) {
        if !self.backups.is_outdated() || ctx.broken(Mutant::OldStateDecides) {
            return;
        }
        let known = &self.backups.known;
        let hasty = ctx.broken(Mutant::TakesOverUnheard);
        let found: Option<Vec<_>> = (0..self.sets.len()).map(|set| newest(set, &self.sets, known, hasty)).collect();
        let Some(found) = found else { return };
        ctx.trace.say(|| format!("registry: takes over {:?}", found.iter().map(|c| c.version).collect::<Vec<_>>()));
        ctx.check.counts.taken_over += 1;
        self.go_on_from(&found, ctx.broken(Mutant::TakesOverLow));
        self.tell(ctx);
    }

    /// The records that are the newest ones are these. `low`: without leaving anything out.
    pub(crate) fn go_on_from(&mut self, found: &[Rc<SetConfig>], low: bool) {
        let leap = if low { 1 } else { LEAP };
        let heard = |set: usize| self.backups.known.values().map(move |k| &k.1[set]).chain([&self.sets[set]]);
        let anew = |(set, c): (usize, &Rc<SetConfig>)| {
            let version = heard(set).map(|k| k.version).max().unwrap_or(0).max(c.version) + leap;
            let generation = heard(set).map(|k| k.generation).max().unwrap_or(c.generation).max(c.generation);
            let generation = Generation(generation.0 + leap);
            let members = c.last_active.clone();
            let stays = members.iter().any(|m| m.node == c.primary);
            let primary = if stays { c.primary } else { members[0].node };
            Rc::new(SetConfig {
                version,
                generation,
                active: false,
                primary,
                members,
                joining: Vec::new(),
                ..(**c).clone()
            })
        };
        let sets: Vec<_> = found.iter().enumerate().map(anew).collect();
        self.replace(sets);
        self.backups.is_current();
        self.backups.wrote(&self.sets);
    }
}

/// A set's newest record; None where it is not certain that there is none that is newer.
fn newest(set: usize, own: &[Rc<SetConfig>], known: &Known, hasty: bool) -> Option<Rc<SetConfig>> {
    let all = || known.values().map(|k| &k.1[set]).chain([&own[set]]);
    let newest = all().max_by_key(|c| c.version)?;
    let follows =
        |c: &Rc<SetConfig>| c.version() == newest.version() || c.version < newest.version && !c.contradicts(newest);
    let testified = |m: &dspm_txn::Member| known.get(&m.node).is_some_and(|k| k.0 == m.store);
    let mut named = newest.members.iter().chain(&newest.joining).chain(&newest.last_active);
    (all().all(follows) && (hasty || named.all(testified))).then(|| newest.clone())
}
