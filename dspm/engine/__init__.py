"""What databases see of dspm: the SQLite VFS."""
