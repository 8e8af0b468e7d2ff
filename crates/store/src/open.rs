//! Opening the arena: the old one if it can be trusted, else a new one.
//!
//! An arena is trusted when it verifies, belongs to this data directory, was written under this kernel boot, and was
//! not marked suspect. File and directory are locked first: two nodes never share them. A new directory takes no arena of a
//! node that may come back.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use dspm_proto::{DatasetId, Error, GroupId, PAGE_SIZE, StoreId};
use rustix::fs::{FallocateFlags, FlockOperation};

use crate::arena::Arena;
use crate::group::GroupStore;
use crate::index::Base;
use crate::layout::{ArenaHeader, Layout, SUSPECT_AT};
use crate::mapping::Mapping;
use crate::random::random;
use crate::recover::recover;

/// Opens a file for this process alone.
pub(crate) fn open_locked(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|e| context(&e, path))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => {
            Error::Unavailable(format!("{} is in use by another dspm node", path.display()))
        }
        other => Error::Unavailable(format!("cannot lock {}: {other}", path.display())),
    })?;
    Ok(file)
}

pub(crate) fn context(e: &std::io::Error, path: &Path) -> Error {
    let text = format!("{}: {e}", path.display());
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Permission(text),
        _ => Error::Unavailable(text),
    }
}

/// A node that begins takes no file that holds something: a stopped node's memory may be all that is left of its commits.
///
/// # Errors
/// [`Error::Usage`] unless the file is empty, or an arena of before the machine was started.
pub(crate) fn check_nobodys(file: &File, path: &Path, data_dir: &Path) -> Result<(), Error> {
    let mut page = vec![0u8; PAGE_SIZE];
    let n = file.read_at(&mut page, 0)?;
    if page.iter().all(|b| *b == 0) {
        return Ok(());
    }
    let whose = match ArenaHeader::decode(&page) {
        Ok(header) if header.kernel_boot != [0; 16] && header.kernel_boot != kernel_boot()? => return Ok(()),
        Ok(header) if n == PAGE_SIZE => format!("is the memory of store {}", header.store),
        _ => "holds something that is no arena".into(),
    };
    Err(Error::Usage(format!(
        "{} {whose}, and {} is a new node's directory: give the directory of the node whose memory it is, or another file; \
         if that node never comes back, delete the file",
        path.display(),
        data_dir.display()
    )))
}

/// The kernel's boot id as 16 bytes.
pub(crate) fn kernel_boot() -> Result<[u8; 16], Error> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(|_| Error::Unavailable("unreadable kernel boot id".into()))?;
    Ok(id.to_be_bytes())
}

/// Why an arena, and the names of before, are not trusted: the only [`Error::Failed`] of [`keep`].
pub(crate) fn log_failed() -> Error {
    Error::Failed("the log failed while it was in use".into())
}

/// An arena that was kept, or the reason why not.
pub(crate) type Kept = Result<(Arc<Arena>, BTreeMap<GroupId, GroupStore>), Error>;

/// Takes the arena that is in the file if it can be trusted.
pub(crate) fn keep(file: &File, layout: Layout, store: StoreId, bases: &mut HashMap<DatasetId, Base>) -> Kept {
    let no = |why: &str| Err(Error::NotFound(why.into()));
    if file.metadata()?.len() != layout.len as u64 {
        return no("no arena of this size was there");
    }
    let map = Mapping::new(file.try_clone()?, layout.len)?;
    let mut page = vec![0u8; PAGE_SIZE];
    map.read(0, &mut page);
    let header = ArenaHeader::decode(&page)?;
    if header.layout != layout {
        return Err(Error::Corrupt("the arena's layout".into()));
    }
    if header.kernel_boot != kernel_boot()? {
        return no("the machine was started since");
    }
    if header.store != store {
        return no("the arena is of another node, or of a start that did not finish");
    }
    if map.load(SUSPECT_AT) != 0 {
        return Err(log_failed());
    }
    let arena = Arc::new(Arena::new(map, header));
    let groups = recover(&arena, bases)?;
    Ok((arena, groups))
}

/// Makes an empty arena.
pub(crate) fn create(file: &File, path: &Path, layout: Layout, store: StoreId) -> Result<Arc<Arena>, Error> {
    if file.metadata()?.len() != layout.len as u64 {
        file.set_len(0)?;
    }
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, layout.len as u64).map_err(|e| match e {
        rustix::io::Errno::NOSPC => {
            Error::Full(format!("{}: no room for an arena of {} bytes", path.display(), layout.len))
        }
        other => Error::Unavailable(format!("{}: {other}", path.display())),
    })?;
    let map = Mapping::new(file.try_clone()?, layout.len)?;
    let header = ArenaHeader { sequence: 1, layout, store, salt: random()?, kernel_boot: kernel_boot()? };
    Arena::format(&map, &header);
    let arena = Arc::new(Arena::new(map, header));
    arena.fill((0..layout.frames as usize).map(|i| layout.frame(i).0).collect());
    Ok(arena)
}
