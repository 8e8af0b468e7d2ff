//! What a snapshot sees, and what changed between two.

use std::collections::HashMap;

use dspm_proto::record::{Payload, Record};
use dspm_proto::{DatasetId, Error, Kind, Lsn, PAGE_SIZE, PageNo, RecordId, limits};

use crate::base::BaseReader;
use crate::frames::{PinnedFrame, page_of};
use crate::group::GroupStore;
use crate::index::Found;
use crate::layout::FrameNo;

/// Where a page's content at a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In the arena.
    Frame {
        /// Its version.
        lsn: Lsn,
        /// Where ([`GroupStore::page`], [`GroupStore::pin`]).
        frame: FrameNo,
        /// Checksum of the content.
        checksum: u64,
    },
    /// It is zeros since that LSN (0: always was).
    Zero {
        /// Its version.
        lsn: Lsn,
    },
    /// In the base file ([`GroupStore::base_reader`]); the version is at or below `upto`, and the reader says which.
    Disk {
        /// LSN of the base file.
        upto: Lsn,
    },
    /// The copy here is damaged; ask another member, and hand the answer to [`GroupStore::heal`].
    Lost {
        /// The version wanted.
        lsn: Lsn,
        /// Checksum that the content must have.
        checksum: u64,
    },
    /// The snapshot is no longer kept, or the page's version is of before the group was rebased and has not come yet.
    TooOld,
}

/// A page of a record that is sent again.
pub enum StoredPage {
    /// Its content.
    Frame(PinnedFrame),
    /// Payload zero: no content.
    Zero,
    /// A newer version replaced it and no reader needs it any more.
    Gone,
}

/// A record of the ring.
pub struct StoredRecord {
    /// Decoded.
    pub record: Record,
    /// As it came.
    pub meta: Vec<u8>,
    /// One for each of `record.pages`.
    pub pages: Vec<StoredPage>,
}

impl StoredRecord {
    /// True when every page is still here, so that it can be sent again.
    pub fn is_complete(&self) -> bool {
        !self.pages.iter().any(|p| matches!(p, StoredPage::Gone))
    }
}

/// What changed in (known, upto].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Pages written, each once with its newest LSN ≤ upto, zeros included.
    pub pages: Vec<(DatasetId, PageNo, Lsn)>,
    /// Shrinkings: every page from there on is zeros since the LSN. In the order of LSNs.
    pub truncations: Vec<(DatasetId, PageNo, Lsn)>,
    /// Sizes at upto of the datasets that records in the span touched.
    pub sizes: Vec<(DatasetId, u64)>,
}

impl GroupStore {
    /// The oldest record that [`GroupStore::record`] finds; tail + 1 when there is none.
    pub fn oldest_record(&self) -> Lsn {
        self.base.lsn.next()
    }

    /// Identity of a record in the ring, or of the one before the oldest.
    pub fn record_id(&self, lsn: Lsn) -> Option<RecordId> {
        if lsn == self.tail.lsn {
            return Some(self.tail);
        }
        if lsn == self.base.lsn {
            return Some(self.base);
        }
        self.decoded(lsn).ok().flatten().map(|r| r.0.id)
    }

    /// A record of the ring, decoded; None when it is no longer, or not yet, there.
    pub(crate) fn decoded(&self, lsn: Lsn) -> Result<Option<(Record, Vec<u8>)>, Error> {
        let Some(kept) = self.kept(lsn) else { return Ok(None) };
        match (self.ring.entry(kept.position), self.remembered(lsn)) {
            (Ok(Some((h, meta, _))), _) if h.kind == Kind::Commit => Ok(Some((Record::decode(&h, &meta)?, meta))),
            (_, Some(open)) => Ok(Some(open.clone())),
            (Err(e), None) => Err(e),
            _ => Err(Error::Corrupt(format!("record {lsn} of group {}", self.id()))),
        }
    }

    /// True when a record is in the ring with all its pages.
    pub(crate) fn is_kept(&self, lsn: Lsn) -> bool {
        let Ok(Some((record, _))) = self.decoded(lsn) else { return false };
        record.pages.iter().filter(|p| p.payload != Payload::Zero).all(|p| {
            let d = self.datasets.get(&record.datasets[p.dataset as usize].dataset);
            d.and_then(|d| d.frame_at(&self.arena, p.page.0, lsn)).is_some_and(|f| f.1 == lsn)
        })
    }

    /// True when all records from `lsn` to the tail are here with their pages, so that they can be sent again.
    pub fn keeps_from(&self, lsn: Lsn) -> bool {
        lsn > self.base.lsn && (lsn.0..=self.tail.lsn.0).all(|l| self.is_kept(Lsn(l)))
    }

    /// A record with its pages pinned, to send it again. None when the ring does not hold it (or it is damaged).
    pub fn record(&self, lsn: Lsn) -> Option<StoredRecord> {
        self.stored(lsn, false)
    }

    /// [`GroupStore::record`]; for the log with the damaged pages of which no good copy was found.
    pub(crate) fn stored(&self, lsn: Lsn, given_up: bool) -> Option<StoredRecord> {
        let (record, meta) = self.decoded(lsn).ok()??;
        let pages = record.pages.iter().map(|p| {
            if p.payload == Payload::Zero {
                return StoredPage::Zero;
            }
            let d = self.datasets.get(&record.datasets[p.dataset as usize].dataset);
            match d.and_then(|d| d.frame_at(&self.arena, p.page.0, lsn)) {
                Some((frame, l)) if l == lsn => StoredPage::Frame(self.pin(frame)),
                _ => match d.and_then(|d| d.given_up_at(p.page.0, lsn)).filter(|f| given_up && f.1 == lsn) {
                    Some((frame, _)) => StoredPage::Frame(self.pin(frame)),
                    None => StoredPage::Gone,
                },
            }
        });
        let pages = pages.collect();
        Some(StoredRecord { record, meta, pages })
    }

    /// Size in bytes of a dataset at a snapshot; 0 when it did not exist.
    pub fn size(&self, dataset: DatasetId, at: Lsn) -> u64 {
        self.datasets.get(&dataset).map_or(0, |d| d.size(at))
    }

    /// The group's datasets and their sizes at the tail.
    pub fn datasets(&self) -> Vec<(DatasetId, u64)> {
        self.datasets.values().map(|d| (d.id, d.newest_size())).collect()
    }

    /// Where the content of a page at a snapshot is. A page that nobody wrote is zeros. A group that is not whole knows the
    /// pages that its records wrote.
    #[inline]
    pub fn lookup(&self, dataset: DatasetId, page: PageNo, at: Lsn) -> Lookup {
        if at < self.floor() {
            return Lookup::TooOld;
        }
        let whole = self.is_whole();
        let nowhere = if whole { Lookup::Zero { lsn: Lsn(0) } } else { Lookup::TooOld };
        let Some(d) = self.datasets.get(&dataset) else { return nowhere };
        match d.find(&self.arena, page.0, at) {
            Found::Frame(frame, lsn) => Lookup::Frame { lsn, frame, checksum: self.arena.sum(frame) },
            Found::Zero(Lsn(0)) => nowhere,
            Found::Zero(lsn) => Lookup::Zero { lsn },
            Found::Lost(lsn, checksum) => Lookup::Lost { lsn, checksum },
            Found::Base(_) if !whole => Lookup::TooOld,
            Found::Base(upto) => Lookup::Disk { upto },
        }
    }

    /// Content of a frame that [`GroupStore::lookup`] named, under the same hold of the group's lock.
    ///
    /// # Panics
    /// When the frame is no page of this group.
    #[inline]
    pub fn page(&self, frame: FrameNo) -> &[u8; PAGE_SIZE] {
        page_of(self, frame)
    }

    /// Content of a frame that [`GroupStore::lookup`] named, to be read without the group's lock later.
    ///
    /// # Panics
    /// As [`GroupStore::page`].
    pub fn pin(&self, frame: FrameNo) -> PinnedFrame {
        PinnedFrame::new(&self.arena, self.id(), frame)
    }

    /// Reads a dataset's base file without the group's lock.
    pub fn base_reader(&self, dataset: DatasetId) -> Option<BaseReader> {
        let base = self.datasets.get(&dataset)?.base.as_ref()?;
        Some(BaseReader::new(self.arena.clone(), base.file.clone(), self.horizon()))
    }

    /// What changed in (known, upto]; None when that is too much, or the records are gone: "drop your maps".
    pub fn changes(&self, known: Lsn, upto: Lsn) -> Option<Changes> {
        if known >= upto {
            return Some(Changes::default());
        }
        if known < self.base.lsn || upto > self.tail.lsn {
            return None;
        }
        let (mut pages, mut sizes) = (HashMap::new(), HashMap::new());
        for lsn in (known.0 + 1)..=upto.0 {
            let (record, _) = self.decoded(Lsn(lsn)).ok()??;
            if self.is_aborted(Lsn(lsn)) {
                continue;
            }
            sizes.extend(record.datasets.iter().map(|d| (d.dataset, d.size)));
            for p in &record.pages {
                pages.insert((record.datasets[p.dataset as usize].dataset, p.page), Lsn(lsn));
            }
            if pages.len() > limits::CHANGES_MAX {
                return None;
            }
        }
        let truncations = self.truncations(known, upto, &sizes)?;
        let pages = pages.into_iter().map(|((d, p), l)| (d, p, l)).collect();
        Some(Changes { pages, truncations, sizes: sizes.into_iter().collect() })
    }

    fn truncations(
        &self,
        known: Lsn,
        upto: Lsn,
        touched: &HashMap<DatasetId, u64>,
    ) -> Option<Vec<(DatasetId, PageNo, Lsn)>> {
        let mut out = Vec::new();
        for d in touched.keys().filter_map(|id| self.datasets.get(id)) {
            if d.forgotten > known {
                return None;
            }
            let within = d.truncations.iter().filter(|t| t.0 > known && t.0 <= upto);
            out.extend(within.map(|t| (d.id, PageNo(t.1), t.0)));
        }
        out.sort_by_key(|t| t.2);
        Some(out)
    }
}
