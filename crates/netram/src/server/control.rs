//! The control plane at a node: what the registry tells it, what clients ask it, and what it passes on.
//!
//! The registry dials the node; over that one connection the node asks back. Without a registry everything that the
//! catalog knows is still answered.

use super::connection::Message;
use super::node::Node;
use super::sender::Sender;
use crate::clock;
use crate::wire::{frame, from_json, json, reply_to};
use dspm_proto::auth::{Hello, Role};
use dspm_proto::control::{Control, Done, GroupStatus, Listing, NodeStatus, Pong};
use dspm_proto::header::{FLAG_ERROR, FLAG_REPLY};
use dspm_proto::{Error, GroupId, Header, Kind, RecordId, limits};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests that were passed on to the registry, and the way to it.
#[derive(Default)]
pub(crate) struct Forwarded(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    registry: Option<Arc<Sender>>,
    trouble: String,
    requests: u64,
    waiting: HashMap<u64, (Arc<Sender>, Header)>,
    /// The node's own questions whether these groups were removed.
    asked: HashMap<u64, GroupId>,
}

/// A disk with less room than this is full: views and segments of the log have to go somewhere.
const DISK_MIN: u64 = 1 << 20;

/// Most requests that wait for the registry.
const WAITING_MAX: usize = 4096;

impl Forwarded {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry dialled us.
    pub(crate) fn registry_is(&self, sender: &Arc<Sender>) {
        let mut inner = self.lock();
        inner.registry = Some(sender.clone());
        inner.asked.clear();
    }

    /// True when the registry dialled us on that connection last. What is left in an older one may be of a registry that
    /// is gone, and whose state an older one has replaced since.
    fn is_registry(&self, sender: &Arc<Sender>) -> bool {
        self.lock().registry.as_ref().is_some_and(|r| Arc::ptr_eq(r, sender))
    }

    /// What the registry said of itself with its last heartbeat.
    pub(crate) fn registry_says(&self, trouble: String) {
        self.lock().trouble = trouble;
    }

    /// A connection is gone; if it was the registry's, nobody will answer.
    pub(crate) fn closed(&self, sender: &Arc<Sender>) {
        let mut inner = self.lock();
        inner.waiting.retain(|_, (asker, _)| !Arc::ptr_eq(asker, sender));
        if !inner.registry.as_ref().is_some_and(|r| Arc::ptr_eq(r, sender)) {
            return;
        }
        inner.registry = None;
        inner.asked.clear();
        inner.trouble.clear();
        let error = no_registry();
        for (_, (asker, header)) in inner.waiting.drain() {
            asker.send(&crate::wire::error_reply(header.kind, header.request, &error), &[]);
        }
    }

    fn pass_on(&self, asker: &Arc<Sender>, m: &Message) -> Result<(), Error> {
        let mut inner = self.lock();
        let registry = inner.registry.clone().filter(|r| !r.is_broken()).ok_or_else(no_registry)?;
        if inner.waiting.len() >= WAITING_MAX {
            return Err(Error::Full("too many requests wait for the registry".into()));
        }
        inner.requests += 1;
        let mut h = Header::new(Kind::Control);
        h.request = inner.requests;
        inner.waiting.insert(h.request, (asker.clone(), m.header));
        registry.send(&frame(h, &m.meta, 0), &[]);
        Ok(())
    }

    /// Tells the registry something itself, if it is there; what comes of it is heard in the next view.
    pub(crate) fn tell(&self, word: &Control) {
        let mut inner = self.lock();
        inner.requests += 1;
        let mut h = Header::new(Kind::Control);
        h.request = inner.requests; // nobody waits for its answer
        if let Some(registry) = inner.registry.as_ref().filter(|r| !r.is_broken()) {
            registry.send(&frame(h, &json(word), 0), &[]);
        }
    }

    /// Asks the registry whether a group was removed.
    pub(crate) fn ask_removed(&self, group: GroupId) {
        let mut inner = self.lock();
        let Some(registry) = inner.registry.clone().filter(|r| !r.is_broken()) else { return };
        inner.requests += 1;
        let mut h = Header::new(Kind::Control);
        h.request = inner.requests;
        inner.asked.retain(|_, asked| *asked != group);
        inner.asked.insert(h.request, group);
        registry.send(&frame(h, &json(&Control::Removed { group }), 0), &[]);
    }

    /// The group that an answer says was removed. Such an answer is true for ever, whoever gave it when.
    fn hears_removed(&self, m: &Message) -> Option<GroupId> {
        let group = self.lock().asked.remove(&m.header.request)?;
        let done = m.header.flags & FLAG_ERROR == 0 && from_json::<Done>(&m.meta).is_ok_and(|d| d.done);
        Some(group).filter(|_| done)
    }

    /// The registry answered; the asker gets the same answer.
    fn answered(&self, m: &Message) {
        if let Some((asker, asked)) = self.lock().waiting.remove(&m.header.request) {
            let mut h = reply_to(&asked);
            h.flags = FLAG_REPLY | (m.header.flags & FLAG_ERROR);
            asker.send(&frame(h, &m.meta, 0), &[]);
        }
    }
}

fn no_registry() -> Error {
    Error::Unavailable("the registry is not reachable, so datasets cannot be created, renamed or removed now".into())
}

impl Node {
    pub(crate) fn control(self: &Arc<Self>, hello: &Hello, out: &Arc<Sender>, m: &Message) -> Result<(), Error> {
        if m.header.is_reply() {
            if hello.role == Role::Registry {
                if let Some(group) = self.forwarded.hears_removed(m) {
                    self.words.removed(group);
                }
                self.forwarded.answered(m);
            }
            return Ok(());
        }
        let registry = hello.role == Role::Registry;
        let from_registry = || {
            let turn =
                registry.then(|| self.turn()).ok_or_else(|| Error::Auth("only the registry says that".into()))?;
            match self.forwarded.is_registry(out) {
                true => Ok(turn),
                false => Err(Error::Unavailable("the registry speaks on a newer connection".into())),
            }
        };
        match from_json(&m.meta)? {
            Control::Ping { trouble } => {
                if registry {
                    self.forwarded.registry_says(trouble);
                }
                self.say(out, m, &self.pong());
            }
            Control::View(view) => {
                self.take_view(&from_registry()?, view)?;
                self.joins.follow(&self.catalog().view);
                self.refresh_links();
                self.refresh_groups();
                self.say(out, m, &Done { done: true });
            }
            Control::Datasets { whole, more, put, del, drop: removed } => {
                let turn = from_registry()?;
                if whole || !put.is_empty() || !del.is_empty() || removed.is_empty() {
                    self.take_part(&turn, whole, more, put, del)?;
                }
                drop(turn);
                if !removed.is_empty() {
                    return self.free(removed, out, m.header);
                }
                self.say(out, m, &Done { done: true });
            }
            Control::Locate { name, create } => return self.locate(out, m, &name, create.is_some_and(|c| c.exclusive)),
            Control::Remove { .. } | Control::Rename { .. } => return self.forwarded.pass_on(out, m),
            Control::List { after, limit, view } => {
                let catalog = self.catalog();
                let (datasets, more) = catalog.page(&after, limit as usize);
                let view = (catalog.view.version != view).then(|| catalog.view.clone());
                let listing = Listing { datasets, more, count: catalog.count(), view };
                drop(catalog);
                self.say(out, m, &listing);
            }
            Control::Activated { .. }
            | Control::Whole { .. }
            | Control::Quiet { .. }
            | Control::Removed { .. }
            | Control::Suspect { .. }
            | Control::CannotJoin { .. } => {
                return Err(Error::Protocol("a node does not answer that".into()));
            }
            Control::Status { groups, held } => self.say(out, m, &self.status(&groups, held)?),
            Control::Scrub { pass, groups } => self.say(out, m, &self.scrub.ask(pass, groups)?),
            Control::Damaged { group, dataset, pages } => {
                self.reported(group, dataset, &pages)?;
                self.say(out, m, &Done { done: true });
            }
        }
        Ok(())
    }

    fn say<T: Serialize>(&self, out: &Arc<Sender>, m: &Message, reply: &T) {
        out.send(&frame(reply_to(&m.header), &json(reply), 0), &[]);
    }

    fn locate(&self, out: &Arc<Sender>, m: &Message, name: &str, exclusive: bool) -> Result<(), Error> {
        if name.is_empty() || name.len() > limits::NAME_MAX {
            let text = format!("a dataset's name has 1 to {} bytes, this one {}", limits::NAME_MAX, name.len());
            return Err(Error::Usage(text));
        }
        let found = self.catalog().locate(name, self.options.lease.as_millis() as u64);
        match found {
            Some(_) if exclusive => Err(Error::Failed(format!("dataset {name} exists already"))),
            Some(located) => {
                self.say(out, m, &located);
                Ok(())
            }
            None => self.forwarded.pass_on(out, m),
        }
    }

    fn pong(&self) -> Pong {
        let catalog = self.catalog();
        Pong {
            name: self.options.name.clone(),
            store: self.store_id,
            boot: self.boot,
            view: catalog.view.version,
            sum: catalog.sum(),
            datasets: catalog.count(),
            former: self.opened.former.clone(),
            full: self.disk_full().unwrap_or_default(),
            refuses_ms: self.shortages.longest(clock::now()).as_millis() as u64,
        }
    }

    /// Why this node's disk takes no more; a view could not be written either.
    fn disk_full(&self) -> Option<String> {
        let at = &self.options.data_dir;
        let left = || rustix::fs::statvfs(at).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize));
        let little = |left: u64| format!("{} has {} KiB left", at.display(), left >> 10);
        self.store.disk_full().or_else(|| left().filter(|left| *left < DISK_MIN).map(little))
    }

    fn status(&self, asked: &[GroupId], held: bool) -> Result<NodeStatus, Error> {
        if asked.len() > limits::LISTED_MAX {
            let text = format!("a status of {} groups; ask about at most {}", asked.len(), limits::LISTED_MAX);
            return Err(Error::Usage(text));
        }
        let usage = self.store.usage();
        let own = self.counters.checksum_errors.load(Ordering::Relaxed);
        let lost = self.opened.reason.clone().filter(|_| self.opened.previous.0 != 0);
        let (groups, covered) = self.statuses(asked, held);
        Ok(NodeStatus {
            name: self.options.name.clone(),
            state: self.state(),
            registry: self.forwarded.lock().trouble.clone(),
            store: self.store_id,
            frames: usage.frames,
            frames_used: usage.used,
            frames_dirty: usage.dirty,
            checksum_errors: usage.checksum_errors + own,
            repaired: self.scrub.repaired.load(Ordering::Relaxed),
            scrubbed_bytes: self.scrub.bytes.load(Ordering::Relaxed),
            lost_pages: self.scrub.lost_pages(None),
            lost: lost.unwrap_or_default(),
            full: self.disk_full().unwrap_or_default(),
            joins: self.joins.list(),
            groups,
            covered,
        })
    }

    fn state(&self) -> String {
        match self.catalog().refused() {
            "" => "serving".into(),
            why => format!("cannot take over the newest view: {why}"),
        }
    }

    /// What is open here of those groups, and with `held` what could be, as many of them as a page takes.
    fn statuses(&self, asked: &[GroupId], held: bool) -> (Vec<GroupStatus>, u32) {
        let (mut found, mut bytes, mut covered) = (Vec::new(), 0, 0);
        for id in asked {
            let open = self.groups.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
            let group = if held { open.or_else(|| self.held_group(*id)) } else { open };
            covered += 1;
            let Some(group) = group else { continue };
            let (mut status, decider) = group_status(&group.lock());
            if let Some(decider) = decider {
                status.state = format!("waits for the decision of {}", self.called(decider));
            }
            status.lost_pages = self.scrub.lost_pages(Some(*id));
            bytes += TEXT_OF_GROUP + TEXT_OF_SIZE * status.sizes.len() + status.state.len();
            found.push(status);
            if bytes >= limits::LISTED_BYTES {
                break;
            }
        }
        (found, covered)
    }

    /// A group as people know it.
    fn called(&self, group: GroupId) -> String {
        match self.catalog().group(group) {
            Ok((dataset, _)) => format!("group {group} ({})", dataset.name),
            Err(_) => format!("group {group}"),
        }
    }
}

/// Most bytes of a group's JSON, its sizes aside, and of one size.
const TEXT_OF_GROUP: usize = 360;
const TEXT_OF_SIZE: usize = 44;

/// A group here, and the one whose decision its settle waits for.
fn group_status(g: &super::group::Group) -> (GroupStatus, Option<GroupId>) {
    let (records, situation) = (&g.replica.records.group, g.replica.situation());
    let RecordId { generation: written, lsn: tail, .. } = records.tail();
    let status = GroupStatus {
        group: g.entry.group,
        primary: g.replica.setup().is_primary(),
        generation: g.replica.setup().generation,
        lsn: tail.0,
        committed: records.committed().0,
        flushed: records.flushed().0,
        sizes: records.datasets().into_iter().map(|(d, _)| (d, records.size(d, tail))).collect(),
        writer: situation.writer.map_or(0, |s| s.client.0),
        waiting: situation.waiting as u32,
        state: match (situation.unsettled, situation.settling) {
            (true, _) => "unsettled".into(),
            (_, true) => "settling".into(),
            _ if g.is_joining() => "joining".into(),
            _ => "ok".into(),
        },
        written,
        whole: records.is_whole(),
        lost_pages: 0,
    };
    let settles = situation.settling && !situation.unsettled;
    (status, situation.decider.filter(|_| settles))
}
