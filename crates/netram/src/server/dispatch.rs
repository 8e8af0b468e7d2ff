//! What becomes of a message: handshake first, then to the group's replica, the pages or the control plane.

use super::connection::{Body, Message, Phase, REPLICATE_PREFIX, Receiver};
use super::group::Group;
use super::node::Node;
use super::records::Pages;
use super::sender::Sender;
use crate::wire::{self, error_reply, frame, from_json, json, reply_to};
use crate::{clock, random};
use dspm_proto::auth::{Challenge, Hello, Proof, Role};
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::message::{self, Field, PageVersion, Read, ReadReply, Renew, Renewed, RenewedGroup};
use dspm_proto::record::Record;
use dspm_proto::{
    Error, GroupId, Header, Kind, Lsn, PAGE_SIZE, PageNo, Part, Refusal, Session, StoreId, Token, checksum, limits,
};
use dspm_store::{BaseReader, Lookup, PinnedFrame};
use dspm_txn::{Caller, PeerMessage};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Node {
    /// A connection exists from now on.
    pub(crate) fn opened(&self, receiver: &Receiver) {
        let out = &receiver.out;
        self.senders.write().unwrap_or_else(PoisonError::into_inner).insert(out.id, out.clone());
        if let Phase::Dialled { name } = &receiver.phase {
            self.links.stands(name, out);
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, receiver: &Receiver) {
        self.senders.write().unwrap_or_else(PoisonError::into_inner).remove(&receiver.out.id);
        let session = if let Phase::Open { hello } = &receiver.phase { hello.session } else { None };
        if let Some(session) = session {
            self.sessions.closed(session, &receiver.out);
        }
        self.forwarded.closed(&receiver.out);
    }

    /// A connection's bytes made no sense. What cannot be parsed is not answered but to say so once.
    pub(crate) fn distrust(&self, receiver: &Receiver, e: &Error) {
        if matches!(e, Error::Corrupt(_)) {
            self.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(e, Error::Corrupt(_) | Error::Protocol(_)) {
            receiver.out.send(&error_reply(Kind::Hello, 0, e), &[]);
        }
    }

    /// Handles one message to completion.
    pub(crate) fn dispatch(self: &Arc<Self>, receiver: &mut Receiver, m: Message) {
        let kind = m.header.kind;
        let request = m.header.request;
        let out = receiver.out.clone();
        let done = match &receiver.phase {
            Phase::Open { hello } => {
                let hello = hello.clone();
                self.serve(&hello, &out, m)
            }
            Phase::Dialled { .. } => Ok(()),
            Phase::New | Phase::Challenged { .. } => self.shake_hands(receiver, &m),
        };
        if let (Err(e), true) = (done, kind.has_answer()) {
            out.send(&error_reply(kind, request, &e), &[]);
            if kind == Kind::Hello {
                out.close();
            }
        }
    }

    fn shake_hands(&self, receiver: &mut Receiver, m: &Message) -> Result<(), Error> {
        let key = &self.options.key;
        match std::mem::replace(&mut receiver.phase, Phase::New) {
            Phase::New => {
                let hello: Hello = from_json(&m.meta)?;
                if !hello.cluster.is_empty() && hello.cluster != self.options.cluster {
                    let text = format!("this is cluster {}, not {}", self.options.cluster, hello.cluster);
                    return Err(Error::Auth(text));
                }
                let nonce = random::nonce();
                let challenge = Challenge {
                    name: self.options.name.clone(),
                    store: self.store_id,
                    boot: self.boot,
                    proof: key.proof("acceptor", &hello.nonce, &nonce)?,
                    nonce: nonce.clone(),
                    record_pages_max: self.store.record_pages_max(),
                };
                receiver.phase = Phase::Challenged { hello, nonce };
                receiver.out.send(&frame(reply_to(&m.header), &json(&challenge), 0), &[]);
            }
            Phase::Challenged { hello, nonce } => {
                let proof: Proof = from_json(&m.meta)?;
                key.check("dialer", &hello.nonce, &nonce, &proof.proof)?;
                self.welcome(&hello, &receiver.out)?;
                receiver.phase = Phase::Open { hello: Arc::new(hello) };
                receiver.out.send(&frame(reply_to(&m.header), b"{}", 0), &[]);
            }
            other => receiver.phase = other,
        }
        Ok(())
    }

    fn welcome(&self, hello: &Hello, out: &Arc<Sender>) -> Result<(), Error> {
        if hello.role == Role::Registry {
            let _turn = self.turn(); // what an older connection said is taken in by now, or never
            self.forwarded.registry_is(out);
        }
        let callbacks = hello.callbacks.then_some(out);
        match hello.session {
            Some(s) if !self.sessions.hello(s, callbacks) => Err(Error::Refused(Refusal::SessionOver)),
            _ => Ok(()),
        }
    }

    fn serve(self: &Arc<Self>, hello: &Hello, out: &Arc<Sender>, m: Message) -> Result<(), Error> {
        match m.header.kind {
            Kind::Control => self.control(hello, out, &m),
            Kind::Commit => self.commit(hello, out, m),
            Kind::Replicate => self.replicate(hello, m),
            Kind::Read => self.read(hello, out, &m),
            Kind::Renew => self.renew(hello, out, &m),
            Kind::Snapshot | Kind::AsOf | Kind::Keep | Kind::Acquire | Kind::Release => {
                self.client_message(hello, out, &m)
            }
            Kind::Recalled | Kind::Note | Kind::Outcome => self.client_message(hello, out, &m),
            Kind::Fence
            | Kind::Complete
            | Kind::Fetch
            | Kind::Probe
            | Kind::Horizon
            | Kind::Unsettled
            | Kind::Rebase => self.peer_message(hello, &m),
            Kind::Inquiry | Kind::Decision | Kind::Resolved => self.word(hello, &m),
            Kind::Grant if hello.role == Role::Node => self.grant(&hello.name, hello.store, &m.header, &m.meta),
            other => Err(Error::Protocol(format!("a node does not answer {other:?}"))),
        }
    }

    /// Runs `f` on a group under its lock, then does what the replica asks for.
    pub(crate) fn with_group<T>(
        self: &Arc<Self>,
        id: GroupId,
        f: impl FnOnce(&mut Group) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let group = self.group(id)?;
        let mut g = group.lock();
        let out = f(&mut g)?;
        self.run_effects(&mut g);
        Ok(out)
    }

    fn session_of(&self, hello: &Hello) -> Result<Session, Error> {
        let session = hello.session.ok_or_else(|| Error::Protocol("this connection has no session".into()))?;
        if self.sessions.is_over(session) {
            return Err(Error::Refused(Refusal::SessionOver));
        }
        Ok(session)
    }

    fn commit(self: &Arc<Self>, hello: &Hello, out: &Arc<Sender>, m: Message) -> Result<(), Error> {
        let Message { header, meta, body } = m;
        let caller = Caller { connection: out.id, request: header.request };
        let (record, pages) = match body {
            Body::Pages { record, frames, deltas } => (record, Pages { meta, frames, deltas }),
            Body::NoRoom { record } => {
                self.check_session(hello, &record)?;
                self.shortages.refused(header.group);
                return self.with_group(header.group, |g| {
                    g.replica.commit_without_room(caller, header.store, &record, clock::now());
                    Ok(())
                });
            }
            Body::Damaged => {
                self.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
                return Err(Error::Refused(Refusal::Corrupt));
            }
            Body::None => return Err(Error::Protocol("a commit without a record".into())),
        };
        self.check_session(hello, &record)?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.with_group(header.group, |g| {
            g.replica.commit(caller, header.store, &record, pages, clock::now());
            Ok(())
        })
    }

    fn check_session(&self, hello: &Hello, record: &Record) -> Result<(), Error> {
        if self.session_of(hello)? == record.session { Ok(()) } else { Err(Error::Refused(Refusal::SessionOver)) }
    }

    /// The writer sends the record again until its `commit_timeout`; the text is what it says then.
    pub(crate) fn without_room(&self) -> Error {
        self.counters.without_room.fetch_add(1, Ordering::Relaxed);
        Error::Full(self.store.shortage_text())
    }

    fn replicate(self: &Arc<Self>, hello: &Hello, m: Message) -> Result<(), Error> {
        let Message { header, meta, body } = m;
        let (record, frames, deltas) = match (body, hello.role) {
            (Body::Pages { record, frames, deltas }, Role::Node) => (record, frames, deltas),
            (Body::NoRoom { record }, Role::Node) => {
                self.store.claim(record.full_pages()); // the settle sends it again, and finds them
                self.shortages.refused(header.group);
                return Ok(());
            }
            (Body::Damaged, _) => {
                self.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let token: Token = message::decode(&meta[..REPLICATE_PREFIX])?;
        let pages = Pages { meta: meta[REPLICATE_PREFIX..].to_vec(), frames, deltas };
        self.with_group(header.group, |g| {
            let from = self.catalog().known_number(&hello.name);
            if let Some(from) = from {
                g.replica.replicate(from, token, &record, pages, clock::now());
            }
            Ok(())
        })
    }

    fn renew(self: &Arc<Self>, hello: &Hello, out: &Arc<Sender>, m: &Message) -> Result<(), Error> {
        let session = self.session_of(hello)?;
        let renew: Renew = message::decode(&m.meta)?;
        let mut reply = Renewed::default();
        for g in renew.groups {
            let lease = self.with_group(g.group, |group| {
                group.replica.check_addressee(g.generation, g.store).map_err(Error::Refused)?;
                let now = clock::now();
                if !group.replica.hears(now) {
                    return Err(Error::Refused(Refusal::NotMember)); // what it reads is another's to keep
                }
                Ok(group.replica.renew(session, g.token, g.floor, now).as_nanos() as u64)
            });
            let lease_ns = lease.unwrap_or(0);
            reply.groups.push(RenewedGroup { group: g.group, token: g.token, lease_ns });
        }
        out.send(&frame(reply_to(&m.header), &message::encode(&reply), 0), &[]);
        Ok(())
    }

    fn client_message(self: &Arc<Self>, hello: &Hello, out: &Arc<Sender>, m: &Message) -> Result<(), Error> {
        let session = self.session_of(hello)?;
        let caller = Caller { connection: out.id, request: m.header.request };
        let mine = |s: Session| if s == session { Ok(()) } else { Err(Error::Refused(Refusal::SessionOver)) };
        self.with_group(m.header.group, |g| {
            let now = clock::now();
            g.replica.check_addressee(m.header.generation, m.header.store).map_err(Error::Refused)?;
            match m.header.kind {
                Kind::Snapshot => {
                    let x: message::Snapshot = message::decode(&m.meta)?;
                    mine(x.session)?;
                    self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
                    g.replica.snapshot(caller, &x, now);
                }
                Kind::AsOf => {
                    let x: message::AsOf = message::decode(&m.meta)?;
                    mine(x.session)?;
                    self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
                    g.replica.as_of(caller, &x, now);
                }
                Kind::Keep => {
                    let x: message::Keep = message::decode(&m.meta)?;
                    mine(x.session)?;
                    g.replica.keep(&x, now);
                }
                Kind::Acquire => {
                    let x: message::Acquire = message::decode(&m.meta)?;
                    mine(x.session)?;
                    g.replica.acquire(caller, &x, now);
                }
                Kind::Release => {
                    let x: message::Release = message::decode(&m.meta)?;
                    mine(x.session)?;
                    g.replica.release(&x, now);
                }
                Kind::Recalled => {
                    let x: message::Recalled = message::decode(&m.meta)?;
                    mine(x.session)?;
                    g.replica.recalled(&x, now);
                }
                Kind::Note => {
                    let x: message::Note = message::decode(&m.meta)?;
                    g.replica.note(x.token, x.id);
                }
                _ => {
                    let x: message::Outcome = message::decode(&m.meta)?;
                    mine(x.session)?;
                    g.replica.outcome(caller, &x, now);
                }
            }
            Ok(())
        })
    }

    fn peer_message(self: &Arc<Self>, hello: &Hello, m: &Message) -> Result<(), Error> {
        if hello.role != Role::Node {
            return Err(Error::Auth("only nodes say that".into()));
        }
        let message = peer_message(&m.header, &m.meta)?;
        let done = self.with_group(m.header.group, |g| {
            let from = self.catalog().known_number(&hello.name);
            let addressed = g.replica.check_addressee(m.header.generation, m.header.store).is_ok();
            if let Some(from) = from.filter(|_| addressed) {
                g.replica.peer(from, hello.store, message, clock::now());
            }
            Ok(())
        });
        // A group that is not known here yet: its catalog entry is on its way, and so is the repeat of this message.
        done.or(Ok(()))
    }

    fn read(self: &Arc<Self>, hello: &Hello, out: &Arc<Sender>, m: &Message) -> Result<(), Error> {
        self.session_of(hello)?;
        let read: Read = message::decode(&m.meta)?;
        if read.pages.len() > limits::READ_PAGES_MAX {
            return Err(Error::Protocol(format!("{} pages in one read", read.pages.len())));
        }
        self.counters.pages_read.fetch_add(read.pages.len() as u64, Ordering::Relaxed);
        let group = self.group(m.header.group)?;
        let g = group.lock();
        g.replica.check_addressee(m.header.generation, m.header.store).map_err(Error::Refused)?;
        if !g.is_complete() {
            return Err(Error::Unavailable("this member is joining and does not hold every page yet".into()));
        }
        let records = &g.replica.records.group;
        let unresolved = records.part(read.at) == Part::Prepared && read.at == records.tail().lsn;
        if read.at > records.tail().lsn || unresolved {
            return Err(Error::Unavailable(format!("this member does not hold commit {} yet", read.at)));
        }
        let mut reply = ReadReply { pages: Vec::with_capacity(read.pages.len()) };
        let mut content = Vec::with_capacity(read.pages.len());
        let base = records.base_reader(read.dataset);
        for page in &read.pages {
            let (version, source) = match records.lookup(read.dataset, *page, read.at) {
                Lookup::Frame { lsn, frame, checksum } => {
                    (PageVersion { lsn, checksum, zero: false }, Source::Frame(records.pin(frame)))
                }
                // Which commit made it zeros is forgotten behind the horizon: the client must not take them for
                // the page's content in older states, which another member may still have.
                Lookup::Zero { lsn } => {
                    let lsn = lsn.max(records.horizon());
                    (PageVersion { lsn, checksum: 0, zero: true }, Source::Nothing)
                }
                Lookup::Disk { .. } => (PageVersion::default(), Source::Base(*page)),
                Lookup::Lost { lsn, .. } => {
                    return Err(self.damaged(m.header.group, &read, *page, lsn));
                }
                Lookup::TooOld => {
                    return Err(Error::TooOld(format!("version {} of page {page} is no longer kept", read.at)));
                }
            };
            reply.pages.push(version);
            content.push(source);
        }
        // Pinned: neither disk nor socket keeps the group waiting.
        drop(g);
        for ((page, version), source) in read.pages.iter().zip(&mut reply.pages).zip(&mut content) {
            match source.load(version, base.as_ref(), read.at) {
                Err(Error::Corrupt(_)) => return Err(self.damaged(m.header.group, &read, *page, read.at)),
                loaded => loaded?,
            }
        }
        let slices: Vec<&[u8]> = content.iter().filter_map(Source::bytes).collect();
        let bytes = slices.iter().map(|s| s.len()).sum();
        out.send(&frame(reply_to(&m.header), &message::encode(&reply), bytes), &slices);
        Ok(())
    }
}

/// Where a page's content is taken from.
enum Source {
    Nothing,
    Frame(PinnedFrame),
    Base(PageNo),
    Disk(Box<[u8; PAGE_SIZE]>),
}

impl Source {
    /// Reads what lies in the base file, and completes its version.
    fn load(&mut self, version: &mut PageVersion, base: Option<&BaseReader>, at: Lsn) -> Result<(), Error> {
        let Source::Base(page) = self else { return Ok(()) };
        let base = base.ok_or_else(|| Error::Corrupt(format!("page {page} lies in a base file that is not there")))?;
        let mut content = Box::new([0; PAGE_SIZE]);
        let lsn = base.read(*page, at, &mut content)?;
        *version = PageVersion { lsn, checksum: checksum(&content[..]), zero: false };
        *self = Source::Disk(content);
        Ok(())
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Source::Frame(f) => Some(&f[..]),
            Source::Disk(b) => Some(&b[..]),
            Source::Nothing | Source::Base(_) => None,
        }
    }
}

fn peer_message(header: &Header, meta: &[u8]) -> Result<PeerMessage, Error> {
    Ok(match (header.kind, header.is_reply()) {
        (Kind::Fence, false) => PeerMessage::Fence(message::decode(meta)?),
        (Kind::Fence, true) => PeerMessage::Fenced(message::decode(meta)?),
        (Kind::Complete, false) => PeerMessage::Complete(message::decode(meta)?),
        (Kind::Complete, true) => PeerMessage::Completed(message::decode(meta)?),
        (Kind::Probe, false) => PeerMessage::Probe(message::decode(meta)?),
        (Kind::Probe, true) => PeerMessage::Probed(message::decode(meta)?),
        (Kind::Fetch, _) => PeerMessage::Fetch(message::decode(meta)?),
        (Kind::Rebase, _) => PeerMessage::Rebase(message::decode(meta)?),
        (Kind::Horizon, _) => PeerMessage::Horizon(message::decode(meta)?),
        (_, _) => PeerMessage::Unsettled(message::decode(meta)?),
    })
}

/// A message between members, ready to send.
pub(crate) fn peer_frame(message: &PeerMessage, mut header: Header) -> Vec<u8> {
    fn put<T: Field>(h: &mut Header, kind: Kind, flags: u16, m: &T) -> Vec<u8> {
        (h.kind, h.flags) = (kind, flags);
        message::encode(m)
    }
    let reply = dspm_proto::header::FLAG_REPLY;
    let h = &mut header;
    let meta = match message {
        PeerMessage::Fence(m) => put(h, Kind::Fence, 0, m),
        PeerMessage::Fenced(m) => put(h, Kind::Fence, reply, m),
        PeerMessage::Complete(m) => put(h, Kind::Complete, 0, m),
        PeerMessage::Completed(m) => put(h, Kind::Complete, reply, m),
        PeerMessage::Probe(m) => put(h, Kind::Probe, 0, m),
        PeerMessage::Probed(m) => put(h, Kind::Probe, reply, m),
        PeerMessage::Fetch(m) => put(h, Kind::Fetch, 0, m),
        PeerMessage::Rebase(m) => put(h, Kind::Rebase, 0, m),
        PeerMessage::Horizon(m) => put(h, Kind::Horizon, 0, m),
        PeerMessage::Unsettled(m) => put(h, Kind::Unsettled, 0, m),
    };
    frame(header, &meta, 0)
}

/// A stored record as a Replicate: the settle's token in front of its metadata, every page whole.
pub(crate) fn replicate_head(token: Token, store: StoreId, header: Header, meta: &[u8], data: usize) -> Vec<u8> {
    let mut all = message::encode(&token);
    all.extend_from_slice(meta);
    let mut h = Header { kind: Kind::Replicate, flags: 0, store, ..header };
    h.request = 0;
    debug_assert!(all.len() >= REPLICATE_PREFIX && HEADER_SIZE == 64);
    wire::frame(h, &all, data)
}
