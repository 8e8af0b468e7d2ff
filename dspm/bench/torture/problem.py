"""What a checker found to be wrong."""

from __future__ import annotations

import msgspec

LOST = "lost"
"""An acknowledged write that is not there."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that a strictly serializable store that loses nothing does not do."""

    kind: str
    database: str
    detail: str
