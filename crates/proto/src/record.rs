//! The commit record: what one commit changes, on the wire, in the arena's ring and in the disk log.
//!
//! The header ([`crate::Header`], kind Commit or Replicate) carries group, generation first sent in, LSN and the
//! addressee's store id. Metadata, then page data: full pages of 4096 bytes first, then deltas.
//!
//! ```text
//! metadata   0  8  token.generation          64  8  reserved (0)
//!            8  4  token.boot                72  4  links
//!           12  4  token.n                   76  4  part in a transaction over several groups
//!           16  8  client                    80  4  datasets
//!           24  8  session number            84  4  pages
//!           32  8  transaction number        88     datasets × 24: id 8, size after 8, flags 4, reserved 4
//!           40  8  predecessor's hash               links × 40: group 8, LSN 8, hash 8, token 16
//!                                                   pages × 32: page 8, checksum 8, base LSN 8, bytes 4, dataset 2,
//!           48  8  floor of the writer                            payload 1, reserved 1
//!           56  8  hash of the record
//! ```
//!
//! The hash is xxh3 over group, generation, LSN, the metadata up to the pages with the hash field zero, and of each page
//! its number, checksum, dataset (u16) and whether it is zeros (u8). Page checksums cover the content, so it covers
//! content, session, transaction number, links and predecessor: two records with one identity are the same commit of the same
//! writer. How a page travels (full, or a delta against a base) is left out: a member sends it again as a full page.

use crate::codec::{Reader, Writer};
use crate::error::Error;
use crate::header::{Header, Kind};
use crate::ids::*;
use crate::message::Field;
use crate::part::{self, Link, Part};
use crate::{PAGE_SIZE, checksum, limits};

const HASH_AT: usize = 56;
const FIXED: usize = 88;

/// How a page's content travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Payload {
    /// 4096 bytes.
    Full = 0,
    /// Changed ranges against the version `base`: (offset u16, length u16, bytes)….
    Delta = 1,
    /// Nothing: the page is zeros from here on (a shrunk dataset, or zeros written).
    Zero = 2,
}

/// One dataset that a record touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetChange {
    /// Which.
    pub dataset: DatasetId,
    /// Its size in bytes after the commit. Pages at or beyond it read as zeros.
    pub size: u64,
}

/// One page that a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageChange {
    /// Index into the record's datasets.
    pub dataset: u16,
    /// Which page.
    pub page: PageNo,
    /// How its content travels.
    pub payload: Payload,
    /// Bytes in the data area.
    pub bytes: u32,
    /// Checksum of the whole page after the change.
    pub checksum: u64,
    /// Payload delta: the version that it applies to.
    pub base: Lsn,
}

/// A record without its page data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group that it belongs to.
    pub group: GroupId,
    /// Identity.
    pub id: RecordId,
    /// Token of the writer that made it.
    pub token: Token,
    /// Session of the writer.
    pub session: Session,
    /// Counts the session's commits.
    pub transaction: u64,
    /// Hash of the record before it, 0 for the first.
    pub predecessor: u64,
    /// Nothing below is read by the writer any more.
    pub floor: Lsn,
    /// Its part in a transaction over several groups.
    pub part: Part,
    /// Datasets it touches.
    pub datasets: Vec<DatasetChange>,
    /// Records of other groups.
    pub links: Vec<Link>,
    /// Pages it changes, in order of their data: full pages first.
    pub pages: Vec<PageChange>,
}

impl Record {
    /// Metadata with the hash in its place; sets `id.hash`.
    pub fn seal(&mut self) -> Vec<u8> {
        self.id.hash = 0;
        let mut meta = self.encode_meta();
        self.id.hash = self.hash(&meta);
        meta[HASH_AT..HASH_AT + 8].copy_from_slice(&self.id.hash.to_le_bytes());
        meta
    }

    /// The same record with every delta as a full page, and its metadata. The identity stays.
    pub fn in_full(&self) -> (Record, Vec<u8>) {
        let mut full = self.clone();
        for p in full.pages.iter_mut().filter(|p| p.payload == Payload::Delta) {
            (p.payload, p.bytes, p.base) = (Payload::Full, PAGE_SIZE as u32, Lsn(0));
        }
        let meta = full.encode_meta();
        (full, meta)
    }

    fn hash(&self, meta: &[u8]) -> u64 {
        let mut h = xxhash_rust::xxh3::Xxh3Default::new();
        h.update(&self.group.0.to_le_bytes());
        h.update(&self.id.generation.0.to_le_bytes());
        h.update(&self.id.lsn.0.to_le_bytes());
        h.update(&meta[..HASH_AT]);
        h.update(&[0; 8]);
        h.update(&meta[HASH_AT + 8..FIXED + self.datasets.len() * 24 + self.links.len() * Link::BYTES]);
        for p in &self.pages {
            let mut item = [0u8; 19];
            item[..8].copy_from_slice(&p.page.0.to_le_bytes());
            item[8..16].copy_from_slice(&p.checksum.to_le_bytes());
            item[16..18].copy_from_slice(&p.dataset.to_le_bytes());
            item[18] = u8::from(p.payload == Payload::Zero);
            h.update(&item);
        }
        h.digest()
    }

    fn encode_meta(&self) -> Vec<u8> {
        let lists = self.datasets.len() * 24 + self.links.len() * Link::BYTES + self.pages.len() * 32;
        let mut w = Writer::with_capacity(FIXED + lists);
        w.u64(self.token.generation.0).u32(self.token.boot).u32(self.token.n);
        w.u64(self.session.client.0).u64(self.session.number).u64(self.transaction).u64(self.predecessor);
        w.u64(self.floor.0).u64(self.id.hash).u64(0).u32(self.links.len() as u32).u32(self.part as u32);
        w.u32(self.datasets.len() as u32).u32(self.pages.len() as u32);
        for d in &self.datasets {
            w.u64(d.dataset.0).u64(d.size).u64(0);
        }
        self.links.iter().for_each(|l| l.put(&mut w));
        for p in &self.pages {
            w.u64(p.page.0).u64(p.checksum).u64(p.base.0).u32(p.bytes).u16(p.dataset).u8(p.payload as u8).u8(0);
        }
        w.bytes
    }

    /// Header for sending the sealed record to a member.
    pub fn header(&self, kind: Kind, meta: &[u8], store: StoreId, request: u64) -> Header {
        let mut h = Header::new(kind).for_meta(meta);
        h.data_len = self.data_len() as u32;
        h.group = self.group;
        h.generation = self.id.generation;
        h.lsn = self.id.lsn;
        h.store = store;
        h.request = request;
        h
    }

    /// Bytes of page data.
    pub fn data_len(&self) -> usize {
        self.pages.iter().map(|p| p.bytes as usize).sum()
    }

    /// True when it changes nothing. Behind a prepared record it tells that that one is committed, or, if it aborts, that it
    /// is not.
    pub fn is_empty(&self) -> bool {
        self.datasets.is_empty() && self.pages.is_empty()
    }

    /// Full pages at the start of the data.
    pub fn full_pages(&self) -> usize {
        self.pages.iter().take_while(|p| p.payload == Payload::Full).count()
    }

    /// Checks and reads a record's metadata.
    ///
    /// # Errors
    /// [`Error::Corrupt`] unless every length, index, order and the hash fit together.
    pub fn decode(header: &Header, meta: &[u8]) -> Result<Record, Error> {
        header.verify_meta(meta)?;
        let mut r = Reader::new(meta);
        let token = Token { generation: Generation(r.u64()?), boot: r.u32()?, n: r.u32()? };
        let session = Session { client: ClientId(r.u64()?), number: r.u64()? };
        let (transaction, predecessor, floor, claimed) = (r.u64()?, r.u64()?, Lsn(r.u64()?), r.u64()?);
        reserved(r.u64()?)?;
        let (links, part) = (r.u32()? as usize, Part::from_u32(r.u32()?)?);
        let (datasets, pages) = (r.u32()? as usize, r.u32()? as usize);
        let lists = datasets as u64 * 24 + links as u64 * Link::BYTES as u64 + pages as u64 * 32;
        if meta.len() as u64 != FIXED as u64 + lists {
            return Err(Error::Corrupt("record: lengths do not fit".into()));
        }
        let many = datasets > limits::DATASETS_MAX || links > limits::LINKS_MAX || pages > limits::RECORD_PAGES_MAX;
        if many || header.lsn.0 == 0 {
            return Err(Error::Corrupt("record: too many datasets, links or pages, or LSN 0".into()));
        }
        let id = RecordId { generation: header.generation, lsn: header.lsn, hash: claimed };
        let datasets = (0..datasets).map(|_| read_dataset(&mut r)).collect::<Result<Vec<_>, _>>()?;
        let links = (0..links).map(|_| Link::get(&mut r)).collect::<Result<Vec<_>, _>>()?;
        let pages = (0..pages).map(|_| read_page(&mut r)).collect::<Result<Vec<_>, _>>()?;
        let group = header.group;
        let record =
            Record { group, id, token, session, transaction, predecessor, floor, part, datasets, links, pages };
        record.check(header)?;
        if record.hash(meta) != claimed {
            return Err(Error::Corrupt("record hash".into()));
        }
        Ok(record)
    }

    fn check(&self, header: &Header) -> Result<(), Error> {
        let full = self.full_pages();
        let mut sum = 0u64;
        part::check(self.group, self.part, &self.links, self.is_empty())?;
        if !self.pages.is_sorted_by_key(|p| p.payload as u8) {
            return Err(Error::Corrupt("record: full pages, then deltas, then zeros".into()));
        }
        if self.datasets.iter().any(|d| d.size > limits::DATASET_MAX) {
            return Err(Error::Corrupt("record: a dataset larger than the limit".into()));
        }
        for (i, p) in self.pages.iter().enumerate() {
            let size = self.datasets.get(p.dataset as usize).map(|d| d.size);
            let Some(size) = size else { return Err(Error::Corrupt("record: no such dataset".into())) };
            let ok = match p.payload {
                Payload::Full => i < full && p.bytes as usize == PAGE_SIZE,
                Payload::Delta => p.bytes as usize <= PAGE_SIZE && p.base < self.id.lsn,
                Payload::Zero => p.bytes == 0,
            };
            if !ok || (p.payload != Payload::Zero && p.page.0 >= PageNo::count(size)) {
                return Err(Error::Corrupt(format!("record: page {} does not fit its payload", p.page)));
            }
            sum += u64::from(p.bytes);
        }
        if sum - (full * PAGE_SIZE) as u64 > limits::RECORD_DELTAS_MAX as u64 {
            return Err(Error::Corrupt("record: too many bytes of deltas".into()));
        }
        if sum != u64::from(header.data_len) {
            return Err(Error::Corrupt("record: page data of another length".into()));
        }
        Ok(())
    }
}

/// Bits without a meaning are zero: a member that did not keep them would send another record than it got.
fn reserved(bits: u64) -> Result<(), Error> {
    if bits == 0 { Ok(()) } else { Err(Error::Corrupt("record: reserved bits are set".into())) }
}

fn read_dataset(r: &mut Reader<'_>) -> Result<DatasetChange, Error> {
    let d = DatasetChange { dataset: DatasetId(r.u64()?), size: r.u64()? };
    reserved(r.u64()?)?;
    Ok(d)
}

fn read_page(r: &mut Reader<'_>) -> Result<PageChange, Error> {
    let (page, checksum, base, bytes) = (PageNo(r.u64()?), r.u64()?, Lsn(r.u64()?), r.u32()?);
    let (dataset, payload) = (r.u16()?, r.u8()?);
    reserved(u64::from(r.u8()?))?;
    let payload = match payload {
        0 => Payload::Full,
        1 => Payload::Delta,
        2 => Payload::Zero,
        other => return Err(Error::Corrupt(format!("record: payload {other}"))),
    };
    Ok(PageChange { dataset, page, payload, bytes, checksum, base })
}

/// The changed ranges from `old` to `new`, or None when a full page is not much larger.
pub fn delta(old: &[u8; PAGE_SIZE], new: &[u8; PAGE_SIZE]) -> Option<Vec<u8>> {
    const STEP: usize = 32;
    const MOST: usize = PAGE_SIZE / 2;
    let mut out = Vec::new();
    let mut at = 0;
    while at < PAGE_SIZE {
        if old[at..at + STEP] == new[at..at + STEP] {
            at += STEP;
            continue;
        }
        let start = at;
        while at < PAGE_SIZE && old[at..at + STEP] != new[at..at + STEP] {
            at += STEP;
        }
        out.extend_from_slice(&(start as u16).to_le_bytes());
        out.extend_from_slice(&((at - start) as u16).to_le_bytes());
        out.extend_from_slice(&new[start..at]);
        if out.len() > MOST {
            return None;
        }
    }
    Some(out)
}

/// Applies changed ranges to a page in place.
///
/// # Errors
/// [`Error::Corrupt`] when a range leaves the page or the encoding is cut; the page may then be half changed.
pub fn apply_delta(page: &mut [u8; PAGE_SIZE], mut delta: &[u8]) -> Result<(), Error> {
    while !delta.is_empty() {
        let mut r = Reader::new(delta);
        let (at, len) = (r.u16()? as usize, r.u16()? as usize);
        let bytes = r.take(len)?;
        let target = page.get_mut(at..at + len).ok_or_else(|| Error::Corrupt("a delta leaves its page".into()))?;
        target.copy_from_slice(bytes);
        delta = &delta[4 + len..];
    }
    Ok(())
}

/// Checks a page's content against its checksum.
///
/// # Errors
/// [`Error::Corrupt`] when they differ.
pub fn verify_page(content: &[u8], expected: u64) -> Result<(), Error> {
    if checksum(content) == expected {
        return Ok(());
    }
    Err(Error::Corrupt("page checksum".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Record {
        Record {
            group: GroupId(3),
            id: RecordId { generation: Generation(1), lsn: Lsn(9), hash: 0 },
            token: Token { generation: Generation(1), boot: 2, n: 3 },
            session: Session { client: ClientId(4), number: 1 },
            transaction: 12,
            predecessor: 77,
            floor: Lsn(5),
            part: Part::Alone,
            datasets: vec![DatasetChange { dataset: DatasetId(8), size: 3 * 4096 }],
            links: Vec::new(),
            pages: vec![
                PageChange {
                    dataset: 0,
                    page: PageNo(1),
                    payload: Payload::Full,
                    bytes: 4096,
                    checksum: 1,
                    base: Lsn(0),
                },
                PageChange {
                    dataset: 0,
                    page: PageNo(2),
                    payload: Payload::Delta,
                    bytes: 10,
                    checksum: 2,
                    base: Lsn(8),
                },
                PageChange { dataset: 0, page: PageNo(7), payload: Payload::Zero, bytes: 0, checksum: 0, base: Lsn(0) },
            ],
        }
    }

    #[test]
    fn round_trip() {
        let mut r = sample();
        let meta = r.seal();
        let h = r.header(Kind::Commit, &meta, StoreId(5), 1);
        assert_eq!(Record::decode(&h, &meta).unwrap(), r);
    }

    fn link(group: u64, hash: u64) -> Link {
        let token = Token { generation: Generation(2), boot: 1, n: group as u32 };
        Link { group: GroupId(group), lsn: Lsn(7), hash, token }
    }

    fn again(r: &mut Record) -> Result<Record, Error> {
        let meta = r.seal();
        Record::decode(&r.header(Kind::Commit, &meta, StoreId(5), 1), &meta)
    }

    #[test]
    fn parts_and_links_round_trip() {
        let empty = Record { datasets: vec![], pages: vec![], ..sample() };
        for r in [
            Record { part: Part::Prepared, links: vec![link(9, 11)], ..sample() },
            Record { part: Part::Decides, links: (10..10 + 128).map(|g| link(g, 0)).collect(), ..sample() },
            Record { part: Part::Aborts, ..empty.clone() },
            empty,
        ] {
            let mut r = r;
            assert_eq!(again(&mut r).as_ref(), Ok(&r));
            let (full, _) = r.in_full();
            assert_eq!((full.id, &full.links), (r.id, &r.links), "sent again it says the same");
        }
    }

    /// As docs/formats/record.md and the readers in Python have it.
    #[test]
    fn the_prepared_record_of_the_document() {
        let token = |n| Token { generation: Generation(1), boot: 2, n };
        let mut r = Record {
            id: RecordId { generation: Generation(1), lsn: Lsn(2), hash: 0 },
            token: token(3),
            transaction: 2,
            predecessor: 0x7f10_75a3_5e20_eb37,
            floor: Lsn(1),
            part: Part::Prepared,
            datasets: vec![DatasetChange { dataset: DatasetId(8), size: 12288 }],
            links: vec![Link { group: GroupId(9), lsn: Lsn(5), hash: 0x1122_3344_5566_7788, token: token(4) }],
            pages: vec![PageChange {
                dataset: 0,
                page: PageNo(2),
                payload: Payload::Zero,
                bytes: 0,
                checksum: 0,
                base: Lsn(0),
            }],
            ..sample()
        };
        let meta = r.seal();
        let text: Vec<String> = meta.iter().map(|b| format!("{b:02x}")).collect();
        let document = include_str!("../../../docs/formats/record.md");
        let bytes = |w: &&str| w.len() == 2 && w.bytes().all(|b| b.is_ascii_hexdigit());
        let words: Vec<&str> = document.split_whitespace().filter(bytes).collect();
        assert!(words.windows(text.len()).any(|w| w == text), "{}", text.join(" "));
    }

    #[test]
    fn links_that_do_not_fit_the_part_are_refused() {
        let own = sample().group.0;
        let wrong = [
            (Part::Alone, vec![link(9, 11)]),
            (Part::Prepared, vec![]),
            (Part::Prepared, vec![link(9, 11), link(10, 11)]),
            (Part::Prepared, vec![link(own, 11)]),
            (Part::Prepared, vec![Link { lsn: Lsn(0), ..link(9, 11) }]),
            (Part::Decides, vec![]),
            (Part::Decides, vec![link(9, 11)]),
            (Part::Decides, vec![link(9, 0), link(9, 0)]),
            (Part::Decides, vec![link(own, 0)]),
            (Part::Decides, (10..10 + 129).map(|g| link(g, 0)).collect()),
            (Part::Aborts, vec![]), // with pages
        ];
        for (part, links) in wrong {
            let text = format!("{part:?} {links:?}");
            assert!(again(&mut Record { part, links, ..sample() }).is_err(), "{text}");
        }
        let mut meta = sample().seal();
        meta[76] = 4;
        assert!(Record::decode(&sample().header(Kind::Commit, &meta, StoreId(5), 1), &meta).is_err(), "no such part");
        let mut meta = sample().seal();
        meta[64] = 1;
        assert!(Record::decode(&sample().header(Kind::Commit, &meta, StoreId(5), 1), &meta).is_err(), "reserved");
    }

    #[test]
    fn a_delta_sent_again_in_full_is_the_same_record() {
        let mut r = sample();
        r.seal();
        let (full, meta) = r.in_full();
        assert_eq!(full.id, r.id);
        let h = full.header(Kind::Commit, &meta, StoreId(5), 1);
        assert_eq!(Record::decode(&h, &meta).unwrap(), full);
        assert_eq!(full.full_pages(), 2);
    }

    #[test]
    fn the_hash_covers_writer_content_and_predecessor() {
        let mut base = sample();
        base.seal();
        let change: [fn(&mut Record); 8] = [
            |r| r.session.number += 1,
            |r| r.transaction += 1,
            |r| r.predecessor += 1,
            |r| r.pages[0].checksum += 1,
            |r| r.id.generation.0 += 1,
            |r| r.group.0 += 1,
            |r| r.part = Part::Aborts,
            |r| (r.part, r.links) = (Part::Prepared, vec![link(9, 1)]),
        ];
        for c in change {
            let mut other = sample();
            c(&mut other);
            other.seal();
            assert_ne!(other.id.hash, base.id.hash);
        }
    }

    #[test]
    fn deltas_have_a_limit() {
        let most = limits::RECORD_DELTAS_MAX / PAGE_SIZE;
        for (n, fits) in [(most, true), (most + 1, false)] {
            let mut r = sample();
            r.datasets[0].size = limits::DATASET_MAX;
            let delta = |p| PageChange { page: PageNo(p as u64), bytes: PAGE_SIZE as u32, ..sample().pages[1] };
            r.pages = (0..n).map(delta).collect();
            let meta = r.seal();
            assert_eq!(Record::decode(&r.header(Kind::Commit, &meta, StoreId(5), 1), &meta).is_ok(), fits, "{n}");
        }
    }

    #[test]
    fn page_out_of_its_dataset_is_refused() {
        let mut r = sample();
        r.pages[0].page = PageNo(3);
        let meta = r.seal();
        assert!(Record::decode(&r.header(Kind::Commit, &meta, StoreId(5), 1), &meta).is_err());
    }

    proptest! {
        #[test]
        fn hostile_metadata_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), lsn in 0u64..3) {
            let mut h = Header::new(Kind::Commit).for_meta(&bytes);
            h.lsn = Lsn(lsn);
            let _ = Record::decode(&h, &bytes);
        }

        #[test]
        fn deltas_give_the_new_page(changes in proptest::collection::vec((0usize..4096, any::<u8>()), 0..30)) {
            let old = [7u8; PAGE_SIZE];
            let mut new = old;
            for (at, v) in changes { new[at] = v; }
            if let Some(d) = delta(&old, &new) {
                let mut page = old;
                apply_delta(&mut page, &d).unwrap();
                prop_assert!(page == new);
            }
        }

        #[test]
        fn hostile_deltas_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = apply_delta(&mut [0; PAGE_SIZE], &bytes);
        }
    }
}
