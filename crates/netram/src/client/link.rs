//! One node as seen by a client: a pool of sockets for requests, and one connection of the background thread on which
//! renewals go out and call-backs come in.

use crate::wire::{Connection, Dialer, frame, write_all};
use dspm_proto::{Error, Header};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sockets that wait for the next request; more are closed after use.
const POOL_MAX: usize = 64;
/// Longest try to connect; the caller tries again until its own deadline.
const DIAL: Duration = Duration::from_millis(1000);

/// A node.
pub(crate) struct Link {
    pub(crate) address: String,
    pool: Mutex<Vec<Connection>>,
    /// The writing half of the background connection.
    background: Mutex<Option<TcpStream>>,
}

impl Link {
    pub(crate) fn new(address: &str) -> Link {
        Link { address: address.to_owned(), pool: Mutex::default(), background: Mutex::default() }
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

    /// A new connection, whatever waits: after one of the pool turned out to be dead, the others are too.
    pub(crate) fn fresh(&self, dialer: &Dialer) -> Result<Connection, Error> {
        self.pool().clear();
        self.dial(dialer)
    }

    fn dial(&self, dialer: &Dialer) -> Result<Connection, Error> {
        Connection::dial(&self.address, dialer, DIAL)
    }

    /// The request was answered in full: the connection can carry the next one.
    pub(crate) fn give(&self, connection: Connection) {
        let mut pool = self.pool();
        if pool.len() < POOL_MAX {
            pool.push(connection);
        }
    }

    /// One request and its answer. A pooled connection that died unnoticed is replaced once; only for requests that
    /// may be asked twice.
    pub(crate) fn ask(
        &self,
        dialer: impl Fn() -> Dialer,
        header: Header,
        meta: &[u8],
        deadline: Instant,
    ) -> Result<crate::wire::Answer, Error> {
        let mut c = self.take(&dialer)?;
        let mut answer = c.ask(header, meta, &[], deadline);
        if matches!(answer, Err(Error::Unavailable(_))) && Instant::now() < deadline {
            c = self.fresh(&dialer())?;
            answer = c.ask(header, meta, &[], deadline);
        }
        match &answer {
            Err(Error::Unavailable(_) | Error::Protocol(_) | Error::Corrupt(_)) => {}
            _ => self.give(c),
        }
        answer
    }

    /// The background thread connected, or lost its connection.
    pub(crate) fn set_background(&self, stream: Option<TcpStream>) {
        *self.background.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    /// Sends a message that has no answer: over the background connection, or over a pooled one while there is none.
    pub(crate) fn tell(&self, header: Header, meta: &[u8]) {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = background.as_mut() {
            if write_all(stream, &frame(header, meta, 0), &[]).is_err() {
                *background = None;
            }
            return;
        }
        drop(background);
        let pooled = self.pool().pop();
        if let Some(mut c) = pooled {
            if c.send(header, meta, &[]).is_ok() {
                self.give(c);
            }
        }
    }
}
