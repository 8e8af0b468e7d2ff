//! Links to the other nodes of the cluster, one thread each that dials until it is connected. A message for a node
//! without a link is dropped: the replicas send again what they wait for.

use super::connection::Phase;
use super::node::Node;
use super::sender::Sender;
use crate::wire::{Connection, Dialer};
use dspm_proto::auth::Role;
use dspm_proto::control::NodeEntry;
use rustix::net::sockopt::set_tcp_user_timeout;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Pause between two tries, and between two looks at a link that stands.
const PAUSE: Duration = Duration::from_millis(50);
const DIAL: Duration = Duration::from_millis(500);
/// What was sent and is not confirmed for so long ends a link. The kernel would try again at growing intervals, and a link
/// that was cut for a minute carried nothing for another one: a new connection does at once.
const STILL: Duration = Duration::from_secs(2);

/// All links, by the name of the node at the other end.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<String, Link>>);

struct Link {
    address: String,
    sender: Option<Arc<Sender>>,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to a node, if it stands.
    pub(crate) fn to(&self, node: &str) -> Option<Arc<Sender>> {
        self.lock().get(node)?.sender.clone().filter(|s| !s.is_broken())
    }

    /// A dialled connection was taken over by a worker.
    pub(crate) fn stands(&self, node: &str, sender: &Arc<Sender>) {
        if let Some(link) = self.lock().get_mut(node) {
            link.sender = Some(sender.clone());
        }
    }
}

impl Node {
    /// Makes a link to every other node of the view; drops those to nodes that are gone.
    pub(crate) fn refresh_links(self: &Arc<Self>) {
        let nodes: Vec<NodeEntry> =
            self.catalog().view.nodes.iter().filter(|n| n.name != self.options.name).cloned().collect();
        let mut links = self.links.lock();
        links.retain(|name, _| nodes.iter().any(|n| n.name == *name));
        for n in nodes {
            if let Some(link) = links.get_mut(&n.name) {
                link.address = n.address;
                continue;
            }
            let node = Arc::downgrade(self);
            let name = n.name.clone();
            links.insert(n.name, Link { address: n.address, sender: None });
            let started = std::thread::Builder::new().name(format!("link-{name}")).spawn(move || keep(&node, &name));
            if let Err(e) = started {
                eprintln!("dspm-node: no thread for a link: {e}");
            }
        }
    }

    fn dial_link(self: &Arc<Self>, name: &str, address: &str) {
        let dialer = Dialer {
            role: Role::Node,
            name: self.options.name.clone(),
            cluster: self.options.cluster.clone(),
            key: self.options.key.clone(),
            session: None,
            store: self.store_id,
            callbacks: false,
        };
        let Ok(connection) = Connection::dial(address, &dialer, DIAL) else { return };
        let stream = connection.into_stream();
        if let Err(e) = set_tcp_user_timeout(&stream, STILL.as_millis() as u32) {
            eprintln!("dspm-node: the link to {name} may carry nothing for long after a cut: {e}");
        }
        self.mailboxes[0].give(stream, Phase::Dialled { name: name.to_owned() });
    }
}

/// Keeps one link until its node leaves the view or the process ends.
fn keep(node: &Weak<Node>, name: &str) {
    let mut waiting = 0u32;
    loop {
        let Some(node) = node.upgrade() else { return };
        let Some((address, up)) =
            node.links.lock().get(name).map(|l| (l.address.clone(), l.sender.as_ref().is_some_and(|s| !s.is_broken())))
        else {
            return;
        };
        // A connection that was dialled is given a moment to be taken over before another is tried.
        if !up && waiting == 0 {
            node.dial_link(name, &address);
            waiting = 2;
        }
        waiting = if up { 0 } else { waiting.saturating_sub(1) };
        drop(node);
        std::thread::sleep(PAUSE);
    }
}
