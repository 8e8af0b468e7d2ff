//! The floor: blocking-socket ping-pong over loopback TCP with processes of our own.

use crate::place::Cores;
use crate::stats::{p50_us, put};
use crate::stop;
use dspm_proto::{Error, PAGE_SIZE};
use serde_json::{Map, Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An acknowledgement, and the request for a page.
pub(crate) const SMALL: usize = 32;
/// Turns before the first one that counts.
const WARM: usize = 200;
/// A peer process connects within this time.
const START: Duration = Duration::from_secs(10);

/// Processes that answer every `take` bytes with `give` bytes. They end when this is dropped, or its process dies.
pub(crate) struct Floor {
    peers: Vec<(TcpStream, Child)>,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Floor {
    /// Starts the peers and warms them up.
    ///
    /// # Errors
    /// [`Error::Failed`] when a process cannot be started.
    pub(crate) fn start(peers: usize, take: usize, give: usize) -> Result<Floor, Error> {
        let mut floor = Floor { peers: Vec::new(), question: vec![1; take], answer: vec![0; give] };
        for _ in 0..peers {
            floor.peers.push(spawn(take, give)?);
        }
        floor.round(WARM)?;
        Ok(floor)
    }

    /// The floor of a commit: a page to each member, a small answer from each.
    ///
    /// # Errors
    /// As [`Floor::start`].
    pub(crate) fn of_commit(members: usize) -> Result<Floor, Error> {
        Floor::start(members, PAGE_SIZE, SMALL)
    }

    /// The floor of a page read.
    ///
    /// # Errors
    /// As [`Floor::start`].
    pub(crate) fn of_page() -> Result<Floor, Error> {
        Floor::start(1, SMALL, PAGE_SIZE)
    }

    /// [`Floor::round`] with this thread on its core and the peers on theirs, where both are known.
    ///
    /// # Errors
    /// As [`Floor::round`].
    pub(crate) fn round_on(
        &mut self,
        here: Option<usize>,
        peers: &[Option<usize>],
        turns: usize,
    ) -> Result<f64, Error> {
        let allowed = Cores::allowed();
        for ((_, child), core) in self.peers.iter().zip(peers) {
            core.map_or(allowed, Cores::only).keep(child.id());
        }
        here.map_or(allowed, Cores::only).keep(0);
        let warm = self.round(turns.min(WARM));
        let found = warm.and_then(|_| self.round(turns));
        allowed.keep(0);
        found
    }

    /// The median of that many turns, in µs: the question to every peer, then the answer of every peer.
    ///
    /// # Errors
    /// [`Error::Failed`] when a peer ended.
    pub(crate) fn round(&mut self, turns: usize) -> Result<f64, Error> {
        let mut times = Vec::with_capacity(turns);
        for _ in 0..turns {
            let start = Instant::now();
            for (stream, _) in &mut self.peers {
                stream.write_all(&self.question)?;
            }
            for (stream, _) in &mut self.peers {
                stream.read_exact(&mut self.answer)?;
            }
            times.push(start.elapsed());
        }
        stop::check()?;
        Ok(p50_us(&mut times))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for (stream, child) in &mut self.peers {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One peer: it dials us, so that it ends by itself when we are gone.
fn spawn(take: usize, give: usize) -> Result<(TcpStream, Child), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let mut child = Command::new(std::env::current_exe()?)
        .arg("peer")
        .args(["--port", &port.to_string(), "--take", &take.to_string(), "--give", &give.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    match accept(&listener) {
        Ok(stream) => Ok((stream, child)),
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(e)
        }
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream, Error> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + START;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(Error::Failed(format!("a peer process did not start: {e}"))),
        }
    }
}

/// The peer process: answers until its other side is gone.
///
/// # Errors
/// Those of the socket.
pub(crate) fn peer(port: u16, take: usize, give: usize) -> Result<(), Error> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let (mut question, answer) = (vec![0; take], vec![2; give]);
    while stream.read_exact(&mut question).is_ok() && stream.write_all(&answer).is_ok() {}
    Ok(())
}

/// The command `floor`: `floor_us` for `size` bytes to each of `peers`, `page_floor_us` for a page from one.
///
/// # Errors
/// As [`Floor::start`].
pub(crate) fn measure(peers: usize, size: usize, rounds: usize, samples: usize) -> Result<Value, Error> {
    let (mut commit, mut page) = (Floor::start(peers, size, SMALL)?, Floor::of_page()?);
    let (mut commits, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        commits.push(commit.round(samples)?);
        pages.push(page.round(samples)?);
    }
    let mut out = Map::new();
    put(&mut out, "floor_us", &commits);
    put(&mut out, "page_floor_us", &pages);
    out.extend([
        ("peers".into(), json!(peers)),
        ("size".into(), json!(size)),
        ("rounds".into(), json!(rounds)),
        ("samples".into(), json!(samples)),
    ]);
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_answers_until_its_other_side_is_gone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let peer = std::thread::spawn(move || peer(port, 5, 3));
        let mut stream = accept(&listener).expect("the peer dials");
        for _ in 0..3 {
            stream.write_all(&[0; 5]).expect("sent");
            let mut answer = [0; 3];
            stream.read_exact(&mut answer).expect("answered");
            assert_eq!(answer, [2; 3]);
        }
        drop(stream);
        assert!(peer.join().expect("no panic").is_ok());
    }
}
