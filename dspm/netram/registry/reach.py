"""A connection to a node's address, or in which way there is none."""

from __future__ import annotations

import asyncio

from dspm.errors import UnavailableError
from dspm.netram.client import reason, split_address
from dspm.netram.registry.pulse import Way

CONNECT_TIMEOUT_S = 0.2

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotReachedError(UnavailableError):
    """There is no connection; `way` says what that means."""

    def __init__(self, message: str, way: Way) -> None:
        super().__init__(message)
        self.way = way


async def reach(address: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Streams:
    """Connects.

    Raises:
        NotReachedError: refused (the process is gone), or no answer.
    """
    host, port = split_address(address)
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(host, port)
    except ConnectionRefusedError as e:
        raise NotReachedError(f"{address} does not answer: {reason(e)}", Way.GONE) from None
    except TimeoutError:
        raise NotReachedError(f"{address} does not answer in time", Way.UNREACHABLE) from None
    except OSError as e:
        raise NotReachedError(f"{address} does not answer: {reason(e)}", Way.UNREACHABLE) from None


async def knock(address: str) -> Way:
    """Why a node that has a connection says nothing: whoever accepts another one is there and does not run."""
    try:
        _, writer = await reach(address)
    except NotReachedError as e:
        return e.way
    writer.close()
    return Way.FROZEN
