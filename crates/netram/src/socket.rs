//! Sockets of processes that may fork.
//!
//! A child has a copy of every descriptor of its parent. A copy would keep the parent's connections open after its death,
//! and what is said on one would be taken for the parent's word. So every socket of a client stands in a table, and
//! [`close_inherited`] closes them in the child before fork returns there.
//!
//! Invariants: a descriptor leaves the table before it is closed, so the table never names a stranger's; in a process
//! that did not open it a socket is neither used nor closed by its owner, since the number may be another's by then.
//! Fault model: forks at any instruction of any other thread. A socket that was just made or is about to be closed may
//! be missed; the child then keeps a descriptor that nobody uses.
#![allow(unsafe_code)]

use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// Sockets that the table has room for; more are a child's to keep.
const MOST: usize = 1024;
const FREE: i32 = -1;

static OPEN: [AtomicI32; MOST] = [const { AtomicI32::new(FREE) }; MOST];

/// Closes every socket that this process did not open itself. For the child's side of `pthread_atfork`: it takes no
/// lock and allocates nothing.
pub extern "C" fn close_inherited() {
    for entry in &OPEN {
        let fd = entry.swap(FREE, Ordering::Relaxed);
        if fd != FREE {
            // SAFETY: the parent's socket of that number was open at the fork (it leaves the table before it is
            // closed), and its owner never closes it in this process.
            unsafe { rustix::io::close(fd) };
        }
    }
}

/// A connected socket that a forked child does not keep.
#[derive(Debug)]
pub struct Socket {
    stream: ManuallyDrop<TcpStream>,
    entry: Option<&'static AtomicI32>,
    pid: u32,
}

impl Socket {
    /// Takes a socket into the table.
    pub fn new(stream: TcpStream) -> Socket {
        let fd = stream.as_raw_fd();
        let free = |e: &&AtomicI32| e.compare_exchange(FREE, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Socket { entry: OPEN.iter().find(free), stream: ManuallyDrop::new(stream), pid: std::process::id() }
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Socket> {
        self.stream.try_clone().map(Socket::new)
    }

    /// The plain socket, for a process that does not fork.
    pub fn into_stream(self) -> TcpStream {
        let mut socket = ManuallyDrop::new(self);
        socket.forget();
        // SAFETY: `socket` is never dropped, so the stream is taken once.
        unsafe { ManuallyDrop::take(&mut socket.stream) }
    }

    fn forget(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.store(FREE, Ordering::Relaxed);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.forget();
            // SAFETY: dropped here and never again.
            unsafe { ManuallyDrop::drop(&mut self.stream) }
        }
    }
}

impl Deref for Socket {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stream: &TcpStream = self;
        stream.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn is_listed(fd: i32) -> bool {
        OPEN.iter().any(|e| e.load(Ordering::Relaxed) == fd)
    }

    #[test]
    fn the_table_names_open_sockets_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dial = || Socket::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (one, two) = (dial(), dial());
        let twin = one.try_clone().unwrap();
        let fds = [one.as_raw_fd(), two.as_raw_fd(), twin.as_raw_fd()];
        assert!(fds.iter().all(|fd| is_listed(*fd)));
        drop(one);
        assert!(!is_listed(fds[0]) && is_listed(fds[1]) && is_listed(fds[2]));
        let plain = two.into_stream();
        assert!(!is_listed(plain.as_raw_fd()), "its new owner's business");
        drop(twin);
        assert!(!is_listed(fds[2]));
        // More than the table holds is no error.
        let many: Vec<_> = (0..MOST + 10).map_while(|_| plain.try_clone().ok().map(Socket::new)).collect();
        drop(many);
        let last = dial();
        assert!(is_listed(last.as_raw_fd()), "there is room again");
    }
}
