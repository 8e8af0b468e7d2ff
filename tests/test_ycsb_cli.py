"""The command `dspm ycsb`: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspm.bench.ycsb.cli import Options, app
from dspm.bench.ycsb.command import settings_of
from dspm.bench.ycsb.settings import Settings
from dspm.errors import UsageError


def ycsb(*words: str) -> None:
    app(list(words), result_action="return_value", exit_on_error=False)


def test_run_prints_the_summary_and_writes_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "run.json"
    ycsb(
        "run", "--workload", "workloadB", "--target", "noop", "--operations", "200", "--dir", str(tmp_path),
        "--json", str(document),
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[OVERALL], RunTime(ms), ")
    assert "[TARGET], Name, noop" in lines
    written = json.loads(document.read_text())
    assert (written["workload"], written["operations_done"], written["errors"]) == ("b", 200, 0)


def test_json_to_standard_output_is_alone_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ycsb("run", "--target", "noop", "--operations", "100", "--processes", "1", "--dir", str(tmp_path), "--json", "-")
    assert json.loads(capsys.readouterr().out)["target"] == "noop"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--workload", "z"], "no workload 'z'"),
        (["load", "--workload", ""], "no workload ''"),
        (["run", "--binding", "oracle"], "no binding 'oracle'"),
        (["run", "--target", "moon"], "no target 'moon'"),
        (["run", "--target", "noop", "--target", "wal"], "several targets"),
        (["run", "--compare", "--target", "noop"], "two or more different targets"),
        (["run", "--compare", "--target", "noop", "--target", "noop"], "two or more different targets"),
        (["run", "--compare", "--rounds", "0"], "--rounds is 0"),
        (["run", "--compare", "--plot", "picture.bmp"], "neither .svg nor .png"),
        (["run", "--compare", "--plot", "/no/such/place/p.svg"], "no directory"),
        (["run", "--plot", "p.svg"], "--plot draws a comparison"),
        (["run", "--records", "0"], "--records is 0"),
        (["run", "--operations", "-5"], "--operations is -5"),
        (["run", "--processes", "0"], "--processes is 0"),
        (["run", "--processes", "9", "--operations", "8"], "cannot share"),
        (["run", "--rate", "-1"], "--rate is -1"),
        (["run", "--rate", "nan"], "--rate is nan"),
        (["run", "--seconds", "-1"], "--seconds is -1"),
        (["run", "--page-size", "1000"], "--page-size is 1000"),
        (["run", "--field-length", "10"], "--field-length is 10"),
        (["run", "--json", "--verify"], "--json needs a file"),
        (["run", "--db", ""], "--db needs a name"),
        (["load", "--target", "wal", "--dir", "/dev/shm"], "would measure no disk"),
        (["load", "--target", "wal", "--dir", "/proc/nowhere"], "cannot make the directory"),
    ],
)
def test_bad_usage_is_refused_with_a_hint(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        ycsb(*words)
    assert message in str(refused.value)
    assert refused.value.hint
    assert refused.value.exit_code == 2


def test_a_document_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        ycsb(
            "run", "--target", "noop", "--operations", "10", "--processes", "1", "--dir", str(tmp_path),
            "--json", str(tmp_path / "absent" / "run.json"),
        )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=12).filter(lambda name: name.lower().removeprefix("workload") not in set("abcdef")))
def test_any_other_workload_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        ycsb("run", f"--workload={name}")


def test_the_command_line_is_there_without_the_packages_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dspm.bench.ycsb.command", raising=False)
    monkeypatch.setitem(sys.modules, "dspm.bench.ycsb.compare", None)
    with pytest.raises(UsageError, match="needs the package") as refused:
        ycsb("run", "--target", "noop")
    assert "dspm[bench]" in refused.value.hint


def test_defaults_of_command_line_and_settings_agree() -> None:
    assert settings_of(Options()) == Settings()
