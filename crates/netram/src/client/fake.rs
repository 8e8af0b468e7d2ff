//! For tests of the client core: a node on a real socket that shakes hands as every node does and answers the rest as it
//! is told, so that an answer can be lost, harmed, or late on purpose. A real node never does that.

use super::core::{Client, ClientOptions};
use super::group::GroupClient;
use crate::wire::{Dialer, frame, from_json, json, reply_to, write_all};
use dspm_proto::auth::{Challenge, ClusterKey, Hello, Role};
use dspm_proto::control::{DatasetEntry, Durability, Located, MemberEntry, NodeEntry, SetEntry, SetState};
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::{DatasetId, Generation, GroupId, Header, Kind, SetId, StoreId};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Asked = Arc<Mutex<Vec<(usize, Kind)>>>;

pub(super) struct FakeNode {
    pub(super) address: String,
    pub(super) asked: Asked,
}

fn key() -> ClusterKey {
    ClusterKey::new("a secret")
}

/// Who dials it.
pub(super) fn dialer() -> Dialer {
    Dialer {
        role: Role::Client,
        name: "test".into(),
        cluster: String::new(),
        key: key(),
        session: None,
        store: StoreId(0),
        callbacks: false,
    }
}

fn hear(stream: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_SIZE];
    stream.read_exact(&mut head).ok()?;
    let header = Header::decode(&head).unwrap();
    let mut meta = vec![0; header.meta_len as usize];
    stream.read_exact(&mut meta).ok()?;
    if header.kind == Kind::Hello && header.request == 1 {
        greet(stream, &header, &meta);
    }
    Some((header, meta))
}

fn greet(stream: &TcpStream, header: &Header, meta: &[u8]) {
    let hello: Hello = from_json(meta).unwrap();
    let proof = key().proof("acceptor", &hello.nonce, "00").unwrap();
    let challenge =
        Challenge { name: "n".into(), store: StoreId(1), boot: 1, nonce: "00".into(), proof, record_pages_max: 99 };
    write_all(stream, &frame(reply_to(header), &json(&challenge), 0), &[]).unwrap();
}

impl FakeNode {
    /// Answers each message by what it is told, given how many messages came before: bytes, or nothing.
    pub(super) fn start(answer: impl Fn(usize, &Header) -> Option<Vec<u8>> + Send + Sync + 'static) -> FakeNode {
        FakeNode::reading(move |n, h, _| answer(n, h))
    }

    /// The same, given the metadata too. It takes in no data: what commits to it commits zeros.
    pub(super) fn reading(
        answer: impl Fn(usize, &Header, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = FakeNode { address: listener.local_addr().unwrap().to_string(), asked: Arc::default() };
        let (asked, answer) = (node.asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (asked, answer) = (asked.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), number, &asked, &*answer));
            }
        });
        node
    }

    /// What it was asked or told, each with the number of the connection.
    pub(super) fn asked(&self) -> Vec<(usize, Kind)> {
        self.asked.lock().unwrap().clone()
    }
}

type Answer = dyn Fn(usize, &Header, &[u8]) -> Option<Vec<u8>>;

fn serve(mut stream: TcpStream, number: usize, asked: &Asked, answer: &Answer) {
    while let Some((h, meta)) = hear(&mut stream) {
        if h.kind == Kind::Hello {
            if h.request > 1 {
                write_all(&stream, &frame(reply_to(&h), b"{}", 0), &[]).unwrap();
            }
            continue;
        }
        let before = {
            let mut asked = asked.lock().unwrap();
            asked.push((number, h.kind));
            asked.len() - 1
        };
        if let Some(bytes) = answer(before, &h, &meta) {
            let _ = write_all(&stream, &bytes, &[]); // who asked may be gone
        }
    }
}

/// A dataset of one copy.
pub(super) fn entry(name: &str) -> DatasetEntry {
    DatasetEntry {
        name: name.into(),
        dataset: DatasetId(1),
        group: GroupId(1),
        set: SetId(1),
        durability: Durability::Memory,
        copies: 1,
        min_copies: 1,
        history_ms: 0,
        removing: 0,
    }
}

/// A group whose only member it is, with short leases and an endless `commit_timeout`.
pub(super) fn group_of(node: &FakeNode) -> Arc<GroupClient> {
    groups_of(node, 1).remove(0)
}

/// Several of one process, numbered from 1, each with a dataset of the same number.
pub(super) fn groups_of(node: &FakeNode, count: u64) -> Vec<Arc<GroupClient>> {
    let options = ClientOptions {
        config: String::new(),
        cluster: String::new(),
        nodes: vec![node.address.clone()],
        key: key(),
        commit_timeout: Duration::from_secs(600),
        cache_size: 1 << 20,
        prefetch: false,
        lease_reads: true,
        create: Default::default(),
    };
    let member = MemberEntry { node: "n".into(), store: StoreId(1) };
    let set = SetEntry {
        id: SetId(1),
        generation: Generation(1),
        state: SetState::Active,
        primary: "n".into(),
        members: vec![member],
        joining: Vec::new(),
        last_active: Vec::new(),
        dropped: Vec::new(),
        history: 0,
    };
    let nodes = vec![NodeEntry { name: "n".into(), address: node.address.clone(), machine: "m".into() }];
    let client = Client::new(options).unwrap();
    let group = |n| {
        let entry = DatasetEntry { group: GroupId(n), dataset: DatasetId(n), ..entry("d") };
        let located = Located { entry, set: set.clone(), nodes: nodes.clone(), lease_ms: 40, created: false };
        Arc::new(GroupClient::new(&client, located).unwrap())
    };
    (1..=count).map(group).collect()
}
