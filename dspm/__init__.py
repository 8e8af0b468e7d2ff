"""dspm: databases in the memory of a cluster.

``dspm.connect(name)`` opens a database as an :class:`apsw.Connection`, ``dspm.sqlite3_connect(name)`` as a
:class:`sqlite3.Connection`; ``dspm.Dataset.open(name)`` gives the pages themselves. Nothing is loaded and no
configuration is read before the first of them is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspm.engine.vfs import connect, sqlite3_connect
    from dspm.txn.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["Dataset", "__version__", "connect", "sqlite3_connect"]

_LAZY = {"Dataset": "dspm.txn.dataset", "connect": "dspm.engine.vfs", "sqlite3_connect": "dspm.engine.vfs"}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'dspm' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
