"""Arguments that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from dspm.errors import UsageError


def _path(_type: Any, tokens: Sequence[Any]) -> Path:
    """A path that was really given: `--dir $D` with D unset must not mean the current directory."""
    (token,) = tokens
    if not token.value:
        raise UsageError(f"{token.keyword or 'the path'} is empty", "expected a path; is the shell's variable set?")
    return Path(token.value)


GivenPath = Annotated[Path, Parameter(converter=_path)]
"""A path in which the empty text is an error."""
