//! How a commit's pages travel: in full, as a delta against the version that every member holds, or as zeros.

use super::cache::PageCache;
use super::send::Changed;
use dspm_proto::record::{PageChange, Payload, delta};
use dspm_proto::{Lsn, PAGE_SIZE, checksum, limits};

/// Deltas beyond this many bytes travel as full pages: they lie in the memory of client and members beside the pages.
const DELTAS_MAX: usize = limits::RECORD_DELTAS_MAX / 8;

/// The record's pages and what goes behind its metadata.
pub(super) struct Encoded {
    /// Full pages, then deltas, then zeros.
    pub(super) pages: Vec<PageChange>,
    /// One for each delta, in order.
    pub(super) deltas: Vec<Vec<u8>>,
    /// Full pages: which change, and the place there.
    pub(super) full: Vec<(usize, usize)>,
}

/// Encodes changes on top of the state `base`. Deltas only against what `cache` holds of that state; None: no deltas.
pub(super) fn encode(cache: Option<&PageCache>, base: Lsn, changes: &[Changed<'_>]) -> Encoded {
    let (mut full, mut deltas, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    let (mut full_at, mut bytes, mut room) = (Vec::new(), Vec::new(), DELTAS_MAX);
    let places = changes.iter().enumerate().flat_map(|(c, changed)| (0..changed.1.pages.len()).map(move |i| (c, i)));
    for (c, i) in places {
        let (dataset, change) = changes[c];
        let (page, content) = change.pages[i];
        let (payload, sum) = (Payload::Full, checksum(&content[..]));
        let p = PageChange { dataset: c as u16, page, payload, bytes: PAGE_SIZE as u32, checksum: sum, base: Lsn(0) };
        if content.iter().all(|b| *b == 0) {
            zeros.push(PageChange { payload: Payload::Zero, bytes: 0, checksum: 0, ..p });
            continue;
        }
        let against = cache
            .filter(|_| room >= PAGE_SIZE)
            .and_then(|c| c.with(dataset, page, base, |old, lsn| delta(old, content).map(|d| (d, lsn))));
        match against.flatten().filter(|(_, lsn)| *lsn > Lsn(0)) {
            Some((d, base)) => {
                room -= d.len();
                deltas.push(PageChange { payload: Payload::Delta, bytes: d.len() as u32, base, ..p });
                bytes.push(d);
            }
            None => {
                full.push(p);
                full_at.push((c, i));
            }
        }
    }
    full.append(&mut deltas);
    full.append(&mut zeros);
    Encoded { pages: full, deltas: bytes, full: full_at }
}

#[cfg(test)]
mod tests {
    use super::super::cache::OPEN;
    use super::*;
    use dspm_proto::{DatasetId, PageNo};
    use dspm_txn::dataset::Change;

    #[test]
    fn deltas_beyond_the_limit_travel_as_full_pages() {
        const D: DatasetId = DatasetId(1);
        let (old, mut new) = ([1; PAGE_SIZE], [1; PAGE_SIZE]);
        new[..PAGE_SIZE / 4].fill(2);
        let pages = (DELTAS_MAX / PAGE_SIZE * 5) as u64;
        let cache = PageCache::new(pages * 2 * PAGE_SIZE as u64);
        (0..pages).for_each(|p| cache.put(D, PageNo(p), Lsn(1), OPEN, &old));
        let change: Vec<_> = (0..pages).map(|p| (PageNo(p), &new)).collect();
        let change = Change { pages: &change, size: pages * PAGE_SIZE as u64 };
        let encoded = encode(Some(&cache), Lsn(1), &[(D, &change)]);
        let bytes: usize = encoded.deltas.iter().map(Vec::len).sum();
        assert!((DELTAS_MAX - 2 * PAGE_SIZE..=DELTAS_MAX).contains(&bytes), "{bytes}");
        assert_eq!(encoded.full.len() + encoded.deltas.len(), pages as usize);
        assert_eq!(encoded.pages.iter().filter(|p| p.payload == Payload::Delta).count(), encoded.deltas.len());
    }
}
