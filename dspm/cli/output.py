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
    """A table whose rows come in parts; the first part makes the columns as wide as they are."""

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
        table = RichTable(
            title=self._title or None if first else None,
            show_header=first,
            box=box.SIMPLE_HEAD,
            show_edge=False,
            title_justify="left",
            pad_edge=False,
        )
        cells = [[Text(str(cell)) for cell in row] for row in rows]
        wide = self._widths or [len(c) for c in self._columns]
        self._widths = [max([wide[i], *(row[i].cell_len for row in cells)]) for i in range(len(wide))]
        for column, width in zip(self._columns, self._widths, strict=True):
            side = "right" if column in self._right else "left"
            table.add_column(column, justify=side, overflow="fold", min_width=width)  # type: ignore[arg-type]
        for row in cells:
            table.add_row(*row)
        console = Console(highlight=False)
        if first:
            console.print()
        console.print(table)

    def end(self) -> None:
        """No part follows."""
        print()
