//! A process's cached pages: each version with the commits in which it is the page's content.
//!
//! Rules: a version `[lsn, until)` answers snapshot s iff lsn ≤ s < until; an open end means "up to the newest state
//! that this process knows". What an answer lists as changed ends there; an answer that lists nothing ends all open
//! ones behind what was known before. Which commits changed a page before the newest one is not told: it ends behind what
//! was known, for readers of the past may look in between. A page fetched for an older snapshot than what is known ends behind that.

use dspm_proto::record::Record;
use dspm_proto::{Lsn, PageNo};
use std::collections::BTreeMap;

const OPEN: Lsn = Lsn(u64::MAX);

/// What an answer says of the commits behind the one that the asker knew: the pages and their newest commits, or None
/// for "drop what you know".
pub type Changes = Option<Vec<(PageNo, Lsn)>>;

#[derive(Clone, Copy, Debug)]
struct Version {
    lsn: Lsn,
    until: Lsn,
    value: u64,
}

/// One group's pages in a process.
#[derive(Debug, Default)]
pub struct Cache(BTreeMap<PageNo, Version>);

impl Cache {
    /// The page as the snapshot sees it, if it is here. (The fault: whatever is here.)
    pub(crate) fn read(&self, page: PageNo, at: Lsn, unbounded: bool) -> Option<u64> {
        let fits = |v: &&Version| unbounded || (v.lsn <= at && at < v.until);
        self.0.get(&page).filter(fits).map(|v| v.value)
    }

    /// A version that was fetched for a snapshot, while the process knew `known`.
    pub(crate) fn fetched(&mut self, page: PageNo, (lsn, value): (Lsn, u64), at: Lsn, known: Lsn) {
        let until = if known > at { at.next() } else { OPEN };
        self.put(page, Version { lsn, until, value });
    }

    fn put(&mut self, page: PageNo, new: Version) {
        let newer = |v: &Version| v.lsn > new.lsn || (v.lsn == new.lsn && v.until >= new.until);
        if !self.0.get(&page).is_some_and(newer) {
            self.0.insert(page, new);
        }
    }

    fn end(&mut self, page: PageNo, lsn: Lsn, known: Lsn) {
        if let Some(v) = self.0.get_mut(&page).filter(|v| v.lsn < lsn) {
            v.until = v.until.min(lsn).min(known.max(v.lsn).next());
        }
    }

    /// An answer came while the process knew `known`. (The fault: a page ends at its newest change.)
    pub(crate) fn learn(&mut self, changes: &Changes, known: Lsn, at_newest: bool) {
        let proven = if at_newest { Lsn(u64::MAX - 1) } else { known };
        match changes {
            Some(list) => list.iter().for_each(|(page, lsn)| self.end(*page, *lsn, proven)),
            None => {
                let pages: Vec<PageNo> = self.0.keys().copied().collect();
                pages.into_iter().for_each(|p| self.end(p, known.next(), known));
            }
        }
    }

    /// A commit of this process, which now knows `known`.
    pub(crate) fn wrote(&mut self, record: &Record, known: Lsn) {
        let lsn = record.id.lsn;
        let until = if known > lsn { lsn.next() } else { OPEN };
        for p in &record.pages {
            self.end(p.page, lsn, Lsn(lsn.0 - 1));
            self.put(p.page, Version { lsn, until, value: p.checksum });
        }
    }
}
