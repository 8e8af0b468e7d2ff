"""A node that only speaks the control plane, for tests of the registry and of the command line: it keeps no pages.

As a program it takes the arguments of `dspm-node`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from dspm.errors import ConflictError, DspmError, FullError, NotFoundError, UnavailableError
from dspm.netram import messages, wire
from dspm.netram.viewsum import view_sum


class FakeNode:
    def __init__(
        self, name: str, key: bytes, cluster: str = "", store: int | None = None, former: tuple[int, ...] = ()
    ) -> None:
        self.name = name
        self.key = key
        self.cluster = cluster
        self.store = store or secrets.randbits(64)
        self.former = former
        self.freed: list[int] = []
        self.cannot_free = ""
        self.cannot_take = ""
        self.full = ""
        self.refuses_ms = 0
        self.contradicts = ""
        self.trouble = ""
        self.view: dict[str, Any] = {"version": 0, "cluster": "", "nodes": [], "sets": []}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.heard: list[str] = []
        self.address = ""
        self.deaf = False
        self.activates = False
        self.joins = False
        self.comes_to_rest = True
        self.changes: list[dict[str, Any]] = []
        self._reports: set[asyncio.Task[None]] = set()
        self._registry: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, host, port)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def ask_registry(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._registry is None:
            raise UnavailableError("the registry is not connected")
        number = 1_000_000 + len(self._asked)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._registry.write(wire.encode(wire.Kind.CONTROL, json.dumps(request).encode(), number))
        reply: dict[str, Any] = json.loads(await future)
        return reply

    async def report(self) -> None:
        """Says what a node with nothing to settle and nothing to copy would say of the view, until it is heard."""
        view = self.view
        while self.view is view and not await self._say():
            await asyncio.sleep(0.05)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _come_to_rest(self, entry: dict[str, Any]) -> None:
        """Says of a dataset what the primary of its set would, which serves nobody."""
        while self.datasets.get(entry["name"]) == entry and self._registry is not None:
            for s in self.view["sets"]:
                if s["id"] == entry["set"] and s["primary"] == self.name and self.comes_to_rest:
                    told = {"set": s["id"], "generation": s["generation"], "group": entry["group"]}
                    with contextlib.suppress(DspmError):
                        await self.ask_registry({"op": "quiet", **told, "removing": entry["removing"]})
            await asyncio.sleep(0.05)

    async def _say(self) -> bool:
        heard = True
        for s in self.view["sets"]:
            told, joining = {"set": s["id"], "generation": s["generation"]}, [m["node"] for m in s["joining"]]
            try:
                if self.activates and s["state"] == "activating" and s["primary"] == self.name:
                    await self.ask_registry({"op": "activated", **told})
                elif self.joins and s["state"] == "active" and self.name in joining:
                    await self.ask_registry({"op": "whole", **told, "store": self.store})
            except UnavailableError:
                heard = self._registry is None
            except DspmError:
                pass
        return heard

    def sum(self) -> int:
        view = msgspec.convert(self.view, messages.PlainView)
        return view_sum(view.version, view.nodes, view.sets) if view.version else 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            role = await self._welcome(reader, writer)
            if role == "registry":
                self._registry = writer
            tasks = set()
            while True:
                header, meta = await _receive(reader)
                if header.is_reply:
                    future = self._asked[header.request]
                    if header.is_error:
                        future.set_exception(wire.decode_error(meta))
                    else:
                        future.set_result(meta)
                elif not self.deaf:
                    task = asyncio.create_task(self._answer(writer, header.request, json.loads(meta)))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError, DspmError):
            pass
        finally:
            if self._registry is writer:
                self._registry = None
            self._writers.discard(writer)
            writer.close()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        header, meta = await _receive(reader)
        hello, mine = json.loads(meta), wire.nonce()
        challenge = {
            "name": self.name,
            "store": self.store,
            "boot": 1,
            "nonce": mine,
            "proof": wire.proof(self.key, "acceptor", hello["nonce"], mine),
        }
        writer.write(wire.encode(wire.Kind.HELLO, json.dumps(challenge).encode(), header.request, wire.FLAG_REPLY))
        header, meta = await _receive(reader)
        try:
            wire.check_proof(self.key, "dialer", hello["nonce"], mine, json.loads(meta)["proof"])
        except DspmError as e:
            flags = wire.FLAG_REPLY | wire.FLAG_ERROR
            writer.write(wire.encode(wire.Kind.HELLO, wire.encode_error(e), header.request, flags))
            await writer.drain()
            raise
        writer.write(wire.encode(wire.Kind.HELLO, b"{}", header.request, wire.FLAG_REPLY))
        return str(hello["role"])

    async def _answer(self, writer: asyncio.StreamWriter, number: int, request: dict[str, Any]) -> None:
        flags = wire.FLAG_REPLY
        try:
            reply = json.dumps(await self._reply(request)).encode()
        except DspmError as e:
            flags, reply = flags | wire.FLAG_ERROR, wire.encode_error(e)
        writer.write(wire.encode(wire.Kind.CONTROL, reply, number, flags))

    async def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request["op"]
        self.heard.append(op)
        match op:
            case "ping":
                self.trouble = request.get("trouble", "")
                view, count = self.view["version"], len(self.datasets)
                known = {"view": view, "sum": self.sum(), "datasets": count, "former": self.former}
                room = {"full": self.full, "refuses_ms": self.refuses_ms}
                return {"name": self.name, "store": self.store, "boot": 1, **known, **room}
            case "view":
                if self.contradicts:
                    raise ConflictError(self.contradicts)
                if self.cannot_take:
                    raise FullError(self.cannot_take)
                before, self.view = self.view, {k: v for k, v in request.items() if k != "op"}
                self.changes += [s for s in self.view["sets"] if s not in before["sets"]]
                self._later(self.report())
                return {"done": True}
            case "datasets":
                if self.cannot_free and request["drop"]:
                    raise FullError(self.cannot_free)
                self.freed += request["drop"]
                if request["whole"]:
                    self.datasets.clear()
                for name in request["del"]:
                    self.datasets.pop(name, None)
                self.datasets.update({d["name"]: d for d in request["put"]})
                for d in request["put"]:
                    if d["removing"]:
                        self._later(self._come_to_rest(d))
                return {"done": True}
            case "list":
                names = sorted(n for n in self.datasets if n > request["after"])
                page = names[: request["limit"] or 1000]
                view = None if request["view"] == self.view["version"] else self.view
                more, count = len(page) < len(names), len(self.datasets)
                return {"datasets": [self.datasets[n] for n in page], "more": more, "count": count, "view": view}
            case "status":
                groups = [
                    {"group": d["group"], "sizes": [[d["dataset"], 4096]], "state": "ok", "writer": 0}
                    for d in self.datasets.values()
                    if d["group"] in request["groups"]
                ]
                told = {"groups": groups, "covered": len(request["groups"])}
                state = f"cannot take over the newest view: {self.cannot_take}" if self.cannot_take else "serving"
                known = {"name": self.name, "state": state, "registry": self.trouble, "store": self.store, "frames": 9}
                return {**known, **told}
            case "locate" | "remove" | "rename":
                return await self.ask_registry(request)
        raise NotFoundError(op)


async def _receive(reader: asyncio.StreamReader) -> tuple[wire.Header, bytes]:
    header = wire.decode_header(await reader.readexactly(wire.HEADER_SIZE))
    return header, header.verify(await reader.readexactly(header.meta_len))


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in (
        *("name", "cluster", "machine", "listen", "data-dir", "arena", "memory", "key-file"),
        *("lease-ms", "flush-interval-ms", "dirty-max-bytes", "history-max-bytes", "outcome-retention-ms"),
        *("join-rate-bytes", "scrub-rate-bytes", "scrub-interval-ms", "metrics"),
    ):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--insecure", action="store_true")
    args = parser.parse_args()
    asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> None:
    Path(args.data_dir, "node").write_text("a stand-in")  # without it the directory is new, and the memory nobody's
    arena = Path(args.arena)
    if arena.exists():
        store = int(arena.read_text())
    else:
        store = secrets.randbits(64)
        arena.write_text(str(store))
    node = FakeNode(args.name, Path(args.key_file).read_bytes().strip(), args.cluster, store)
    node.activates = node.joins = True
    host, port = args.listen.rsplit(":", 1)
    await node.start(host, int(port))
    said = {"address": node.address, "metrics": args.metrics, "pid": os.getpid(), "store": store}
    print(json.dumps(said), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
