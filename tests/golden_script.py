"""The golden SQL script, in chapters. Each works on one database that the chapters before have filled, and notes what
every step answers. No step depends on time, chance, or the name of a database.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw
from golden_sql import Session, content, opened

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
FILL = (
    "INSERT INTO t(b, c) "
    + NUMBERS.format(150)
    + "SELECT 'row ' || i || ' ' || hex(i * 7919), zeroblob(i * 7 % 900) FROM n"
)
TOTALS = "SELECT count(*), sum(a), sum(length(b)), sum(length(c)), min(b), max(b) FROM t"


def run_script(s: Session) -> None:
    """All chapters, on the database `main` with `aux`, `third`, `copy` and `back` beside it."""
    with opened(s, "main") as db:
        set_up(s, db)
        for chapter in CHAPTERS:
            chapter(s, db)
            s.check(db, chapter.__name__)
        # A file whose write-ahead log was begun under EXCLUSIVE stays locked until it is closed.
        s.note("lock let go", lambda: s.case.journal == "wal" or db.execute("PRAGMA locking_mode=NORMAL").fetchall())
        s.run(db, TOTALS)
    with opened(s, "main") as db:
        s.check(db, "opened again")


def set_up(s: Session, db: apsw.Connection) -> None:
    case = s.case
    s.run(db, f"PRAGMA page_size={case.page_size}", f"PRAGMA auto_vacuum={case.auto_vacuum}")
    # Answers differ for WAL, which dspm refuses with "delete".
    mode = db.execute(f"PRAGMA journal_mode={case.journal}").fetchall()
    s.note("journal_mode", lambda: mode if case.journal != "wal" else mode in ([("wal",)], [("delete",)]))
    s.run(db, f"PRAGMA locking_mode={case.locking}", f"PRAGMA cache_size={case.cache}", "PRAGMA cache_spill=1")
    s.run(db, "PRAGMA foreign_keys=ON", "PRAGMA user_version=17", "PRAGMA application_id=4711")


def tables(s: Session, db: apsw.Connection) -> None:
    s.run(
        db,
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB, d AS (length(b)) STORED)",
        "CREATE INDEX tb ON t(b)",
        "CREATE INDEX tp ON t(a, b) WHERE a % 2",
        "CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        "CREATE TABLE log(what TEXT, a INT) STRICT",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, t INT REFERENCES t(a) ON DELETE CASCADE)",
        "CREATE TRIGGER td AFTER DELETE ON t BEGIN INSERT INTO log VALUES('gone', old.a); END",
        FILL,
        TOTALS,
        "INSERT INTO w SELECT b, a FROM t WHERE a % 5 = 0",
        "INSERT INTO w VALUES('row 5 ' || hex(39595), 0) ON CONFLICT(k) DO UPDATE SET v = -1 RETURNING *",
        "INSERT INTO child(t) SELECT a FROM t WHERE a % 3 = 0",
        "UPDATE t SET b = b || '!' WHERE a % 3 = 0",
        "DELETE FROM t WHERE a % 7 = 0",
        "SELECT count(*), sum(a) FROM log",
        "SELECT count(*) FROM child",
        "SELECT a, d, rank() OVER (ORDER BY d DESC, a) FROM t WHERE a < 20",
        "SELECT v FROM w WHERE k > 'row 2' ORDER BY k LIMIT 5",
    )


def transactions(s: Session, db: apsw.Connection) -> None:
    s.run(db, "BEGIN", "SELECT count(*) FROM t", "COMMIT", "BEGIN IMMEDIATE", "COMMIT", "BEGIN EXCLUSIVE")
    s.run(db, "UPDATE t SET b = 'e' WHERE a < 20", "COMMIT", TOTALS)
    if not s.case.rolls_back:
        return
    s.run(db, "BEGIN", FILL, "UPDATE t SET b = upper(b), c = NULL", TOTALS, "ROLLBACK", TOTALS)
    s.run(db, "INSERT INTO t(a, b) VALUES(1001, 'x'), (1, 'taken')", "INSERT OR REPLACE INTO t(a, b) VALUES(1, 'new')")
    s.run(db, "INSERT INTO log VALUES('no', 'number')", "INSERT INTO child(t) VALUES(99999)", "SELECT * FROM nowhere")
    s.run(db, "BEGIN", "PRAGMA defer_foreign_keys=ON", "INSERT INTO child(t) VALUES(99999)", "COMMIT", "ROLLBACK")
    s.run(db, "BEGIN", "CREATE TABLE gone(x)", "DROP TABLE w", "ALTER TABLE t RENAME TO u", "ROLLBACK")
    s.run(db, "BEGIN", "INSERT OR ROLLBACK INTO t(a) VALUES(2)", "SELECT 1", "COMMIT", TOTALS)


def savepoints(s: Session, db: apsw.Connection) -> None:
    s.run(db, "SAVEPOINT outer", "INSERT INTO t(b) VALUES('kept')", "RELEASE outer", TOTALS, "BEGIN")
    s.run(db, "INSERT INTO t(b) VALUES('x')", "SAVEPOINT s", "INSERT INTO t(b) SELECT b FROM t")
    if s.case.rolls_back:
        s.run(db, "DELETE FROM t WHERE a < 100", TOTALS, "ROLLBACK TO s", TOTALS, "UPDATE t SET b = b || '?'")
        s.run(db, "SAVEPOINT deep", FILL, "DROP TABLE log", "ROLLBACK TO deep", "RELEASE deep", "ROLLBACK TO s")
    s.run(db, "RELEASE s", "COMMIT", TOTALS)


def spill(s: Session, db: apsw.Connection) -> None:
    """More than the cache holds goes to the file, or the overlay, before the commit."""
    s.run(db, "PRAGMA cache_size=5", "CREATE TABLE big(x INTEGER PRIMARY KEY, y BLOB)", "BEGIN")
    s.run(db, "INSERT INTO big(y) " + NUMBERS.format(300) + "SELECT zeroblob(1500) FROM n", "CREATE INDEX by ON big(y)")
    s.run(db, "COMMIT", "SELECT count(*), sum(length(y)) FROM big", "BEGIN", "UPDATE big SET y = zeroblob(x * 10)")
    if s.case.rolls_back:
        s.run(db, "SAVEPOINT p", "DELETE FROM big WHERE x % 2", FILL, "ROLLBACK TO p", "PRAGMA integrity_check")
        s.run(db, "SELECT count(*), sum(length(y)) FROM big", "ROLLBACK", "BEGIN", "DELETE FROM big WHERE x > 20")
        s.run(db, "INSERT INTO big(y) SELECT zeroblob(6000) FROM t", "ROLLBACK")
    else:
        s.run(db, "COMMIT")
    s.run(db, "SELECT count(*), sum(length(y)) FROM big", "SELECT y FROM big ORDER BY length(y), x LIMIT 1")
    s.run(db, "DELETE FROM big WHERE x BETWEEN 30 AND 200", f"PRAGMA cache_size={s.case.cache}")


def incremental_vacuum(s: Session, db: apsw.Connection) -> None:
    s.run(db, "PRAGMA freelist_count", "PRAGMA incremental_vacuum(5)", "PRAGMA freelist_count", "BEGIN")
    s.run(
        db, "DROP TABLE big", "PRAGMA incremental_vacuum(7)", "PRAGMA page_count", FILL, "COMMIT", "PRAGMA page_count"
    )
    s.run(db, "PRAGMA incremental_vacuum", "PRAGMA page_count", "PRAGMA freelist_count")


def blobs(s: Session, db: apsw.Connection) -> None:
    s.run(db, "CREATE TABLE blobs(id INTEGER PRIMARY KEY, x BLOB)", "INSERT INTO blobs VALUES(1, zeroblob(200000))")
    s.run(db, "INSERT INTO blobs VALUES(2, x'0102030405')")
    blob = db.blob_open("main", "blobs", "x", 1, True)
    try:
        s.note("blob length", blob.length)
        blob.seek(123_456)
        blob.write(b"\xab" * 50_000)
        blob.seek(123_450)
        s.note("blob read", lambda: blob.read(20))
        blob.reopen(2)
        s.note("blob reopened", blob.read)
        blob.seek(3)
        s.note("blob too long", lambda: blob.write(b"123"))
        db.execute("UPDATE blobs SET x = x'0a' WHERE id = 2")
        s.note("blob of a row that was changed", lambda: blob.write(b"1"))
    finally:
        blob.close(True)
    s.run(db, "SELECT id, length(x), hex(substr(x, 123450, 20)) FROM blobs")
    s.note("no such row", lambda: db.blob_open("main", "blobs", "x", 77, False))


def full_text(s: Session, db: apsw.Connection) -> None:
    words = "SELECT 'number ' || i || CASE WHEN i % 7 THEN ' plain' ELSE ' seven sevens' END FROM n"
    s.run(db, "CREATE VIRTUAL TABLE f USING fts5(w)", "INSERT INTO f " + NUMBERS.format(400) + words)
    s.run(db, "SELECT rowid, bm25(f) FROM f('seven') LIMIT 9", "SELECT snippet(f, 0, '[', ']', '…', 3) FROM f('14')")
    s.run(
        db, "INSERT INTO f(f) VALUES('optimize')", "DELETE FROM f WHERE rowid % 2", "SELECT count(*) FROM f('sevens')"
    )
    s.run(db, "UPDATE f SET w = 'changed' WHERE rowid = 10", "INSERT INTO f(f) VALUES('integrity-check')")
    s.run(db, "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)")
    s.run(
        db, "INSERT INTO r " + NUMBERS.format(200) + "SELECT i, i, i + i % 9 FROM n", "SELECT id FROM r WHERE x1 > 203"
    )
    s.run(db, "INSERT INTO f(f) VALUES('rebuild')", "SELECT rowid FROM f('changed OR 14')", "DROP TABLE r")


def attached(s: Session, db: apsw.Connection) -> None:
    """A database beside it, then one more: transactions write one of them and read both, or write all."""
    other = 1024 if s.case.page_size != 1024 else 4096
    s.run(db, "ATTACH '{aux}' AS aux", f"PRAGMA aux.page_size={other}", "PRAGMA aux.journal_mode=TRUNCATE")
    for synchronous in ("FULL", "OFF"):
        s.run(db, f"PRAGMA synchronous={synchronous}", f"PRAGMA aux.synchronous={synchronous}")
        s.run(db, "CREATE TABLE IF NOT EXISTS aux.z(a, b)", "INSERT INTO z SELECT a, b FROM t WHERE a < 50")
        s.run(db, "BEGIN", "INSERT INTO t(b) SELECT 'from z ' || b FROM z", "SELECT count(*) FROM z, t", "COMMIT")
        s.run(db, "BEGIN IMMEDIATE", "UPDATE z SET b = (SELECT max(b) FROM t)", "COMMIT", "SELECT count(*) FROM z")
        s.run(db, "BEGIN", "DELETE FROM z", "ROLLBACK", "SELECT count(*), max(b) FROM z", TOTALS)
        all_of_them(s, db)
    s.run(db, "CREATE TEMP TABLE scratch AS SELECT * FROM t, z", "SELECT count(*) FROM scratch", "DROP TABLE scratch")
    s.check(db, "attached", "aux")
    # VACUUM takes the page size that was asked for last, of whatever database.
    s.run(db, "DETACH aux", "PRAGMA synchronous=FULL", f"PRAGMA page_size={s.case.page_size}")


def all_of_them(s: Session, db: apsw.Connection) -> None:
    """Transactions that write two databases, then three."""
    found = "SELECT (SELECT total(a) FROM t), (SELECT total(a) FROM z), (SELECT max(b) FROM z)"
    s.run(db, "BEGIN", "UPDATE t SET b = b || '+' WHERE a < 9", "UPDATE z SET b = b || '+'", found, "COMMIT", found)
    s.run(db, "BEGIN IMMEDIATE", "INSERT INTO t(b) SELECT b FROM z", "DELETE FROM z WHERE a % 5 = 0", "COMMIT", found)
    s.run(db, "UPDATE z SET b = (SELECT b FROM t WHERE t.a = z.a)", found)
    if s.case.rolls_back:
        s.run(db, "BEGIN", "UPDATE z SET b = 'lost'", "DELETE FROM t", found, "ROLLBACK", found)
        s.run(db, "BEGIN", "SAVEPOINT one", "UPDATE z SET a = a + 1000", "UPDATE t SET b = 'lost'", "ROLLBACK TO one")
        s.run(db, "UPDATE z SET b = 'kept' WHERE a < 9", "UPDATE t SET b = 'kept' WHERE a = 3", "COMMIT", found)
    s.run(db, "ATTACH '{third}' AS third", "CREATE TABLE IF NOT EXISTS third.y(a, b)", "BEGIN")
    s.run(db, "INSERT INTO y SELECT a, b FROM z", "UPDATE z SET b = 'three'", "UPDATE t SET b = 'three' WHERE a = 1")
    s.run(db, "COMMIT", found, "SELECT count(*), total(a) FROM y", "DETACH third", "SELECT count(*) FROM y")


def vacuum(s: Session, db: apsw.Connection) -> None:
    s.run(db, "DELETE FROM t WHERE a % 2 AND a > 100", "VACUUM", TOTALS, "PRAGMA page_count")
    s.run(db, "BEGIN", "VACUUM", "COMMIT")
    s.run(db, "VACUUM INTO '{copy}'", "VACUUM INTO '{copy}'")
    with opened(s, "copy") as copy:
        s.check(copy, "VACUUM INTO")
        s.run(copy, "PRAGMA journal_mode", "INSERT INTO t(b) VALUES('more')", TOTALS)
    if s.case.journal == "wal":
        return  # a file's page size cannot change in this mode, which a dataset is never in
    for page_size in (4096 if s.case.page_size != 4096 else 1024, s.case.page_size):
        s.run(db, f"PRAGMA page_size={page_size}", "VACUUM", "PRAGMA page_size", "PRAGMA page_count", TOTALS)
    s.run(db, f"PRAGMA auto_vacuum={(s.case.auto_vacuum + 1) % 3}", "VACUUM", "PRAGMA auto_vacuum")


def backups(s: Session, db: apsw.Connection) -> None:
    """Out to a file while the source changes, and in from a file in the write-ahead format."""
    path = s.scratch / "backup.db"
    with apsw.Connection(str(path)) as file, file.backup("main", db, "main") as backup:
        backup.step(3)
        db.execute("INSERT INTO t(b) VALUES('during the backup')")
        backup.step(2)
        db.execute("UPDATE t SET b = 'late' WHERE a = 2")
        s.note("backup out", lambda: backup.step(-1))
    s.note("content of the backup", lambda: content(file))
    s.note("the backup is whole", lambda: content(file) == content(db))
    file.close()
    source = apsw.Connection(str(s.scratch / "source.db"))
    source.execute("PRAGMA page_size=2048; PRAGMA journal_mode=WAL").fetchall()
    source.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)")
    source.execute(FILL)
    with opened(s, "back") as back:
        s.run(back, "CREATE TABLE before(x)", "INSERT INTO before VALUES(zeroblob(50000))")
        with back.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(7)
        source.close()
        s.note("backup in", lambda: content(back))
    with opened(s, "back") as back:
        s.run(back, "PRAGMA page_size", "INSERT INTO t(b) VALUES('more')", TOTALS, "PRAGMA integrity_check")


def locking(s: Session, db: apsw.Connection) -> None:
    """The lock is kept, then let go; counters go on all the while."""
    s.run(db, "PRAGMA locking_mode=EXCLUSIVE", "UPDATE t SET b = 'f1' WHERE a = 1", "UPDATE t SET b = 'f2' WHERE a = 2")
    s.run(db, "PRAGMA locking_mode", "BEGIN", FILL, "COMMIT", TOTALS)
    if s.case.rolls_back:
        s.run(db, "BEGIN", "DELETE FROM t", "ROLLBACK", TOTALS)
    if s.case.is_shared:
        s.run(db, "PRAGMA locking_mode=NORMAL", TOTALS)
    s.run(db, "PRAGMA locking_mode")


def two_connections(s: Session, db: apsw.Connection) -> None:
    if not s.case.is_shared:
        return
    with opened(s, "main") as other:
        s.run(other, TOTALS, "CREATE TABLE made_by_other(x)")
        s.run(db, "INSERT INTO made_by_other VALUES(1)", "BEGIN IMMEDIATE")
        s.run(other, "BEGIN IMMEDIATE", "INSERT INTO made_by_other VALUES(2)", TOTALS)
        s.run(db, "UPDATE made_by_other SET x = 3", "COMMIT")
        s.run(other, "SELECT * FROM made_by_other", "UPDATE t SET b = 'by other' WHERE a < 50")
        s.run(db, TOTALS, "SELECT b FROM t WHERE a < 5", "DROP TABLE made_by_other")
        s.run(other, "SELECT * FROM made_by_other", TOTALS)
        s.check(other, "the other connection")


def maintenance(s: Session, db: apsw.Connection) -> None:
    s.run(db, "ANALYZE", "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY 1, 2", "REINDEX", "PRAGMA quick_check")
    s.run(db, "DROP INDEX tb", "ALTER TABLE t ADD COLUMN e DEFAULT 5", "ALTER TABLE t DROP COLUMN d", "DROP TABLE f")
    s.run(db, "SELECT e, count(*) FROM t GROUP BY e", "PRAGMA optimize", "PRAGMA table_xinfo(t)")


CHAPTERS: list[Callable[[Session, apsw.Connection], None]] = [
    tables,
    transactions,
    savepoints,
    spill,
    incremental_vacuum,
    blobs,
    full_text,
    attached,
    vacuum,
    backups,
    locking,
    two_connections,
    maintenance,
]
