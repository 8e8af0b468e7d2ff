//! One accepted or dialled connection of the node: messages in, bytes out.
//!
//! Bytes out may come from any thread: they go to the socket at once, and what it does not take waits in a bounded
//! queue that the worker drains when the socket is writable. Page data of a commit is read into free frames.

use dspm_proto::auth::Hello;
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::record::Record;
use dspm_proto::{Error, Header, Kind, PAGE_SIZE};
use dspm_store::{FrameBuf, Store};
use mio::net::TcpStream;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes taken in by one system call.
const BUFFER: usize = 128 << 10;
/// Most slices that the kernel takes at once (IOV_MAX).
const SLICES_MAX: usize = 1024;
/// Most bytes of the metadata of a handshake.
const HELLO_MAX: u32 = 4096;
/// Most bytes that wait for a peer that does not read.
const QUEUE_MAX: usize = 96 << 20;

/// The sending half; shared.
pub(crate) struct Sender {
    /// The runtime's number.
    pub(crate) id: u64,
    stream: TcpStream,
    queue: Mutex<Queue>,
    broken: AtomicBool,
}

/// Bytes that the socket did not take yet.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
}

impl Sender {
    /// Sends head and data, or queues what the socket does not take.
    pub(crate) fn send(&self, head: &[u8], data: &[&[u8]]) {
        if self.is_broken() {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(1 + data.len());
        slices.push(IoSlice::new(head));
        slices.extend(data.iter().filter(|d| !d.is_empty()).map(|d| IoSlice::new(d)));
        let mut rest = &mut slices[..];
        if queue.bytes.is_empty() && self.write(&mut rest).is_err() {
            return self.close();
        }
        let waiting: usize = rest.iter().map(|s| s.len()).sum();
        if queue.bytes.len() - queue.sent + waiting > QUEUE_MAX {
            return self.close(); // a peer that does not read: it dials again if it lives
        }
        rest.iter().for_each(|s| queue.bytes.extend_from_slice(s));
    }

    /// Writes until everything is gone or the socket is full; then, and only then, it tells when it has room again.
    fn write(&self, rest: &mut &mut [IoSlice<'_>]) -> std::io::Result<()> {
        while !rest.is_empty() {
            let n = rest.len().min(SLICES_MAX);
            match (&self.stream).write_vectored(&rest[..n]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(rest, n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The socket takes bytes again.
    pub(crate) fn drain(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Queue { bytes, sent } = &mut *queue;
        if bytes.is_empty() {
            return;
        }
        let mut slices = [IoSlice::new(&bytes[*sent..])];
        let mut rest = &mut slices[..];
        if self.write(&mut rest).is_err() {
            return self.close();
        }
        *sent = bytes.len() - rest.iter().map(|s| s.len()).sum::<usize>();
        if *sent == bytes.len() {
            (*bytes, *sent) = (Vec::new(), 0);
        }
    }

    /// Bytes that the socket did not take yet.
    pub(crate) fn waiting(&self) -> usize {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.bytes.len() - queue.sent
    }

    /// Ends the connection; its worker notices.
    pub(crate) fn close(&self) {
        self.broken.store(true, Ordering::Release);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// True when it ended.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

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
    state: State,
}

enum State {
    Head,
    Meta(Header),
    Data { header: Header, meta: Vec<u8>, fill: Box<Fill> },
}

/// Page data on its way in.
struct Fill {
    record: Record,
    frames: Vec<FrameBuf>,
    deltas: Vec<u8>,
    filled: usize,
    total: usize,
    discard: bool,
}

impl Receiver {
    pub(crate) fn new(id: u64, stream: TcpStream, twin: TcpStream, phase: Phase) -> Receiver {
        let out = Arc::new(Sender { id, stream: twin, queue: Mutex::default(), broken: AtomicBool::new(false) });
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let since = std::time::Instant::now();
        Receiver { stream, out, phase, since, buffer, start: 0, end: 0, drained: false, state: State::Head }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket has bytes again.
    pub(crate) fn readable(&mut self) {
        self.drained = false;
    }

    /// The next whole message; None when the socket has no more bytes for now.
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
                    self.state = State::Meta(header);
                }
                State::Meta(header) => {
                    let Some(meta) = self.take_meta(header.meta_len as usize)? else {
                        self.state = State::Meta(header);
                        return Ok(None);
                    };
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

    /// Metadata may be larger than the buffer; then it is gathered where it lies until it is whole.
    fn take_meta(&mut self, n: usize) -> Result<Option<Vec<u8>>, Error> {
        if n > self.buffer.len() {
            let mut larger = vec![0; n.next_power_of_two()].into_boxed_slice();
            larger[..self.end - self.start].copy_from_slice(&self.buffer[self.start..self.end]);
            (self.end, self.start) = (self.end - self.start, 0);
            self.buffer = larger;
        }
        let Some(bytes) = self.have(n)? else { return Ok(None) };
        let meta = bytes.to_vec();
        self.start += n;
        if self.buffer.len() > BUFFER && self.end - self.start <= BUFFER {
            let mut usual = vec![0; BUFFER].into_boxed_slice();
            usual[..self.end - self.start].copy_from_slice(&self.buffer[self.start..self.end]);
            (self.end, self.start) = (self.end - self.start, 0);
            self.buffer = usual;
        }
        Ok(Some(meta))
    }

    /// Reads once; false when the socket has nothing now.
    fn more(&mut self) -> Result<bool, Error> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.end, self.start) = (self.end - self.start, 0);
        }
        if self.drained {
            return Ok(false);
        }
        let room = self.buffer.len() - self.end;
        let n = read(&mut self.stream, &mut self.buffer[self.end..])?;
        self.drained = n.is_none_or(|n| n < room);
        self.end += n.unwrap_or(0);
        Ok(n.is_some())
    }

    /// Moves page data in; true when it is whole.
    fn fill(&mut self, fill: &mut Fill) -> Result<bool, Error> {
        while fill.filled < fill.total {
            if self.start < self.end {
                let target = fill.target();
                let n = target.len().min(self.end - self.start);
                target[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
                self.start += n;
                fill.filled += n;
            } else if fill.total - fill.filled >= BUFFER / 2 {
                let Some(n) = read(&mut self.stream, fill.target())? else { return Ok(false) };
                fill.filled += n;
            } else if !self.more()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn read(stream: &mut TcpStream, into: &mut [u8]) -> Result<Option<usize>, Error> {
    loop {
        match stream.read(into) {
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
        let deltas = vec![0; record.data_len() - full * PAGE_SIZE];
        let settled = header.kind == Kind::Replicate;
        let mut frames = Vec::with_capacity(full);
        while frames.len() < full {
            match if settled { store.alloc_settled() } else { store.alloc() } {
                Some(f) => frames.push(f),
                None => break,
            }
        }
        let discard = frames.len() < full;
        let total = record.data_len();
        if discard {
            frames.clear();
            if !settled {
                store.want(full);
            }
            return Ok(Fill { record, frames, deltas: vec![0; PAGE_SIZE], filled: 0, total, discard });
        }
        Ok(Fill { record, frames, deltas, filled: 0, total, discard })
    }

    /// Where the next bytes go.
    fn target(&mut self) -> &mut [u8] {
        if self.discard {
            let n = (self.total - self.filled).min(PAGE_SIZE);
            return &mut self.deltas[..n];
        }
        let full = self.frames.len() * PAGE_SIZE;
        match self.frames.get_mut(self.filled / PAGE_SIZE) {
            Some(f) => &mut f[self.filled % PAGE_SIZE..],
            None => &mut self.deltas[self.filled - full..],
        }
    }

    fn done(self) -> Body {
        if self.discard {
            return Body::NoRoom { record: self.record };
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
