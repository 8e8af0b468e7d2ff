"""The databases that can be measured, by name. A new kind is one class and one line in `open_binding`."""

from __future__ import annotations

from dspm.bench.ycsb.bindings.base import Binding, Facts, Status
from dspm.bench.ycsb.bindings.noop import NoopBinding
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import NOOP, WIREDTIGER, Target, location
from dspm.errors import UsageError

BINDINGS = ("sqlite", "wiredtiger")

__all__ = ["BINDINGS", "Binding", "Facts", "NoopBinding", "Status", "check_binding", "open_binding"]


def check_binding(name: str) -> None:
    """Refuses a binding that does not exist."""
    if name not in BINDINGS:
        raise UsageError(f"there is no binding {name!r}", f"the bindings are {', '.join(BINDINGS)}")


def open_binding(settings: Settings, target: Target) -> Binding:
    """Opens the target through the binding of the settings."""
    check_binding(settings.binding)
    if target.name == NOOP:
        return NoopBinding()
    if settings.binding == WIREDTIGER:
        from dspm.bench.ycsb.bindings.wiredtiger import WiredTigerBinding

        return WiredTigerBinding(target, location(target, settings), settings.library, settings.cache_bytes)
    from dspm.bench.ycsb.bindings.sqlite import SqliteBinding

    return SqliteBinding(target, location(target, settings), settings.cache_size, settings.page_size, settings.fields)
