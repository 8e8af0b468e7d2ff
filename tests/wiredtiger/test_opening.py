"""What is wrong at an open is said in the program's own log, and the same process may open again."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .database import Database
from .engines import ENTRIES
from .program import SCHEMA, TABLE, compiled

EINVAL = 22


def refused(database: Database, errno: int = EINVAL, **more: str) -> str:
    """Opens, is refused with that number, and can then open as it should. Answers what was said."""
    program = database.program()
    assert program.do(*database.words(**more)).end.startswith(f"failed {errno} "), program.said()
    said = program.said()
    program.must(*database.words())
    program.must("create", TABLE, SCHEMA)
    program.insert(1, 3)
    program.must("close")
    return said


@pytest.mark.parametrize("entry", [*ENTRIES.values(), "dspm_wiredtiger_8_1"])
def test_an_entry_for_another_version_is_refused(database: Database, entry: str) -> None:
    own = database.engine.entry
    if entry == own:
        database.created(entry=entry).must("close")
        return
    said = refused(database, entry=entry)
    assert f"entry={entry} is not for this program's WiredTiger {database.engine.version}; use entry={own}" in said


def test_no_dataset(database: Database) -> None:
    assert "add config=[dataset=NAME]" in refused(database, options="wait=1s")


def test_no_configuration_at_all(database: Database) -> None:
    assert "add config=[dataset=NAME]" in refused(database, options="")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("databse=x", "the dspm extension knows dataset, config, wait, home and version"),
        ("wait=soon", "expected a time, like 500ms or 5s"),
        ("version=3", "expected WiredTiger's, like 11.3.1"),
        ("version=1.2.3", "says another version"),
    ],
)
def test_wrong_options(database: Database, option: str, said: str) -> None:
    assert said in refused(database, options=f"{database.options},{option}")


def test_no_configuration_file(database: Database, tmp_path: Path) -> None:
    options = f"dataset=x,config={tmp_path / 'no.toml'}"
    program = database.program()
    assert not program.do(*database.words(options=options)).ok
    assert str(tmp_path / "no.toml") in program.said()


def test_a_cluster_that_nobody_runs(database: Database, config: Path, tmp_path: Path) -> None:
    """Its nodes do not answer: the program fails within its commit_timeout, and goes on with a cluster that does."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        key = next(x for x in config.read_text().splitlines() if x.startswith("key_file"))
        gone = tmp_path / "gone.toml"
        gone.write_text(f'nodes = ["{address}"]\ncommit_timeout = "1s"\n{key}\n')
        program = database.program()
        assert not program.do(*database.words(options=f"dataset=x,config={gone}")).ok
        assert "dspm up" in program.said()
        program.must(*database.words())


def test_paths_outside_the_home_are_refused(database: Database, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = database.program()
    words = database.words(more=f"log=(enabled,path={elsewhere})")
    assert not program.do(*words).ok
    assert "is not below the database's home" in program.said()
    program.must(*database.words(more="log=(enabled,path=.)"))


def test_loaded_late_is_refused(database: Database) -> None:
    program = database.program()
    command, home, opened = database.words()
    assert not program.do(command, home, opened.replace("early_load=true", "early_load=false")).ok
    assert "add early_load=true" in program.said()
    program.must(*database.words())


def test_a_program_that_exports_nothing_says_its_version(database: Database, tmp_path: Path) -> None:
    if not (database.engine.library / "libwiredtiger.a").exists():
        pytest.skip(f"WiredTiger {database.engine.version} is here without a static library")
    database.driver = compiled(database.engine, tmp_path, static=True)
    program = database.program()
    assert not program.do(*database.words()).ok
    assert "add version=X.Y.Z" in program.said()
    for version, said in [("11.3.1", "11.3.1 with 20 methods of a connection is not known"), ("10.0.2", "5_0")]:
        assert not program.do(*database.words(options=f"{database.options},version={version}")).ok
        assert said in program.said()
    program.must(*database.words(options=f"{database.options},version={database.engine.version}"))
    program.must("create", TABLE, SCHEMA)
    program.insert(1, 3)
    assert not program.do(*database.words(entry="dspm_wiredtiger_8_0")).ok
    assert "entry=dspm_wiredtiger_8_0 is not for a WiredTiger with 20 methods" in program.said()
