"""Every fixed layout of docs/formats as a struct, and the numbers that belong to it. Nothing else knows an offset.

All numbers are unsigned and little-endian. A struct that ends in a checksum covers the bytes in front of it.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PAGE = 4096
VERSION = 1

# record.md, wire.md
HEADER = Struct("<4sBBHIIQQQQQII")
HEADER_MAGIC = b"DSPM"
META_MAX = 16 << 20
DATA_MAX = 1 << 30
RECORD = Struct("<QIIQQQQQQQIIII")
RECORD_DATASET = Struct("<QQII")
RECORD_PAGE = Struct("<QQQIHBB")
RECORD_LINK = Struct("<QQQQII")
LINKS_MAX = 128
HASH_HEAD = Struct("<QQQ")
HASH_PAGE = Struct("<QQHB")
HASH_FIELD = slice(56, 64)
DATASETS_MAX = 4096
RECORD_ID = Struct("<QQQ")
PAIR = Struct("<QQ")
SESSION = PAIR
STATE_NEWEST = Struct("<II")
"""Number of newest records, 0."""
NEWEST = Struct("<QQQQQ")
"""A client's newest record: client, generation, LSN, hash, when it was published."""

# arena.md
ARENA = Struct("<8sIIQQIIQQ16s16sQ")
ARENA_MAGIC = b"DSPMAREN"
ARENA_COPY = 128
ARENA_SUSPECT = 256
WORD = Struct("<Q")
FRAME = Struct("<QQQQQQI4s4sI")
FRAME_SUMMED = 48
FREE, PAGES, RING, SLOTS = b"\0\0\0\0", b"PAGE", b"RING", b"SLOT"
SLOT = Struct("<QQQQIIQQQQQQQQQ")
SLOT_COPY = 128
SLOT_SIZE = 2 * SLOT_COPY
STATE = Struct("<QQQQQQII")
STATE_DATASET = Struct("<QQIIII")
IDENTITY = Struct("<8sIIQB15s128sQ")
IDENTITY_MAGIC = b"DSPMNODE"

# disk-log.md
SEGMENT = Struct("<8sIIQQQQ")
SEGMENT_MAGIC = b"DSPMLOG1"
BATCH_END = Struct("<QQQQ")
REMOVED = 0x100

# base-file.md
SIDECAR = Struct("<8sIIQQQQQQQQQ")
SIDECAR_MAGIC = b"DSPMBASE"
SIDECAR_COPY = 512
ENTRIES_AT = 4096
ENTRY = PAIR
ENTRY_PLACE = PAIR  # what an entry's checksum covers besides the page


class Kind(IntEnum):
    """What a message, an entry of a ring or an entry of the log is."""

    RENEW = 3
    COMMIT = 9
    COMPLETE = 21
    REBASE = 28
    BATCH_END = 40
    CHECKPOINT = 41


class Rebased(IntEnum):
    """What a slot says of a rebase."""

    NEVER = 0
    LACKS = 1
    WHOLE = 2


class Part(IntEnum):
    """What a record is to records of other groups."""

    ALONE = 0
    PREPARED = 1
    DECIDES = 2
    ABORTS = 3


class Payload(IntEnum):
    """How a page stands in its record."""

    FULL = 0
    DELTA = 1
    ZERO = 2
