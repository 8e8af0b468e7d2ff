//! Workers: threads with epoll that read messages and run each to completion. The first one also accepts connections
//! and serves the groups' deadlines.

use super::connection::{Phase, Receiver};
use super::node::Node;
use crate::clock;
use crate::wire::error_reply;
use dspm_proto::{Error, Kind};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// Most connections of one node; beyond, new ones are closed at once.
const CONNECTIONS_MAX: usize = 8192;
/// A connection that has not shaken hands by then is closed.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Pause before waiting connections are looked at again when there was no descriptor for them.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const SPARE: &str = "/dev/null";

/// A way to hand a connection to a worker, and to wake it.
pub(crate) struct Mailbox {
    waker: Waker,
    outbox: Mutex<Outbox<(std::net::TcpStream, Phase)>>,
}

impl Mailbox {
    /// The worker looks at its mail and at the deadlines.
    pub(crate) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// The worker takes the connection over.
    pub(crate) fn give(&self, stream: std::net::TcpStream, phase: Phase) {
        let _ = self.outbox.lock().unwrap_or_else(PoisonError::into_inner).send((stream, phase));
        self.wake();
    }
}

/// A worker's end of its mailbox.
pub(crate) struct Inboxes(Vec<(Poll, Inbox<(std::net::TcpStream, Phase)>)>);

/// Mailboxes for that many workers.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn mailboxes(workers: usize) -> Result<(Vec<Mailbox>, Inboxes), Error> {
    let (mut out, mut inboxes) = (Vec::new(), Vec::new());
    for _ in 0..workers.max(1) {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (outbox, inbox) = channel();
        out.push(Mailbox { waker, outbox: Mutex::new(outbox) });
        inboxes.push((poll, inbox));
    }
    Ok((out, Inboxes(inboxes)))
}

/// Starts the workers; the first one accepts on `listener`.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>, listener: TcpListener, inboxes: Inboxes) -> Result<(), Error> {
    listener.set_nonblocking(true)?;
    let mut listener = Some(mio::net::TcpListener::from_std(listener));
    for (i, (poll, inbox)) in inboxes.0.into_iter().enumerate() {
        let mut worker = Worker {
            node: node.clone(),
            poll,
            inbox,
            listener: listener.take(),
            connections: HashMap::new(),
            tokens: 2,
            swept: Instant::now(),
            spare: std::fs::File::open(SPARE).ok(),
            accept_again: false,
            unfinished: Vec::new(),
        };
        if let Some(l) = worker.listener.as_mut() {
            worker.poll.registry().register(l, LISTENER, Interest::READABLE)?;
        }
        std::thread::Builder::new().name(format!("worker-{i}")).spawn(move || worker.run())?;
    }
    Ok(())
}

struct Worker {
    node: Arc<Node>,
    poll: Poll,
    inbox: Inbox<(std::net::TcpStream, Phase)>,
    listener: Option<mio::net::TcpListener>,
    connections: HashMap<Token, Receiver>,
    tokens: usize,
    swept: Instant,
    /// Kept open for the time when no descriptor is left.
    spare: Option<std::fs::File>,
    /// Connections may wait that were not taken.
    accept_again: bool,
    /// Connections whose turn ended before their bytes did.
    unfinished: Vec<Token>,
}

static TURN: AtomicUsize = AtomicUsize::new(0);

impl Worker {
    fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            if let Err(e) = self.poll.poll(&mut events, Some(self.timeout())) {
                if e.kind() != std::io::ErrorKind::Interrupted {
                    eprintln!("dspm-node: epoll failed: {e}");
                    std::process::abort(); // peers see a dead member, which they know how to survive
                }
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => self.take_mail(),
                    token => self.serve(token, event.is_writable()),
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.serve(token, false);
            }
            if self.listener.is_some() {
                self.node.serve_timers();
                self.node.deliver_words();
            }
            if self.accept_again {
                self.accept();
            }
            self.sweep();
        }
    }

    fn timeout(&self) -> Duration {
        if !self.unfinished.is_empty() {
            return Duration::ZERO;
        }
        let longest = if self.accept_again { ACCEPT_AGAIN } else { Duration::from_secs(1) };
        match self.node.timers.first().filter(|_| self.listener.is_some()) {
            Some(at) => at.since(clock::now()).min(longest),
            None => longest,
        }
    }

    /// Takes all connections that wait: the listener is edge-triggered, so none may be left.
    fn accept(&mut self) {
        while let Some(listener) = self.listener.as_ref() {
            match listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.accept_again = false;
                    return;
                }
                Err(e) if self.spare.is_none() => {
                    self.accept_again = true;
                    self.spare = std::fs::File::open(SPARE).ok();
                    eprintln!("dspm-node: new connections wait: {e}");
                    return;
                }
                Err(e) => {
                    if !self.turn_away(&e) {
                        return;
                    }
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        if self.node.connection_count() >= CONNECTIONS_MAX {
            return self.say_no(stream, &format!("{CONNECTIONS_MAX} connections are open"));
        }
        let turn = TURN.fetch_add(1, Ordering::Relaxed) % self.node.mailboxes.len();
        if turn == 0 {
            self.add(stream, Phase::New);
        } else {
            self.node.mailboxes[turn].give(std_stream(stream), Phase::New);
        }
    }

    /// No descriptor is left for a connection: the spare one carries the answer that says so. False: none waits (the
    /// kernel misses the descriptor before it looks for a connection).
    fn turn_away(&mut self, why: &std::io::Error) -> bool {
        self.spare = None;
        let waiting = self.listener.as_ref().and_then(|l| l.accept().ok());
        let found = waiting.map(|(stream, _)| self.say_no(stream, &why.to_string())).is_some();
        self.spare = std::fs::File::open(SPARE).ok();
        found
    }

    /// The peer tries again; the connections that are open go on.
    fn say_no(&self, stream: TcpStream, why: &str) {
        let name = &self.node.options.name;
        let e = Error::Unavailable(format!("node {name} takes no more connections: {why}"));
        let _ = (&stream).write(&error_reply(Kind::Hello, 0, &e)); // a socket that is new takes so little at once
    }

    fn take_mail(&mut self) {
        while let Ok((stream, phase)) = self.inbox.try_recv() {
            if stream.set_nonblocking(true).is_ok() {
                self.add(TcpStream::from_std(stream), phase);
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream, phase: Phase) {
        let twin = match stream.as_fd().try_clone_to_owned() {
            Ok(twin) => twin,
            Err(e) => return self.say_no(stream, &e.to_string()),
        };
        let twin = TcpStream::from_std(std::net::TcpStream::from(twin));
        self.tokens += 1;
        let token = Token(self.tokens);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, token, interest).is_err() {
            return;
        }
        let id = self.node.next_connection();
        let receiver = Receiver::new(id, stream, twin, phase);
        self.node.opened(&receiver);
        self.connections.insert(token, receiver);
    }

    fn serve(&mut self, token: Token, writable: bool) {
        let Some(receiver) = self.connections.get_mut(&token) else { return };
        if writable {
            receiver.out.drain();
        }
        receiver.readable();
        let over = loop {
            match receiver.next(&self.node.store) {
                Ok(Some(message)) => self.node.dispatch(receiver, message),
                Ok(None) => break receiver.out.is_broken(),
                Err(e) => {
                    self.node.distrust(receiver, &e);
                    break true;
                }
            }
        };
        if over {
            self.close(token);
        } else if receiver.has_more() && !self.unfinished.contains(&token) {
            self.unfinished.push(token);
        }
    }

    fn close(&mut self, token: Token) {
        if let Some(mut receiver) = self.connections.remove(&token) {
            let _ = self.poll.registry().deregister(receiver.stream());
            receiver.out.close();
            receiver.out.forget();
            self.node.closed(&receiver);
        }
    }

    /// Closes connections that broke while they were silent, or never shook hands.
    fn sweep(&mut self) {
        if self.swept.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.swept = Instant::now();
        let late =
            |r: &Receiver| matches!(r.phase, Phase::New | Phase::Challenged { .. }) && r.since.elapsed() > HANDSHAKE;
        let over: Vec<Token> =
            self.connections.iter().filter(|(_, r)| r.out.is_broken() || late(r)).map(|(t, _)| *t).collect();
        over.into_iter().for_each(|t| self.close(t));
    }
}

fn std_stream(stream: TcpStream) -> std::net::TcpStream {
    std::net::TcpStream::from(OwnedFd::from(stream))
}
