//! The sending half of a connection of the node, shared by all threads.
//!
//! Bytes go to the socket at once; what it does not take waits in a queue that the worker drains when the socket is
//! writable. The queue is bounded, but for the pages of a record: those are not copied, they wait where they lie in the
//! arena, and a record of any size passes. They are pinned meanwhile, one part of a settle at a time.

use dspm_proto::{GroupId, Lsn, PAGE_SIZE};
use dspm_store::PinnedFrame;
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most slices that the kernel takes at once (IOV_MAX).
const SLICES_MAX: usize = 1024;
/// Most bytes that wait for a peer that does not read, record pages aside.
const QUEUE_MAX: usize = 96 << 20;
/// A member that was sent records is given so long to take them in before it gets the same ones again (100 MB/s).
const REPEAT_NS_PER_BYTE: u64 = 10;

pub(crate) struct Sender {
    /// The runtime's number.
    pub(crate) id: u64,
    stream: TcpStream,
    queue: Mutex<Queue>,
    broken: AtomicBool,
}

/// What the socket did not take yet.
#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are gone.
    sent: usize,
    /// Bytes of [`Chunk::Bytes`], sent ones of the first included.
    copied: usize,
    /// The newest part of a settle's records: group, first LSN, and when it may be sent again.
    part: Option<(GroupId, Lsn, Instant)>,
}

enum Chunk {
    Bytes(Vec<u8>),
    Page(PinnedFrame),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Bytes(b) => b,
            Chunk::Page(p) => &p[..],
        }
    }
}

impl Queue {
    fn push_bytes(&mut self, bytes: &[u8]) {
        self.copied += bytes.len();
        match self.chunks.back_mut() {
            Some(Chunk::Bytes(b)) => b.extend_from_slice(bytes),
            _ => self.chunks.push_back(Chunk::Bytes(bytes.to_vec())),
        }
    }

    /// Drops what was sent.
    fn advance(&mut self, n: usize) {
        self.sent += n;
        while let Some(first) = self.chunks.front().map(|c| c.bytes().len()).filter(|len| *len <= self.sent) {
            self.sent -= first;
            if let Some(Chunk::Bytes(b)) = self.chunks.pop_front() {
                self.copied -= b.len();
            }
        }
    }
}

impl Sender {
    pub(crate) fn new(id: u64, stream: TcpStream) -> Sender {
        Sender { id, stream, queue: Mutex::default(), broken: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends head and data, or queues what the socket does not take.
    pub(crate) fn send(&self, head: &[u8], data: &[&[u8]]) {
        if self.is_broken() {
            return;
        }
        let mut queue = self.lock();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(1 + data.len());
        slices.push(IoSlice::new(head));
        slices.extend(data.iter().filter(|d| !d.is_empty()).map(|d| IoSlice::new(d)));
        let mut rest = &mut slices[..];
        while queue.chunks.is_empty() && !rest.is_empty() {
            match self.write(rest) {
                Ok(Some(n)) => IoSlice::advance_slices(&mut rest, n),
                Ok(None) => break,
                Err(_) => return self.close(),
            }
        }
        let waiting: usize = rest.iter().map(|s| s.len()).sum();
        if queue.copied + waiting > QUEUE_MAX {
            return self.close(); // a peer that does not read: it dials again if it lives
        }
        rest.iter().for_each(|s| queue.push_bytes(s));
    }

    /// True when records of that group from that LSN on may be sent: no earlier part is still on its way, and a member
    /// that got the same ones has had the time to take them in.
    pub(crate) fn may_send_records(&self, group: GroupId, from: Lsn) -> bool {
        let queue = self.lock();
        let repeat = queue.part.is_some_and(|(g, lsn, until)| (g, lsn) == (group, from) && Instant::now() < until);
        queue.chunks.is_empty() && !repeat
    }

    /// Sends records of a group, the first of which has that LSN: heads, and the pages behind each.
    pub(crate) fn send_records(&self, group: GroupId, from: Lsn, records: Vec<(Vec<u8>, Vec<PinnedFrame>)>) {
        if self.is_broken() {
            return;
        }
        let mut queue = self.lock();
        let mut bytes = 0;
        for (head, pages) in records {
            bytes += head.len() + pages.len() * PAGE_SIZE;
            queue.push_bytes(&head);
            queue.chunks.extend(pages.into_iter().map(Chunk::Page));
        }
        let patience = Duration::from_nanos(bytes as u64 * REPEAT_NS_PER_BYTE);
        queue.part = Some((group, from, Instant::now() + patience));
        self.drain_queue(&mut queue);
    }

    /// The socket takes bytes again.
    pub(crate) fn drain(&self) {
        self.drain_queue(&mut self.lock());
    }

    fn drain_queue(&self, queue: &mut Queue) {
        while !queue.chunks.is_empty() {
            let mut slices: Vec<IoSlice<'_>> =
                queue.chunks.iter().take(SLICES_MAX).map(|c| IoSlice::new(c.bytes())).collect();
            let mut rest = &mut slices[..];
            IoSlice::advance_slices(&mut rest, queue.sent);
            match self.write(rest) {
                Ok(Some(n)) => queue.advance(n),
                Ok(None) => return,
                Err(_) => {
                    *queue = Queue::default();
                    return self.close();
                }
            }
        }
    }

    /// Writes once; None when the socket is full: then, and only then, it tells when it has room again.
    fn write(&self, slices: &[IoSlice<'_>]) -> std::io::Result<Option<usize>> {
        loop {
            match (&self.stream).write_vectored(&slices[..slices.len().min(SLICES_MAX)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends the connection; its worker notices.
    pub(crate) fn close(&self) {
        self.broken.store(true, Ordering::Release);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Drops what waits: nobody's pages stay pinned for a connection that is over.
    pub(crate) fn forget(&self) {
        *self.lock() = Queue::default();
    }

    /// True when it ended.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}
