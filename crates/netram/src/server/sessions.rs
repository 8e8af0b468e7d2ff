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
    /// Connections of that session; with the last one it is forgotten.
    connections: usize,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of that session was opened. False: a higher session exists.
    pub(crate) fn hello(&self, session: Session, callbacks: Option<&Arc<Sender>>) -> bool {
        let mut all = self.lock();
        let fresh = || Entry { number: session.number, callbacks: None, connections: 0 };
        let e = all.entry(session.client).or_insert_with(fresh);
        if session.number < e.number {
            return false;
        }
        if session.number > e.number {
            *e = fresh();
        }
        e.connections += 1;
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

    /// A connection of that session ended. A process without connections is forgotten; its number lives in the arena.
    pub(crate) fn closed(&self, session: Session, sender: &Arc<Sender>) {
        let mut all = self.lock();
        let Some(e) = all.get_mut(&session.client).filter(|e| e.number == session.number) else { return };
        e.callbacks.take_if(|c| Arc::ptr_eq(c, sender));
        e.connections = e.connections.saturating_sub(1);
        if e.connections == 0 {
            all.remove(&session.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::{Phase, Receiver};
    use super::*;
    use mio::net::TcpStream;

    const OLD: Session = Session { client: ClientId(7), number: 1 };
    const NEW: Session = Session { client: ClientId(7), number: 2 };

    fn sender() -> Arc<Sender> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let twin = TcpStream::from_std(stream.try_clone().unwrap());
        Receiver::new(1, TcpStream::from_std(stream), twin, Phase::New).out
    }

    #[test]
    fn a_process_is_forgotten_with_its_last_connection() {
        let (sessions, one, two) = (Sessions::default(), sender(), sender());
        assert!(sessions.hello(OLD, None) && sessions.hello(OLD, Some(&two)));
        assert!(sessions.callbacks(OLD).is_some_and(|s| Arc::ptr_eq(&s, &two)));
        sessions.closed(OLD, &two);
        assert!(sessions.callbacks(OLD).is_none());
        sessions.closed(OLD, &one);
        assert!(sessions.lock().is_empty(), "one that never took call-backs too");
    }

    #[test]
    fn the_end_of_an_old_session_is_not_that_of_the_new_one() {
        let (sessions, old, new) = (Sessions::default(), sender(), sender());
        assert!(sessions.hello(OLD, Some(&old)) && sessions.hello(NEW, Some(&new)));
        assert!(sessions.is_over(OLD) && !sessions.hello(OLD, None));
        sessions.closed(OLD, &old);
        assert!(sessions.is_over(OLD) && sessions.callbacks(NEW).is_some());
    }
}
