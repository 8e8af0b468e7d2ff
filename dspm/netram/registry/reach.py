"""A connection to a node's address, or in which way there is none."""

from __future__ import annotations

import asyncio

from dspm.errors import UnavailableError
from dspm.netram.client import reason, split_address
from dspm.netram.registry.pulse import Way

CONNECT_TIMEOUT_S = 1.0
KNOCK_TIMEOUT_S = 0.2
LATE_S = 0.05
"""A timeout that ends so much too late says more of this process than of the node."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotReachedError(UnavailableError):
    """There is no connection; `way` says what that means."""

    def __init__(self, message: str, way: Way) -> None:
        super().__init__(message)
        self.way = way


async def reach(address: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Streams:
    """Connects.

    Raises:
        NotReachedError: refused (the process is gone), or no answer; silent, where this process was late itself.
    """
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(host, port)
    except ConnectionRefusedError as e:
        raise NotReachedError(f"{address} does not answer: {reason(e)}", Way.GONE) from None
    except TimeoutError:
        way = Way.SILENT if loop.time() > until + LATE_S else Way.UNREACHABLE
        raise NotReachedError(f"{address} does not answer in time", way) from None
    except OSError as e:
        raise NotReachedError(f"{address} does not answer: {reason(e)}", Way.UNREACHABLE) from None


async def knock(address: str) -> Way:
    """Why a node that has a connection says nothing: whoever accepts another one is there and does not run."""
    try:
        _, writer = await reach(address, KNOCK_TIMEOUT_S)
    except NotReachedError as e:
        return e.way
    writer.close()
    return Way.FROZEN
