//! The same large data to several peers at once: each socket is given what it takes, so that the peers take it in at the
//! same time and not one after the other.
//!
//! Fault model: a peer reads slowly, so slowly that it never ends, not at all, or goes away; the others get theirs all
//! the same.

use dspm_proto::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::io::IoSlice;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long it may take that no peer takes anything.
const STILL: Duration = Duration::from_secs(5);
/// The kernel takes at most so many slices a call.
const SLICES_MAX: usize = 1024;

/// What one peer did not take yet.
struct Rest<'s, 'd> {
    stream: &'s TcpStream,
    slices: &'s mut [IoSlice<'d>],
    result: Result<(), Error>,
}

impl Rest<'_, '_> {
    /// Gives the socket what it takes now.
    fn push(&mut self) {
        while !self.slices.is_empty() {
            let slices = &self.slices[..self.slices.len().min(SLICES_MAX)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT; // never by SIGPIPE: see wire::write_all
            match sendmsg(self.stream, slices, &mut SendAncillaryBuffer::default(), flags) {
                Ok(0) => self.fail("the connection was closed"),
                Ok(n) => IoSlice::advance_slices(&mut self.slices, n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(e) => self.fail(&format!("sending failed: {e}")),
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.result = Err(Error::Unavailable(why.into()));
        self.slices = &mut [];
    }
}

/// Sends each peer its head and the data behind it, until the deadline; the results are in the peers' order.
pub(super) fn send_to_all(peers: &[(&TcpStream, &[u8])], data: &[&[u8]], deadline: Instant) -> Vec<Result<(), Error>> {
    let slices = |head| [head].into_iter().chain(data.iter().copied()).filter(|d| !d.is_empty()).map(IoSlice::new);
    let mut slices: Vec<Vec<IoSlice<'_>>> = peers.iter().map(|(_, head)| slices(*head).collect()).collect();
    let rest = |((stream, _), slices)| Rest { stream, slices, result: Ok(()) };
    let mut rests: Vec<Rest<'_, '_>> =
        peers.iter().copied().zip(slices.iter_mut().map(Vec::as_mut_slice)).map(rest).collect();
    rests.iter_mut().for_each(Rest::push);
    loop {
        let mut open: Vec<&mut Rest<'_, '_>> = rests.iter_mut().filter(|r| !r.slices.is_empty()).collect();
        if open.is_empty() {
            return rests.into_iter().map(|r| r.result).collect();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            open.iter_mut().for_each(|r| r.fail("it takes the data in too slowly"));
            continue;
        }
        let mut fds: Vec<PollFd<'_>> = open.iter().map(|r| PollFd::new(r.stream, PollFlags::OUT)).collect();
        let still = left.min(STILL);
        let timeout = Timespec { tv_sec: still.as_secs() as i64, tv_nsec: i64::from(still.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left < STILL => {} // the deadline says it
            Ok(0) => open.iter_mut().for_each(|r| r.fail("it takes nothing in")),
            Ok(_) => {
                let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
                open.iter_mut().zip(ready).filter(|(_, ready)| *ready).for_each(|(r, _)| r.push());
            }
            Err(Errno::INTR) => {}
            Err(e) => open.iter_mut().for_each(|r| r.fail(&format!("waiting for the socket failed: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;
    use std::thread;

    /// More than sockets take in without a reader.
    const LARGE: usize = 32 << 20;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn read_all(mut stream: &TcpStream) -> Vec<u8> {
        let mut bytes = vec![0; LARGE + 1];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// No test ends by it.
    fn late() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    fn data() -> Vec<u8> {
        (0..LARGE).map(|i| ((i * 7) >> 10) as u8).collect()
    }

    /// The first reads nothing before the second has everything.
    #[test]
    fn a_slow_peer_holds_up_no_other() {
        let (data, first, second) = (data(), pair(), pair());
        let (done, second_has_all) = channel();
        let readers = [
            thread::spawn(move || {
                second_has_all.recv().unwrap();
                read_all(&first.1)
            }),
            thread::spawn(move || {
                let bytes = read_all(&second.1);
                done.send(()).unwrap();
                bytes
            }),
        ];
        let pieces: Vec<&[u8]> = data.chunks(4096).collect();
        assert_eq!(send_to_all(&[(&first.0, b"1"), (&second.0, b"2")], &pieces, late()), [Ok(()), Ok(())]);
        for (reader, head) in readers.into_iter().zip([b'1', b'2']) {
            let bytes = reader.join().unwrap();
            assert!(bytes[0] == head && bytes[1..] == data);
        }
    }

    #[test]
    fn a_peer_that_is_gone_takes_nothing_from_the_others() {
        let (data, gone, there) = (data(), pair(), pair());
        drop(gone.1);
        let reader = thread::spawn(move || read_all(&there.1));
        let results = send_to_all(&[(&gone.0, b"1"), (&there.0, b"2")], &[&data], late());
        assert!(matches!(results[..], [Err(Error::Unavailable(_)), Ok(())]), "{results:?}");
        assert!(reader.join().unwrap()[1..] == data);
    }

    /// It would have everything in the end, if it were waited for.
    #[test]
    fn a_peer_that_trickles_is_not_waited_for_beyond_the_deadline() {
        let (data, slow, there) = (data(), pair(), pair());
        let trickle = thread::spawn(move || {
            let (mut stream, mut taken, mut chunk) = (slow.1, 0, vec![0; 64 << 10]);
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                taken += n;
                thread::sleep(Duration::from_millis(50));
            }
            taken
        });
        let reader = thread::spawn(move || read_all(&there.1));
        let deadline = Instant::now() + Duration::from_secs(3);
        let results = send_to_all(&[(&slow.0, b"1"), (&there.0, b"2")], &[&data], deadline);
        assert!(matches!(results[..], [Err(Error::Unavailable(_)), Ok(())]), "{results:?}");
        assert!(reader.join().unwrap()[1..] == data);
        slow.0.shutdown(std::net::Shutdown::Both).unwrap();
        assert!((1..LARGE).contains(&trickle.join().unwrap()), "it took something all the time");
    }
}
