"""The VFS ``dspm-py``: the SQLite VFS ``dspm`` (crates/sqlite) once more, in Python to be read.

It is the specification of what SQLite's calls mean for a dataset, and the second implementation that tests compare with
the first. It serves apsw's SQLite only and is slow; programs use ``dspm``. Read `database` first.

    database         locks, reading, writing                       overlay    what a transaction wrote so far
    publish          a transaction becomes one commit              attach     transactions over several databases
    control          file controls and PRAGMAs                     header     the bytes of page 1 that matter
    codes            errors become result codes                    journals   rollback journals, in the process
    characteristics  what SQLite may assume of a dataset           names      what a program typed → a dataset
    vfs              opening, deleting, finding

What it does not do:

- *transactions over databases of several VFSes* (as ``dspm``): with a super-journal that another VFS keeps COMMIT fails
  with "use one VFS for all databases of a transaction" and rolls back in all. Where SQLite uses no super-journal
  (journals in memory, synchronous=OFF) nothing tells of the other VFS, ``dspm`` included, and each commits by itself.
- *BUSY_SNAPSHOT from COMMIT*: a transaction that was fenced and lost to another one gets IOERR. ``dspm`` answers 517
  when no other statement of the connection is open, which apsw does not tell a VFS.
- *lines on stderr*: failures are in the exception's text, in ``PRAGMA dspm_error`` and in SQLite's log (apsw.log).
- *shared memory*, and so a write-ahead log: ``journal_mode=WAL`` answers "delete".
"""
