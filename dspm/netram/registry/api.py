"""The HTTP/JSON API for operators. Small on purpose: the data path and clients never use it.

Every request but /v1/health shows `Authorization: Bearer TOKEN`, where the token is derived from the cluster's key
(`dspm.netram.wire.operator_token`) and so does not give the key away.

`GET /v1/datasets?after=NAME&limit=N` answers a page, by name: {"datasets": [...], "next": NAME or null}. The next page
is the one after `next`; what is created, renamed or removed meanwhile may be in it or not. `limit` is 1 to 1000, and
1000 without one.

`POST /v1/nodes/NAME/drain` moves all sets away from a node, `DELETE` takes it into use again; `DELETE
/v1/nodes/NAME` forgets one that is drained and gone. `POST /v1/switchover`
with {"dataset": NAME, "node": NAME or null} answers {"set": …} when another member serves the dataset's set.

`DELETE /v1/datasets/NAME` removes a dataset that can be brought to rest, with `?accept_loss=true` any.

`POST /v1/sets/ID/recover` with {"generation": N, "node": NAME, "store": ID} lets a set that is down go on from a node
that may lack acknowledged commits, and answers {"set": …} when it serves. ID of the path is in hexadecimal.

`POST /v1/takeover` with {"node": NAME or null} lets a registry whose state is an old one go on from what that node
knows, or from the newest view of the nodes that answer; it answers {"node", "version", "gained", "doubtful", "aside"}.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dspm import __version__
from dspm.errors import AuthError, ConflictError, DspmError, NotFoundError, UnavailableError, UsageError, code_of
from dspm.netram.messages import MemberEntry, NodeEntry, PlainView
from dspm.netram.registry.catalog import PAGE_MAX
from dspm.netram.registry.service import Service
from dspm.netram.wire import operator_token

BODY_MAX = 64 << 10
SET_DIGITS = 16
T = TypeVar("T")


class Switchover(msgspec.Struct):
    """Body of that request; without a node the registry chooses."""

    dataset: str
    node: str | None = None


class Recover(msgspec.Struct):
    """Body of that request: the generation that the asker saw, and the node to go on from."""

    generation: int
    node: str
    store: int


class TakeOver(msgspec.Struct):
    """Body of that request."""

    node: str | None = None


Endpoint = Callable[[Request], Awaitable[Response]]


def build(service: Service, key: bytes) -> Starlette:
    """The application."""
    token = f"Bearer {operator_token(key)}".encode()

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def run(request: Request) -> Response:
            try:
                given = request.headers.get("authorization", "").encode("latin-1", "replace")
                if not hmac.compare_digest(given, token):
                    raise AuthError("this needs the cluster's key", "use the cluster's own key file")
                return await endpoint(request)
            except DspmError as e:
                return _failed(e)

        return run

    async def health(_: Request) -> Response:
        states = [n["state"] for n in service.node_states()]
        up = sum(s == "serving" for s in states)
        known = {"version": __version__, "nodes": len(states), "serving": up, "trouble": service.catalog.trouble}
        return _json({"status": "ok", **known})

    async def view(_: Request) -> Response:
        v = service.catalog.view()
        plain = PlainView(v.version, v.cluster, v.registry, v.nodes, v.sets)
        now = {"nodes": service.node_states(), "trouble": service.catalog.trouble}
        return _json({**msgspec.to_builtins(plain), **now})

    async def datasets(request: Request) -> Response:
        page, more = service.catalog.page(request.query_params.get("after", ""), _limit(request))
        return _json({"datasets": page, "next": page[-1].name if more else None})

    async def add_node(request: Request) -> Response:
        await service.add_node(await _read(request, NodeEntry))
        return _json({"done": True})

    async def remove_node(request: Request) -> Response:
        await service.remove_node(request.path_params["name"])
        return _json({"done": True})

    async def drain(request: Request) -> Response:
        await service.ready()
        return _json({"sets": service.membership.drain(request.path_params["name"])})

    async def undrain(request: Request) -> Response:
        await service.ready()
        service.membership.undrain(request.path_params["name"])
        return _json({"done": True})

    async def switchover(request: Request) -> Response:
        asked = await _read(request, Switchover)
        return _json({"set": await service.switchover(asked.dataset, asked.node)})

    async def recover(request: Request) -> Response:
        asked, given = await _read(request, Recover), request.path_params["id"]
        if len(given) > SET_DIGITS or not all(c in "0123456789abcdef" for c in given):
            raise NotFoundError(f"there is no set {given[:40]!r}")
        source = MemberEntry(asked.node, asked.store)
        return _json({"set": await service.recover(int(given, 16), asked.generation, source)})

    async def take_over(request: Request) -> Response:
        new = await service.take_over((await _read(request, TakeOver)).node)
        told = {"gained": new.gained, "doubtful": new.doubtful, "aside": new.aside}
        return _json({"node": new.base, "version": new.version, **told})

    async def remove(request: Request) -> Response:
        accept_loss = request.query_params.get("accept_loss") == "true"
        await service.remove(request.path_params["name"], accept_loss)
        return _json({"done": True})

    return Starlette(
        routes=[
            Route("/v1/health", health),
            Route("/v1/view", guarded(view)),
            Route("/v1/datasets", guarded(datasets)),
            Route("/v1/nodes", guarded(add_node), methods=["POST"]),
            Route("/v1/nodes/{name}/drain", guarded(drain), methods=["POST"]),
            Route("/v1/nodes/{name}/drain", guarded(undrain), methods=["DELETE"]),
            Route("/v1/nodes/{name}", guarded(remove_node), methods=["DELETE"]),
            Route("/v1/switchover", guarded(switchover), methods=["POST"]),
            Route("/v1/sets/{id}/recover", guarded(recover), methods=["POST"]),
            Route("/v1/takeover", guarded(take_over), methods=["POST"]),
            Route("/v1/datasets/{name:path}", guarded(remove), methods=["DELETE"]),
        ]
    )


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(PAGE_MAX))
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= PAGE_MAX):
        raise UsageError(f"limit = {given[:40]}", f"use a number from 1 to {PAGE_MAX}")
    return int(given)


async def _read(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await _body(request), type=kind)
    except msgspec.DecodeError as e:
        raise UsageError(f"a request that cannot be read as {kind.__name__}: {e}") from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX:
            raise UsageError(f"a request of more than {BODY_MAX} bytes")
    return bytes(body)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


_STATUS: dict[type[DspmError], int] = {
    UsageError: 400,
    AuthError: 401,
    NotFoundError: 404,
    ConflictError: 409,
    UnavailableError: 503,
}


def _failed(e: DspmError) -> Response:
    return _json({"error": str(e), "hint": e.hint, "code": code_of(e)}, _STATUS.get(type(e), 500))
