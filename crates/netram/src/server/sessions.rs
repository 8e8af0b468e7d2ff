//! Client processes at this node: the current session of each, and where it takes call-backs.

use super::sender::Sender;
use dspm_proto::{ClientId, Session};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All sessions; a higher number replaces a lower one before it is answered.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<ClientId, Entry>>);

struct Entry {
    number: u64,
    callbacks: Option<Arc<Sender>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of that session was opened. False: a higher session exists.
    pub(crate) fn hello(&self, session: Session, callbacks: Option<&Arc<Sender>>) -> bool {
        let mut all = self.lock();
        let e = all.entry(session.client).or_insert(Entry { number: session.number, callbacks: None });
        if session.number < e.number {
            return false;
        }
        if session.number > e.number {
            *e = Entry { number: session.number, callbacks: None };
        }
        if let Some(sender) = callbacks {
            e.callbacks = Some(sender.clone());
        }
        true
    }

    /// True when the same client began a higher session here.
    pub(crate) fn is_over(&self, session: Session) -> bool {
        self.lock().get(&session.client).is_some_and(|e| e.number > session.number)
    }

    /// Where the session takes call-backs.
    pub(crate) fn callbacks(&self, session: Session) -> Option<Arc<Sender>> {
        let all = self.lock();
        let e = all.get(&session.client).filter(|e| e.number == session.number)?;
        e.callbacks.clone()
    }

    /// A connection ended. A process without its call-back connection is forgotten; its number lives in the arena.
    pub(crate) fn closed(&self, sender: &Arc<Sender>) {
        self.lock().retain(|_, e| !e.callbacks.as_ref().is_some_and(|c| Arc::ptr_eq(c, sender)));
    }
}
