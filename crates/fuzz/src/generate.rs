//! Valid messages, whole: header, metadata, data.

use crate::catalog::{ERROR, JSON, MESSAGES, Message, RECORD, REPLICATED, fill};
use crate::rng::Rng;
use dspm_proto::header::{FLAG_ERROR, FLAG_REPLY, HEADER_SIZE};
use dspm_proto::record::{DatasetChange, PageChange, Payload, Record, delta};
use dspm_proto::{
    ClientId, DatasetId, Generation, Header, Kind, Link, Lsn, PAGE_SIZE, PageNo, Part, RecordId, Session, StoreId,
    Token,
};
use dspm_proto::{GroupId, checksum};

/// A message's three parts.
#[derive(Clone, Debug)]
pub struct Parts {
    pub header: Header,
    pub meta: Vec<u8>,
    pub data: Vec<u8>,
}

impl Parts {
    /// The bytes on the wire. What was sealed before is sealed again if asked, so that a change passes the checksums.
    pub fn bytes(&self, seal: bool) -> Vec<u8> {
        let mut header = self.header;
        if seal {
            header = header.for_meta(&self.meta);
            header.data_len = self.data.len() as u32;
        }
        let mut out = Vec::with_capacity(HEADER_SIZE + self.meta.len() + self.data.len());
        out.extend(header.encode());
        out.extend(&self.meta);
        out.extend(&self.data);
        out
    }
}

/// What the messages of one dataset have in common; nothing in particular for decoders alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    pub group: GroupId,
    pub dataset: DatasetId,
    pub generation: Generation,
    pub store: StoreId,
    pub session: Session,
}

/// A valid message of the catalog.
pub fn valid(message: &Message, about: &About, rng: &mut Rng) -> Parts {
    let mut header = Header::new(message.kind);
    (header.group, header.generation, header.store) = (about.group, about.generation, about.store);
    header.request = rng.number();
    header.flags = if message.reply { FLAG_REPLY } else { 0 };
    let meta = match message.shape {
        JSON => text(message.kind, message.reply, rng).into_bytes(),
        RECORD | REPLICATED => return record(message.shape == REPLICATED, about, rng),
        ERROR => {
            header.flags |= FLAG_ERROR;
            vec![rng.below(16) as u8, rng.below(10) as u8, b'w', b'h', b'y']
        }
        shape => with_session(fill(shape, rng), shape, about),
    };
    Parts { header: header.for_meta(&meta), meta, data: Vec::new() }
}

/// Any of them.
pub fn any(about: &About, rng: &mut Rng) -> (&'static Message, Parts) {
    let message = &MESSAGES[rng.below(MESSAGES.len())];
    (message, valid(message, about, rng))
}

/// A client's own session stands in front of what it asks.
fn with_session(mut meta: Vec<u8>, shape: &str, about: &About) -> Vec<u8> {
    if shape.starts_with("88") && !shape.starts_with("888") && about.session.number > 0 {
        meta[..8].copy_from_slice(&about.session.client.0.to_le_bytes());
        meta[8..16].copy_from_slice(&about.session.number.to_le_bytes());
    }
    meta
}

fn record(replicated: bool, about: &About, rng: &mut Rng) -> Parts {
    let pages = rng.below(6) as u64;
    let lsn = Lsn(1 + rng.number() % 1000);
    let (mut full, mut deltas, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    let (mut data, mut tail) = (Vec::new(), Vec::new());
    for page in 0..pages {
        let mut content = [rng.bits() as u8; PAGE_SIZE];
        let old = content;
        content[rng.below(PAGE_SIZE)] ^= 1;
        let p = PageChange {
            dataset: 0,
            page: PageNo(page),
            payload: Payload::Full,
            bytes: PAGE_SIZE as u32,
            checksum: checksum(&content),
            base: Lsn(0),
        };
        match (rng.below(3), delta(&old, &content)) {
            (0, Some(d)) => {
                let base = Lsn(rng.below(lsn.0 as usize) as u64);
                deltas.push(PageChange { payload: Payload::Delta, bytes: d.len() as u32, base, ..p });
                tail.extend(d);
            }
            (1, _) => zeros.push(PageChange { payload: Payload::Zero, bytes: 0, checksum: 0, ..p }),
            _ => {
                full.push(p);
                data.extend(content);
            }
        }
    }
    full.append(&mut deltas);
    full.append(&mut zeros);
    data.append(&mut tail);
    let session = if about.session.number > 0 {
        about.session
    } else {
        Session { client: ClientId(rng.number()), number: rng.number() }
    };
    let mut record = Record {
        group: about.group,
        id: RecordId { generation: about.generation, lsn, hash: 0 },
        token: Token { generation: about.generation, boot: 1, n: rng.below(9) as u32 },
        session,
        transaction: rng.number(),
        predecessor: rng.number(),
        floor: Lsn(rng.number()),
        part: Part::Alone,
        datasets: vec![DatasetChange { dataset: about.dataset, size: pages * PAGE_SIZE as u64 }],
        links: Vec::new(),
        pages: full,
    };
    take_part(&mut record, rng);
    let mut meta = record.seal();
    let kind = if replicated { Kind::Replicate } else { Kind::Commit };
    let mut header = record.header(kind, &meta, about.store, rng.number());
    if replicated {
        meta.splice(0..0, fill("844", rng));
        header = header.for_meta(&meta);
    }
    Parts { header, meta, data }
}

/// Some records have a part in a transaction over several groups.
fn take_part(record: &mut Record, rng: &mut Rng) {
    let link = |i: usize, hash| Link {
        group: GroupId(record.group.0 ^ (1 + i as u64)),
        lsn: Lsn(1 + i as u64 * 7),
        hash,
        token: record.token,
    };
    match rng.below(8) {
        0 => (record.part, record.links) = (Part::Prepared, vec![link(rng.below(9), rng.number())]),
        1 => (record.part, record.links) = (Part::Decides, (0..=rng.below(5)).map(|i| link(i, 0)).collect()),
        _ => {}
    }
}

fn text(kind: Kind, reply: bool, rng: &mut Rng) -> String {
    let all: &[&str] = match (kind, reply) {
        (Kind::Hello, false) => &[
            r#"{"role":"client","name":"pid 7","cluster":"c","nonce":"00ff","session":{"client":3,"number":1},"callbacks":true}"#,
            r#"{"role":"node","name":"n1","nonce":"","store":9}"#,
            r#"{"proof":"00112233"}"#,
        ],
        (Kind::Hello, true) => {
            &[r#"{"name":"n1","store":9,"boot":1,"nonce":"00","proof":"ab","record_pages_max":16384}"#]
        }
        (Kind::Control, false) => &[
            r#"{"op":"locate","name":"fuzz.db","create":{"durability":"memory","copies":2,"min_copies":1,"history_ms":60000,"exclusive":false}}"#,
            r#"{"op":"locate","name":"x","create":null}"#,
            r#"{"op":"remove","name":"no such"}"#,
            r#"{"op":"remove","name":"no such","accept_loss":true}"#,
            r#"{"op":"quiet","set":5,"generation":2,"group":1,"removing":18446744073709551615}"#,
            r#"{"op":"removed","group":18446744073709551615}"#,
            r#"{"op":"rename","name":"no such","to":"nothing"}"#,
            r#"{"op":"list"}"#,
            r#"{"op":"list","after":"a.db","limit":3,"view":7}"#,
            r#"{"op":"status"}"#,
            r#"{"op":"status","groups":[1,2,18446744073709551615]}"#,
            r#"{"op":"status","groups":[1],"held":true}"#,
            r#"{"op":"cannot_join","set":5,"generation":2,"store":9,"why":"its memory (16 MiB) is in use"}"#,
            r#"{"op":"scrub"}"#,
            r#"{"op":"scrub","pass":3,"groups":[1,18446744073709551615]}"#,
            r#"{"op":"damaged","group":1,"dataset":1,"pages":[0,7,18446744073709551615]}"#,
            r#"{"op":"ping"}"#,
            r#"{"op":"view","version":1,"cluster":"c","nodes":[{"name":"n1","address":"a:1","machine":"m"}],"sets":[{"id":5,"generation":1,"state":"active","primary":"n1","members":[{"node":"n1","store":9}]}]}"#,
            r#"{"op":"datasets","whole":false,"put":[],"del":["no such"],"drop":[1]}"#,
            r#"{"op":"datasets","whole":true,"more":true,"put":[{"name":"a","dataset":1,"group":2,"set":3,"durability":"disk","copies":2,"min_copies":1,"removing":7}],"del":[]}"#,
        ],
        (Kind::Control, true) => &[
            r#"{"entry":{"name":"a","dataset":1,"group":2,"set":3,"durability":"disk","copies":2,"min_copies":1},"set":{"id":3,"generation":1,"state":"activating","primary":"n1","members":[]},"nodes":[],"lease_ms":300,"created":false}"#,
            r#"{"datasets":[],"more":false,"count":0,"view":{"version":1,"cluster":"c","nodes":[],"sets":[]}}"#,
            r#"{"datasets":[{"name":"a","dataset":1,"group":2,"set":3,"durability":"disk","copies":2,"min_copies":1}],"more":true,"count":9,"view":null}"#,
            r#"{"name":"n1","state":"serving","store":1,"frames":2,"frames_used":3,"frames_dirty":4,"checksum_errors":5,"groups":[{"group":1,"primary":true,"generation":1,"lsn":9,"committed":9,"flushed":8,"sizes":[[1,4096]],"writer":0,"waiting":0,"state":"ok"}],"lost":"no arena of this size was there","covered":1}"#,
            r#"{"name":"n1","store":1,"boot":1,"view":1,"datasets":0,"former":[3,2]}"#,
            r#"{"done":true}"#,
            r#"{"pass":3,"state":"done","done_bytes":1,"all_bytes":1,"pages":2,"bad":1,"repaired":0,"waiting":0,"lost_pages":1,"lost":[{"name":"a","dataset":1,"page":7,"lsn":9,"asked":["n2: damaged"]}],"ms":4}"#,
        ],
        _ => &[r#"{"durability":"pm","copies":3}"#, r#"{"done":true}"#],
    };
    all[rng.below(all.len())].to_owned()
}
