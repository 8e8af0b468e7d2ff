//! Base files: per dataset, its pages in order, and beside it a sidecar with (LSN, checksum) of each page.
//! Drawn in docs/formats/base-file.md.
//!
//! Invariants: the sidecar's header names the last checkpoint whose CHECKPOINT entry is in the synced log, never a
//! later one. A page is served only if its checksum fits the sidecar. A write torn by a crash is healed by replaying
//! the log from the last checkpoint, because everything that a checkpoint changes is newer than the one before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{DatasetId, Error, Generation, GroupId, Lsn, PAGE_SIZE, PageNo, RecordId, checksum};

use crate::arena::{Arena, lock};
use crate::disk::{Disk, DiskFile};
use crate::step::step;

const MAGIC: [u8; 8] = *b"DSPMBASE";
const VERSION: u32 = 1;
const SUMMED: usize = 80;
const COPIES: [u64; 2] = [0, 512];
const ENTRIES: u64 = PAGE_SIZE as u64;
const ENTRY: u64 = 16;

/// A checkpoint of one dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) group: GroupId,
    pub(crate) dataset: DatasetId,
    /// Everything up to this record is in the base file.
    pub(crate) at: RecordId,
    pub(crate) size: u64,
}

impl Checkpoint {
    fn encode(&self, sequence: u64) -> [u8; SUMMED + 8] {
        let mut b = [0u8; SUMMED + 8];
        b[..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let at = self.at;
        let words = [sequence, self.group.0, self.dataset.0, at.generation.0, at.lsn.0, at.hash, self.size];
        for (i, w) in words.iter().enumerate() {
            b[16 + i * 8..24 + i * 8].copy_from_slice(&w.to_le_bytes());
        }
        let sum = checksum(&b[..SUMMED]);
        b[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        b
    }

    fn decode(b: &[u8]) -> Option<(u64, Checkpoint)> {
        if b[..8] != MAGIC || get_u32(b, 8) != VERSION || get_u64(b, SUMMED) != checksum(&b[..SUMMED]) {
            return None;
        }
        let at = RecordId { generation: Generation(get_u64(b, 40)), lsn: Lsn(get_u64(b, 48)), hash: get_u64(b, 56) };
        let (group, dataset) = (GroupId(get_u64(b, 24)), DatasetId(get_u64(b, 32)));
        Some((get_u64(b, 16), Checkpoint { group, dataset, at, size: get_u64(b, 64) }))
    }
}

/// A dataset's base file and sidecar. Files are opened when needed.
pub(crate) struct BaseFile {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    index: PathBuf,
    pages: AtomicU64,
    sequence: AtomicU64,
    /// LSN of the last checkpoint that cut pages off: a hole says nothing about snapshots below.
    cut_at: AtomicU64,
    /// Written by the checkpoint, read by readers: a page and its entry change together.
    guard: RwLock<()>,
    open: Mutex<Option<Arc<Handles>>>,
    /// Pages that were found not to fit their entries, so that each is counted once.
    damaged: Mutex<BTreeSet<u64>>,
}

/// Both files, open.
pub(crate) struct Handles {
    data: Box<dyn DiskFile>,
    index: Box<dyn DiskFile>,
}

impl BaseFile {
    /// The files of a dataset, which need not exist.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, dataset: DatasetId) -> BaseFile {
        let name = format!("{:016x}", dataset.0);
        BaseFile {
            disk,
            data: dir.join(format!("{name}.db")),
            index: dir.join(format!("{name}.idx")),
            pages: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            cut_at: AtomicU64::new(0),
            guard: RwLock::new(()),
            open: Mutex::new(None),
            damaged: Mutex::default(),
        }
    }

    /// The dataset that a path of a sidecar names.
    pub(crate) fn dataset_of(path: &Path) -> Option<DatasetId> {
        let name = path.file_name()?.to_str()?.strip_suffix(".idx")?;
        u64::from_str_radix(name, 16).ok().filter(|_| name.len() == 16).map(DatasetId)
    }

    /// Pages that the file has a place for.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Acquire)
    }

    /// True when the file has a place for the page.
    pub(crate) fn has_page(&self, page: u64) -> bool {
        page < self.pages.load(Ordering::Acquire)
    }

    /// Opens both files, or takes those that readers have open.
    pub(crate) fn handles(&self) -> Result<Arc<Handles>, Error> {
        let mut open = lock(&self.open);
        if let Some(h) = open.as_ref() {
            return Ok(h.clone());
        }
        let open_file = |path| self.disk.open(path, true).map_err(full);
        let h = Arc::new(Handles { data: open_file(&self.data)?, index: open_file(&self.index)? });
        *open = Some(h.clone());
        Ok(h)
    }

    /// Closes the files until they are needed again.
    pub(crate) fn close(&self) {
        *lock(&self.open) = None;
    }

    /// The last checkpoint that the sidecar names; None when there was none.
    pub(crate) fn load(&self) -> Result<Option<Checkpoint>, Error> {
        let h = self.handles()?;
        let mut page = [0u8; PAGE_SIZE];
        h.index.read_at(&mut page, 0).map_err(full)?;
        let copies = COPIES.iter().filter_map(|at| Checkpoint::decode(&page[*at as usize..]));
        let newest = copies.max_by_key(|c| c.0);
        if let Some((sequence, c)) = newest {
            self.sequence.store(sequence, Ordering::Release);
            self.pages.store(PageNo::count(c.size), Ordering::Release);
        }
        Ok(newest.map(|c| c.1))
    }

    /// The synced log has the CHECKPOINT: says so in the sidecar, durably, before a segment is freed.
    pub(crate) fn name(&self, c: &Checkpoint) -> Result<(), Error> {
        let h = self.handles()?;
        let sequence = self.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        h.index.write_at(&c.encode(sequence), COPIES[(sequence % 2) as usize]).map_err(full)?;
        h.index.sync().map_err(full)?;
        self.close();
        Ok(())
    }

    /// Pages that readers may ask for.
    pub(crate) fn set_size(&self, size: u64) {
        self.pages.store(PageNo::count(size), Ordering::Release);
    }

    /// Everything at or beyond a page becomes zeros, for a checkpoint at `lsn`.
    pub(crate) fn truncate(&self, h: &Handles, first: u64, lsn: Lsn) -> Result<(), Error> {
        let _w = self.guard.write().unwrap_or_else(PoisonError::into_inner);
        self.says_nothing_below(lsn);
        if h.data.size().map_err(full)? > first * PAGE_SIZE as u64 {
            h.data.set_len(first * PAGE_SIZE as u64).map_err(full)?;
        }
        if h.index.size().map_err(full)? > ENTRIES + first * ENTRY {
            h.index.set_len(ENTRIES + first * ENTRY).map_err(full)?;
        }
        Ok(())
    }

    /// A hole says nothing about snapshots below.
    pub(crate) fn says_nothing_below(&self, lsn: Lsn) {
        self.cut_at.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// Writes a page's version and its entry.
    pub(crate) fn write(
        &self,
        h: &Handles,
        page: u64,
        lsn: Lsn,
        content: &[u8; PAGE_SIZE],
        sum: u64,
    ) -> Result<(), Error> {
        let _w = self.guard.write().unwrap_or_else(PoisonError::into_inner);
        h.data.write_at(content, page * PAGE_SIZE as u64).map_err(full)?;
        let mut entry = [0u8; ENTRY as usize];
        entry[..8].copy_from_slice(&lsn.0.to_le_bytes());
        entry[8..].copy_from_slice(&(sum ^ version_sum(page, lsn)).to_le_bytes());
        h.index.write_at(&entry, ENTRIES + page * ENTRY).map_err(full)?;
        Ok(())
    }

    /// Sets the data file's size to the dataset's, and syncs both.
    pub(crate) fn finish(&self, h: &Handles, size: u64) -> Result<(), Error> {
        h.data.set_len(size).map_err(full)?;
        let entries = ENTRIES + PageNo::count(size) * ENTRY;
        if h.index.size().map_err(full)? != entries {
            h.index.set_len(entries).map_err(full)?;
        }
        self.sync(h)
    }

    /// Syncs both files.
    pub(crate) fn sync(&self, h: &Handles) -> Result<(), Error> {
        h.data.sync().map_err(full)?;
        h.index.sync().map_err(full)?;
        Ok(())
    }

    /// Makes the files' names durable; once, after they were made.
    pub(crate) fn sync_names(&self) -> Result<(), Error> {
        self.disk.sync_dir(self.data.parent().unwrap_or(Path::new("."))).map_err(full)
    }

    /// Where its pages are.
    pub(crate) fn path(&self) -> &Path {
        &self.data
    }

    /// Removes the files; it is no error when they are absent.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.close();
        self.disk.remove(&self.index)?;
        self.disk.remove(&self.data)?;
        Ok(())
    }

    /// The newest version in the sidecar, those of a checkpoint that was not finished included.
    pub(crate) fn newest(&self) -> Result<Lsn, Error> {
        let h = self.handles()?;
        let (mut newest, mut at, mut entries) = (0, ENTRIES, vec![0u8; 64 << 10]);
        loop {
            let n = h.index.read_at(&mut entries, at).map_err(full)?;
            let lsns = entries[..n].chunks_exact(ENTRY as usize).map(|e| get_u64(e, 0));
            newest = lsns.fold(newest, u64::max);
            at += n as u64;
            if n < entries.len() {
                return Ok(Lsn(newest));
            }
        }
    }

    /// Checks pages from `first` on, as many as `data` has room for; returns those that do not fit their entries, and how
    /// many were ever written. Opens the files for itself, so that those of datasets at rest do not stay open.
    pub(crate) fn check(&self, first: u64, data: &mut [u8]) -> Result<(Vec<u64>, u64), Error> {
        let pages = (data.len() / PAGE_SIZE) as u64;
        let (index, file) = (self.disk.open(&self.index, false)?, self.disk.open(&self.data, false)?);
        let mut entries = vec![0; (pages * ENTRY) as usize];
        let _r = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        data.fill(0);
        index.read_at(&mut entries, ENTRIES + first * ENTRY)?;
        file.read_at(data, first * PAGE_SIZE as u64)?;
        let all = entries.chunks_exact(ENTRY as usize).zip(data.chunks_exact(PAGE_SIZE)).zip(first..);
        let bad = all.filter(|((entry, content), page)| !fits(*page, entry, content)).map(|(_, page)| page);
        let bad = bad.take_while(|page| self.has_page(*page)).collect();
        Ok((bad, entries.chunks_exact(ENTRY as usize).filter(|e| get_u64(e, 0) != 0).count() as u64))
    }

    /// Writes a page again that does not fit its entry, and the entry, durably. LSN 0: it is zeros that nobody wrote. No
    /// checkpoint is under way. A crash leaves it damaged, as it was, or whole.
    pub(crate) fn mend(&self, page: u64, lsn: Lsn, content: &[u8; PAGE_SIZE]) -> Result<(), Error> {
        let h = self.handles()?;
        let at = page * PAGE_SIZE as u64;
        let rest = h.data.size().map_err(full)?.saturating_sub(at).min(PAGE_SIZE as u64) as usize;
        let mut clipped = [0u8; PAGE_SIZE];
        clipped[..rest].copy_from_slice(&content[..rest]);
        let _w = self.guard.write().unwrap_or_else(PoisonError::into_inner);
        h.data.write_at(&clipped[..rest], at).map_err(full)?;
        step("base page mended");
        let mut entry = [0u8; ENTRY as usize];
        if lsn.0 > 0 {
            entry[..8].copy_from_slice(&lsn.0.to_le_bytes());
            entry[8..].copy_from_slice(&(checksum(&clipped) ^ version_sum(page, lsn)).to_le_bytes());
        }
        h.index.write_at(&entry, ENTRIES + page * ENTRY).map_err(full)?;
        step("base entry mended");
        self.sync(&h)
    }

    /// True the first time that a page is reported to be damaged, until it is mended.
    pub(crate) fn report(&self, page: u64, damaged: bool) -> bool {
        let mut known = lock(&self.damaged);
        if damaged { known.insert(page) } else { known.remove(&page) }
    }

    /// Reads a page and its LSN, verified.
    pub(crate) fn read(&self, page: PageNo, out: &mut [u8; PAGE_SIZE]) -> Result<Lsn, Error> {
        let h = self.handles().map_err(|e| Error::Unavailable(format!("base file: {e}")))?;
        let _r = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        let mut entry = [0u8; ENTRY as usize];
        h.index.read_at(&mut entry, ENTRIES + page.0 * ENTRY)?;
        out.fill(0);
        h.data.read_at(out, page.0 * PAGE_SIZE as u64)?;
        let lsn = Lsn(get_u64(&entry, 0));
        if fits(page.0, &entry, out) {
            return Ok(lsn);
        }
        Err(Error::Corrupt(format!("page {page} of {}", self.data.display())))
    }
}

/// True when a page is what its entry says. One that nobody wrote has an entry of zeros and must be a hole.
fn fits(page: u64, entry: &[u8], content: &[u8]) -> bool {
    let (lsn, sum) = (Lsn(get_u64(entry, 0)), get_u64(entry, 8));
    match lsn.0 {
        0 => sum == 0 && content.iter().all(|b| *b == 0),
        _ => checksum(content) ^ version_sum(page, lsn) == sum,
    }
}

/// What a page's entry says besides its content: goes into the entry's checksum, so that an LSN that was damaged, or an
/// entry in another's place, does not fit either.
fn version_sum(page: u64, lsn: Lsn) -> u64 {
    let mut b = [0u8; 16];
    b[..8].copy_from_slice(&page.to_le_bytes());
    b[8..].copy_from_slice(&lsn.0.to_le_bytes());
    checksum(&b)
}

/// What ends when somebody else gives something back (room on the disk, descriptors, memory of the kernel) is told apart
/// from a disk that fails.
fn full(e: std::io::Error) -> Error {
    use rustix::io::Errno;
    let passing = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    match Errno::from_io_error(&e) {
        Some(errno) if passing.contains(&errno) => Error::Full(e.to_string()),
        _ if matches!(e.kind(), std::io::ErrorKind::StorageFull) => Error::Full(e.to_string()), // of no system call
        _ => e.into(),
    }
}

/// Reads a dataset's base file; holds no lock of the group.
pub struct BaseReader {
    arena: Arc<Arena>,
    file: Arc<BaseFile>,
    /// The group's, when its lock was held.
    horizon: Lsn,
}

impl BaseReader {
    pub(crate) fn new(arena: Arc<Arena>, file: Arc<BaseFile>, horizon: Lsn) -> BaseReader {
        BaseReader { arena, file, horizon }
    }

    /// Reads the page as a snapshot sees it, into `out`; returns its LSN. Which commit made a page zeros is not in the
    /// file: the horizon stands for it, since another member may still have what it was before.
    ///
    /// # Errors
    /// [`Error::TooOld`] when a checkpoint has put a newer version there meanwhile (the snapshot is below the
    /// horizon now); [`Error::Corrupt`] when page and checksum do not fit: it is counted, and `out` must not be used.
    pub fn read(&self, page: PageNo, at: Lsn, out: &mut [u8; PAGE_SIZE]) -> Result<Lsn, Error> {
        let lsn = self.file.read(page, out).inspect_err(|e| {
            if matches!(e, Error::Corrupt(_)) && self.file.report(page.0, true) {
                self.arena.checksum_errors.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        let cut = lsn.0 == 0 && self.file.cut_at.load(Ordering::Acquire) > at.0;
        if lsn > at || cut {
            return Err(Error::TooOld(format!("page {page} has moved on to LSN {lsn}")));
        }
        Ok(if lsn.0 == 0 { self.horizon } else { lsn })
    }
}
