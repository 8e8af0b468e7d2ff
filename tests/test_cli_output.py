"""Tables: nothing is cut off, whatever the names, and nothing in a name is obeyed by a terminal."""

from __future__ import annotations

import pytest

from dspm.cli.output import Table, print_table, printable

HEADINGS = ("dataset", "meaning", "bytes")
LONG = "n" * 300
WORDS = "a sentence of several words " * 5


def shown(capsys: pytest.CaptureFixture[str], *rows: tuple[object, ...]) -> list[str]:
    print_table("", HEADINGS, rows, frozenset({"bytes"}))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_in_a_pipe_a_row_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, ("a", WORDS, 4096), (LONG, "", 123456))
    assert [line.split()[-1] for line in lines if line.startswith(("a ", "n"))] == ["4096", "123456"]
    assert any(LONG in line for line in lines) and any(WORDS in line for line in lines)


def test_on_a_terminal_texts_go_on_in_the_next_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": "80", "FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    lines = shown(capsys, ("a", WORDS, 4096), (LONG, "", 123456))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80 and "4096" in text and "123456" in text
    assert text.count("n" * 10) >= 20 and sum(line.count("several") for line in lines) == 5


def test_later_parts_do_not_lose_anything(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("", ("dataset", "bytes"), frozenset({"bytes"}))
    table.rows([("short", 1)])
    table.rows([(LONG, 123456)])
    table.end()
    out = capsys.readouterr().out
    assert LONG in out and "123456" in out


@pytest.mark.parametrize(("name", "said"), [("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("ü ✓", "ü ✓")])
def test_names_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str], name: str, said: str) -> None:
    assert printable(name) == said
    lines = shown(capsys, (name, "", 1))
    assert [line for line in lines if line.startswith(said)] and "\x1b" not in "".join(lines)
