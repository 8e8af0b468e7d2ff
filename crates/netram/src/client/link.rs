//! One node as seen by a client: a pool of sockets for requests, and one connection of the background thread on which
//! renewals go out and call-backs come in.

use crate::socket::Socket;
use crate::wire::{Answer, Connection, Dialer, frame, write_all};
use dspm_proto::{Error, Header, Kind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sockets that wait for the next request; more are closed after use.
const POOL_MAX: usize = 64;
/// Longest try to connect; the caller tries again until its own deadline.
const DIAL: Duration = Duration::from_millis(1000);
/// How long a node that could not be reached is asked last.
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
}

impl Link {
    pub(crate) fn new(address: &str) -> Link {
        Link {
            address: address.to_owned(),
            pool: Mutex::default(),
            background: Mutex::default(),
            down: Mutex::default(),
            record_pages_max: AtomicU64::new(0),
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
        self.dial(&dialer())
    }

    /// A connection turned out to be dead: those that wait are most likely, too.
    pub(crate) fn distrust(&self) {
        self.pool().clear();
    }

    /// True for a moment after the node could not be reached: others are asked first.
    pub(crate) fn is_down(&self) -> bool {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < DOWN)
    }

    fn reached(&self, yes: bool) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = (!yes).then(Instant::now);
    }

    fn dial(&self, dialer: &Dialer) -> Result<Connection, Error> {
        let connection = Connection::dial(&self.address, dialer, DIAL);
        self.reached(connection.is_ok());
        connection.inspect(|c| self.record_pages_max.store(c.record_pages_max, Ordering::Relaxed))
    }

    /// Most pages of one record that the node takes, as it said last; None while it was never connected to.
    pub(crate) fn record_pages_max(&self) -> Option<u64> {
        Some(self.record_pages_max.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }

    /// The request was answered in full: the connection can carry the next one.
    pub(crate) fn give(&self, connection: Connection) {
        let mut pool = self.pool();
        if pool.len() < POOL_MAX {
            pool.push(connection);
        }
    }

    /// One request and its answer. A pooled connection that died unnoticed is replaced once.
    pub(crate) fn ask(
        &self,
        dialer: impl Fn() -> Dialer,
        header: Header,
        meta: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let pooled = self.pool().pop();
        let stale_possible = pooled.is_some();
        let mut c = match pooled {
            Some(c) => c,
            None => self.dial(&dialer())?,
        };
        let mut answer = c.ask(header, meta, &[], deadline);
        if answer.is_err() {
            self.distrust();
            if stale_possible && Instant::now() < deadline {
                c = self.dial(&dialer())?;
                answer = c.ask(header, meta, &[], deadline);
            }
        }
        if answer.is_ok() {
            self.give(c);
        }
        answer?.accept()
    }

    /// The background thread connected, or lost its connection.
    pub(crate) fn set_background(&self, stream: Option<Socket>) {
        *self.background.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    /// True while the node can call this process.
    pub(crate) fn has_background(&self) -> bool {
        self.background.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sends a message of the background thread, or one that has no answer. Nothing while that connection is down; one
    /// that fails is shut down, so that its thread dials again.
    pub(crate) fn tell(&self, header: Header, meta: &[u8]) {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = background.as_mut() {
            if write_all(stream, &frame(header, meta, 0), &[]).is_err() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                *background = None;
            }
            return;
        }
        drop(background);
        if header.kind == Kind::Renew {
            return; // its answer would be taken for another request's
        }
        let pooled = self.pool().pop();
        if let Some(mut c) = pooled {
            if c.send(header, meta, &[]).is_ok() {
                self.give(c);
            }
        }
    }
}
