//! What a commit is: the sans-IO state machines that nodes, clients and the simulator run, and the [`dataset`]
//! and [`volume`] contracts that engines (the SQLite VFS, the WiredTiger file system) are written against.
//!
//! A machine takes (state, now, message) and gives (state, effects). No clock, thread, socket or randomness in here:
//! that is what makes the simulator's runs the same as the cluster's.
//!
//! - [`Replica`]: one member of one group: publication, fencing; at the primary settle, leases, snapshots.
//! - [`Grants`]: one node's part in what lets the primary of a set serve.
//! - [`Holder`]: a client's view of one group: its write lease, its record in flight, its doubt.

mod asof;
mod config;
pub mod dataset;
mod diverged;
mod effect;
mod grants;
mod holder;
mod join;
mod lease;
mod past;
mod readers;
mod replica;
mod settle;
mod twophase;
mod view;
pub mod volume;

pub use config::{Member, Setup};
pub use effect::{Caller, Effect, PeerMessage};
pub use grants::{GrantSetup, Grants, Term};
pub use holder::{Begin, Flight, FlightStep, Holder, Recall};
pub use replica::{Fence, NodeNo, Origin, Records, Replica, Situation};

/// How long a turn in the queue waits for its client before the next in line gets it.
pub const PARK: std::time::Duration = std::time::Duration::from_millis(200);
/// Pause before a message between members, or a call-back, is sent again.
pub const RESEND: std::time::Duration = std::time::Duration::from_millis(50);
/// A session that said nothing for this long pins no versions any more.
pub const SESSION_MAX: std::time::Duration = std::time::Duration::from_secs(3);
/// Most clients that wait for one group's lease.
pub const QUEUE_MAX: usize = 4096;
/// Most snapshots of one group that wait for their primary: to have settled, or for a member's answer.
pub const SNAPSHOTS_MAX: usize = 4096;
