"""The second reader of a node's files, written from docs/formats alone.

Nothing here shares code with the Rust store: what both read alike, the documents describe. It only reads, and only
files of a node that is stopped. `dspm fsck` and `dspm log dump` stand on it.

    layout    every struct, drawn once           report    what was found: problems, notes, counts
    files     bytes, checksums                   header, record
    arena, slots, ring    a node's memory        log, replay    its disk log, and what it says of each group
    base      base files and sidecars            datadir   identity, lock, catalog, where the arena lies
    views     what a group contains at an LSN    fsck      everything, and one part against the other
"""
