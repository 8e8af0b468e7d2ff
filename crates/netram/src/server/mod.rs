//! The node: it donates memory and disk, holds groups as a member of their replica sets, and serves them as primary.
//!
//! Workers with epoll run every message to completion; a group is one mutex over its replica (dspm-txn) and its
//! pages (dspm-store), so publication and fencing are one critical section. Links to other nodes are dialled by
//! threads of their own and lost messages are sent again by the replicas. A node keeps working without the registry.
//!
//! Fault model: any connection may break at any byte; peers are authenticated, their bytes are hostile.

mod base;
mod catalog;
mod connection;
mod control;
mod dispatch;
mod effects;
mod flush;
mod free;
mod group;
mod join;
mod joins;
mod links;
mod mend;
mod metrics;
mod node;
mod pages;
mod records;
mod removal;
mod saved;
mod scrub;
mod sender;
mod sessions;
mod sets;
mod shortage;
mod timers;
mod twophase;
mod worker;

pub use node::{Node, NodeOptions, Serving};
