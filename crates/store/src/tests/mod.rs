//! Tests of the crate from the inside.

mod arena;
mod base_files;
mod crash;
mod cut;
mod damage;
mod disk_crash;
mod disk_model;
mod flusher;
mod former;
mod groups;
mod joining;
mod meddling;
mod rebase;
mod rebase_crash;
mod rebase_model;
mod room;
mod scrub;
mod simdisk;
mod support;
mod unnamed_checkpoint;
