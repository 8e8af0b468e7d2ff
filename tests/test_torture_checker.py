"""The checker of torture histories: each anomaly, made by hand, is found and called by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dspm.bench.torture.__main__ import main
from dspm.bench.torture.check import Verdict, check
from dspm.bench.torture.history import BEGIN, NEMESIS, Event, History, Recorder, parse, read
from dspm.bench.torture.report import away, gaps, longest
from dspm.errors import DataError


class Story:
    """A history that is written step by step. Each operation is (start, end) in time, one process for each."""

    def __init__(self, workload: str) -> None:
        self.history = History()
        self._processes = 0
        made = {"workload": workload, "accounts": 2, "balance": 100}
        self._add("setup", "ok", "setup", made, 0)

    def _add(self, process: str, kind: Any, operation: str, value: Any, time: int, error: str = "") -> None:
        self.history.events.append(Event(process, kind, operation, value, time, "db", error))

    def do(
        self,
        operation: str,
        asked: Any,
        start: int,
        end: int | None,
        got: Any = None,
        kind: str = "ok",
        error: str = "why",
    ) -> None:
        """An operation; without an end its process died."""
        self._processes += 1
        process = f"p{self._processes}"
        self._add(process, "invoke", operation, asked, start)
        if end is not None:
            self._add(process, kind, operation, asked if got is None else got, end, "" if kind == "ok" else error)

    def final(self, tables: dict[str, list[list[Any]]], integrity: str = "ok", process: str = "final") -> None:
        for table, rows in tables.items():
            for row in rows:  # in parts
                self._add(process, "info", "final", {"table": table, "rows": [row]}, 1000)
        self._add(process, "ok", "final", {"integrity": integrity}, 1001)

    def verdict(self) -> Verdict:
        self.history.events.sort(key=lambda e: e.time)
        return check(self.history)

    def kinds(self) -> list[str]:
        return sorted({p.kind for p in self.verdict().problems})


def transfer(name: str, amount: int = 5, **more: int) -> dict[str, Any]:
    return {"id": name, "from": 0, "to": 1, "amount": amount, **more}


def bank(*names: str, amount: int = 5) -> dict[str, list[list[Any]]]:
    """The final tables after these transfers."""
    rows: list[list[Any]] = [[seq, name, 0, 1, amount] for seq, name in enumerate(names, 1)]
    moved = amount * len(names)
    return {"transfer": rows, "account": [[0, 100 - moved], [1, 100 + moved]]}


def two_transfers() -> Story:
    story = Story("bank")
    story.do("transfer", transfer("a"), 10, 20, transfer("a", seq=1))
    story.do("transfer", transfer("b"), 30, 40, transfer("b", seq=2))
    return story


def test_a_good_bank() -> None:
    story = two_transfers()
    story.do("transfer", transfer("c"), 50, 60, kind="fail")
    story.do("transfer", transfer("d"), 50, 60, kind="info")
    story.do("transfer", transfer("e"), 50, None)
    story.do("read", None, 15, 35, {"seq": 1, "balances": [95, 105]})
    story.do("scan", None, 50, 90, "ok")
    story.final(bank("a", "b", "e"))
    story.final(bank("a", "b", "e"), process="other copy")
    found = story.verdict()
    assert found.problems == [] and found.sound
    assert (found.acknowledged, found.failed, found.unknown, found.read, found.lost) == (2, 1, 2, 2, 0)


def test_a_lost_transfer() -> None:
    story = two_transfers()
    story.final(bank("a"))
    assert story.verdict().lost == 1
    assert story.kinds() == ["lost"]


@pytest.mark.parametrize(
    ("final", "kinds"),
    [
        (bank("a", "b", "b"), ["twice"]),
        (bank("a", "b", "stranger"), ["phantom"]),
        (bank("b", "a"), ["moved", "stale"]),
        (bank("a", "b", amount=6), ["altered"]),
        ({**bank("a", "b"), "account": [[0, 95], [1, 110]]}, ["sum"]),
        ({**bank("a", "b"), "account": [[0, 95], [1, 105]]}, ["no-state"]),
        ({**bank("a", "b"), "transfer": [[1, "a", 0, 1, 5], [3, "b", 0, 1, 5]]}, ["gap", "lost", "moved"]),
    ],
)
def test_a_bank_whose_end_is_wrong(final: dict[str, list[list[Any]]], kinds: list[str]) -> None:
    story = two_transfers()
    story.final(final)
    found = story.kinds()
    assert set(found) & set(kinds) and set(found) <= set(kinds), found


def test_a_failed_transfer_that_is_there() -> None:
    story = two_transfers()
    story.do("transfer", transfer("c"), 50, 60, kind="fail")
    story.final(bank("a", "b", "c"))
    assert story.kinds() == ["aborted"]


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        ({"seq": 2, "balances": [90, 111]}, ["sum"]),
        ({"seq": 2, "balances": [95, 105]}, ["no-state"]),  # half of what it claims: the log, not the accounts
        ({"seq": 1, "balances": [95, 105]}, ["stale"]),  # the second was acknowledged before this read was asked
        ({"seq": 3, "balances": [85, 115]}, ["lost"]),  # a state that nobody can find again
    ],
)
def test_a_wrong_read_of_the_bank(seen: dict[str, Any], kinds: list[str]) -> None:
    story = two_transfers()
    story.do("read", None, 50, 60, seen)
    story.final(bank("a", "b"))
    assert story.kinds() == kinds


def test_a_read_from_the_future() -> None:
    """It shows a transfer that was asked only after the read had been answered."""
    story = Story("bank")
    story.do("read", None, 10, 20, {"seq": 1, "balances": [95, 105]})
    story.do("transfer", transfer("a"), 30, 40, transfer("a", seq=1))
    story.final(bank("a"))
    assert story.kinds() == ["stale"]


def test_nobody_looked_at_the_end() -> None:
    assert two_transfers().kinds() == ["no-final"]


def test_copies_that_differ_and_damage() -> None:
    story = two_transfers()
    story.final(bank("a", "b"))
    story.final(bank("a"), process="other copy", integrity="wrong # of entries in index")
    assert story.kinds() == ["copies-differ", "damage"]


def test_a_scan_that_shows_damage() -> None:
    story = two_transfers()
    story.do("scan", None, 50, 60, "row 3 missing from index")
    story.final(bank("a", "b"))
    assert story.kinds() == ["damage"]


@pytest.mark.parametrize(
    ("operation", "error", "kinds"),
    [
        ("scan", "statement: IOError 8202: page 3 is damaged on all members", ["damage"]),
        ("scan", "statement: IOError 266: no node answers", []),
        ("read", "statement: CorruptError 11: database disk image is malformed", ["damage"]),
        ("read", "statement: BusyError 5: database is locked", []),
    ],
)
def test_errors_that_show_damage(operation: str, error: str, kinds: list[str]) -> None:
    story = two_transfers()
    story.do(operation, None, 50, 60, kind="fail", error=error)
    story.final(bank("a", "b"))
    assert story.kinds() == kinds


def a(key: int, value: int) -> list[Any]:
    return ["append", key, value]


def r(key: int, *values: int) -> list[Any]:
    return ["r", key, list(values)]


def lists(*txns: tuple[list[list[Any]], int, int], final: dict[int, list[int]]) -> Story:
    """Acknowledged transactions with their times, and the final lists."""
    story = Story("list")
    for steps, start, end in txns:
        asked = [[kind, key, None if kind == "r" else value] for kind, key, value in steps]
        story.do("txn", asked, start, end, steps)
    story.final({"entry": [[key, value] for key, values in final.items() for value in values]})
    return story


def test_good_lists() -> None:
    story = lists(
        ([a(1, 11), a(2, 21)], 10, 20),
        ([r(1, 11), a(1, 12), r(1, 11, 12)], 30, 40),
        ([r(1, 11, 12), r(2, 21), r(3)], 50, 60),
        ([r(1, 11, 12)], 35, 90),
        final={1: [11, 12], 2: [21]},
    )
    assert story.verdict().problems == []


@pytest.mark.parametrize(
    ("name", "txns", "final"),
    [
        # Two lists whose two writers stand in another order each.
        ("G0", [([a(1, 11), a(2, 21)], 10, 90), ([a(1, 12), a(2, 22)], 10, 90)], {1: [11, 12], 2: [22, 21]}),
        # Each saw what the other wrote.
        ("G1c", [([a(1, 11), r(2, 21)], 10, 90), ([a(2, 21), r(1, 11)], 10, 90)], {1: [11], 2: [21]}),
        # Lost update: both read the same and appended.
        ("G-single", [([r(1), a(1, 11)], 10, 90), ([r(1), a(1, 12)], 10, 90)], {1: [11, 12]}),
        # Read skew: one list before, the other after the same transaction.
        ("G-single", [([a(1, 11), a(2, 21)], 10, 90), ([r(1, 11), r(2)], 10, 90)], {1: [11], 2: [21]}),
        # Write skew: each read what the other was about to change.
        ("G2", [([r(1), a(2, 21)], 10, 90), ([r(2), a(1, 11)], 10, 90)], {1: [11], 2: [21]}),
        # Acknowledged first, and stands behind.
        ("G0-realtime", [([a(1, 11)], 10, 20), ([a(1, 12)], 30, 40)], {1: [12, 11]}),
        # Read what was asked for later only.
        ("G1c-realtime", [([r(1, 11)], 10, 20), ([a(1, 11)], 30, 40)], {1: [11]}),
        # A stale read: acknowledged before it was asked, and not seen.
        ("G-single-realtime", [([a(1, 11)], 10, 20), ([r(1)], 30, 40)], {1: [11]}),
        # A long fork: two readers disagree about which of two came first.
        (
            "G2",
            [([a(1, 11)], 10, 90), ([a(2, 21)], 10, 90), ([r(1, 11), r(2)], 10, 90), ([r(2, 21), r(1)], 10, 90)],
            {1: [11], 2: [21]},
        ),
    ],
)
def test_cycles(name: str, txns: list[tuple[list[list[Any]], int, int]], final: dict[int, list[int]]) -> None:
    assert lists(*txns, final=final).kinds() == [name]


@pytest.mark.parametrize(
    ("name", "txns", "final"),
    [
        ("lost", [([a(1, 11)], 10, 20)], {}),
        ("lost", [([a(1, 11)], 10, 20), ([a(1, 12)], 30, 40)], {1: [12]}),
        ("twice", [([a(1, 11)], 10, 20)], {1: [11, 11]}),
        ("phantom", [([a(1, 11)], 10, 20)], {1: [11, 99]}),
        ("phantom", [([a(1, 11)], 10, 20)], {2: [11]}),
        ("incompatible-order", [([a(1, 11)], 10, 20), ([a(1, 12)], 12, 40), ([r(1, 12)], 50, 60)], {1: [11, 12]}),
        ("G1b", [([a(1, 11), a(1, 12)], 10, 90), ([r(1, 11)], 10, 90)], {1: [11, 12]}),
        ("internal", [([a(1, 11), r(1)], 10, 20)], {1: [11]}),
        ("internal", [([a(1, 11)], 10, 20), ([r(1), r(1, 11)], 10, 20)], {1: [11]}),
    ],
)
def test_values(name: str, txns: list[tuple[list[list[Any]], int, int]], final: dict[int, list[int]]) -> None:
    assert name in lists(*txns, final=final).kinds()


def test_a_read_of_a_value_that_is_gone_is_a_loss_too() -> None:
    """The writer's outcome was unknown, but somebody saw it: it cannot go away again."""
    story = Story("list")
    story.do("txn", [a(1, 11)], 10, None)
    story.do("txn", [["r", 1, None]], 30, 40, [r(1, 11)])
    story.final({})
    assert story.kinds() == ["incompatible-order"]


def test_a_failed_append_that_is_seen() -> None:
    for final in ({}, {"entry": [[1, 11]]}):
        story = Story("list")
        story.do("txn", [a(1, 11)], 10, 20, kind="fail")
        story.do("txn", [["r", 1, None]], 12, 40, [r(1, 11)])
        story.final(final)
        assert "G1a" in story.kinds()


def test_half_a_transaction_of_a_killed_writer() -> None:
    story = Story("list")
    story.do("txn", [a(1, 11), a(2, 21)], 10, None)
    story.final({"entry": [[1, 11]]})
    assert story.kinds() == ["torn"]


def test_a_history_survives_its_writers(tmp_path: Path) -> None:
    """A line that SIGKILL cut short is counted and does not take the next one with it."""
    path = tmp_path / "h.jsonl"
    Recorder(path, "p1").note("ok", "setup", {"workload": "list"}, "db")
    with open(path, "ab") as f:
        f.write(b'\n{"process":"p2","ty')
    Recorder(path, "p3").note("invoke", "txn", [a(1, 11)], "db")
    history = read(path)
    assert [e.process for e in history.events] == ["p1", "p3"] and history.stumps == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.jsonl"

    def write(story: Story) -> None:
        import msgspec

        path.write_bytes(b"\n".join(msgspec.json.encode(e) for e in story.history.events))

    good, bad = two_transfers(), two_transfers()
    good.final(bank("a", "b"))
    bad.final(bank("a"))
    write(good)
    assert main(["check", str(path)]) == 0
    write(bad)
    capsys.readouterr()
    assert main(["check", str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["kind"] == "lost"
    path.write_text("")
    assert main(["check", str(path)]) == DataError.exit_code
    assert main(["check"]) == 2
    assert main(["--faults", "0"]) == 2


def test_time_without_an_acknowledgement() -> None:
    """A gap begins with the first attempt behind an acknowledgement, or with it while another attempt is under way."""
    story = Story("bank")
    ms = 1_000_000
    story.do("transfer", transfer("a"), 10 * ms, 20 * ms)
    story.do("transfer", transfer("b"), 100 * ms, 110 * ms, kind="fail")
    story.do("transfer", transfer("c"), 120 * ms, 600 * ms)
    story.do("transfer", transfer("d"), 590 * ms, 610 * ms)
    story.history.events.append(Event(NEMESIS, "info", BEGIN, {"fault": "node-kill"}, 90 * ms))
    story.history.events.sort(key=lambda e: e.time)
    assert gaps(story.history) == [(10 * ms, 20 * ms), (100 * ms, 600 * ms), (600 * ms, 610 * ms)]
    assert longest(story.history) == [("node-kill", 500.0)]
    assert (away([1.0, 2.0, 30.0]).p50, away([1.0, 2.0, 30.0]).max, away([]).max) == (2.0, 30.0, 0.0)


def test_parse_counts_what_is_no_event() -> None:
    assert parse([b"", b"[]", b"{}", b"x"]).stumps == 3
