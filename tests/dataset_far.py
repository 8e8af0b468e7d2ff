"""Datasets in another process, to be used as if they were here.

A child process keeps the real objects; a :class:`Far` stands for one of them and sends each call over. Errors come back
as they are. It ends with the pipe.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from dspm.txn import Dataset, Snapshot, Transaction
from dspm.txn.reservation import Reservation

_KEPT = (Dataset, Snapshot, Transaction, Reservation)


class Far:
    """An object of the child process."""

    def __init__(self, pipe: Connection, number: int) -> None:
        self._pipe = pipe
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return self._ask("get", name)

    def __enter__(self) -> Far:
        self._ask("call", "__enter__")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The child has to know that there was an error, and not which.
        self._ask("call", "__exit__", *((kind and Exception, None, None)))

    def _ask(self, verb: str, name: str, *arguments: Any, **named: Any) -> Any:
        self._pipe.send((self._number, verb, name, arguments, named))
        kind, answer = self._pipe.recv()
        match kind:
            case "error":
                raise answer
            case "object":
                return Far(self._pipe, answer)
            case "method":
                return functools.partial(self._ask, "call", name)
        return answer

    def __reduce__(self) -> Any:
        return _Number, (self._number,)


class _Number(int):
    """What a :class:`Far` is on its way to the child."""


@contextlib.contextmanager
def far_side() -> Iterator[Far]:
    """The child: ``far.open(name)`` is ``Dataset.open(name)`` there."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child = context.Process(target=_serve, args=(far,), daemon=True)
    child.start()
    far.close()
    try:
        yield Far(near, 0)
    finally:
        near.close()
        child.join(timeout=30)
        assert child.exitcode == 0


def _serve(pipe: Connection) -> None:
    objects: dict[int, Any] = {0: Dataset}
    with contextlib.suppress(EOFError):
        while True:
            number, verb, name, arguments, named = pipe.recv()
            try:
                found = getattr(objects[number], name)
                if verb == "call":
                    mine = {k: _object(a, objects) for k, a in named.items()}
                    found = found(*(_object(a, objects) for a in arguments), **mine)
            except Exception as e:
                pipe.send(("error", e))
                continue
            if isinstance(found, _KEPT):
                objects[len(objects)] = found
                pipe.send(("object", len(objects) - 1))
            elif callable(found):
                pipe.send(("method", None))
            else:
                pipe.send(("value", list(found) if isinstance(found, Iterator) else found))


def _object(argument: Any, objects: dict[int, Any]) -> Any:
    return objects[argument] if isinstance(argument, _Number) else argument
