//! Putting right what is damaged here: from another copy on this node, or from another member of the set.
//!
//! Invariants: content is asked for at a snapshot that sees exactly the version that is damaged, and the store takes it
//! only with that version's checksum; where the base file's own entry may be the damage, it takes what a member shows at
//! that snapshot, if it is no newer than the base. A page counts as lost only when every other member was asked, and it is
//! asked again with every pass.

use super::flush::Source;
use super::node::Node;
use super::scrub::{Scrub, Tried, Trouble};
use crate::random;
use crate::wire::{Connection, Dialer, json};
use dspm_proto::auth::Role;
use dspm_proto::control::{Control, DatasetEntry, LostPage, SetEntry};
use dspm_proto::message::{self, Read, ReadReply};
use dspm_proto::record::verify_page;
use dspm_proto::{
    ClientId, DatasetId, Error, GroupId, Header, Kind, Lsn, PAGE_SIZE, PageNo, Session, StoreId, checksum, limits,
};
use dspm_store::Loss;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
const DIAL: Duration = Duration::from_millis(500);

/// A version as another member has it; LSN 0 with zeros: who wrote them is not said.
type Version = (Lsn, Box<[u8; PAGE_SIZE]>);

/// What the other members said.
#[derive(Default)]
struct Answers {
    good: Option<(String, Version)>,
    said: Vec<String>,
    /// One of them did not answer, or not to the point: it may have a good copy.
    silent: bool,
}

impl Node {
    /// This node cannot answer a read for that page. All pages of the read are looked at soon: no reader comes back to those
    /// that it gets from another member.
    pub(crate) fn damaged(&self, group: GroupId, read: &Read, page: PageNo, lsn: Lsn) -> Error {
        read.pages.iter().for_each(|p| self.scrub.suspect(group, read.dataset, *p));
        let why = self.scrub.why_lost(group, read.dataset, page);
        let name = self.catalog().group(group).map_or_else(|_| read.dataset.to_string(), |found| found.0.name);
        let me = &self.options.name;
        Error::Corrupt(format!("page {page} of dataset {name} (commit {lsn}) is damaged on node {me}{why}"))
    }

    /// What a client got for these pages did not check.
    ///
    /// # Errors
    /// [`Error::Usage`] for too many.
    pub(crate) fn reported(&self, group: GroupId, dataset: DatasetId, pages: &[u64]) -> Result<(), Error> {
        if pages.len() > limits::READ_PAGES_MAX {
            return Err(Error::Usage(format!("{} pages at once; at most {}", pages.len(), limits::READ_PAGES_MAX)));
        }
        pages.iter().for_each(|p| self.scrub.suspect(group, dataset, PageNo(*p)));
        Ok(())
    }

    /// One try to put something right.
    pub(super) fn mend(self: &Arc<Self>, trouble: Trouble) -> Tried {
        let source = Source(self.clone());
        let mended = match trouble {
            Trouble::Page(group, dataset, page) => return self.mend_page(&source, group, dataset, page),
            Trouble::Entry(group, position) => self.store.mend_ring(&source, group, position),
            Trouble::Segment(id) => self.store.mend_log(&source, id).unwrap_or_else(|e| {
                eprintln!("dspm-node: scrub: segment {id} of the log: {e}");
                false
            }),
        };
        if mended {
            self.mended(1);
            return Tried::Done;
        }
        self.scrub.count_try(trouble);
        Tried::Again
    }

    fn mended(&self, copies: u64) {
        self.scrub.repaired.fetch_add(copies, Ordering::Relaxed);
    }

    fn mend_page(self: &Arc<Self>, source: &Source, group: GroupId, dataset: DatasetId, page: PageNo) -> Tried {
        let check = self.store.check_page(source, group, dataset, page);
        self.found(check.found);
        self.mended(check.mended);
        if check.mended > 0 {
            eprintln!("dspm-node: scrub: page {page} of dataset {dataset} was damaged; put right from a copy here");
        }
        let found = self.catalog().group(group);
        let Ok((entry, set)) = found else { return Tried::Done };
        let mut missing = Vec::new();
        for loss in &check.losses {
            let answers = self.ask_others(&entry, &set, loss);
            missing.extend(self.take(source, &entry, loss, answers).err().map(|answers| (loss, answers)));
        }
        let before = missing.len() as u64;
        let silent = |missing: &[(&Loss, Answers)]| missing.iter().any(|m| m.1.silent);
        let trouble = Trouble::Page(group, dataset, page);
        let tries = if check.later || silent(&missing) { self.scrub.count_try(trouble) } else { 1 };
        if tries == 1 {
            // Last, and once: the log has to be read for it.
            missing.retain(|(loss, _)| !self.store.mend_from_log(source, group, loss));
            self.mended(before - missing.len() as u64);
        }
        if check.later || silent(&missing) && !Scrub::gives_up(tries) {
            return Tried::Again;
        }
        if missing.is_empty() {
            self.scrub.is_whole(group, dataset, page);
        }
        missing.into_iter().for_each(|(loss, answers)| self.lose(source, &entry, loss, answers.said));
        Tried::Done
    }

    /// Puts a good answer in the place of the damaged copy.
    fn take(&self, source: &Source, entry: &DatasetEntry, loss: &Loss, mut answers: Answers) -> Result<(), Answers> {
        let Some((from, (lsn, content))) = answers.good.take() else { return Err(answers) };
        match self.store.mend(source, entry.group, loss, lsn, &content[..]) {
            Ok(()) => {
                self.mended(1);
                let (page, name) = (loss.page, &entry.name);
                eprintln!("dspm-node: scrub: page {page} of dataset {name} was damaged; put right from node {from}");
                Ok(())
            }
            Err(Error::NotFound(_)) => Ok(()), // a newer version, or the end of a removed dataset
            Err(e) => {
                answers.silent = true;
                answers.said.push(format!("{from} has it, but: {e}"));
                Err(answers)
            }
        }
    }

    fn lose(&self, source: &Source, entry: &DatasetEntry, loss: &Loss, asked: Vec<String>) {
        self.store.give_up(source, entry.group, loss);
        let (page, lsn, dataset) = (loss.page.0, loss.lsn.0, loss.dataset);
        let lost = LostPage { name: entry.name.clone(), dataset, page, lsn, asked };
        let text = format!("page {page} of dataset {} (commit {lsn}) is lost: {}", entry.name, lost.said());
        if self.scrub.is_lost(entry.group, lost) {
            eprintln!("dspm-node: scrub: {text}");
        }
    }

    fn ask_others(&self, entry: &DatasetEntry, set: &SetEntry, loss: &Loss) -> Answers {
        let mut answers = Answers::default();
        for member in set.members.iter().filter(|m| m.node != self.options.name) {
            let address = self.catalog().view.nodes.iter().find(|n| n.name == member.node).map(|n| n.address.clone());
            let Some(address) = address else { continue };
            let mut header = Header::new(Kind::Read);
            (header.group, header.generation, header.store) = (entry.group, set.generation, member.store);
            match self.ask_member(&address, header, loss) {
                Ok(version) => {
                    answers.good = Some((member.node.clone(), version));
                    return answers;
                }
                Err(e) => {
                    answers.silent |= !matches!(e, Error::Corrupt(_));
                    answers.said.push(format!("{}: {e}", member.node));
                }
            }
        }
        if answers.said.is_empty() {
            answers.said.push("the set has no other complete member".into());
        }
        answers
    }

    fn ask_member(&self, address: &str, header: Header, loss: &Loss) -> Result<Version, Error> {
        let session = Session { client: ClientId(random::id()), number: 1 };
        let dialer = Dialer {
            role: Role::Client,
            name: format!("{}, repairing", self.options.name),
            cluster: self.options.cluster.clone(),
            key: self.options.key.clone(),
            session: Some(session),
            store: StoreId(0),
            callbacks: false,
        };
        let mut connection = Connection::dial(address, &dialer, DIAL)?;
        let read = Read { session, dataset: loss.dataset, at: loss.at, pages: vec![loss.page] };
        let answer = connection.ask(header, &message::encode(&read), &[], Instant::now() + PATIENCE)?.accept()?;
        let reply: ReadReply = message::decode(&answer.meta)?;
        let found = version(&reply, &answer.data, loss);
        if matches!(found, Err(Error::Corrupt(_))) {
            let (group, dataset, pages) = (header.group, loss.dataset, vec![loss.page.0]);
            let report = json(&Control::Damaged { group, dataset, pages });
            let _ = connection.ask(Header::new(Kind::Control), &report, &[], Instant::now() + PATIENCE);
        }
        found
    }
}

/// The wanted version, if the answer is that.
fn version(reply: &ReadReply, data: &[u8], loss: &Loss) -> Result<Version, Error> {
    let [v] = &reply.pages[..] else { return Err(Error::Protocol("an answer about another number of pages".into())) };
    let (lsn, content) = match v.zero {
        true => (Lsn(0), Box::new([0; PAGE_SIZE])),
        false => {
            let content = data.try_into().map_err(|_| Error::Protocol("an answer without the page".into()))?;
            verify_page(data, v.checksum)?;
            (v.lsn, Box::new(content))
        }
    };
    let is_wanted = match loss.checksum {
        Some(sum) => checksum(&content[..]) == sum,
        None => lsn <= loss.lsn,
    };
    let other = || Error::Unavailable(format!("shows commit {} where {} is damaged here", v.lsn, loss.lsn));
    if is_wanted { Ok((lsn, content)) } else { Err(other()) }
}
