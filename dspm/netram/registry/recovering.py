"""A set goes on although acknowledged commits are lost: an operator gave up its complete members.

Pure. Rules: only while no complete member of the last active set answers or is in doubt; from one node alone, which
answers and is named by the set as joining, dropped, or as a complete member that came back from its log. Its generation
is a new one, whose last active set is that node, and `history` rises: clients end what they knew
(docs/decisions/0007). Everybody else whom the set named is *dropped*: whoever of them comes back may join, and what it
has that the source lacks goes then. Whether the source holds all pages is for the caller to know.
"""

from __future__ import annotations

import msgspec

from dspm.errors import ConflictError, UnavailableError
from dspm.netram.messages import MemberEntry, SetEntry
from dspm.netram.registry.driver import Cluster, Standing, standing


def recover(entry: SetEntry, generation: int, source: MemberEntry, cluster: Cluster) -> SetEntry:
    """The set as it goes on from the source.

    Raises:
        ConflictError: the set is in another generation, a complete member answers, or the source is none of the set.
        UnavailableError: it is not clear yet whether a complete member answers; or the source does not.
    """
    if entry.generation != generation:
        raise ConflictError(f"the set is in generation {entry.generation} by now, not {generation}", "look again")
    for m in entry.last_active:
        _check_lost(m, cluster)
    heard = cluster.heard.get(source.node)
    if heard is None or not heard.is_there or heard.store != source.store:
        raise UnavailableError(f"{source.node} does not answer with the store id {source.store:016x}", "look again")
    known = (*entry.joining, *entry.dropped, *entry.last_active)
    if not any(m.node == source.node and m.store in (source.store, *heard.former) for m in known):
        raise ConflictError(f"{source.node} holds nothing of the set {entry.id:016x}", "look again")
    others = {m.node: m for m in known if m.node != source.node}
    return msgspec.structs.replace(
        entry,
        generation=generation + 1,
        state="activating",
        primary=source.node,
        members=[source],
        joining=[],
        last_active=[source],
        dropped=list(others.values()),
        history=entry.history + 1,
    )


def _check_lost(member: MemberEntry, cluster: Cluster) -> None:
    match standing(member, cluster):
        case Standing.OUT:
            return
        case Standing.DOUBT:
            raise UnavailableError(f"it is not clear yet whether {member.node} answers", "try again in a moment")
        case _:
            raise ConflictError(
                f"{member.node} answers and holds everything: nothing has to be lost",
                "the set goes on by itself; `dspm status` shows it",
            )
