"""What commands print: JSON for programs, tables for people. Both can come in parts: a long list is never held."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(_json(value) + "\n")


class JsonObject:
    """One JSON object on stdout, member by member; it looks as [`print_json`] would print it."""

    def __init__(self) -> None:
        self._separator = "{\n  "

    def member(self, name: str, value: Any) -> None:
        """A member, whole."""
        self._name(name)
        sys.stdout.write(_json(value).replace("\n", "\n  "))

    def items(self, name: str, parts: Iterable[list[dict[str, Any]]]) -> None:
        """A member that is a list, as its parts come."""
        self._name(name)
        before, after = "[", "[]"
        for item in (i for part in parts for i in part):
            sys.stdout.write(f"{before}\n    " + _json(item).replace("\n", "\n    "))
            before, after = ",", "\n  ]"
        sys.stdout.write(after)

    def end(self) -> None:
        """No member follows."""
        sys.stdout.write("\n}\n")

    def _name(self, name: str) -> None:
        sys.stdout.write(f'{self._separator}"{name}": ')
        self._separator = ",\n  "


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: frozenset[str]) -> None:
    """A table. `right` names the columns that hold numbers."""
    table = Table(title, columns, right)
    table.rows(rows)
    table.end()


class Table:
    """A table whose rows come in parts; the first part makes the columns as wide as they are.

    Nothing is ever cut off: on a terminal that is too narrow the widest texts go on in the next line; in a pipe or a
    file a row is one line. What cannot be printed is shown as an escape: a dataset's name may hold line ends and worse.
    """

    def __init__(self, title: str, columns: Sequence[str], right: frozenset[str]) -> None:
        self._title = title
        self._columns = columns
        self._right = right
        self._widths: list[int] = []

    def rows(self, rows: Sequence[Sequence[object]]) -> None:
        """Prints a part."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        first = not self._widths
        if not rows and not first:
            return
        cells = [[Text(printable(str(cell))) for cell in row] for row in rows]
        wide = self._widths or [len(c) for c in self._columns]
        self._widths = [max([wide[i], *(row[i].cell_len for row in cells)]) for i in range(len(wide))]
        console = Console(highlight=False)
        if console.is_terminal:
            self._narrow(console.width)
        console.width = max(console.width, self._width())
        table = RichTable(show_header=first, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column, width in zip(self._columns, self._widths, strict=True):
            side = "right" if column in self._right else "left"
            table.add_column(column, justify=side, overflow="fold", width=width)  # type: ignore[arg-type]
        for row in cells:
            table.add_row(*row)
        if first:
            console.print()
            if self._title:
                console.print(Text(printable(self._title), style="italic"), soft_wrap=True)
        console.print(table)

    def _width(self) -> int:
        return sum(self._widths) + _GAP * (len(self._widths) - 1)

    def _narrow(self, room: int) -> None:
        """Takes from the widest text until the table fits, as far as the headings allow it."""
        texts = [i for i, c in enumerate(self._columns) if c not in self._right]
        while texts and self._width() > room:
            widest = max(texts, key=self._widths.__getitem__)
            if self._widths[widest] <= max(len(self._columns[widest]), _NARROWEST):
                return
            self._widths[widest] -= 1

    def end(self) -> None:
        """No part follows."""
        print()


_GAP = 3
"""Blanks between two columns."""

_NARROWEST = 8


def printable(text: str) -> str:
    """The text in one line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
