//! The base of a joining member: the pages of a group as of one commit, read from the primary as a client reads them.
//!
//! Invariants: commits behind that one arrive by themselves and are held above the base; the primary keeps the pages for
//! as long as this node says, every third of a lease, that it still reads them. Whatever breaks, the base is begun anew:
//! nothing of a part is ever shown. With `join_rate` no more bytes a second are asked for, by all copies of this node.

use super::flush;
use super::group::SharedGroup;
use super::node::Node;
use crate::clock;
use crate::random;
use crate::wire::{Answer, Connection, Dialer, from_json, json};
use dspm_proto::auth::Role;
use dspm_proto::control::{Control, NodeStatus};
use dspm_proto::message::{self, DatasetSize, Read, ReadReply, Renew, RenewGroup, Renewed, SnapshotReply};
use dspm_proto::record::verify_page;
use dspm_proto::{
    ClientId, DatasetId, Error, Generation, GroupId, Header, Instant, Kind, Lsn, PAGE_SIZE, PageNo, Session, SetId,
    StoreId, Token, limits,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pages that are asked for at once.
const BATCH: u64 = limits::READ_PAGES_MAX as u64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Batches a second where there is a rate to keep to: what else goes over the link waits for one at most.
const BATCHES: u64 = 20;
const DIAL: Duration = Duration::from_secs(1);

/// Pages to ask for at once, at a rate in bytes a second.
fn batch(rate: u64) -> u64 {
    if rate == 0 { BATCH } else { (rate / BATCHES / PAGE_SIZE as u64).clamp(1, BATCH) }
}

/// Who serves the group.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) address: String,
    pub(super) store: StoreId,
    pub(super) generation: Generation,
}

/// A reader of one group at its primary.
struct Reader {
    connection: Connection,
    group: GroupId,
    source: Source,
    session: Session,
    lease: Duration,
    /// The commit that is read.
    at: Lsn,
    renewed: Instant,
}

impl Node {
    /// Brings the group's pages here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and others that pass: begin again. [`Error::Full`]: when there is room on the disk.
    pub(super) fn copy_base(
        self: &Arc<Self>,
        id: GroupId,
        group: &SharedGroup,
        from: &Source,
        set: SetId,
    ) -> Result<(), Error> {
        let mut copied = 0;
        let done = self.copy_pages(id, group, from, &mut |bytes| {
            copied += bytes;
            self.joins.add(set, bytes);
        });
        if done.is_err() {
            self.joins.take_back(set, copied);
        }
        done
    }

    fn copy_pages(
        self: &Arc<Self>,
        id: GroupId,
        group: &SharedGroup,
        from: &Source,
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let (mut reader, sizes) = Reader::open(self, id, from.clone())?;
        let at = reader.at;
        let listed: Vec<(DatasetId, u64)> = sizes.iter().map(|s| (s.dataset, s.size)).collect();
        let mut base = {
            let mut g = group.lock();
            let records = &mut g.replica.records.group;
            let id = records.record_id(at).ok_or_else(|| Error::Unavailable(format!("commit {at} is not here")))?;
            self.store.begin_base(records, id, &listed)?
        };
        for (dataset, size) in listed {
            let end = PageNo::count(size);
            let batch = batch(self.options.join_rate);
            for from in (0..end).step_by(batch as usize) {
                let pages: Vec<PageNo> = (from..end.min(from + batch)).map(PageNo).collect();
                let reply = reader.read(dataset, &pages)?;
                for (page, lsn, content) in reply {
                    base.write(dataset, page, lsn, &content)?;
                }
                self.counters.pages_copied.fetch_add(pages.len() as u64, Ordering::Relaxed);
                let bytes = (pages.len() * PAGE_SIZE) as u64;
                copied(bytes.min(size - from * PAGE_SIZE as u64));
                reader.keep_to(self.options.join_rate, bytes)?;
            }
        }
        base.finish(&flush::Source(self.clone()))
    }
}

impl Node {
    /// Bytes of these groups as the primary knows them.
    pub(super) fn bytes_of(&self, groups: &[GroupId], from: &Source) -> Result<u64, Error> {
        let mut primary = from.dial(self, None)?;
        let mut bytes = 0;
        for part in groups.chunks(limits::LISTED_MAX) {
            let mut rest = part.to_vec();
            while !rest.is_empty() {
                let question = json(&Control::Status { groups: rest.clone(), held: false });
                let until = std::time::Instant::now() + PATIENCE;
                let answer = primary.ask(Header::new(Kind::Control), &question, &[], until)?.accept()?;
                let status: NodeStatus = from_json(&answer.meta)?;
                bytes += status.groups.iter().flat_map(|g| &g.sizes).map(|(_, size)| size).sum::<u64>();
                rest.drain(..(status.covered as usize).clamp(1, rest.len()));
            }
        }
        Ok(bytes)
    }
}

impl Source {
    fn dial(&self, node: &Node, session: Option<Session>) -> Result<Connection, Error> {
        let dialer = Dialer {
            role: Role::Client,
            name: format!("{}, joining", node.options.name),
            cluster: node.options.cluster.clone(),
            key: node.options.key.clone(),
            session,
            store: StoreId(0),
            callbacks: false,
        };
        Connection::dial(&self.address, &dialer, DIAL)
    }
}

impl Reader {
    fn open(node: &Node, group: GroupId, source: Source) -> Result<(Reader, Vec<DatasetSize>), Error> {
        let session = Session { client: ClientId(random::id()), number: 1 };
        let connection = source.dial(node, Some(session))?;
        let (lease, renewed) = (node.options.lease, clock::now());
        let mut reader = Reader { connection, group, source, session, lease, at: Lsn(0), renewed };
        let question = message::Snapshot { session, known: Lsn(0), floor: Lsn(0), read_lease: false };
        let answer = reader.ask(Kind::Snapshot, &message::encode(&question))?;
        let reply: SnapshotReply = message::decode(&answer.meta)?;
        reader.at = reply.state.tail.lsn;
        Ok((reader, reply.state.sizes))
    }

    fn ask(&mut self, kind: Kind, meta: &[u8]) -> Result<Answer, Error> {
        let mut h = Header::new(kind);
        (h.group, h.generation, h.store) = (self.group, self.source.generation, self.source.store);
        self.connection.ask(h, meta, &[], std::time::Instant::now() + PATIENCE)?.accept()
    }

    /// Pauses after so many bytes, as a rate in bytes a second asks for; 0 asks for none.
    fn keep_to(&mut self, rate: u64, bytes: u64) -> Result<(), Error> {
        if rate == 0 {
            return Ok(());
        }
        let mut left = Duration::from_secs_f64(bytes as f64 / rate as f64);
        while !left.is_zero() {
            let part = left.min(self.lease / 3);
            std::thread::sleep(part);
            left -= part;
            self.renew()?;
        }
        Ok(())
    }

    /// What is read stays there.
    fn renew(&mut self) -> Result<(), Error> {
        if clock::now().since(self.renewed) < self.lease / 3 {
            return Ok(());
        }
        self.renewed = clock::now();
        let (group, generation, store) = (self.group, self.source.generation, self.source.store);
        let item = RenewGroup { group, generation, store, floor: self.at, token: Token::default() };
        let renew = Renew { session: self.session, groups: vec![item] };
        let answer = self.ask(Kind::Renew, &message::encode(&renew))?;
        message::decode::<Renewed>(&answer.meta).map(|_| ())
    }

    /// Pages with content, and the commits that wrote them.
    fn read(&mut self, dataset: DatasetId, pages: &[PageNo]) -> Result<Vec<(PageNo, Lsn, [u8; PAGE_SIZE])>, Error> {
        self.renew()?;
        let read = Read { session: self.session, dataset, at: self.at, pages: pages.to_vec() };
        let answer = self.ask(Kind::Read, &message::encode(&read))?;
        let reply: ReadReply = message::decode(&answer.meta)?;
        if reply.pages.len() != pages.len() || reply.pages.iter().any(|v| v.lsn > self.at) {
            return Err(Error::Protocol("an answer that does not fit what was read".into()));
        }
        let mut contents = answer.data.chunks_exact(PAGE_SIZE);
        let mut out = Vec::with_capacity(pages.len());
        for (page, version) in pages.iter().zip(&reply.pages).filter(|(_, v)| !v.zero) {
            let bytes = contents.next().ok_or_else(|| Error::Protocol("a page without content".into()))?;
            verify_page(bytes, version.checksum)?;
            let content = bytes.try_into().map_err(|_| Error::Protocol("a page of another size".into()))?;
            out.push((*page, version.lsn, content));
        }
        Ok(out)
    }
}
