//! One node as seen by a client: a pool of sockets for requests, and one connection of the background thread on which
//! renewals go out and call-backs come in.

use crate::socket::Socket;
use crate::wire::{Answer, Connection, Dialer, frame, send_now};
use dspm_proto::{Error, Header};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sockets that wait for the next request; more are closed after use.
const POOL_MAX: usize = 64;
/// Longest try to connect; the caller tries again until its own deadline.
const DIAL: Duration = Duration::from_millis(1000);
/// Time for a try that begins shortly before the deadline.
const DIAL_LEAST: Duration = Duration::from_millis(50);
/// How long a node that could not be reached, or did not answer, is asked last.
const DOWN: Duration = Duration::from_millis(500);

/// A node.
pub(crate) struct Link {
    pub(crate) address: String,
    pool: Mutex<Vec<Connection>>,
    /// The writing half of the background connection.
    background: Mutex<Option<Socket>>,
    down: Mutex<Option<Instant>>,
    /// Most pages of one record that the node takes; 0 until it was connected to.
    record_pages_max: AtomicU64,
    /// Its last answer to a commit was that it has no room.
    short: AtomicBool,
}

impl Link {
    pub(crate) fn new(address: &str) -> Link {
        Link {
            address: address.to_owned(),
            pool: Mutex::default(),
            background: Mutex::default(),
            down: Mutex::default(),
            record_pages_max: AtomicU64::new(0),
            short: AtomicBool::new(false),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one request; dialled if none waits.
    pub(crate) fn take(&self, dialer: impl FnOnce() -> Dialer) -> Result<Connection, Error> {
        if let Some(c) = self.pool().pop() {
            return Ok(c);
        }
        self.dial(&dialer(), DIAL)
    }

    /// A connection turned out to be dead: those that wait are most likely, too.
    pub(crate) fn distrust(&self) {
        self.pool().clear();
    }

    /// It did not answer: others are asked first for a moment, and where the group is now before it is asked again.
    pub(crate) fn lost(&self) {
        self.distrust();
        self.reached(false);
    }

    /// True for a moment after the node could not be reached: others are asked first.
    pub(crate) fn is_down(&self) -> bool {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < DOWN)
    }

    fn reached(&self, yes: bool) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = (!yes).then(Instant::now);
    }

    fn dial(&self, dialer: &Dialer, most: Duration) -> Result<Connection, Error> {
        let connection = Connection::dial(&self.address, dialer, most.min(DIAL));
        self.reached(connection.is_ok());
        connection.inspect(|c| self.record_pages_max.store(c.record_pages_max, Ordering::Relaxed))
    }

    /// Most pages of one record that the node takes, as it said last; None while it was never connected to.
    pub(crate) fn record_pages_max(&self) -> Option<u64> {
        Some(self.record_pages_max.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }

    /// True while the last that is known of the node is that it had no room for a commit.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// It took a commit, or had no room for one.
    pub(crate) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// The request was answered in full: the connection can carry the next one.
    pub(crate) fn give(&self, connection: Connection) {
        let mut pool = self.pool();
        if pool.len() < POOL_MAX {
            pool.push(connection);
        }
    }

    /// One request and its answer. A pooled connection that died unnoticed is replaced once. Bytes that make no sense are
    /// an outage too: what was asked may be asked again, on another connection.
    pub(crate) fn ask(
        &self,
        dialer: impl Fn() -> Dialer,
        header: Header,
        meta: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let pooled = self.pool().pop();
        let stale_possible = pooled.is_some();
        let left = || deadline.saturating_duration_since(Instant::now()).max(DIAL_LEAST);
        let mut c = match pooled {
            Some(c) => c,
            None => self.dial(&dialer(), left())?,
        };
        let mut answer = c.ask(header, meta, &[], deadline);
        if answer.is_err() {
            self.distrust();
            if stale_possible && Instant::now() < deadline {
                c = self.dial(&dialer(), left())?;
                answer = c.ask(header, meta, &[], deadline);
            }
            self.reached(answer.is_ok());
        }
        if answer.is_ok() {
            self.give(c);
        }
        answer.map_err(broken)?.accept()
    }

    /// The background thread connected, or lost its connection.
    pub(crate) fn set_background(&self, stream: Option<Socket>) {
        *self.background.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    /// True while the node can call this process.
    pub(crate) fn has_background(&self) -> bool {
        self.background.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sends a message whose answer nobody waits for, on the background connection. While that is down another one carries
    /// what is never answered; anything else is lost, as any message may be. It never waits, since its callers hold a
    /// group's lock: a connection that fails, or whose peer reads so little that it does not take the whole message, is
    /// shut down, so that its thread dials again.
    pub(crate) fn tell(&self, header: Header, meta: &[u8]) {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = background.as_mut() {
            if send_now(stream, &frame(header, meta, 0)).is_err() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                *background = None;
            }
            return;
        }
        drop(background);
        if header.kind.has_answer() {
            return; // nobody would read it before the connection's next request, and take it for that one's
        }
        let pooled = self.pool().pop();
        if let Some(c) = pooled {
            if send_now(c.stream(), &frame(header, meta, 0)).is_ok() {
                self.give(c);
            }
        }
    }
}

fn broken(e: Error) -> Error {
    match e {
        Error::Corrupt(_) | Error::Protocol(_) => Error::Unavailable(format!("the connection broke: {e}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, dialer};
    use super::*;
    use crate::wire::error_reply;
    use dspm_proto::Kind;
    use dspm_proto::header::HEADER_SIZE;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    /// A node that knows no group answers as every node does then.
    fn unknowing(_: usize, h: &Header) -> Option<Vec<u8>> {
        let unknown = Error::NotFound(format!("no group {}", h.group));
        h.kind.has_answer().then(|| error_reply(h.kind, h.request, &unknown))
    }

    #[test]
    fn what_is_told_leaves_no_answer_for_the_next_request() {
        let node = FakeNode::start(unknowing);
        let link = Link::new(&node.address);
        let ask = || {
            let deadline = Instant::now() + Duration::from_secs(20);
            link.ask(dialer, Header::new(Kind::Outcome), &[], deadline)
        };
        assert!(matches!(ask(), Err(Error::NotFound(_))), "and the connection is pooled again");
        for kind in [Kind::Acquire, Kind::Renew, Kind::Release, Kind::Recalled, Kind::Note] {
            let pooled = link.take(dialer).unwrap();
            link.give(pooled);
            link.tell(Header::new(kind), &[]);
            let c = link.pool().pop().expect("the connection is kept");
            link.give(c);
            let mut c = link.take(dialer).unwrap();
            let answer = c.ask(Header::new(Kind::Outcome), &[], &[], Instant::now() + Duration::from_secs(20));
            assert!(matches!(answer.and_then(Answer::accept), Err(Error::NotFound(_))), "after {kind:?}");
            link.give(c);
        }
        let told: Vec<Kind> = node.asked().iter().map(|(_, kind)| *kind).collect();
        assert!([Kind::Release, Kind::Recalled, Kind::Note].iter().all(|k| told.contains(k)), "{told:?}");
    }

    #[test]
    fn a_peer_that_does_not_read_blocks_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let link = Link::new("nobody reads there");
        link.set_background(Some(Socket::new(stream)));
        let (done, told) = channel();
        std::thread::spawn(move || {
            while link.has_background() {
                link.tell(Header::new(Kind::Note), &[0; 4096]);
            }
            done.send(()).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_secs(60)).is_ok(), "it waits for room in the socket");
        let mut bytes = Vec::new();
        (&peer).read_to_end(&mut bytes).unwrap(); // it was shut down, so that the rest of a message cannot follow
        assert!(bytes.len() > HEADER_SIZE);
    }
}
