//! Transactions over several databases: those in dspm are one commit.
//!
//! SQLite commits several databases in one of two ways. With a super-journal, deleting that is the decision, and errors
//! after it are ignored: so the databases are published when their super-journal is deleted, where an error still stops
//! the transaction. Without one (synchronous=OFF, journals in memory, a `:memory:` main) it says SYNC to each, then
//! PHASETWO to each: all that the connection has staged are published at the first PHASETWO, and the later ones find it
//! done. In both cases SQLite has still to cut files to their sizes, which their headers tell.
//!
//! Invariants: what one connection stages between its SYNCs and its decision is one transaction. A handle whose publish
//! failed is refused until its reservation ends: what the rollback writes is never published.
//!
//! Refused at FCNTL_SYNC, where SQLite rolls all of them back: a database whose super-journal another VFS keeps, since
//! that one decides without us. Rolling back, SQLite replays a journal only if the super-journal that it names exists.
//! For a refused foreign one an empty stand-in is kept here until the transaction is over; else the replay would be
//! skipped and the pager would go on with the rows of the refused transaction.
#![allow(unsafe_code)]

use crate::connection;
use crate::errors::{Code, During};
use crate::fork::process;
use crate::handle::Handle;
use crate::process::locked;
use crate::publish::{Publishing, SizeFrom, publish};
use dspm_proto::Error;
use std::sync::Mutex;

/// The written databases whose transaction has begun to commit, in the order of their SYNCs.
#[derive(Default)]
pub struct Stages(Mutex<Vec<Stage>>);

struct Stage {
    /// The connection (`sqlite3*`), 0 if unknown.
    connection: usize,
    handle: *mut Handle,
    super_journal: Option<Box<[u8]>>,
}

// SAFETY: a stage's pointer is dereferenced only by the thread that commits its connection.
unsafe impl Send for Stage {}

impl Stages {
    fn enter(&self, stage: Stage) {
        let mut stages = locked(&self.0);
        stages.retain(|other| other.handle != stage.handle);
        stages.push(stage);
    }

    /// Removes a handle, whose transaction is over.
    pub fn remove(&self, handle: *mut Handle) {
        locked(&self.0).retain(|stage| stage.handle != handle);
    }

    /// Removes what a connection that begins to write has staged: it is of a transaction that failed, and whose pager
    /// could not roll back yet.
    pub fn remove_of(&self, connection: usize) {
        if connection != 0 {
            locked(&self.0).retain(|stage| stage.connection != connection);
        }
    }

    /// The handles that wait for that super-journal's end.
    fn of_super(&self, name: &[u8]) -> Vec<*mut Handle> {
        let stages = locked(&self.0);
        stages.iter().filter(|stage| stage.super_journal.as_deref() == Some(name)).map(|stage| stage.handle).collect()
    }

    /// The handles of a connection that wait for the first PHASETWO.
    fn of_connection(&self, connection: usize) -> Vec<*mut Handle> {
        let stages = locked(&self.0);
        let waits = |stage: &&Stage| connection != 0 && stage.connection == connection && stage.super_journal.is_none();
        stages.iter().filter(waits).map(|stage| stage.handle).collect()
    }
}

/// FCNTL_SYNC: a transaction begins to commit, or a rollback is at its end.
pub fn stage(handle: &mut Handle, super_journal: Option<&[u8]>) -> Result<(), Code> {
    if handle.overlay.is_none() {
        return Err(handle.misuse("a sync"));
    }
    // After a refusal this is the rollback's own sync.
    if handle.refused || !handle.is_written() {
        return Ok(());
    }
    let journals = &process().journals;
    if let Some(name) = super_journal.filter(|name| !journals.contains(name)) {
        journals.create(name, true);
        handle.foreign_super = Some(name.into());
        return Err(refuse(handle, "use one VFS for all databases of a transaction"));
    }
    process().stages.enter(Stage {
        connection: connection::of(handle) as usize,
        handle: handle.place,
        super_journal: super_journal.map(Into::into),
    });
    Ok(())
}

/// FCNTL_COMMIT_PHASETWO: the transaction is decided here, unless its super-journal's end or an earlier database of the
/// connection has decided it.
pub fn finish(handle: &mut Handle) -> Result<(), Code> {
    if handle.overlay.is_none() {
        return Err(handle.misuse("a commit"));
    }
    if handle.refused {
        return Err(refuse(handle, "the transaction was refused before"));
    }
    if handle.decided && !handle.is_written() {
        return Ok(());
    }
    let staged = process().stages.of_connection(connection::of(handle) as usize);
    let place = handle.place;
    // It is the first one, but for a pager that began in another order.
    let at = staged.iter().position(|other| *other == place).unwrap_or(0);
    // SAFETY: as in `publish_of`; none of the others is this handle, which the caller has.
    let others = staged.into_iter().filter(|other| *other != place).map(|other| unsafe { &mut *other });
    let mut group: Vec<Publishing<'_>> = others.map(|handle| (handle, SizeFrom::Header)).collect();
    group.insert(at, (handle, SizeFrom::File));
    decide(group)
}

/// `xDelete` of a super-journal of ours: the decision.
pub fn publish_of(super_journal: &[u8]) -> Result<(), Code> {
    let staged = process().stages.of_super(super_journal);
    // SAFETY: a staged handle is open, since closing and unlocking remove it, and staged once. SQLite deletes a
    // super-journal in the thread that commits its connection, under the connection's mutex, outside of any call to a
    // handle; the name is random, so that no other connection has staged under it.
    let handles = staged.into_iter().map(|handle| unsafe { &mut *handle });
    decide(handles.map(|handle| (handle, SizeFrom::Header)).collect())
}

/// Publishes all of them, or none. The first is the commit's decider.
fn decide(mut group: Vec<Publishing<'_>>) -> Result<(), Code> {
    let done = publish(&mut group);
    for (handle, _) in group {
        (handle.decided, handle.refused) = (done.is_ok(), done.is_err());
        process().stages.remove(handle.place);
    }
    done
}

fn refuse(handle: &mut Handle, why: &str) -> Code {
    handle.refused = true;
    handle.fail(&Error::Usage(why.into()), During::Commit)
}
