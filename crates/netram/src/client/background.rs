//! The one background thread of a process: it keeps a connection to every node in use, renews the session and its
//! leases every L/3, answers call-backs, tells members what is committed when nothing follows, and goes on asking for
//! outcomes that a commit gave up on.

use super::core::Client;
use super::group::{GroupClient, Place};
use super::link::Link;
use crate::clock;
use crate::socket::Socket;
use crate::wire::Connection;
use dspm_proto::header::{FLAG_REPLY, HEADER_SIZE};
use dspm_proto::message::{self, Callback, Note, Recall, Renew, RenewGroup, Renewed};
use dspm_proto::{Error, Header, Instant, Kind, RecordId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between two looks while something was committed and not told yet, or nothing is due.
const TICK: Duration = Duration::from_millis(10);
/// Pause between two looks where a group is whose primary says nothing, and where one is whose copies are not complete.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_PARTIAL: Duration = Duration::from_millis(500);
/// Pause between two tries to connect.
const REDIAL: Duration = Duration::from_millis(100);
const DIAL: Duration = Duration::from_millis(1000);
const MESSAGE_MAX: usize = 1 << 20;

/// Starts the thread; it ends when the client is dropped.
///
/// # Errors
/// [`Error::Failed`] when there is no room for a thread.
pub(crate) fn start(client: &Arc<Client>) -> Result<(), Error> {
    let client = Arc::downgrade(client);
    std::thread::Builder::new()
        .name("dspm".into())
        .spawn(move || Background::new().run(&client))
        .map(|_| ())
        .map_err(|e| Error::Failed(format!("no room for dspm's thread: {e}")))
}

struct Background {
    /// Where threads that dial put what they got.
    dialled: (Sender<Dialled>, Receiver<Dialled>),
    lines: HashMap<String, Line>,
    tried: HashMap<String, Instant>,
    /// Nodes that a thread dials now. One at a time: of two connections that the node greets in the other order it would
    /// call back on the one that is dropped here, and a lease would stay for as long as it is renewed.
    dialling: HashSet<String>,
    renewed: Instant,
    committed: HashMap<u64, RecordId>,
    /// When it was looked last where such groups are, and the thread that does.
    looked: Instant,
    looked_at_partial: Instant,
    looking: Option<JoinHandle<()>>,
}

type Dialled = (Arc<Link>, Option<Line>);

/// What comes of a dial. It is said when this is dropped, so also by a thread that panics or was never started: an
/// address that stayed in `dialling` would never be dialled again, and every lease there would be over for good.
struct Report {
    to: Sender<Dialled>,
    link: Arc<Link>,
    line: Option<Line>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = self.to.send((self.link.clone(), self.line.take()));
    }
}

impl Report {
    fn fill(mut self, dial: impl FnOnce(&Link) -> Option<Line>) {
        self.line = dial(&self.link);
    }
}

/// Dials by a thread of its own.
fn dial_apart(report: Report, dial: impl FnOnce(&Link) -> Option<Line> + Send + 'static) {
    let thread = std::thread::Builder::new().name("dspm-dial".into());
    let _ = thread.spawn(move || report.fill(dial));
}

/// The background connection to one node.
struct Line {
    stream: Socket,
    buffer: Vec<u8>,
    requests: u64,
    /// When the renewal of that number was sent.
    sent: HashMap<u64, Instant>,
}

impl Background {
    fn new() -> Background {
        let (tried, committed) = (HashMap::new(), HashMap::new());
        let (lines, dialling) = (HashMap::new(), HashSet::new());
        let (renewed, looked, looked_at_partial, looking) = (Instant(0), Instant(0), Instant(0), None);
        Background {
            dialled: channel(),
            lines,
            tried,
            dialling,
            renewed,
            committed,
            looked,
            looked_at_partial,
            looking,
        }
    }

    fn run(&mut self, client: &Weak<Client>) {
        while let Some(c) = client.upgrade() {
            let groups = c.all_groups();
            self.connect(&c, &groups);
            self.renew(&c, &groups);
            groups.iter().for_each(|g| self.look_after(g));
            self.look_again(&groups);
            let timeout = self.timeout(&groups);
            drop(groups);
            self.listen(&c, timeout);
        }
    }

    fn timeout(&self, groups: &[Arc<GroupClient>]) -> Duration {
        let now = clock::now();
        let linger = groups.iter().filter_map(|g| g.lock().linger).map(|at| at.since(now)).min();
        linger.map_or(TICK, |l| l.min(TICK))
    }

    /// Dials the nodes of the groups in use that have no line.
    fn connect(&mut self, client: &Arc<Client>, groups: &[Arc<GroupClient>]) {
        let now = clock::now();
        let places: Vec<Arc<Place>> = groups.iter().map(|g| g.place()).collect();
        for peer in places.iter().flat_map(|p| &p.peers) {
            let address = &peer.link.address;
            let tried = self.tried.get(address).is_some_and(|t| now.since(*t) < REDIAL);
            if tried || self.lines.contains_key(address) || !self.dialling.insert(address.clone()) {
                continue;
            }
            // By a thread of its own: a node that does not answer must not keep the others' leases from being renewed.
            let client = client.clone();
            let report = Report { to: self.dialled.0.clone(), link: peer.link.clone(), line: None };
            dial_apart(report, move |link| Line::dial(&client, link).ok());
        }
        while let Ok((link, line)) = self.dialled.1.try_recv() {
            self.dialling.remove(&link.address);
            self.tried.insert(link.address.clone(), now);
            let stream = line.as_ref().and_then(|l| l.stream.try_clone().ok());
            if let (Some(line), Some(stream)) = (line, stream) {
                link.set_background(Some(stream));
                self.lines.insert(link.address.clone(), line);
                self.renewed = Instant(0);
            }
        }
    }

    /// Every third of a lease: the session lives, floors and leases of all groups.
    fn renew(&mut self, client: &Client, groups: &[Arc<GroupClient>]) {
        let now = clock::now();
        let Some(lease) = groups.iter().map(|g| g.lease).min() else { return };
        if now.since(self.renewed) < lease / 3 {
            return;
        }
        self.renewed = now;
        for (address, line) in &mut self.lines {
            let mine = groups.iter().filter(|g| g.place().primary().link.address == *address);
            let items: Vec<RenewGroup> = mine.filter_map(|g| renewal(g)).collect();
            groups.iter().filter(|g| g.place().primary().link.address == *address).for_each(|g| g.say_keep());
            if items.is_empty() {
                continue;
            }
            line.requests += 1;
            line.sent.retain(|_, at| now.since(*at) < Duration::from_secs(10));
            line.sent.insert(line.requests, clock::now());
            let mut h = Header::new(Kind::Renew);
            h.request = line.requests;
            client.link(address).tell(h, &message::encode(&Renew { session: client.session, groups: items }));
        }
    }

    /// What a group needs besides: linger, notes, doubts.
    fn look_after(&mut self, g: &Arc<GroupClient>) {
        let now = clock::now();
        let mut state = g.lock();
        if state.linger.take_if(|at| *at <= now).is_some() {
            let token = state.holder.token().unwrap_or_default();
            let recall = state.holder.recall(now);
            g.answer_recall(&mut state, token, recall);
        }
        let doubt = state.holder.flight().is_some_and(|f| f.doubt) && !state.resolving;
        let tail = state.holder.tail();
        let quiet = self.committed.insert(g.entry.group.0, tail) == Some(tail);
        let note = quiet && state.noted != tail && state.holder.flight().is_none();
        let token = state.holder.token().filter(|_| note);
        if let Some(token) = token {
            // A hint: where it is lost, the next snapshot's probe finds out.
            state.noted = tail;
            drop(state);
            let place = g.place();
            place.peers.iter().for_each(|p| g.tell(&place, p, Kind::Note, &Note { token, id: tail }));
        } else {
            drop(state);
        }
        if doubt {
            self.settle_doubt(g);
        }
    }

    /// True when the group's primary cannot be told what is read here. Another may have taken its place, which keeps for a
    /// lease what it does not hear of.
    fn is_silent(&self, g: &GroupClient, now: Instant) -> bool {
        let place = g.place();
        let address = &place.primary().link.address;
        match self.lines.get(address) {
            None => self.tried.contains_key(address) && g.lock().handles > 0,
            Some(line) => line.sent.values().any(|at| now.since(*at) >= g.lease * 2 / 3),
        }
    }

    /// Sets whose copies are not complete change in a moment, and nobody may say so: who joined became a member.
    fn look_again(&mut self, groups: &[Arc<GroupClient>]) {
        let now = clock::now();
        if now.since(self.looked) < LOOK || self.looking.as_ref().is_some_and(|t| !t.is_finished()) {
            return;
        }
        self.looked = now;
        let all = now.since(self.looked_at_partial) >= LOOK_PARTIAL;
        self.looked_at_partial = if all { now } else { self.looked_at_partial };
        let changes = |g: &&Arc<GroupClient>| all && !g.place().is_whole(&g.entry) || self.is_silent(g, now);
        let partial: Vec<_> = groups.iter().filter(changes).cloned().collect();
        if !partial.is_empty() {
            let look = move || partial.iter().for_each(|g| drop(g.relocate(std::time::Instant::now() + LOOK)));
            self.looking = std::thread::Builder::new().name("dspm-locate".into()).spawn(look).ok();
        }
    }

    /// A commit gave up: its outcome is asked for until it is known, by a thread of its own so that leases go on.
    fn settle_doubt(&self, g: &Arc<GroupClient>) {
        g.lock().resolving = true;
        let group = g.clone();
        let spawned = std::thread::Builder::new().name("dspm-outcome".into()).spawn(move || {
            let deadline = std::time::Instant::now() + Duration::from_secs(1);
            let _ = group.resolve(deadline, |_| {}); // who knew what it changed is gone: the next snapshot tells
        });
        if spawned.is_err() {
            g.lock().resolving = false;
        }
    }

    /// Reads what the nodes say, at most until the timeout.
    fn listen(&mut self, client: &Arc<Client>, timeout: Duration) {
        let addresses: Vec<String> = self.lines.keys().cloned().collect();
        let mut fds: Vec<PollFd<'_>> =
            addresses.iter().map(|a| PollFd::new(&*self.lines[a].stream, PollFlags::IN)).collect();
        let spec = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        if poll(&mut fds, Some(&spec)).is_err() {
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        for (address, _) in addresses.iter().zip(ready).filter(|(_, r)| *r) {
            let Some(line) = self.lines.get_mut(address) else { continue };
            let alive = line
                .read()
                .and_then(|messages| messages.into_iter().try_for_each(|(h, meta)| handle(client, line, h, &meta)));
            if alive.is_err() {
                self.lines.remove(address);
                client.link(address).set_background(None);
            }
        }
    }
}

/// The group's item of a renewal: none while the process holds and reads nothing of it and has said so.
fn renewal(g: &GroupClient) -> Option<RenewGroup> {
    let mut state = g.lock();
    let floor = g.floor(&state);
    let told = std::mem::replace(&mut state.told, floor) == floor;
    if state.holder.token().is_none() && state.pins.lowest(g.epoch()).is_none() && told {
        return None;
    }
    Some(g.renewal(&state))
}

fn handle(client: &Client, line: &mut Line, h: Header, meta: &[u8]) -> Result<(), Error> {
    match h.kind {
        Kind::Callback => {
            let callback: Callback = message::decode(meta)?;
            let group = client.groups().get(&h.group).cloned();
            if let Some(g) = group {
                let mut state = g.lock();
                let recall = state.holder.callback(callback.token, clock::now());
                g.answer_recall(&mut state, callback.token, recall);
            }
        }
        Kind::Recall => {
            let recall: Recall = message::decode(meta)?;
            let group = client.groups().get(&h.group).cloned();
            if let Some(g) = group {
                g.end_read_lease(&mut g.lock(), recall.below);
            }
        }
        Kind::Renew if h.flags == FLAG_REPLY => {
            let reply: Renewed = message::decode(meta)?;
            let Some(sent) = line.sent.remove(&h.request) else { return Ok(()) };
            for item in reply.groups {
                let group = client.groups().get(&item.group).cloned();
                if let Some(g) = group {
                    g.lock().holder.renewed(item.token, sent, Duration::from_nanos(item.lease_ns));
                }
            }
        }
        _ => {} // an error reply: the next renewal, or the group's own questions, will meet it too
    }
    Ok(())
}

impl Line {
    fn dial(client: &Client, link: &Link) -> Result<Line, Error> {
        let connection = Connection::dial(&link.address, &client.dialer(true), DIAL)?;
        let stream = connection.into_socket();
        Ok(Line { stream, buffer: Vec::new(), requests: 0, sent: HashMap::new() })
    }

    /// Whole messages that arrived.
    fn read(&mut self) -> Result<Vec<(Header, Vec<u8>)>, Error> {
        let mut chunk = [0u8; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(Error::Unavailable("closed".into())),
            Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(e) => return Err(Error::Unavailable(e.to_string())),
        }
        let mut out = Vec::new();
        while let Some(head) = self.buffer.first_chunk::<HEADER_SIZE>() {
            let header = Header::decode(head)?;
            let end = HEADER_SIZE + header.meta_len as usize + header.data_len as usize;
            if end > MESSAGE_MAX {
                return Err(Error::Protocol("a message too large for this connection".into()));
            }
            let Some(bytes) = self.buffer.get(HEADER_SIZE..end) else { break };
            let meta = bytes[..header.meta_len as usize].to_vec();
            header.verify_meta(&meta)?;
            self.buffer.drain(..end);
            out.push((header, meta));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, group_of};
    use super::*;

    /// Looks at the nodes of the group, again and again, until one is connected to.
    fn connects(background: &mut Background, group: &Arc<GroupClient>) -> bool {
        let address = &group.place().primary().link.address.clone();
        (0..60_000).any(|_| {
            background.connect(&group.client, std::slice::from_ref(group));
            std::thread::sleep(Duration::from_millis(1));
            background.lines.contains_key(address)
        })
    }

    #[test]
    fn a_dial_that_panics_is_tried_again() {
        let node = FakeNode::start(|_, _| None);
        let group = group_of(&node);
        let (mut background, link) = (Background::new(), group.place().primary().link.clone());
        assert!(background.dialling.insert(link.address.clone()));
        dial_apart(Report { to: background.dialled.0.clone(), link, line: None }, |_| panic!("on purpose"));
        assert!(connects(&mut background, &group), "its address is dialled for ever");
        assert!(background.dialling.is_empty());
    }
}
