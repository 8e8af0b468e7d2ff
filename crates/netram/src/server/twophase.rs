//! Words between the primaries of groups that commit together, which may be primaries of any sets, on any nodes.
//!
//! Invariants: no two groups are locked at once: a word for a group of this node is delivered by the first worker, after the
//! group that says it is unlocked. A group that the catalog does not name is removed only if the registry says so, who is
//! asked: it may be one that an older state of the registry does not know. Who asks a removed group hears "no": it was
//! removed when nobody was left who had to hear "yes" ([`dspm_txn::Replica::is_quiet`]).
//!
//! Fault model: words are lost, with their link or because the primary is another by now; replicas say them again. The
//! registry is away, or its state an old one: then they wait.

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

/// The registry is asked again about a group after this.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Groups that are remembered as removed, or asked about; beyond it all are asked about again.
const ABSENT_MAX: usize = 4096;

/// What one primary says to another.
pub(crate) enum Word {
    Inquiry(Inquiry),
    Decision(Decision),
    Resolved(Resolved),
}

/// Words for groups of this node, and groups that were looked for and that the catalog did not name.
#[derive(Default)]
pub(crate) struct Words {
    local: Mutex<Vec<(GroupId, Word)>>,
    absent: Mutex<HashMap<GroupId, Absent>>,
}

/// What is known of such a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Absent {
    /// The registry was asked then.
    Asked(Instant),
    /// It was removed, for ever.
    Removed,
}

impl Words {
    /// The registry says that the group was removed.
    pub(crate) fn removed(&self, group: GroupId) {
        lock(&self.absent).insert(group, Absent::Removed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// A group's prepared record: who decides about it is asked.
    pub(crate) fn inquire(&self, g: &Group, link: Link, lsn: Lsn) {
        self.counters.inquiries.fetch_add(1, Ordering::Relaxed);
        let asker = g.entry.group;
        if !self.is_removed(link.group) {
            return self.say_to(link.group, Word::Inquiry(Inquiry { asker, lsn, link }));
        }
        let name = &g.entry.name;
        eprintln!(
            "dspm-node: dataset {name}: group {} was to decide about commit {lsn} and was removed: it does not count",
            link.group
        );
        let id = RecordId { generation: link.token.generation, lsn: link.lsn, hash: link.hash };
        self.deliver_later(asker, Word::Decision(Decision { decider: link.group, id, lsn, committed: false }));
    }

    /// A group's decision: a participant is told.
    pub(crate) fn decide(&self, g: &Group, to: GroupId, decision: Decision) {
        if !decision.committed || !self.is_removed(to) {
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

    /// True when the group was removed; where nobody knows, the registry is asked.
    fn is_removed(&self, group: GroupId) -> bool {
        let known = self.catalog().has_group(group);
        let mut absent = lock(&self.words.absent);
        if known {
            return false;
        }
        let now = clock::now();
        match absent.get(&group) {
            Some(Absent::Removed) => return true,
            Some(Absent::Asked(at)) if now.since(*at) < ASK_AGAIN => return false,
            _ => {}
        }
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(group, Absent::Asked(now));
        drop(absent);
        self.forwarded.ask_removed(group);
        false
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
    use super::super::connection::Body;
    use super::super::free::tests::start;
    use super::super::sender::Sender;
    use super::*;
    use dspm_proto::StoreId;
    use dspm_proto::control::Done;
    use dspm_proto::header::{FLAG_ERROR, FLAG_REPLY};
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(7);

    /// A connection that could be the registry's, and its other end.
    fn connection() -> (Arc<Sender>, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(Sender::new(1, mio::net::TcpStream::from_std(stream))), listener)
    }

    /// The registry's answer to request `n`.
    fn answer(node: &Arc<Node>, n: u64, flags: u16, done: bool, role: Role) {
        let mut header = Header::new(Kind::Control);
        (header.request, header.flags) = (n, FLAG_REPLY | flags);
        let (name, cluster, nonce) = Default::default();
        let hello = Hello { role, name, cluster, nonce, session: None, store: StoreId(0), callbacks: false };
        let m = Message { header, meta: crate::wire::json(&Done { done }), body: Body::None };
        node.control(&hello, &connection().0, &m).unwrap();
    }

    #[test]
    fn a_group_is_removed_by_the_registrys_word_and_never_by_its_silence() {
        let dir = std::env::temp_dir().join(format!("dspm-words-{}", std::process::id()));
        let node = start(&dir);
        let ask_again = || {
            let long_ago = Instant(clock::now().0.saturating_sub(ASK_AGAIN.as_nanos() as u64));
            lock(&node.words.absent).insert(GROUP, Absent::Asked(long_ago));
            node.is_removed(GROUP)
        };
        assert!(!node.is_removed(GROUP), "there is no registry");
        let (registry, _other_end) = connection();
        node.forwarded.registry_is(&registry);
        assert!(!ask_again(), "it was asked, as request 1");
        answer(&node, 1, 0, false, Role::Registry);
        assert!(!ask_again(), "its state does not know the group; request 2");
        answer(&node, 2, FLAG_ERROR, true, Role::Registry);
        assert!(!ask_again(), "it could not tell; request 3");
        answer(&node, 3, 0, true, Role::Client);
        assert!(!ask_again(), "anybody could say that; request 4");
        answer(&node, 3, 0, true, Role::Registry);
        assert!(!ask_again(), "that was answered before; request 5");
        answer(&node, 5, 0, true, Role::Registry);
        assert!(node.is_removed(GROUP));
        node.forwarded.closed(&registry);
        assert!(node.is_removed(GROUP), "it will not come back");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
