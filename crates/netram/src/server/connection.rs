//! The receiving half of a connection of the node, accepted or dialled: bytes in, messages out.
//!
//! Page data of a record is read into free frames, and each page is checked when it is whole. A connection takes a
//! bounded part of what has come, then it is the next one's turn: a large record does not keep others waiting.

use super::sender::Sender;
use crate::wire::HELLO_MAX;
use dspm_proto::auth::Hello;
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::record::{Record, verify_page};
use dspm_proto::{Error, Header, Kind, PAGE_SIZE};
use dspm_store::{FrameBuf, Store};
use mio::net::TcpStream;
use std::io::{ErrorKind, IoSliceMut, Read};
use std::sync::Arc;

/// Bytes taken in by one system call.
const BUFFER: usize = 128 << 10;
/// Full pages of a record that a member prepares for before it has read them.
const LARGE: usize = 256;
/// Bytes of metadata and page data that are taken in before it is another connection's turn.
const TURN: usize = 4 << 20;

/// A whole message.
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) meta: Vec<u8>,
    pub(crate) body: Body,
}

/// What came with it.
pub(crate) enum Body {
    /// Nothing.
    None,
    /// A record's pages: frames of the full ones, and the bytes of the deltas behind them.
    Pages { record: Record, frames: Vec<FrameBuf>, deltas: Vec<u8> },
    /// A record one of whose full pages is not what its checksum says.
    Damaged,
    /// A record that found no room.
    NoRoom { record: Record },
}

/// How far the handshake is.
pub(crate) enum Phase {
    /// Nothing was heard.
    New,
    /// We sent our challenge.
    Challenged { hello: Hello, nonce: String },
    /// The peer knows the key.
    Open { hello: Arc<Hello> },
    /// We dialled: a link to the node of that name.
    Dialled { name: String },
}

/// The receiving half; owned by a worker.
pub(crate) struct Receiver {
    stream: TcpStream,
    pub(crate) out: Arc<Sender>,
    pub(crate) phase: Phase,
    /// When it was accepted: the handshake has a time limit.
    pub(crate) since: std::time::Instant,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read took less than it could: nothing is left until the next event (edge-triggered epoll).
    drained: bool,
    /// Bytes that may still be taken in this turn.
    turn: usize,
    state: State,
}

enum State {
    Head,
    Meta { header: Header, meta: Vec<u8>, filled: usize },
    Data { header: Header, meta: Vec<u8>, fill: Box<Fill> },
}

/// Page data on its way in.
struct Fill {
    record: Record,
    frames: Vec<FrameBuf>,
    deltas: Vec<u8>,
    filled: usize,
    total: usize,
    /// Full pages that are whole and were checked.
    checked: usize,
    damaged: bool,
    discard: bool,
}

impl Receiver {
    pub(crate) fn new(id: u64, stream: TcpStream, twin: TcpStream, phase: Phase) -> Receiver {
        let out = Arc::new(Sender::new(id, twin));
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let since = std::time::Instant::now();
        let (start, end, drained, turn, state) = (0, 0, false, TURN, State::Head);
        Receiver { stream, out, phase, since, buffer, start, end, drained, turn, state }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket has bytes again.
    pub(crate) fn readable(&mut self) {
        self.drained = false;
        self.turn = TURN;
    }

    /// True when the turn ended before the socket's bytes did: nothing else will tell of the rest.
    pub(crate) fn has_more(&self) -> bool {
        self.turn == 0
    }

    /// The next whole message; None when the socket has no more bytes for now, or the turn is over.
    ///
    /// # Errors
    /// The connection is over: closed, or its bytes cannot be trusted.
    pub(crate) fn next(&mut self, store: &Arc<Store>) -> Result<Option<Message>, Error> {
        loop {
            match std::mem::replace(&mut self.state, State::Head) {
                State::Head => {
                    let Some(bytes) = self.have(HEADER_SIZE)? else { return Ok(None) };
                    let mut head = [0u8; HEADER_SIZE];
                    head.copy_from_slice(bytes);
                    self.start += HEADER_SIZE;
                    let header = Header::decode(&head)?;
                    self.admit(&header)?;
                    self.state = State::Meta { header, meta: vec![0; header.meta_len as usize], filled: 0 };
                }
                State::Meta { header, mut meta, mut filled } => {
                    if !self.gather(&mut meta, &mut filled)? {
                        self.state = State::Meta { header, meta, filled };
                        return Ok(None);
                    }
                    header.verify_meta(&meta)?;
                    if matches!(header.kind, Kind::Commit | Kind::Replicate) && !header.is_reply() {
                        let fill = Box::new(Fill::new(&header, &meta, store)?);
                        self.state = State::Data { header, meta, fill };
                    } else if header.data_len > 0 {
                        return Err(Error::Protocol(format!("{:?} with page data", header.kind)));
                    } else {
                        return Ok(Some(Message { header, meta, body: Body::None }));
                    }
                }
                State::Data { header, meta, mut fill } => {
                    if !self.fill(&mut fill)? {
                        self.state = State::Data { header, meta, fill };
                        return Ok(None);
                    }
                    return Ok(Some(Message { header, meta, body: fill.done() }));
                }
            }
        }
    }

    /// Before the peer has shown that it knows the key, nothing is read but the handshake.
    fn admit(&self, header: &Header) -> Result<(), Error> {
        let open = matches!(self.phase, Phase::Open { .. } | Phase::Dialled { .. });
        let hello = header.kind == Kind::Hello && header.meta_len <= HELLO_MAX && header.data_len == 0;
        if open || hello { Ok(()) } else { Err(Error::Protocol("a connection begins with Hello".into())) }
    }

    /// At least n bytes in the buffer; n is small.
    fn have(&mut self, n: usize) -> Result<Option<&[u8]>, Error> {
        while self.end - self.start < n {
            if !self.more()? {
                return Ok(None);
            }
        }
        Ok(Some(&self.buffer[self.start..self.start + n]))
    }

    /// Moves metadata in; true when it is whole.
    fn gather(&mut self, meta: &mut [u8], filled: &mut usize) -> Result<bool, Error> {
        while *filled < meta.len() {
            let rest = &mut meta[*filled..];
            if self.start < self.end {
                let n = rest.len().min(self.end - self.start);
                rest[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
                self.start += n;
                *filled += n;
            } else if rest.len() >= BUFFER / 2 {
                let Some(n) = self.receive(&mut [IoSliceMut::new(rest)])? else { return Ok(false) };
                *filled += n;
            } else if !self.more()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once; false when the socket has nothing now.
    fn more(&mut self) -> Result<bool, Error> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.end, self.start) = (self.end - self.start, 0);
        }
        if self.drained || self.turn == 0 {
            return Ok(false);
        }
        let room = self.buffer.len() - self.end;
        let n = read(&mut self.stream, &mut [IoSliceMut::new(&mut self.buffer[self.end..])])?;
        self.drained = n.is_none_or(|n| n < room);
        self.end += n.unwrap_or(0);
        self.turn = self.turn.saturating_sub(n.unwrap_or(0));
        Ok(n.is_some())
    }

    /// Reads once, past the buffer; None when the socket has nothing now, or the turn is over.
    fn receive(&mut self, into: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, Error> {
        if self.turn == 0 {
            return Ok(None);
        }
        let n = read(&mut self.stream, into)?;
        self.turn = self.turn.saturating_sub(n.unwrap_or(0));
        Ok(n)
    }

    /// Moves page data in; true when it is whole.
    fn fill(&mut self, fill: &mut Fill) -> Result<bool, Error> {
        while fill.filled < fill.total {
            if self.start < self.end {
                let mut targets = fill.targets(1);
                let target = &mut targets[0];
                let n = target.len().min(self.end - self.start);
                target[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
                self.start += n;
                fill.advance(n);
            } else if fill.total - fill.filled >= BUFFER / 2 {
                let Some(n) = self.receive(&mut fill.targets(BUFFER / PAGE_SIZE))? else { return Ok(false) };
                fill.advance(n);
            } else if !self.more()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn read(stream: &mut TcpStream, into: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, Error> {
    loop {
        match stream.read_vectored(into) {
            Ok(0) => return Err(Error::Unavailable("closed".into())),
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(Error::Unavailable(e.to_string())),
        }
    }
}

impl Fill {
    fn new(header: &Header, meta: &[u8], store: &Arc<Store>) -> Result<Fill, Error> {
        let record = record_of(header, meta)?;
        let full = record.full_pages();
        let (total, settled) = (record.data_len(), header.kind == Kind::Replicate);
        if full > LARGE {
            store.expect(full);
        }
        let mut frames = Vec::with_capacity(full);
        while frames.len() < full {
            match if settled { store.alloc_settled() } else { store.alloc() } {
                Some(f) => frames.push(f),
                None => break,
            }
        }
        let discard = frames.len() < full;
        if discard {
            frames.clear();
            if !settled {
                store.want(full);
            }
        }
        let deltas = vec![0; if discard { total.min(BUFFER) } else { total - full * PAGE_SIZE }];
        Ok(Fill { record, frames, deltas, filled: 0, total, checked: 0, damaged: false, discard })
    }

    /// Where the next bytes go: at most that many pages, at least one slice.
    fn targets(&mut self, pages: usize) -> Vec<IoSliceMut<'_>> {
        if self.discard {
            let n = (self.total - self.filled).min(self.deltas.len());
            return vec![IoSliceMut::new(&mut self.deltas[..n])];
        }
        let (first, at) = (self.filled / PAGE_SIZE, self.filled % PAGE_SIZE);
        let full = self.frames.len();
        if first >= full {
            return vec![IoSliceMut::new(&mut self.deltas[self.filled - full * PAGE_SIZE..])];
        }
        let frames = self.frames[first..].iter_mut().take(pages).enumerate();
        frames.map(|(i, f)| IoSliceMut::new(&mut f[if i == 0 { at } else { 0 }..])).collect()
    }

    /// Bytes came in; pages that are whole now are checked while they are in the processor's cache.
    fn advance(&mut self, n: usize) {
        self.filled += n;
        while self.checked < self.frames.len().min(self.filled / PAGE_SIZE) {
            let expected = self.record.pages[self.checked].checksum;
            self.damaged |= verify_page(&self.frames[self.checked][..], expected).is_err();
            self.checked += 1;
        }
    }

    fn done(self) -> Body {
        if self.discard {
            return Body::NoRoom { record: self.record };
        }
        if self.damaged {
            return Body::Damaged;
        }
        Body::Pages { record: self.record, frames: self.frames, deltas: self.deltas }
    }
}

/// Bytes of the settle's token in front of a Replicate's record.
pub(crate) const REPLICATE_PREFIX: usize = 16;

/// The record of a Commit, or of a Replicate (whose metadata is the settle's token, then the record's).
fn record_of(header: &Header, meta: &[u8]) -> Result<Record, Error> {
    if header.kind == Kind::Commit {
        return Record::decode(header, meta);
    }
    let inner = meta.get(REPLICATE_PREFIX..).ok_or_else(|| Error::Corrupt("a replicate without a record".into()))?;
    Record::decode(&header.for_meta(inner), inner)
}
