//! Network RAM: the node server and the client core.
//!
//! - [`server`]: shards with epoll that run to completion; pages are read from the socket into free frames.
//! - [`client`]: no runtime; the calling thread does the system calls. One background thread a process renews the
//!   session and answers call-backs.

pub mod client;
pub mod clock;
pub mod random;
pub mod server;
pub mod socket;
pub mod wire;
