//! What a transaction has written so far: whole store pages over a snapshot, and the size.
//!
//! Invariants: a page in the overlay is complete (a partial write read the rest from the snapshot first); bytes at or
//! beyond the size are zeros in it; the snapshot shows only below `floor`, the smallest size that the transaction had,
//! so that what was cut off never comes back when the file grows again.

use dspm_proto::{Error, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{Dataset, PageBuf, Snapshot};
use std::collections::BTreeMap;

static ZEROS: PageBuf = [0; PAGE_SIZE];

/// The state under an overlay.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    pub dataset: &'a dyn Dataset,
    pub snapshot: &'a Snapshot,
}

impl Base<'_> {
    /// Copies bytes `offset..`, all of them inside one store page.
    fn read(&self, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error> {
        self.dataset.read(self.snapshot, page, at, buf)
    }
}

/// The written pages of one transaction.
pub struct Overlay {
    pages: BTreeMap<PageNo, Box<PageBuf>>,
    size: u64,
    size_before: u64,
    floor: u64,
    bytes_max: u64,
}

impl Overlay {
    /// Nothing written over a state of that size; at most `bytes_max` may be.
    pub fn new(size: u64, bytes_max: u64) -> Overlay {
        Overlay { pages: BTreeMap::new(), size, size_before: size, floor: size, bytes_max }
    }

    /// Size of the database as the transaction sees it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True once anything was written or cut, also if the size is the old one again.
    pub fn is_written(&self) -> bool {
        !self.pages.is_empty() || self.size != self.size_before || self.floor < self.size_before
    }

    /// The pages that the commit changes, in ascending order. What was cut off and is inside the size again is zeros.
    pub fn pages(&self) -> Vec<(PageNo, &PageBuf)> {
        let mut pages: Vec<(PageNo, &PageBuf)> = self.pages.iter().map(|(page, c)| (*page, &**c)).collect();
        let regrown = PageNo::count(self.floor)..PageNo::count(self.size_before.min(self.size));
        let zeros = regrown.map(PageNo).filter(|p| !self.pages.contains_key(p));
        pages.extend(zeros.map(|p| (p, &ZEROS)));
        pages.sort_unstable_by_key(|p| p.0);
        pages
    }

    /// Begins again over a state of that size.
    pub fn restart(&mut self, size: u64) {
        *self = Overlay::new(size, self.bytes_max);
    }

    /// Copies bytes from `offset` on; those beyond the size are zeros.
    pub fn read(&self, base: Base<'_>, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        for (page, at, part) in parts(offset, buf.len()) {
            let out = &mut buf[part];
            match self.pages.get(&page) {
                Some(content) => out.copy_from_slice(&content[at..at + out.len()]),
                None => self.read_below_floor(base, page, at, out)?,
            }
        }
        Ok(())
    }

    /// Takes bytes in.
    pub fn write(&mut self, base: Base<'_>, offset: u64, data: &[u8]) -> Result<(), Error> {
        for (page, at, part) in parts(offset, data.len()) {
            let data = &data[part];
            if data.len() == PAGE_SIZE {
                self.make_room(page)?;
                let content = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE]));
                content.copy_from_slice(data);
            } else {
                self.page_mut(base, page)?[at..at + data.len()].copy_from_slice(data);
            }
        }
        self.size = self.size.max(offset + data.len() as u64);
        Ok(())
    }

    /// Sets the size. What lies beyond is gone, also in the last page that is partly left.
    pub fn truncate(&mut self, base: Base<'_>, size: u64) -> Result<(), Error> {
        if size < self.size {
            let kept = (size % PAGE_SIZE as u64) as usize;
            if kept != 0 {
                self.page_mut(base, PageNo(size / PAGE_SIZE as u64))?[kept..].fill(0);
            }
            self.pages.split_off(&PageNo(PageNo::count(size)));
            self.floor = self.floor.min(size);
        }
        self.size = size;
        Ok(())
    }

    /// The page, complete, to be changed.
    pub fn page_mut(&mut self, base: Base<'_>, page: PageNo) -> Result<&mut PageBuf, Error> {
        if !self.pages.contains_key(&page) {
            self.make_room(page)?;
            let mut content = Box::new([0; PAGE_SIZE]);
            self.read_below_floor(base, page, 0, &mut content[..])?;
            self.pages.insert(page, content);
        }
        // The page was put there if it was missing.
        Ok(self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE])))
    }

    fn read_below_floor(&self, base: Base<'_>, page: PageNo, at: usize, out: &mut [u8]) -> Result<(), Error> {
        let offset = page.0 * PAGE_SIZE as u64 + at as u64;
        let there = self.floor.saturating_sub(offset).min(out.len() as u64) as usize;
        if there > 0 {
            base.read(page, at, &mut out[..there])?;
        }
        out[there..].fill(0);
        Ok(())
    }

    fn make_room(&self, page: PageNo) -> Result<(), Error> {
        let bytes = (self.pages.len() as u64 + 1) * PAGE_SIZE as u64;
        if bytes > self.bytes_max && !self.pages.contains_key(&page) {
            return Err(Error::Full(format!("the transaction has written more than {} bytes", self.bytes_max)));
        }
        Ok(())
    }
}

/// Reads a snapshot without an overlay; bytes beyond its size are the caller's business.
pub fn read_snapshot(base: Base<'_>, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
    for (page, at, part) in parts(offset, buf.len()) {
        base.read(page, at, &mut buf[part])?;
    }
    Ok(())
}

/// Cuts bytes `offset..offset + len` at the borders of store pages: (page, where in it, where in the buffer).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (PageNo, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let here = offset + done as u64;
        let at = (here % PAGE_SIZE as u64) as usize;
        let part = done..len.min(done + PAGE_SIZE - at);
        done = part.end;
        Some((PageNo(here / PAGE_SIZE as u64), at, part))
    })
}

#[cfg(test)]
mod tests;
