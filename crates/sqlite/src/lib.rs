//! The SQLite VFS of dspm.
