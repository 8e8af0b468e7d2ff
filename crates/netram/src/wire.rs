//! Whole messages on blocking and non-blocking sockets, and the dialer's half of the handshake.

use crate::socket::Socket;
use dspm_proto::auth::{Challenge, ClusterKey, Hello, Proof, Role};
use dspm_proto::header::{FLAG_ERROR, FLAG_REPLY, HEADER_SIZE};
use dspm_proto::{Error, Header, Kind, Session, StoreId};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufReader, ErrorKind, IoSlice, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Slice of a blocking read after which the caller's deadline is looked at again.
const SLICE: Duration = Duration::from_millis(100);
/// One system call takes in a whole answer of a page.
const BUFFER: usize = 16 << 10;
/// Most bytes of metadata in a handshake.
pub(crate) const HELLO_MAX: u32 = 4096;
/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Header and metadata of a message, ready to send.
pub fn frame(mut header: Header, meta: &[u8], data_len: usize) -> Vec<u8> {
    header = header.for_meta(meta);
    header.data_len = data_len as u32;
    let mut b = Vec::with_capacity(HEADER_SIZE + meta.len());
    b.extend_from_slice(&header.encode());
    b.extend_from_slice(meta);
    b
}

/// The header of an answer to `asked`.
pub fn reply_to(asked: &Header) -> Header {
    let mut h = Header::new(asked.kind);
    h.flags = FLAG_REPLY;
    h.request = asked.request;
    h.group = asked.group;
    h
}

/// An error reply.
pub fn error_reply(kind: Kind, request: u64, error: &Error) -> Vec<u8> {
    let mut h = Header::new(kind);
    h.flags = FLAG_REPLY | FLAG_ERROR;
    h.request = request;
    frame(h, &error.encode(), 0)
}

/// JSON as a message's metadata.
pub fn json<T: Serialize>(v: &T) -> Vec<u8> {
    serde_json::to_vec(v).unwrap_or_default()
}

/// A message's metadata as JSON.
///
/// # Errors
/// [`Error::Protocol`] when it is not a `T`.
pub fn from_json<T: DeserializeOwned>(meta: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(meta).map_err(|e| Error::Protocol(format!("unexpected control message: {e}")))
}

/// A blocking connection to a node: one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<Socket>,
    requests: u64,
    /// What the node said that it remembers.
    pub store: StoreId,
    /// The node's boot number.
    pub boot: u32,
    /// Most pages of one record that it takes.
    pub record_pages_max: u64,
}

/// An answer: header, metadata, page data.
#[derive(Debug)]
pub struct Answer {
    /// Checked.
    pub header: Header,
    /// Checked against the header.
    pub meta: Vec<u8>,
    /// Not checked: its checksums stand in the metadata.
    pub data: Vec<u8>,
}

impl Answer {
    /// The answer, or the error that the peer answered with. The connection is sound either way.
    ///
    /// # Errors
    /// The peer's error reply.
    pub fn accept(self) -> Result<Answer, Error> {
        if self.header.is_error() { Err(Error::decode(&self.meta)) } else { Ok(self) }
    }
}

/// Who dials.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Client, node or registry.
    pub role: Role,
    /// For messages.
    pub name: String,
    /// Expected cluster, empty: any.
    pub cluster: String,
    /// The secret.
    pub key: ClusterKey,
    /// The client's session.
    pub session: Option<Session>,
    /// A node's own store id.
    pub store: StoreId,
    /// The connection takes call-backs.
    pub callbacks: bool,
}

impl Connection {
    /// Dials and shakes hands.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Auth`], [`Error::Protocol`].
    pub fn dial(address: &str, dialer: &Dialer, timeout: Duration) -> Result<Connection, Error> {
        let unreachable = |e: std::io::Error| Error::Unavailable(format!("node {address} cannot be reached: {e}"));
        let resolved = address.to_socket_addrs().map_err(unreachable)?.next();
        let target = resolved.ok_or_else(|| Error::Usage(format!("{address} is no address (host:port expected)")))?;
        let stream = TcpStream::connect_timeout(&target, timeout).map_err(unreachable)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(HANDSHAKE))?;
        let stream = BufReader::with_capacity(BUFFER, Socket::new(stream));
        let mut c = Connection { stream, requests: 0, store: StoreId(0), boot: 0, record_pages_max: 0 };
        c.shake_hands(dialer, Instant::now() + timeout.min(HANDSHAKE))?;
        Ok(c)
    }

    fn shake_hands(&mut self, dialer: &Dialer, deadline: Instant) -> Result<(), Error> {
        let nonce = crate::random::nonce();
        let hello = Hello {
            role: dialer.role,
            name: dialer.name.clone(),
            cluster: dialer.cluster.clone(),
            nonce: nonce.clone(),
            session: dialer.session,
            store: dialer.store,
            callbacks: dialer.callbacks,
        };
        let answer = self.ask(Header::new(Kind::Hello), &json(&hello), &[], deadline)?.accept()?;
        let challenge: Challenge = from_json(&answer.meta)?;
        dialer.key.check("acceptor", &nonce, &challenge.nonce, &challenge.proof)?;
        let proof = Proof { proof: dialer.key.proof("dialer", &nonce, &challenge.nonce)? };
        self.ask(Header::new(Kind::Hello), &json(&proof), &[], deadline)?.accept()?;
        (self.store, self.boot, self.record_pages_max) = (challenge.store, challenge.boot, challenge.record_pages_max);
        Ok(())
    }

    /// The socket, for polling and for handing over.
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Gives the socket away, to a process that does not fork.
    pub fn into_stream(self) -> TcpStream {
        self.into_socket().into_stream()
    }

    /// Gives the socket away.
    pub fn into_socket(self) -> Socket {
        self.stream.into_inner()
    }

    /// Sends a request and waits for its answer, which may be an error ([`Answer::accept`]). Any error of this call
    /// means: drop this connection.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the peer does not answer by `deadline`.
    pub fn ask(&mut self, header: Header, meta: &[u8], data: &[&[u8]], deadline: Instant) -> Result<Answer, Error> {
        let request = self.send(header, meta, data)?;
        self.receive(request, deadline)
    }

    /// Sends a request; the answer is taken by [`Connection::receive`].
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn send(&mut self, header: Header, meta: &[u8], data: &[&[u8]]) -> Result<u64, Error> {
        let (request, head) = self.request(header, meta, data.iter().map(|d| d.len()).sum());
        write_all(self.stream.get_ref(), &head, data)?;
        Ok(request)
    }

    /// The next request's number, and its header and metadata, which the caller sends with the data behind them.
    pub(crate) fn request(&mut self, mut header: Header, meta: &[u8], data_len: usize) -> (u64, Vec<u8>) {
        self.requests += 1;
        header.request = self.requests;
        (self.requests, frame(header, meta, data_len))
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub fn receive(&mut self, request: u64, deadline: Instant) -> Result<Answer, Error> {
        let mut head = [0u8; HEADER_SIZE];
        read_exact(&mut self.stream, &mut head, deadline)?;
        let header = Header::decode(&head)?;
        if self.store == StoreId(0) && (header.meta_len > HELLO_MAX || header.data_len > 0) {
            return Err(Error::Protocol("a long answer before the handshake".into()));
        }
        let mut meta = vec![0; header.meta_len as usize];
        read_exact(&mut self.stream, &mut meta, deadline)?;
        header.verify_meta(&meta)?;
        let mut data = vec![0; header.data_len as usize];
        read_exact(&mut self.stream, &mut data, deadline)?;
        if header.request == 0 && header.is_error() {
            return Err(Error::decode(&meta)); // the peer could not even tell what was asked
        }
        if header.request != request || !header.is_reply() {
            return Err(Error::Protocol(format!("an answer to request {} where {request} was asked", header.request)));
        }
        Ok(Answer { header, meta, data })
    }
}

/// Writes head and data in as few system calls as the socket takes. Never by SIGPIPE: a program that leaves it at its
/// default must not end because a node did.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn write_all(stream: &TcpStream, head: &[u8], data: &[&[u8]]) -> Result<(), Error> {
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(1 + data.len());
    slices.push(IoSlice::new(head));
    slices.extend(data.iter().filter(|d| !d.is_empty()).map(|d| IoSlice::new(d)));
    let mut rest: &mut [IoSlice<'_>] = &mut slices;
    while !rest.is_empty() {
        // The kernel takes at most 1024 slices a call.
        let n = rest.len().min(1024);
        match sendmsg(stream, &rest[..n], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
            Ok(0) => return Err(Error::Unavailable("the connection was closed".into())),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::Unavailable(format!("sending failed: {e}"))),
        }
    }
    Ok(())
}

/// Sends a message whose loss does not matter, without ever waiting.
///
/// # Errors
/// [`Error::Unavailable`] when the socket does not take all of it at once: a part may be gone, so nothing can follow.
pub(crate) fn send_now(stream: &TcpStream, bytes: &[u8]) -> Result<(), Error> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match send(stream, bytes, flags) {
            Ok(n) if n == bytes.len() => return Ok(()),
            Ok(_) | Err(Errno::AGAIN) => return Err(Error::Unavailable("the peer does not read".into())),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::Unavailable(format!("sending failed: {e}"))),
        }
    }
}

/// What can be read at once is taken whatever the time is; behind it the time counts, also for a peer that sends byte by
/// byte.
fn read_exact(stream: &mut impl Read, mut buf: &mut [u8], deadline: Instant) -> Result<(), Error> {
    while !buf.is_empty() {
        match stream.read(buf) {
            Ok(0) => return Err(Error::Unavailable("the connection was closed".into())),
            Ok(n) => buf = &mut buf[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(Error::Unavailable(format!("receiving failed: {e}"))),
        }
        if !buf.is_empty() && Instant::now() >= deadline {
            return Err(Error::Unavailable("no answer in time".into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a zero at each read, for ever.
    struct Trickle;

    impl Read for Trickle {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            out[..1].fill(0);
            Ok(1)
        }
    }

    #[test]
    fn a_peer_that_sends_byte_by_byte_is_not_waited_for_beyond_the_deadline() {
        let answer = read_exact(&mut Trickle, &mut vec![0; 64 << 20], Instant::now());
        assert!(matches!(answer, Err(Error::Unavailable(_))));
        assert_eq!(read_exact(&mut &[7u8; 9][..], &mut [0; 9], Instant::now()), Ok(()));
    }
}
