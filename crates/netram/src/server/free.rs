//! Frees what removed datasets hold here: memory, log, base files.
//!
//! Invariants: only groups that the registry names as removed are freed, never those that it does not name (its state
//! may be older than the data); none that a dataset of the catalog still has, whatever the registry says. "Done" is said
//! when memory is free and the log says so too: a later start, with its memory or from its log, does not find them. So
//! it may be asked again after any failure.
//!
//! It has a thread of its own, since it waits for the disk, and for who still holds a group.

use super::flush::Source;
use super::node::Node;
use super::sender::Sender;
use crate::wire::{error_reply, frame, json, reply_to};
use dspm_proto::control::Done;
use dspm_proto::{Error, GroupId, Header};
use std::sync::{Arc, PoisonError};

impl Node {
    /// Frees the groups, then answers the registry.
    ///
    /// # Errors
    /// [`Error::Failed`] for a group that has a dataset; those of the operating system.
    pub(crate) fn free(self: &Arc<Self>, ids: Vec<GroupId>, out: &Arc<Sender>, asked: Header) -> Result<(), Error> {
        let catalog = self.catalog();
        if let Some(id) = ids.iter().find(|id| catalog.has_group(**id)) {
            return Err(Error::Failed(format!("group {id} is to be freed, and a dataset of the catalog has it")));
        }
        drop(catalog);
        let (node, out) = (self.clone(), out.clone());
        let work = move || match node.free_now(&ids) {
            Ok(()) => out.send(&frame(reply_to(&asked), &json(&Done { done: true }), 0), &[]),
            Err(e) => out.send(&error_reply(asked.kind, asked.request, &e), &[]),
        };
        std::thread::Builder::new().name("free".into()).spawn(work)?;
        Ok(())
    }

    fn free_now(self: &Arc<Self>, ids: &[GroupId]) -> Result<(), Error> {
        for id in ids {
            let open = self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            let records = match open.map(super::group::SharedGroup::take) {
                Some(Ok(records)) => Some(records),
                Some(Err(held)) => {
                    self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(*id, held);
                    return Err(Error::Busy(format!("group {id} is in use; it is freed later")));
                }
                None => self.store.take_recovered(*id),
            };
            records.into_iter().for_each(|r| self.store.drop_group(r));
        }
        self.store.sync_drops(&Source(self.clone()))
    }
}
