//! Which cores talk. Two processes that take turns are several times faster on one core than on two, on most virtual
//! machines, and the kernel moves them when it likes. So the floor of a round runs where the round itself ran: this
//! thread on its core, each peer on the core of the node that it stands for.

use crate::cluster::{Cluster, Scratch};
use dspm_netram::wire::{Connection, json};
use dspm_proto::control::Control;
use dspm_proto::{Error, Header, Kind};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);
const LOOKS: usize = 15;

/// A connection to each node that a measurement asks, only to see where it runs.
pub(crate) struct Probes(Vec<Connection>);

impl Probes {
    /// Dials the dataset's nodes, the primary first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) fn dial(cluster: &Cluster, scratch: &Scratch, nodes: usize) -> Result<Probes, Error> {
        let dialer = cluster.dialer()?;
        let addresses = scratch.addresses()?;
        let dial = |(a, _): &(String, _)| Connection::dial(a, &dialer, PATIENCE);
        Ok(Probes(addresses.iter().take(nodes).map(dial).collect::<Result<_, _>>()?))
    }

    /// The core of each node's thread, if it is on this machine: where most of a few questions to all were answered.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) fn cores(&mut self) -> Result<Vec<Option<usize>>, Error> {
        let ping = json(&Control::Ping { trouble: String::new() });
        let mut seen = vec![Vec::with_capacity(LOOKS); self.0.len()];
        for _ in 0..LOOKS {
            // Asked at once, as a commit does it: the kernel places whom it wakes by who runs.
            let send = |c: &mut Connection| c.send(Header::new(Kind::Control), &ping, &[]);
            let requests: Vec<u64> = self.0.iter_mut().map(send).collect::<Result<_, _>>()?;
            for ((c, request), seen) in self.0.iter_mut().zip(requests).zip(&mut seen) {
                c.receive(request, Instant::now() + PATIENCE)?;
                let local = c.stream().peer_addr()?.ip().is_loopback();
                seen.push(if local { core_of_sender(c) } else { None });
            }
        }
        Ok(seen.iter().map(|s| most_frequent(s)).collect())
    }
}

fn most_frequent(seen: &[Option<usize>]) -> Option<usize> {
    seen.iter().max_by_key(|x| seen.iter().filter(|y| x == y).count()).copied().flatten()
}

/// Over loopback, the core that handled what came in last is the core that sent it.
fn core_of_sender(c: &Connection) -> Option<usize> {
    let mut core: libc::c_int = -1;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both point to variables of the size that is told.
    unsafe {
        let into = std::ptr::from_mut(&mut core).cast();
        libc::getsockopt(c.stream().as_raw_fd(), libc::SOL_SOCKET, libc::SO_INCOMING_CPU, into, &mut size);
    }
    usize::try_from(core).ok()
}

/// The core of this thread.
pub(crate) fn here() -> Option<usize> {
    // SAFETY: no arguments; it answers a number, or -1.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Cores that a process may use.
#[derive(Clone, Copy)]
pub(crate) struct Cores(libc::cpu_set_t);

impl Cores {
    /// Those that this thread may use.
    pub(crate) fn allowed() -> Cores {
        let mut cores = Cores::none();
        // SAFETY: the set is as large as is told.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut cores.0) };
        cores
    }

    /// One.
    pub(crate) fn only(core: usize) -> Cores {
        let mut cores = Cores::none();
        if core < libc::CPU_SETSIZE as usize {
            // SAFETY: `core` is inside the set.
            unsafe { libc::CPU_SET(core, &mut cores.0) };
        }
        cores
    }

    fn none() -> Cores {
        // SAFETY: a cpu_set_t is a plain array of bits, for which zeros are valid.
        Cores(unsafe { std::mem::zeroed() })
    }

    /// Keeps a process of ours, 0 for this thread, on these. Where that is not allowed nothing changes.
    pub(crate) fn keep(&self, pid: u32) {
        // SAFETY: the set is as large as is told.
        unsafe { libc::sched_setaffinity(pid as libc::pid_t, size_of::<libc::cpu_set_t>(), &self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_most_answers_came_from() {
        assert_eq!(most_frequent(&[]), None);
        assert_eq!(most_frequent(&[Some(1), Some(0), Some(1)]), Some(1));
        assert_eq!(most_frequent(&[None, Some(0), None]), None);
    }

    #[test]
    fn a_thread_stays_where_it_is_kept() {
        let allowed = Cores::allowed();
        let core = here().expect("Linux tells");
        std::thread::spawn(move || {
            Cores::only(core).keep(0);
            assert_eq!(here(), Some(core));
            allowed.keep(0);
        })
        .join()
        .expect("no panic");
    }
}
