"""Messages of the control plane: the Python side of `crates/proto/src/{control,auth}.rs`. JSON, typed by msgspec."""

from __future__ import annotations

import threading
from typing import Any, Literal, TypeVar

import msgspec

from dspm.errors import ProtocolError

Durability = Literal["memory", "pm", "disk"]


class Hello(msgspec.Struct):
    """First message of the dialer."""

    role: str
    name: str
    cluster: str
    nonce: str
    session: None = None
    callbacks: bool = False


class Challenge(msgspec.Struct):
    """Answer to Hello."""

    name: str
    store: int
    boot: int
    nonce: str
    proof: str


class Proof(msgspec.Struct):
    """Answer to Challenge."""

    proof: str


class CreateOptions(msgspec.Struct):
    """How a dataset is created. Missing values are the cluster's."""

    durability: Durability | None = None
    copies: int | None = None
    min_copies: int | None = None
    history_ms: int | None = None
    exclusive: bool = False


class NodeEntry(msgspec.Struct, frozen=True):
    """A node in the view. `machine` is what fails at once with it."""

    name: str
    address: str
    machine: str


class MemberEntry(msgspec.Struct, frozen=True):
    """A member of a set and the store id that it had when it became one."""

    node: str
    store: int


class SetEntry(msgspec.Struct, frozen=True):
    """The registry's record of a replica set.

    `members` are complete, the primary included; `joining` ones acknowledge but do not count yet; `last_active` were
    the members of the last configuration that was active; `dropped` are complete members that were dropped since the
    set last had all its copies. `history` counts how often it went on from a state that may lack acknowledged commits.
    """

    id: int
    generation: int
    state: Literal["activating", "active"]
    primary: str
    members: list[MemberEntry]
    joining: list[MemberEntry] = []
    last_active: list[MemberEntry] = []
    dropped: list[MemberEntry] = []
    history: int = 0


class DatasetEntry(msgspec.Struct, frozen=True):
    """A dataset in the catalog. `removing`, other than 0, marks a try to remove it, which waits for Quiet."""

    name: str
    dataset: int
    group: int
    set: int
    durability: Durability
    copies: int
    min_copies: int
    history_ms: int = 0
    removing: int = 0


class View(msgspec.Struct, tag_field="op", tag="view"):
    """The cluster as the registry knows it. `version` is raised with every change."""

    version: int = 0
    cluster: str = ""
    registry: str = ""
    nodes: list[NodeEntry] = []
    sets: list[SetEntry] = []


class Ping(msgspec.Struct, tag_field="op", tag="ping", omit_defaults=True):
    """Registry to node: answered with Pong. `trouble` is why the registry decides nothing; empty when it does."""

    trouble: str = ""


class Datasets(msgspec.Struct, tag_field="op", tag="datasets"):
    """Registry to node: entries of the catalog. With `whole` the node forgets whatever else it knows.

    A change with `more` goes on in the next message, and counts when all of it is there. `gone` are names; `drop` are
    groups of removed datasets, and only they destroy data.
    """

    whole: bool
    put: list[DatasetEntry]
    # "del" is a keyword of Python.
    gone: list[str] = msgspec.field(name="del", default_factory=list)
    drop: list[int] = []
    more: bool = False


class Locate(msgspec.Struct, tag_field="op", tag="locate"):
    """Client to node, node to registry: answered with Located."""

    name: str
    create: CreateOptions | None = None


class Remove(msgspec.Struct, tag_field="op", tag="remove"):
    """Client to node, node to registry: removes a dataset; with `accept_loss` also one that does not come to rest."""

    name: str
    accept_loss: bool = False


class Quiet(msgspec.Struct, tag_field="op", tag="quiet"):
    """Primary to registry: no writer is let in, and nobody will ask what the group decided. Done when removed."""

    set: int
    generation: int
    group: int
    removing: int


class Removed(msgspec.Struct, tag_field="op", tag="removed"):
    """Node to registry: was the dataset of that group removed? Done says so; not of a group that is not known."""

    group: int


class Rename(msgspec.Struct, tag_field="op", tag="rename"):
    """Client to node, node to registry: renames a dataset. What has the new name becomes `aside` in the same step."""

    name: str
    to: str
    aside: str | None = None


class Activated(msgspec.Struct, tag_field="op", tag="activated"):
    """Primary to registry: every group of the set is settled in that generation. Done when the set is active."""

    set: int
    generation: int


class Whole(msgspec.Struct, tag_field="op", tag="whole"):
    """Joining node to registry: it holds every group of the set wholly. Done when it is a member."""

    set: int
    generation: int
    store: int


class Suspect(msgspec.Struct, tag_field="op", tag="suspect"):
    """Primary to registry, every 250 ms while it lasts: it has no grants of a member or joining node for so long."""

    set: int
    generation: int
    node: str
    store: int
    lapsed_ms: int


class CannotJoin(msgspec.Struct, tag_field="op", tag="cannot_join"):
    """Joining node to registry, until it is heard: it has no room for what the set's commits need."""

    set: int
    generation: int
    store: int
    why: str


class List(msgspec.Struct, tag_field="op", tag="list"):
    """Client to node: a page of the catalog as the node knows it, names above `after`. Answered with Listing.

    The answer has at most `limit` entries (0: 1000), and the view if it is not version `view`.
    """

    after: str = ""
    limit: int = 0
    view: int = 0


class Scrub(msgspec.Struct, tag_field="op", tag="scrub"):
    """Client to node: looks for damage in all that it holds, or tells how far `pass_` is. Answered with ScrubReport.

    With `groups` it looks at those only, and not at the log.
    """

    # "pass" is a keyword of Python.
    pass_: int = msgspec.field(name="pass", default=0)
    groups: list[int] = []


class Damaged(msgspec.Struct, tag_field="op", tag="damaged"):
    """Client to node: what it answered for these pages did not fit its checksum."""

    group: int
    dataset: int
    pages: list[int]


class Status(msgspec.Struct, tag_field="op", tag="status"):
    """Client to node: answered with NodeStatus, which tells of these groups, 1000 at most; with `held` also of those
    that it holds without a part in their set."""

    groups: list[int] = []
    held: bool = False


Request = (
    Ping
    | View
    | Datasets
    | Locate
    | Remove
    | Quiet
    | Removed
    | Rename
    | Activated
    | Whole
    | Suspect
    | CannotJoin
    | List
    | Scrub
    | Damaged
    | Status
)


class PlainView(msgspec.Struct):
    """A view inside another message, where it carries no tag."""

    version: int = 0
    cluster: str = ""
    registry: str = ""
    nodes: list[NodeEntry] = []
    sets: list[SetEntry] = []


class Pong(msgspec.Struct):
    """Answer of a heartbeat: `view` is the version that the node has, `sum` the view's checksum (0: not said),
    `datasets` the entries of its catalog.

    `former` are its store ids before, the latest first, whose synced log it holds wholly. `full` is why its disk takes
    no more, empty when it does; `refuses_ms` for how long it has refused records for want of room.
    """

    name: str
    store: int
    boot: int
    view: int
    datasets: int
    former: list[int] = []
    sum: int = 0
    full: str = ""
    refuses_ms: int = 0


class Located(msgspec.Struct):
    """Answer of Locate."""

    entry: DatasetEntry
    set: SetEntry
    nodes: list[NodeEntry]
    lease_ms: int
    created: bool


class Listing(msgspec.Struct):
    """Answer of List: a page, whether names follow, and how many entries the whole catalog has."""

    datasets: list[DatasetEntry]
    more: bool
    count: int
    view: PlainView | None


class Done(msgspec.Struct):
    """Nothing to say but that it is done."""

    done: bool = True


class GroupStatus(msgspec.Struct):
    """One group at one node. `sizes` are bytes by dataset id; `writer` is the holder's client id, 0 if none.

    `written` is the generation in which the last record was first sent; `whole`: the pages of before its records are
    here.
    """

    group: int
    primary: bool = False
    generation: int = 0
    lsn: int = 0
    committed: int = 0
    flushed: int = 0
    sizes: list[tuple[int, int]] = []
    writer: int = 0
    waiting: int = 0
    state: str = ""
    written: int = 0
    whole: bool = False
    lost_pages: int = 0


class JoinStatus(msgspec.Struct):
    """A set that a node joins: bytes of pages that are here, and that have to come in all (0: records are enough).
    `why` it could not join is empty while it does."""

    set: int
    done: int = 0
    total: int = 0
    why: str = ""


class LostPage(msgspec.Struct):
    """A page of which no good copy was found. `asked` is what the other members said, each with its name."""

    name: str
    dataset: int
    page: int
    lsn: int
    asked: list[str] = []


class ScrubReport(msgspec.Struct):
    """How far one look at everything is, and what it found.

    Of the damaged copies that it met, `repaired` are put right; `waiting` will be when something else ends, as a reader
    of an old snapshot does. `lost` names the first of `lost_pages`.
    """

    state: Literal["waiting", "running", "done"]
    pass_: int = msgspec.field(name="pass")
    done_bytes: int = 0
    all_bytes: int = 0
    pages: int = 0
    bad: int = 0
    repaired: int = 0
    waiting: int = 0
    lost_pages: int = 0
    lost: list[LostPage] = []
    ms: int = 0


class NodeStatus(msgspec.Struct):
    """A node's own account, and of the first `covered` groups asked about those that are open there.

    `lost` says why the memory of before its last start is gone; it is empty when it was kept. `full` is why its disk
    takes no more, empty when it does. `registry` is why the
    registry decides nothing, empty when it does. `joins` are the sets that it joins, and those that it could not.
    `repaired` copies were damaged and are put right, since its start;
    `lost_pages` are pages that are damaged here and of which no good copy was found.
    """

    name: str
    state: str
    store: int
    frames: int = 0
    frames_used: int = 0
    frames_dirty: int = 0
    checksum_errors: int = 0
    lost: str = ""
    groups: list[GroupStatus] = []
    covered: int = 0
    registry: str = ""
    joins: list[JoinStatus] = []
    repaired: int = 0
    scrubbed_bytes: int = 0
    lost_pages: int = 0
    full: str = ""


T = TypeVar("T")

_request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}
_making_one = threading.Lock()


def encode(message: msgspec.Struct) -> bytes:
    """The metadata of that message."""
    return msgspec.json.encode(message)


def decode(meta: bytes, kind: type[T]) -> T:
    """A reply of that type, or ProtocolError."""
    try:
        return _decoder(kind).decode(meta)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ProtocolError(f"a reply that cannot be read as {kind.__name__}: {e}", _HINT) from None


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """One thread at a time makes decoders: msgspec notes what it knows of a class before it knows all of it, and a
    thread that comes upon such a note ends the whole process (a NULL in its C code)."""
    found = _decoders.get(kind)
    if found is None:
        with _making_one:
            found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


def decode_request(meta: bytes) -> Request:
    """A request, or ProtocolError."""
    try:
        return _request_decoder.decode(meta)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ProtocolError(f"a request that cannot be read: {e}", _HINT) from None


def plain(message: Any) -> Any:
    """Plain dictionaries and lists, for --json and HTTP."""
    return msgspec.to_builtins(message)


_HINT = "run the same dspm version on clients, nodes and registry"
