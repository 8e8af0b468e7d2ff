"""An asyncio connection to a node on which both sides ask: the registry's side.

Invariants: a reply reaches only the question of its number; a connection that broke fails every open question at
once; a hostile peer can fail its own link and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from dspm.errors import DspmError, UnavailableError
from dspm.netram import messages, wire
from dspm.netram.client import reason
from dspm.netram.messages import Challenge, Hello, Proof, Request

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[msgspec.Struct]]

QUESTIONS_MAX = 1024
"""Most requests of one node that are being answered at a time; further ones wait in the socket."""


class Link:
    """One connection. `challenge` is what the node said of itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._open: dict[int, asyncio.Future[bytes]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(QUESTIONS_MAX)
        self._next = 0
        self._reading: asyncio.Task[None] | None = None
        self.challenge: Challenge

    @classmethod
    async def greet(
        cls,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        key: bytes,
        cluster: str,
        name: str,
        handler: Handler,
    ) -> Link:
        """Shakes hands as the registry, over a connection that was just made."""
        link = cls(*streams, handler)
        try:
            await link._shake_hands(key, cluster, name)
        except BaseException:
            await link.close()
            raise
        link._reading = asyncio.create_task(link._read())
        return link

    async def _shake_hands(self, key: bytes, cluster: str, name: str) -> None:
        mine = wire.nonce()
        hello = Hello(role="registry", name=name, cluster=cluster, nonce=mine)
        await self._send(wire.encode(wire.Kind.HELLO, messages.encode(hello), 1))
        self.challenge = messages.decode(await self._receive_hello(), Challenge)
        wire.check_proof(key, "acceptor", mine, self.challenge.nonce, self.challenge.proof)
        answer = Proof(wire.proof(key, "dialer", mine, self.challenge.nonce))
        await self._send(wire.encode(wire.Kind.HELLO, messages.encode(answer), 2))
        await self._receive_hello()

    async def _receive_hello(self) -> bytes:
        header, meta = await self._receive()
        if header.is_error:
            raise wire.decode_error(meta)
        if header.kind != wire.Kind.HELLO:
            raise UnavailableError("the peer does not shake hands")
        return meta

    async def ask(self, request: msgspec.Struct, reply: type[T], timeout_s: float) -> T:
        """Asks and returns the reply, or raises the error that was answered."""
        self._next += 1
        number = self._next
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(wire.encode(wire.Kind.CONTROL, messages.encode(request), number))
                return messages.decode(await future, reply)
        except TimeoutError:
            raise UnavailableError(f"no answer within {timeout_s:g} s") from None
        finally:
            self._open.pop(number, None)

    @property
    def is_open(self) -> bool:
        """False once the connection broke."""
        return self._reading is not None and not self._reading.done()

    async def ended(self) -> None:
        """Waits until the connection breaks, and says so.

        Raises:
            UnavailableError: it broke.
        """
        if self._reading is not None:
            await asyncio.wait({self._reading})
        raise UnavailableError("the connection broke")

    async def close(self) -> None:
        """Ends the connection; open questions fail."""
        for task in [*self._answering, *([self._reading] if self._reading else [])]:
            if task is not asyncio.current_task():
                task.cancel()
        self._fail_open()
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()

    def _fail_open(self) -> None:
        for future in self._open.values():
            if not future.done():
                future.set_exception(UnavailableError("the connection broke"))

    async def _read(self) -> None:
        try:
            while True:
                header, meta = await self._receive()
                if header.is_reply:
                    self._take_reply(header, meta)
                elif header.kind == wire.Kind.CONTROL:
                    await self._room.acquire()
                    task = asyncio.create_task(self._answer(header.request, meta))
                    self._answering.add(task)
                    task.add_done_callback(self._answered)
        except DspmError:
            pass
        finally:
            self._fail_open()
            self._writer.close()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()

    def _take_reply(self, header: wire.Header, meta: bytes) -> None:
        future = self._open.get(header.request)
        if future is None or future.done():
            return
        if header.is_error:
            future.set_exception(wire.decode_error(meta))
        else:
            future.set_result(meta)

    async def _answer(self, number: int, meta: bytes) -> None:
        flags = wire.FLAG_REPLY
        try:
            reply = messages.encode(await self._handler(messages.decode_request(meta)))
        except DspmError as e:
            flags, reply = flags | wire.FLAG_ERROR, wire.encode_error(e)
        with contextlib.suppress(DspmError):
            await self._send(wire.encode(wire.Kind.CONTROL, reply, number, flags))

    async def _send(self, message: bytes) -> None:
        try:
            self._writer.write(message)
            await self._writer.drain()
        except OSError as e:
            raise UnavailableError(f"the connection broke: {reason(e)}") from None

    async def _receive(self) -> tuple[wire.Header, bytes]:
        try:
            header = wire.decode_header(await self._reader.readexactly(wire.HEADER_SIZE))
            meta = header.verify(await self._reader.readexactly(header.meta_len))
            if header.data_len:
                await self._reader.readexactly(header.data_len)
        except (OSError, asyncio.IncompleteReadError) as e:
            raise UnavailableError(f"the connection broke: {e}") from None
        return header, meta
