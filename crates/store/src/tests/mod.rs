//! Tests of the crate from the inside.

mod arena;
mod crash;
mod damage;
mod groups;
mod support;
