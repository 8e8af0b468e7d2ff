"""What a group contains at an LSN: once as its memory says, once as its disk says (docs/formats/arena.md, disk-log.md).

The newest of a page's versions, zeros and shrinkings at or below the LSN counts. A page without any is the base file's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dspm.formats.arena import Frame
from dspm.formats.files import ZERO_SUM
from dspm.formats.layout import Payload
from dspm.formats.record import Record, taken_back
from dspm.formats.ring import Extents, Ring, learn

Version = tuple[int, int]


class View:
    """A group's content at `lsn`; a version is (LSN, checksum)."""

    def __init__(self, lsn: int) -> None:
        self.lsn = lsn
        self.pages: dict[tuple[int, int], Version] = {}
        self.sizes: dict[int, int] = {}
        self._shrinkings: dict[int, list[tuple[int, int]]] = {}

    def write(self, dataset: int, page: int, lsn: int, summed: int) -> None:
        """A version of a page; one above the view's LSN does not count."""
        if lsn <= self.lsn and self.pages.get((dataset, page), (0, 0))[0] <= lsn:
            self.pages[dataset, page] = (lsn, summed)

    def extend(self, extents: Mapping[int, Extents]) -> None:
        """Sizes, shrinkings and zeros."""
        for dataset, known in extents.items():
            for lsn, size in known.sizes:
                if lsn <= self.lsn:
                    self.sizes[dataset] = size
            self._shrinkings[dataset] = [x for x in known.shrinkings if x[0] <= self.lsn]
            for lsn, page in known.zeros:
                self.write(dataset, page, lsn, ZERO_SUM)

    def find(self, dataset: int, page: int) -> Version | None:
        """The version that counts; None: the base file's."""
        found = self.pages.get((dataset, page))
        cut = max((lsn for lsn, first in self._shrinkings.get(dataset, ()) if first <= page), default=0)
        if cut > (found[0] if found else 0):
            return cut, ZERO_SUM
        return found

    def touches(self, dataset: int, page: int) -> bool:
        """True when the base file's page does not count."""
        return self.find(dataset, page) is not None


def of_memory(ring: Ring, frames: Iterable[Frame], lsn: int) -> View:
    """What the arena says."""
    view = View(lsn)
    for frame in frames:
        view.write(frame.dataset, frame.page, frame.lsn, frame.checksum)
    view.extend(ring.extents)
    return view


def of_records(records: Sequence[Record], sizes: Mapping[int, int], lsn: int) -> View:
    """What records say that follow a checkpoint with these sizes."""
    taken = taken_back(records)
    extents = {dataset: Extents(sizes=[(0, size)]) for dataset, size in sizes.items()}
    view = View(lsn)
    for record in records:
        if record.lsn in taken:
            continue
        learn(extents, record)
        for page in record.pages():
            if page.payload != Payload.ZERO:
                view.write(record.datasets[page.dataset].id, page.number, record.lsn, page.checksum)
    view.extend(extents)
    return view
