//! libdspm.so: SQLite entry and C ABI.
