//! What must hold, seen from outside. One history per group: the record that was acknowledged, read or told committed
//! at each LSN.
//!
//! - Acknowledged commits survive, and every transaction that begins afterwards sees them (strict serializability:
//!   what was read counts like what was acknowledged, begins without a round trip are begins).
//! - One LSN, one record. An outcome is final: "not committed" is never seen, "committed" is never lost.
//! - What became of a prepared record is what became of its decision, and the same at every member (`verdicts`); nobody is
//!   shown one that is not resolved.
//! - A page read at a snapshot is the page that the group's history gives.
//! - What was shown is held by every member whose memory is intact (the world asks them: [`Checker::audits`]).

use crate::elle::{Key, Transactions};
use dspm_proto::record::Record;
use dspm_proto::{Generation, Lsn, PageNo, Part, RecordId};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The checker of a run.
#[derive(Debug, Default)]
pub struct Checker {
    groups: Vec<History>,
    /// What a member must hold by now: group, record, who saw it.
    pub(crate) audits: Vec<(usize, RecordId, &'static str)>,
    violation: Option<String>,
    /// What transactions read and wrote.
    pub txns: Transactions,
    /// How often each thing happened.
    pub counts: Counts,
}

/// How often each thing happened in a run.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct Counts {
    pub commits: u64,
    pub begins: u64,
    pub local_begins: u64,
    pub read_leases: u64,
    pub reads: u64,
    pub cached: u64,
    pub past: u64,
    pub outcomes: u64,
    pub not_committed: u64,
    pub unknown: u64,
    pub too_old: u64,
    pub faults: u64,
    pub settles: u64,
    pub busy: u64,
    pub recovery_ms: u64,
    pub changes: u64,
    pub bases: u64,
    pub promoted: u64,
    /// Records that a registry with an old one took over from the nodes.
    pub taken_over: u64,
    pub joint: u64,
    pub aborts: u64,
}

#[derive(Debug, Default)]
struct History {
    made: BTreeMap<(u64, u64), Rc<Record>>,
    seen: Vec<Rc<Record>>,
    dead: BTreeSet<(u64, u64)>,
    pages: BTreeMap<PageNo, Vec<(Lsn, u64)>>,
    /// What became of prepared records.
    verdicts: BTreeMap<(u64, u64), bool>,
    /// Complete members of each generation so far, and how many there must be for a write.
    copies: BTreeMap<Generation, (usize, usize)>,
}

impl Checker {
    /// A checker of so many groups.
    pub fn new(groups: usize) -> Checker {
        Checker { groups: (0..groups).map(|_| History::default()).collect(), ..Checker::default() }
    }

    /// The first thing that went wrong.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Something went wrong; only the first counts.
    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// The history of transactions as a whole; `last` are the pages at the end.
    pub fn check_transactions(&mut self, last: &BTreeMap<Key, u64>) {
        if let Err(what) = self.txns.check(last) {
            self.fail(|| what);
        }
    }

    /// The newest state that anybody saw: whoever begins now sees at least that.
    pub fn top(&self, group: usize) -> Lsn {
        Lsn(self.groups[group].seen.len() as u64)
    }

    /// The newest record that anybody saw.
    pub fn top_id(&self, group: usize) -> Option<RecordId> {
        self.groups[group].seen.last().map(|r| r.id)
    }

    /// A client made a record.
    pub fn made(&mut self, group: usize, record: &Rc<Record>) {
        self.groups[group].made.insert(key(record.id), record.clone());
        if record.is_empty() {
            self.resolves(group, record);
        }
    }

    /// A commit returned to its caller, who began at `base`.
    pub fn committed(&mut self, group: usize, record: &Rc<Record>, base: RecordId) {
        self.counts.commits += 1;
        let follows = record.id.lsn == base.lsn.next() && record.predecessor == base.hash;
        if !follows {
            self.fail(|| format!("commit {} returned, but its transaction began at {base}: a lost update", record.id));
        }
        let (have, need) = self.groups[group].copies.get(&record.token.generation).copied().unwrap_or((1, 1));
        if have < need {
            self.fail(|| format!("commit {} returned with {have} copies of {need}", record.id));
        }
        self.see(group, record, "commit");
    }

    /// A generation's complete members.
    pub(crate) fn copies(&mut self, group: usize, generation: Generation, have: usize, need: usize) {
        self.groups[group].copies.insert(generation, (have, need));
    }

    /// A transaction began at `tail`; when it asked to, `floor` had been seen.
    pub fn begin(&mut self, group: usize, tail: RecordId, floor: Lsn, local: bool) {
        self.counts.begins += 1;
        self.counts.local_begins += u64::from(local);
        let what = if local { "begin without a round trip" } else { "begin" };
        if tail.lsn < floor {
            self.fail(|| format!("{what} shows {tail}, but {floor} was acknowledged or read before it"));
        }
        if tail.lsn == Lsn(0) {
            return;
        }
        match self.groups[group].made.get(&(tail.lsn.0, tail.hash)).cloned() {
            Some(record) if record.part == Part::Prepared => {
                self.fail(|| format!("{what} shows {tail}, which is prepared: half a transaction"));
            }
            Some(record) => self.see(group, &record, what),
            None => self.fail(|| format!("{what} shows {tail}, which nobody made")),
        }
    }

    /// A past state was shown: nothing that its group's history does not have.
    pub fn past(&mut self, group: usize, id: RecordId) {
        self.counts.past += 1;
        match self.groups[group].made.get(&(id.lsn.0, id.hash)).cloned() {
            Some(record) => self.see(group, &record, "a past state"),
            None => self.fail(|| format!("a past state shows {id}, which nobody made")),
        }
    }

    /// A page was read at a snapshot that had begun.
    pub fn page(&mut self, group: usize, at: RecordId, page: PageNo, value: u64) {
        self.counts.reads += 1;
        let versions = self.groups[group].pages.get(&page).map_or(&[][..], |v| v);
        let due = versions.iter().rev().find(|(lsn, _)| *lsn <= at.lsn).map_or(0, |v| v.1);
        if due != value {
            self.fail(|| format!("page {page} at {at} reads {value}, not {due}"));
        }
    }

    /// The same, of a page that the process had cached.
    pub fn cached(&mut self, group: usize, at: RecordId, page: PageNo, value: u64) {
        self.counts.cached += 1;
        self.page(group, at, page, value);
    }

    /// A client was told what became of its record.
    pub fn outcome(&mut self, group: usize, record: &Rc<Record>, committed: bool) {
        self.counts.outcomes += 1;
        let verdict = self.groups[group].verdicts.get(&key(record.id)).copied();
        if record.part == Part::Prepared && (committed && verdict != Some(true) || !committed && verdict == Some(true))
        {
            let id = record.id;
            self.fail(|| format!("the prepared {id} was told committed={committed}, its verdict is {verdict:?}"));
        }
        if committed {
            return self.see(group, record, "outcome");
        }
        self.counts.not_committed += 1;
        self.never(group, record);
    }

    /// A record is not committed, and will not be.
    fn never(&mut self, group: usize, record: &Rc<Record>) {
        let h = &mut self.groups[group];
        h.dead.insert(key(record.id));
        let seen = h.seen.get(record.id.lsn.0 as usize - 1).is_some_and(|r| **r == **record);
        if seen && record.part != Part::Prepared {
            self.fail(|| format!("record {} was told not committed, but was seen before", record.id));
        }
    }

    /// Somebody made the record behind a prepared one.
    fn resolves(&mut self, group: usize, record: &Rc<Record>) {
        let (id, yes) = (record.id, record.part == Part::Alone);
        let prepared = self.groups[group].made.get(&(id.lsn.0 - 1, record.predecessor)).cloned();
        let Some(prepared) = prepared.filter(|p| p.part == Part::Prepared) else {
            return self.fail(|| format!("{id} resolves what nobody prepared"));
        };
        let h = &mut self.groups[group];
        match h.verdicts.insert(key(prepared.id), yes) {
            None => {}
            Some(before) if before == yes => return,
            Some(_) => return self.fail(|| format!("{} has two verdicts, the second is committed={yes}", prepared.id)),
        }
        if yes && h.dead.contains(&key(prepared.id)) {
            return self.fail(|| format!("the prepared {} was told not committed, and is", prepared.id));
        }
        if yes && h.seen.get(prepared.id.lsn.0 as usize - 1).is_some_and(|r| **r == *prepared) {
            h.write(&prepared);
        }
        let link = prepared.links[0];
        let decider = link.group.0 as usize - 1;
        let Some(decision) = self.groups[decider].made.get(&(link.lsn.0, link.hash)).cloned() else {
            return self.fail(|| format!("{} names a decision that nobody made", prepared.id));
        };
        if yes {
            return self.see(decider, &decision, "what is resolved was decided");
        }
        self.counts.aborts += 1;
        self.never(decider, &decision);
    }

    /// Somebody saw a record, and with it all its predecessors.
    fn see(&mut self, group: usize, record: &Rc<Record>, why: &'static str) {
        self.audits.push((group, record.id, why));
        let mut chain = vec![record.clone()];
        let h = &mut self.groups[group];
        while let Some(r) = chain.last().filter(|r| r.id.lsn.0 > h.seen.len() as u64 + 1) {
            let Some(before) = h.made.get(&(r.id.lsn.0 - 1, r.predecessor)).cloned() else {
                let id = r.id;
                return self.fail(|| format!("{why}: {id} follows a record that nobody made"));
            };
            chain.push(before);
        }
        while let Some(r) = chain.pop() {
            if let Err(what) = h.take(&r) {
                return self.fail(|| format!("{why}: {what}"));
            }
        }
    }
}

fn key(id: RecordId) -> (u64, u64) {
    (id.lsn.0, id.hash)
}

impl History {
    fn take(&mut self, r: &Rc<Record>) -> Result<(), String> {
        let at = r.id.lsn.0 as usize - 1;
        if let Some(old) = self.seen.get(at) {
            let text =
                || format!("LSN {} was {} of {:?}, now {} of {:?}", r.id.lsn, old.id, old.session, r.id, r.session);
            return if **old == **r { Ok(()) } else { Err(text()) };
        }
        let before = self.seen.last().map_or(0, |r| r.id.hash);
        if r.predecessor != before {
            return Err(format!("{} does not follow what was seen at LSN {at}", r.id));
        }
        let prepared = |r: &Rc<Record>| r.part == Part::Prepared;
        if self.dead.contains(&key(r.id)) && !prepared(r) {
            return Err(format!("{} was told not committed, and is", r.id));
        }
        if self.seen.last().is_some_and(prepared) != r.is_empty() {
            return Err(format!("{} follows a prepared record and does not resolve it, or resolves nothing", r.id));
        }
        if !prepared(r) || self.verdicts.get(&key(r.id)) == Some(&true) {
            self.write(r);
        }
        self.seen.push(r.clone());
        Ok(())
    }

    fn write(&mut self, r: &Record) {
        for p in &r.pages {
            self.pages.entry(p.page).or_default().push((r.id.lsn, p.checksum));
        }
    }
}
