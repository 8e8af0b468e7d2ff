//! Deterministic simulator of dspm clusters.
