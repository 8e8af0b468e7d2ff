//! A reader of one group's pages at its members, as a client reads them: for the copy of a joining member's base.
//!
//! Invariants: what is read is one committed state of the primary, which keeps it for as long as this reader says, every
//! third of a lease; every page is checked. A page that is damaged at the primary is asked of the other complete members.

use super::node::Node;
use crate::clock;
use crate::random;
use crate::wire::{Answer, Connection, Dialer, json};
use dspm_proto::auth::Role;
use dspm_proto::control::Control;
use dspm_proto::message::{self, DatasetSize, Read, ReadReply, Renew, RenewGroup, Renewed, SnapshotReply};
use dspm_proto::record::verify_page;
use dspm_proto::{
    ClientId, DatasetId, Error, Generation, GroupId, Header, Instant, Kind, Lsn, PAGE_SIZE, PageNo, RecordId, Session,
    StoreId, Token,
};
use std::time::Duration;

/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const DIAL: Duration = Duration::from_secs(1);

/// A member that can be asked.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) store: StoreId,
}

/// Who holds the group.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) primary: Door,
    /// The other complete members.
    pub(super) others: Vec<Door>,
    pub(super) generation: Generation,
}

/// A page with its content, and the commit that wrote it.
pub(super) type Version = (PageNo, Lsn, [u8; PAGE_SIZE]);

/// A reader of one group.
pub(super) struct Reader<'a> {
    node: &'a Node,
    primary: Connection,
    group: GroupId,
    source: Source,
    session: Session,
    lease: Duration,
    /// The commit that is read.
    pub(super) at: RecordId,
    renewed: Instant,
}

impl Door {
    pub(super) fn dial(&self, node: &Node, session: Option<Session>) -> Result<Connection, Error> {
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

impl<'a> Reader<'a> {
    /// Begins with the newest committed state; returns its datasets, too.
    pub(super) fn open(node: &'a Node, group: GroupId, source: Source) -> Result<(Self, Vec<DatasetSize>), Error> {
        let session = Session { client: ClientId(random::id()), number: 1 };
        let primary = source.primary.dial(node, Some(session))?;
        let (lease, renewed, at) = (node.options.lease, clock::now(), RecordId::default());
        let mut reader = Reader { node, primary, group, source, session, lease, at, renewed };
        let sizes = reader.go_on()?;
        Ok((reader, sizes))
    }

    /// Reads the newest committed state from now on.
    pub(super) fn go_on(&mut self) -> Result<Vec<DatasetSize>, Error> {
        let question =
            message::Snapshot { session: self.session, known: Lsn(0), floor: self.at.lsn, read_lease: false };
        let answer = self.ask(Kind::Snapshot, &message::encode(&question))?;
        let reply: SnapshotReply = message::decode(&answer.meta)?;
        if reply.state.tail.lsn < self.at.lsn {
            return Err(Error::Protocol(format!("commit {} after {}", reply.state.tail.lsn, self.at.lsn)));
        }
        let is_first = self.at == RecordId::default();
        self.at = reply.state.tail;
        if !is_first {
            self.say_floor()?;
        }
        Ok(reply.state.sizes)
    }

    fn header(&self, kind: Kind, store: StoreId) -> Header {
        let mut h = Header::new(kind);
        (h.group, h.generation, h.store) = (self.group, self.source.generation, store);
        h
    }

    fn ask(&mut self, kind: Kind, meta: &[u8]) -> Result<Answer, Error> {
        let header = self.header(kind, self.source.primary.store);
        self.primary.ask(header, meta, &[], std::time::Instant::now() + PATIENCE)?.accept()
    }

    /// Pauses after so many bytes, as a rate in bytes a second asks for; 0 asks for none.
    pub(super) fn keep_to(&mut self, rate: u64, bytes: u64) -> Result<(), Error> {
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
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        if clock::now().since(self.renewed) < self.lease / 3 {
            return Ok(());
        }
        self.say_floor()
    }

    fn say_floor(&mut self) -> Result<(), Error> {
        self.renewed = clock::now();
        let (group, generation, store) = (self.group, self.source.generation, self.source.primary.store);
        let item = RenewGroup { group, generation, store, floor: self.at.lsn, token: Token::default() };
        let renew = Renew { session: self.session, groups: vec![item] };
        let answer = self.ask(Kind::Renew, &message::encode(&renew))?;
        message::decode::<Renewed>(&answer.meta).map(|_| ())
    }

    /// Pages with content, and the commits that wrote them.
    ///
    /// # Errors
    /// [`Error::TooOld`] when the primary keeps this state no longer: go on; [`Error::Corrupt`] when no member has a good
    /// copy of one of them.
    pub(super) fn read(&mut self, dataset: DatasetId, pages: &[PageNo]) -> Result<Vec<Version>, Error> {
        self.renew()?;
        let read = Read { session: self.session, dataset, at: self.at.lsn, pages: pages.to_vec() };
        let header = self.header(Kind::Read, self.source.primary.store);
        match versions(&mut self.primary, header, &read) {
            Err(Error::Corrupt(why)) => match pages {
                [page] => self.read_elsewhere(dataset, *page, why),
                _ => {
                    let (first, rest) = pages.split_at(pages.len() / 2);
                    let mut found = self.read(dataset, first)?;
                    found.extend(self.read(dataset, rest)?);
                    Ok(found)
                }
            },
            other => other,
        }
    }

    /// A page that is damaged at the primary.
    fn read_elsewhere(&self, dataset: DatasetId, page: PageNo, why: String) -> Result<Vec<Version>, Error> {
        let read = Read { session: self.session, dataset, at: self.at.lsn, pages: vec![page] };
        let mut said = vec![format!("{}: {why}", self.source.primary.name)];
        for member in &self.source.others {
            let header = self.header(Kind::Read, member.store);
            let asked = member.dial(self.node, Some(self.session)).and_then(|mut c| versions(&mut c, header, &read));
            match asked {
                Ok(found) => return Ok(found),
                Err(e) => said.push(format!("{}: {e}", member.name)),
            }
        }
        Err(Error::Corrupt(format!("no good copy of page {page} of dataset {dataset}: {}", said.join("; "))))
    }
}

/// What a member answers to a read: pages with content, checked. It is told of those that do not check.
fn versions(connection: &mut Connection, header: Header, read: &Read) -> Result<Vec<Version>, Error> {
    let deadline = std::time::Instant::now() + PATIENCE;
    let answer = connection.ask(header, &message::encode(read), &[], deadline)?.accept()?;
    let reply: ReadReply = message::decode(&answer.meta)?;
    if reply.pages.len() != read.pages.len() || reply.pages.iter().any(|v| v.lsn > read.at) {
        return Err(Error::Protocol("an answer that does not fit what was read".into()));
    }
    let mut contents = answer.data.chunks_exact(PAGE_SIZE);
    let (mut out, mut damaged) = (Vec::with_capacity(read.pages.len()), Vec::new());
    for (page, version) in read.pages.iter().zip(&reply.pages).filter(|(_, v)| !v.zero) {
        let bytes = contents.next().ok_or_else(|| Error::Protocol("a page without content".into()))?;
        if verify_page(bytes, version.checksum).is_err() {
            damaged.push(page.0);
        }
        let content = bytes.try_into().map_err(|_| Error::Protocol("a page of another size".into()))?;
        out.push((*page, version.lsn, content));
    }
    let Some(page) = damaged.first().copied() else { return Ok(out) };
    let report = json(&Control::Damaged { group: header.group, dataset: read.dataset, pages: damaged });
    // Whether it hears of it or not, the page is asked of another member.
    let _ = connection.ask(Header::new(Kind::Control), &report, &[], deadline);
    Err(Error::Corrupt(format!("page {page} came with a wrong checksum")))
}
