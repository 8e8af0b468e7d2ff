//! libdspm.so: one library for every binding. It stays loaded; everything that a process uses goes through its one
//! [`clients`] registry, so leases, maps and caches are shared.
//!
//! No logic here: the VFS is in dspm-sqlite, the client in dspm-netram, the configuration in dspm-config.
#![deny(unsafe_code)]

mod abi;
mod clients;
mod opener;
