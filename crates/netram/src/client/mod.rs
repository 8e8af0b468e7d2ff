//! The client core: one a process, no runtime. The calling thread does the system calls, on a pooled socket a node;
//! one background thread renews the session, answers call-backs and settles what is in doubt.
//!
//! Fault model: the process may be stopped for any time and go on: every use of a lease is checked by a clock read
//! after the call began. A forked child has nothing of its parent's.

mod ask;
mod asof;
mod background;
mod cache;
mod commit;
mod core;
mod dataset;
mod encode;
#[cfg(test)]
mod fake;
mod group;
mod line;
mod link;
mod locate;
mod pins;
mod reader;
mod reserve;
mod send;
mod spread;
mod together;
mod view;
mod volume;

pub use self::core::{Client, ClientOptions};
pub use cache::PageCache;
pub use dataset::ClusterDataset;
pub use volume::ClusterVolume;
