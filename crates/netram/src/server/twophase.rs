//! Words between the primaries of groups that commit together, which may be primaries of any sets, on any nodes.
//!
//! Invariants: no two groups are locked at once: a word for a group of this node is delivered by the first worker, after the
//! group that says it is unlocked. A group is taken to be removed only when the registry has been heard all along and did
//! not name it for [`GONE`].
//!
//! Fault model: words are lost, with their link or because the primary is another by now; replicas say them again.

use super::connection::Message;
use super::group::Group;
use super::node::Node;
use crate::clock;
use crate::wire::frame;
use dspm_proto::auth::{Hello, Role};
use dspm_proto::message::{self, Decision, Inquiry, Resolved};
use dspm_proto::{Error, GroupId, Header, Instant, Kind, Link, Lsn, RecordId};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A group that the current catalog does not name for so long was removed.
const GONE: Duration = Duration::from_secs(5);

/// What one primary says to another.
pub(crate) enum Word {
    Inquiry(Inquiry),
    Decision(Decision),
    Resolved(Resolved),
}

/// Words for groups of this node, and groups that are looked for.
#[derive(Default)]
pub(crate) struct Words {
    local: Mutex<Vec<(GroupId, Word)>>,
    absent: Mutex<HashMap<GroupId, Absence>>,
}

/// The current catalog does not name a group.
struct Absence {
    since: Instant,
    /// When that was seen last. Who looks for a group says so all the time: what is older tells nothing of now.
    seen: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// A group's prepared record: who decides about it is asked.
    pub(crate) fn inquire(&self, g: &Group, link: Link, lsn: Lsn) {
        self.counters.inquiries.fetch_add(1, Ordering::Relaxed);
        let asker = g.entry.group;
        if !self.is_gone(link.group) {
            return self.say_to(link.group, Word::Inquiry(Inquiry { asker, lsn, link }));
        }
        let name = &g.entry.name;
        eprintln!(
            "dspm-node: dataset {name}: group {} decided about commit {lsn} and was removed: it counts",
            link.group
        );
        let id = RecordId { generation: link.token.generation, lsn: link.lsn, hash: link.hash };
        self.deliver_later(asker, Word::Decision(Decision { decider: link.group, id, lsn, committed: true }));
    }

    /// A group's decision: a participant is told.
    pub(crate) fn decide(&self, g: &Group, to: GroupId, decision: Decision) {
        if !decision.committed || !self.is_gone(to) {
            return self.say_to(to, Word::Decision(decision));
        }
        let (name, id) = (&g.entry.name, decision.id);
        eprintln!(
            "dspm-node: dataset {name}: group {to} took part in commit {} and was removed: it is not told",
            id.lsn
        );
        self.deliver_later(g.entry.group, Word::Resolved(Resolved { participant: to, id }));
    }

    /// What a writer is told that waits for other groups' primaries.
    pub(crate) fn awaits(&self, g: &Group, groups: &[GroupId]) -> Error {
        let catalog = self.catalog();
        let name = |group: &GroupId| catalog.group(*group).map_or_else(|_| group.to_string(), |(d, _)| d.name);
        let (own, others) = (&g.entry.name, groups.iter().map(name).collect::<Vec<_>>().join(", "));
        Error::Busy(format!(
            "dataset {own} waits for dataset {others}, which does not answer: a transaction that changed both is not \
             finished there"
        ))
    }

    /// To the primary of a group, as far as it is known and can be reached.
    pub(crate) fn say_to(&self, to: GroupId, word: Word) {
        let Ok((_, set)) = self.catalog().group(to) else { return };
        if set.primary == self.options.name {
            return self.deliver_later(to, word);
        }
        let Some(primary) = set.members.iter().find(|m| m.node == set.primary) else { return };
        let Some(sender) = self.links.to(&set.primary) else { return };
        let (kind, meta) = match &word {
            Word::Inquiry(m) => (Kind::Inquiry, message::encode(m)),
            Word::Decision(m) => (Kind::Decision, message::encode(m)),
            Word::Resolved(m) => (Kind::Resolved, message::encode(m)),
        };
        let mut h = Header::new(kind);
        (h.group, h.generation, h.store) = (to, set.generation, primary.store);
        sender.send(&frame(h, &meta, 0), &[]);
    }

    fn deliver_later(&self, to: GroupId, word: Word) {
        lock(&self.words.local).push((to, word));
        self.mailboxes[0].wake();
    }

    /// Delivers the words that this node's groups said to each other; the first worker does.
    pub(crate) fn deliver_words(self: &std::sync::Arc<Self>) {
        let words = std::mem::take(&mut *lock(&self.words.local));
        for (to, word) in words {
            let done = self.with_group(to, |g| {
                hear(g, &word);
                Ok(())
            });
            let _ = done; // it is not open here any more: the word is said again, to whoever serves it then
        }
    }

    /// A word of another node, or of the client that wrote the decision.
    pub(crate) fn word(self: &std::sync::Arc<Self>, hello: &Hello, m: &Message) -> Result<(), Error> {
        let word = match (m.header.kind, hello.role) {
            (Kind::Inquiry, Role::Node) => Word::Inquiry(message::decode(&m.meta)?),
            (Kind::Decision, Role::Node) => Word::Decision(message::decode(&m.meta)?),
            (Kind::Resolved, Role::Node | Role::Client) => Word::Resolved(message::decode(&m.meta)?),
            _ => return Err(Error::Auth("only nodes say that".into())),
        };
        self.with_group(m.header.group, |g| {
            if g.replica.check_addressee(m.header.generation, m.header.store).is_ok() {
                hear(g, &word);
            }
            Ok(())
        })
    }

    /// True when the group was removed, as far as anybody can know.
    fn is_gone(&self, group: GroupId) -> bool {
        let known = self.catalog().has_group(group);
        let mut absent = lock(&self.words.absent);
        if known || !self.forwarded.is_current() {
            absent.remove(&group);
            return false;
        }
        let now = clock::now();
        absent.retain(|_, a| now.since(a.seen) < GONE);
        let absence = absent.entry(group).or_insert(Absence { since: now, seen: now });
        absence.seen = now;
        now.since(absence.since) >= GONE
    }
}

fn hear(g: &mut Group, word: &Word) {
    let now = clock::now();
    match word {
        Word::Inquiry(m) => g.replica.inquiry(m, now),
        Word::Decision(m) => g.replica.decision(m, now),
        Word::Resolved(m) => g.replica.resolved(m, now),
    }
}

#[cfg(test)]
mod tests {
    use super::super::free::tests::start;
    use super::super::sender::Sender;
    use super::*;
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(7);

    /// A connection that could be the registry's.
    fn connection() -> Arc<Sender> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Arc::new(Sender::new(1, mio::net::TcpStream::from_std(stream)))
    }

    #[test]
    fn a_group_is_gone_only_by_the_word_of_a_registry_that_is_heard_all_along() {
        let dir = std::env::temp_dir().join(format!("dspm-words-{}", std::process::id()));
        let node = start(&dir);
        let long_ago = Instant(clock::now().0.saturating_sub(2 * GONE.as_nanos() as u64));
        let age_to = |seen| lock(&node.words.absent).insert(GROUP, Absence { since: long_ago, seen });
        let age = || age_to(clock::now());
        age();
        assert!(!node.is_gone(GROUP), "there is no registry");
        assert!(lock(&node.words.absent).is_empty(), "and what was counted before does not count");
        let registry = connection();
        node.forwarded.registry_is(&registry);
        node.forwarded.registry_says(String::new());
        age();
        assert!(!node.is_gone(GROUP), "it did not name all datasets yet");
        node.forwarded.catalog_is_whole();
        assert!(!node.is_gone(GROUP), "not for long enough");
        age();
        node.forwarded.registry_says(String::new());
        assert!(node.is_gone(GROUP));
        age_to(long_ago);
        assert!(!node.is_gone(GROUP), "it may have been there in between");
        node.forwarded.closed(&registry);
        assert!(!node.is_gone(GROUP), "the registry is away");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
