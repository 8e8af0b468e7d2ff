//! libdspm.so: one library for every binding. It stays loaded; everything that a process uses goes through its one
//! [`clients`] registry, so leases, maps and caches are shared.
//!
//! No logic here: the VFS is in dspm-sqlite, WiredTiger's file system in dspm-wiredtiger, the client in dspm-netram, the
//! configuration in dspm-config. [`abi`] is the C side (dspm.h), the only place with unsafe code; [`datasets`] and
//! [`writer`] are what it hands out.
#![deny(unsafe_code)]

mod abi;
mod clients;
mod datasets;
mod opener;
mod wiredtiger;
mod writer;
