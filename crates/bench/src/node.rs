//! One node under the load of one process with many connections: each has one READ of a random 4 KiB page under way.
//! Every answer is checked as a client checks it, checksums included.

use crate::cluster::{Cluster, Numbers, Scratch};
use crate::stats::put;
use crate::stop;
use dspm_netram::wire::{Connection, frame};
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::message::{self, Read as Question, ReadReply};
use dspm_proto::record::verify_page;
use dspm_proto::{Error, Header, Kind, Lsn, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Dataset, Intent};
use rustix::event::{Timespec, epoll};
use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const DIAL: Duration = Duration::from_secs(5);
/// Load before the part that counts.
const WARM: Duration = Duration::from_millis(200);
/// An answer is a header, a few bytes of metadata and a page.
const BUFFER: usize = 2 * PAGE_SIZE;
const SILENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The command `node`.
///
/// # Errors
/// Those of the cluster; [`Error::Protocol`] for an answer that is not what was asked.
pub(crate) fn measure(rounds: usize, pages: usize, connections: usize, millis: usize) -> Result<Value, Error> {
    let cluster = Cluster::configured()?;
    let scratch = Scratch::create(&cluster, "node", pages)?;
    let snapshot = scratch.data.snapshot(Intent::Read)?;
    let mut load = Load::new(&cluster, &scratch, snapshot.lsn, connections)?;
    load.drive(WARM)?;
    let mut rates = Vec::new();
    let done = stop::rounds(rounds, || {
        rates.push(load.drive(Duration::from_millis(millis as u64))?);
        Ok(())
    })?;
    scratch.data.release(snapshot);
    let mut out = Map::new();
    put(&mut out, "ops_per_s", &rates);
    out.extend([
        ("connections".into(), json!(connections)),
        ("pages".into(), json!(pages)),
        ("rounds".into(), json!(done)),
    ]);
    Ok(Value::Object(out))
}

/// What all connections ask for.
struct Load {
    epoll: OwnedFd,
    lines: Vec<Line>,
    question: Question,
    header: Header,
    pages: u64,
    numbers: Numbers,
}

/// One connection with its request under way.
struct Line {
    stream: TcpStream,
    buffer: Box<[u8; BUFFER]>,
    filled: usize,
    /// Bytes of the answer under way; 0 while its header is not here.
    whole: usize,
    request: u64,
}

impl Load {
    fn new(cluster: &Cluster, scratch: &Scratch, at: Lsn, connections: usize) -> Result<Load, Error> {
        let (entry, set) = (&scratch.located.entry, &scratch.located.set);
        let primary = scratch.addresses()?.into_iter().next();
        let (address, store) = primary.ok_or_else(|| Error::Protocol("a set without members".into()))?;
        let dialer = cluster.dialer()?;
        let session = dialer.session.unwrap_or_default();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let mut lines = Vec::with_capacity(connections);
        for i in 0..connections {
            let stream = Connection::dial(&address, &dialer, DIAL)?.into_stream();
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)
                .map_err(std::io::Error::from)?;
            let buffer = Box::new([0; BUFFER]);
            lines.push(Line { stream, buffer, filled: 0, whole: 0, request: 2 });
        }
        let mut header = Header::new(Kind::Read);
        (header.group, header.generation, header.store) = (entry.group, set.generation, store);
        let question = Question { session, dataset: entry.dataset, at, pages: vec![PageNo(0)] };
        let mut load = Load { epoll, lines, question, header, pages: scratch.pages as u64, numbers: Numbers::new() };
        (0..connections).try_for_each(|i| load.ask(i))?;
        Ok(load)
    }

    /// Answers a second over that time.
    fn drive(&mut self, time: Duration) -> Result<f64, Error> {
        let start = Instant::now();
        let mut answers = 0_u64;
        let mut events = Vec::with_capacity(self.lines.len());
        while start.elapsed() < time {
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(&SILENCE)) {
                Ok(0) => return Err(Error::Unavailable("the node said nothing for 5 s".into())),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(std::io::Error::from(e).into()),
            }
            stop::check()?;
            for event in events.drain(..) {
                let i = event.data.u64() as usize;
                if self.lines[i].receive()? {
                    answers += 1;
                    self.ask(i)?;
                }
            }
        }
        Ok(answers as f64 / start.elapsed().as_secs_f64())
    }

    /// Asks for a random page.
    fn ask(&mut self, i: usize) -> Result<(), Error> {
        let line = &mut self.lines[i];
        line.request += 1;
        self.question.pages[0] = PageNo(self.numbers.next() % self.pages);
        let header = Header { request: line.request, ..self.header };
        let message = frame(header, &message::encode(&self.question), 0);
        line.stream.write_all(&message)?; // a few hundred bytes on a connection that carries nothing else
        Ok(())
    }
}

impl Line {
    /// Takes in what is here; true when the answer is whole, and it is what was asked for.
    fn receive(&mut self) -> Result<bool, Error> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err(Error::Unavailable("the node closed the connection".into())),
            Ok(n) => self.filled += n,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e.into()),
        }
        if self.filled < HEADER_SIZE.max(self.whole) {
            return Ok(false);
        }
        let mut head = [0; HEADER_SIZE];
        head.copy_from_slice(&self.buffer[..HEADER_SIZE]);
        let header = Header::decode(&head)?;
        let data_at = HEADER_SIZE + header.meta_len as usize;
        self.whole = data_at + header.data_len as usize;
        if self.whole > BUFFER {
            return Err(Error::Protocol(format!("an answer of {} bytes", self.whole)));
        }
        if self.filled < self.whole {
            return Ok(false);
        }
        let meta = &self.buffer[HEADER_SIZE..data_at];
        header.verify_meta(meta)?;
        if header.is_error() {
            return Err(Error::decode(meta));
        }
        let reply: ReadReply = message::decode(meta)?;
        match reply.pages.as_slice() {
            [version] if header.request == self.request && self.filled == self.whole => {
                verify_page(&self.buffer[data_at..self.whole], version.checksum)?;
            }
            _ => return Err(Error::Protocol("an answer to something else".into())),
        }
        (self.filled, self.whole) = (0, 0);
        Ok(true)
    }
}
