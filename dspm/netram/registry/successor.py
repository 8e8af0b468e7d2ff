"""Takes over what the nodes know while this registry's state is an old one: asks them again until it is certain.

Invariants: what is taken over is what all of them still say at that moment; nothing is decided in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from dspm.errors import ConflictError, DspmError, NotFoundError, UnavailableError
from dspm.netram.registry.catalog import Catalog
from dspm.netram.registry.peer import Peer
from dspm.netram.registry.takeover import Known, Takeover, certain, going_on

PAUSE_S = 1.0
"""Between two attempts."""
_NAMED_MAX = 20

log = structlog.get_logger("registry.takeover")


class Successor:
    """Of one registry. `on_taken` is called when the state is another one."""

    def __init__(self, catalog: Catalog, peers: Mapping[str, Peer], on_taken: Callable[[], None]) -> None:
        self._catalog = catalog
        self._peers = peers
        self._on_taken = on_taken
        self._task: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Begins to ask where a node is ahead. What failed there is a fault of dspm."""
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()
        if self._task is None and self._catalog.ahead:
            self._task = asyncio.create_task(self._try(), name="takeover")

    async def stop(self) -> None:
        """Ends the questions."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _try(self) -> None:
        known = await self._ask()
        try:
            self._check_still(known)
            self._take(certain(self._catalog.own(), known, self._catalog.given()))
            return
        except DspmError as e:
            if self._catalog.ahead and self._catalog.waits != str(e):
                log.warning("what nodes know is not taken over", why=str(e))
                self._catalog.waits = str(e)
        await asyncio.sleep(PAUSE_S)

    async def by_order(self, node: str | None) -> Takeover:
        """Goes on from what a node knows, or from the newest view of those that answer, on an operator's word.

        What those know that do not answer is given up.

        Raises:
            NotFoundError: there is no such node.
            UnavailableError: it does not answer.
            ConflictError: this state is not known to be an old one.
        """
        known = await self._ask()
        if node is not None and node not in self._peers:
            raise NotFoundError(f"there is no node named {node[:80]!r}", "`dspm status` lists the nodes")
        if not self._catalog.ahead:
            raise ConflictError("no node knows more than this registry's state", "nothing has to be given up")
        self._check_still(known)
        if node is not None and node not in known:
            raise UnavailableError(f"{node} does not answer", "name one that does, or none")
        own = self._catalog.own()
        base = node or max(sorted(known), key=lambda n: known[n].version)
        new = going_on(own, known, self._catalog.given(), base)
        log.warning("an operator says that this registry goes on from what a node knows", node=base)
        self._take(new)
        return new

    async def _ask(self) -> dict[str, Known]:
        peers = list(self._peers.items())
        answers = await asyncio.gather(*(p.knows() for _, p in peers), return_exceptions=True)
        for a in answers:
            if isinstance(a, BaseException) and not isinstance(a, DspmError):
                raise a
        return {n: a for (n, _), a in zip(peers, answers, strict=True) if isinstance(a, Known)}

    def _check_still(self, known: Mapping[str, Known]) -> None:
        if not known or not all(n in self._peers and self._peers[n].still_knows(k) for n, k in known.items()):
            raise UnavailableError("the nodes are still being asked")

    def _take(self, new: Takeover) -> None:
        before = self._catalog.view_version
        self._catalog.take_over(new)
        log.warning(
            "this registry's state was an old one, it goes on from what nodes know",
            base=new.base,
            state_had=before,
            version=new.version,
            sets=len(new.sets),
            datasets=len(new.datasets),
            gained=new.gained[:_NAMED_MAX],
            perhaps_removed=new.doubtful[:_NAMED_MAX],
            renamed=new.aside[:_NAMED_MAX],
        )
        self._on_taken()
