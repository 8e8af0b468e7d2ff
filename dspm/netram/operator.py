"""The registry's HTTP API as operators and nodes use it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from dspm.errors import DspmError, UnavailableError, UsageError, from_code
from dspm.netram.config import Config
from dspm.netram.key import misfit
from dspm.netram.messages import MemberEntry, SetEntry
from dspm.netram.wire import operator_token

UNAUTHORIZED = 401


def of_cluster(config: Config) -> Operator:
    """The registry of that cluster."""
    if not config.registry:
        raise UsageError(
            "no registry is configured: `registry` is the URL of its HTTP API", "`dspm config show` shows the config"
        )
    return Operator(config.registry, config.key())


class Operator:
    """A connection to the registry."""

    def __init__(self, url: str, key: bytes, timeout_s: float = 15.0) -> None:
        self._url = url
        self._key = key
        headers = {"Authorization": f"Bearer {operator_token(key)}"}
        # No proxy of the environment: the registry is a peer, not the web.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def add_node(self, name: str, address: str, machine: str) -> None:
        """Registers a node and waits until it is up to date."""
        self._call("POST", "/v1/nodes", {"name": name, "address": address, "machine": machine})

    def drain(self, node: str) -> int:
        """Moves all sets away from a node; returns how many there are."""
        return int(self._call("POST", f"/v1/nodes/{quote(node, safe='')}/drain", {})["sets"])

    def undrain(self, node: str) -> None:
        """Takes a node into use again."""
        self._call("DELETE", f"/v1/nodes/{quote(node, safe='')}/drain", None)

    def remove_node(self, node: str) -> None:
        """Forgets a node that is drained and gone."""
        self._call("DELETE", f"/v1/nodes/{quote(node, safe='')}", None)

    def is_emptying(self, node: str) -> bool:
        """The node is drained, and sets with datasets are still on it."""
        return any(n["name"] == node and n["draining"] and n["sets"] for n in self.view()["nodes"])

    def switchover(self, dataset: str, node: str | None) -> SetEntry:
        """Makes another member the primary of the dataset's set; returns the set when it serves."""
        return self._set(self._call("POST", "/v1/switchover", {"dataset": dataset, "node": node}))

    def recover(self, set_id: int, generation: int, source: MemberEntry) -> SetEntry:
        """Lets a set that is down go on from a node that may lack commits; returns the set when it serves."""
        body = {"generation": generation, "node": source.node, "store": source.store}
        return self._set(self._call("POST", f"/v1/sets/{set_id:016x}/recover", body))

    def take_over(self, node: str | None) -> dict[str, Any]:
        """Lets a registry with an old state go on from what a node knows; returns what that changed."""
        return self._call("POST", "/v1/takeover", {"node": node})

    def _set(self, answer: dict[str, Any]) -> SetEntry:
        try:
            return msgspec.convert(answer["set"], SetEntry)
        except (KeyError, msgspec.ValidationError):
            raise DspmError(f"what answers at {self._url} is not a dspm registry", "check `registry`") from None

    def view(self) -> dict[str, Any]:
        """Nodes with their states, and replica sets."""
        return self._call("GET", "/v1/view", None)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        try:
            reply = self._http.request(method, path, json=body)
            answer: dict[str, Any] = reply.json()
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise UnavailableError(f"the registry at {self._url} does not answer: {e}", _HINT) from None
        except ValueError:
            raise DspmError(f"what answers at {self._url} is not a dspm registry", "check `registry`") from None
        if reply.status_code == UNAUTHORIZED:
            raise from_code(10, f"{misfit(self._key)} (the registry at {self._url} said so)")
        if reply.status_code >= 400:
            raise from_code(
                int(answer.get("code", 1)), str(answer.get("error", reply.status_code)), answer.get("hint", "")
            )
        return answer


_HINT = "`dspm up --dir D` starts what is missing"
