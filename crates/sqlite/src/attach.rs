//! Transactions over several databases: at most one dspm database is written in each.
//!
//! SQLite commits several databases in one of two ways. With a super-journal, deleting that is the decision, and errors
//! after it are ignored: so a dspm database is published when its super-journal is deleted, where an error still stops
//! the transaction. Without one (synchronous=OFF, journals in memory, a `:memory:` main) it says SYNC to each, then
//! PHASETWO to each: a second written database has to be noticed at its SYNC, by the connection that both belong to.
//!
//! Refused at FCNTL_SYNC, where SQLite rolls all of them back: the second written database of a connection, and any
//! whose super-journal another VFS keeps, since that one decides without us.
//!
//! Rolling back, SQLite replays a journal only if the super-journal that it names exists. For a refused foreign one
//! an empty stand-in is kept here until the transaction is over; else the replay would be skipped and the pager
//! would go on with the rows of the refused transaction.
#![allow(unsafe_code)]

use crate::connection;
use crate::errors::{Code, During};
use crate::fork::process;
use crate::handle::Handle;
use crate::process::locked;
use crate::publish::SizeFrom;
use dspm_proto::Error;
use std::sync::Mutex;

/// The written databases whose transaction has begun to commit.
#[derive(Default)]
pub struct Stages(Mutex<Vec<Stage>>);

struct Stage {
    /// The connection (`sqlite3*`), 0 if unknown.
    connection: usize,
    handle: *mut Handle,
    super_journal: Option<Box<[u8]>>,
}

// SAFETY: a stage's pointer is dereferenced only in `publish_of`, by the thread that commits that connection.
unsafe impl Send for Stage {}

impl Stages {
    /// Enters a handle; false if another one of the same connection is there.
    fn enter(&self, stage: Stage) -> bool {
        let mut stages = locked(&self.0);
        stages.retain(|other| other.handle != stage.handle);
        if stage.connection != 0 && stages.iter().any(|other| other.connection == stage.connection) {
            return false;
        }
        stages.push(stage);
        true
    }

    /// Removes a handle, whose transaction is over.
    pub fn remove(&self, handle: *mut Handle) {
        locked(&self.0).retain(|stage| stage.handle != handle);
    }

    /// The handles that wait for that super-journal's end.
    fn of_super(&self, name: &[u8]) -> Vec<*mut Handle> {
        let stages = locked(&self.0);
        stages.iter().filter(|stage| stage.super_journal.as_deref() == Some(name)).map(|stage| stage.handle).collect()
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
    let stage = Stage {
        connection: connection::of(handle) as usize,
        handle: handle.place,
        super_journal: super_journal.map(Into::into),
    };
    if process().stages.enter(stage) {
        return Ok(());
    }
    Err(refuse(handle, "one transaction can write only one dspm database in this version; commit them one by one"))
}

/// FCNTL_COMMIT_PHASETWO: the transaction is decided here, unless its super-journal's end has decided it.
pub fn finish(handle: &mut Handle) -> Result<(), Code> {
    if handle.overlay.is_none() {
        return Err(handle.misuse("a commit"));
    }
    if handle.refused {
        return Err(refuse(handle, "the transaction was refused before"));
    }
    let done = handle.publish(SizeFrom::File);
    process().stages.remove(handle.place);
    done
}

/// `xDelete` of a super-journal of ours: the decision.
pub fn publish_of(super_journal: &[u8]) -> Result<(), Code> {
    for handle in process().stages.of_super(super_journal) {
        // SAFETY: a staged handle is open, since closing and unlocking remove it. SQLite deletes a super-journal in
        // the thread that commits its connection, under the connection's mutex, outside of any call to the handle;
        // the name is random, so that no other connection has staged under it.
        let handle = unsafe { &mut *handle };
        handle.publish(SizeFrom::Header)?;
        process().stages.remove(handle.place);
    }
    Ok(())
}

fn refuse(handle: &mut Handle, why: &str) -> Code {
    handle.refused = true;
    handle.fail(&Error::Usage(why.into()), During::Commit)
}
