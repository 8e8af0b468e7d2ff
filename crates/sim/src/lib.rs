//! Runs clusters of the commit machines in one thread from a seed, breaks what can break, and checks what callers see.
//!
//! - [`World`]: processes with drifting clocks, a network that loses, repeats, delays and cuts, and the faults.
//! - [`Node`](node::Node) and [`Client`](client::Client): the runtimes around `Replica` and `Holder`; the client here
//!   is the specification of the client runtime.
//! - [`Transactions`](elle::Transactions): the history of whole transactions, whatever the protocol under it.
//! - [`Checker`](check::Checker): strict serializability, durability, outcomes; [`World`] adds what members hold.
//! - [`Mutant`]: one rule broken on purpose; [`directed`]: schedules that chance meets rarely.
//!
//! A run is its seed: no clock, no thread, no address and no hash order has a say in it.

mod audit;
mod backup;
pub mod begin;
pub mod cache;
pub mod check;
pub mod client;
pub mod clock;
pub mod commit;
pub mod ctx;
mod cycles;
pub mod directed;
mod disk;
pub mod elle;
pub mod explore;
pub mod faults;
mod joint;
mod life;
mod member;
mod membership;
pub mod mutant;
mod mutiny;
pub mod network;
pub mod node;
mod outcomes;
mod outdated;
mod past;
mod perform;
mod powercuts;
mod reading;
pub mod records;
pub mod registry;
mod regress;
mod removal;
mod removed;
pub mod reserve;
pub mod rng;
mod sabotage;
pub mod set;
mod share;
mod takeover;
pub mod thread;
mod together;
pub mod trace;
pub mod wire;
pub mod world;

pub use explore::{Report, hunt, run, runs};
pub use mutant::Mutant;
pub use world::World;
