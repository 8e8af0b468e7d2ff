"""Many datasets: lists and status come in pages, and none is missing or twice; figures do not grow with them.

The long variant has as many as SYSTEM_DATASETS says (30,000), more than one message holds, and prints what it took.
"""

from __future__ import annotations

import json
import os
import resource
import time
import urllib.request
from pathlib import Path

import pytest

from dspm.cli.main import run
from dspm.errors import UsageError
from dspm.netram import status as pages
from dspm.netram.client import Client
from dspm.netram.config import load_cluster
from dspm.netram.messages import List, Listing, NodeStatus, Status
from dspm.txn import list_datasets

from .child import Children
from .cluster import Cluster, command, eventually, fresh
from .conftest import Clusters
from .many import fill

MANY = 300
VERY_MANY = int(os.environ.get("SYSTEM_DATASETS", 30_000))


@pytest.fixture(scope="module")
def crowded(clusters: Clusters) -> tuple[Cluster, list[str]]:
    """Two nodes with many datasets, one of them written."""
    cluster = clusters(2)
    first = make(cluster, "a-first.db")
    names = fill(cluster, "many", MANY, first)
    eventually("the nodes know all", lambda: len(listed(cluster)) == MANY + 1)
    return cluster, sorted([first, *names])


def make(cluster: Cluster, name: str) -> str:
    """A database with a row, written by a process that ended."""
    children = Children()
    try:
        writer = children.session(cluster, name)
        writer.sql("CREATE TABLE t(a)")
        writer.sql("INSERT INTO t VALUES (1)")
    finally:
        children.end()
    return name


def listed(cluster: Cluster) -> list[str]:
    """Names as `dspm ls --json` prints them."""
    done = cluster.run("ls", "--json")
    assert done.returncode == 0, done.stderr
    return [d["name"] for d in json.loads(done.stdout)["datasets"]]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pages_of_any_size_hold_everything_once(
    crowded: tuple[Cluster, list[str]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, names = crowded
    monkeypatch.setenv("DSPM_CONFIG", cluster.config)
    monkeypatch.setattr(pages, "PAGE", size)
    with pages.Survey(load_cluster()) as survey:
        found = list(survey.pages())
        assert max(len(p.datasets) for p in found) <= size
        assert [d.name for p in found for d in p.datasets] == names
        told = [d for p in found for d in survey.datasets(p)]
        assert {d["copies_now"] for d in told} == {2}
        assert told[0]["lsn"] >= 2 and found[0].size(found[0].datasets[0]) >= 8192


def test_a_node_that_dies_between_pages(crowded: tuple[Cluster, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' catalogs go on where its own ended."""
    cluster, names = crowded
    monkeypatch.setenv("DSPM_CONFIG", cluster.config)
    monkeypatch.setattr(pages, "PAGE", 50)
    with pages.Survey(load_cluster()) as survey:
        turns = survey.pages()
        found = [d.name for d in next(turns).datasets]
        cluster.kill(cluster.pid("n1"))
        after = [d for p in turns for d in survey.datasets(p)]
        assert found + [d["name"] for d in after] == names
        assert {d["copies_now"] for d in after} == {1}
    cluster.up()
    cluster.wait_whole(names[0])


@pytest.mark.parametrize("size", [40, 1000])
def test_commands_print_all(
    crowded: tuple[Cluster, list[str]],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster, names = crowded
    monkeypatch.setenv("DSPM_CONFIG", cluster.config)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(pages, "PAGE", size)

    def said(*arguments: str) -> str:
        assert run(arguments) == 0
        return capsys.readouterr().out

    assert [e.name for e in list_datasets()] == names
    status = json.loads(said("status", "--json"))
    assert [d["name"] for d in status["datasets"]] == names and status["degraded"] is False
    listing = said("ls", "--json")
    assert [d["name"] for d in json.loads(listing)["datasets"]] == names
    assert listing == json.dumps(json.loads(listing), indent=2) + "\n", "pages do not show"
    for command_ in ("ls", "status"):
        lines = [line.strip() for line in said(command_).splitlines()]
        rows = [line for line in lines if line.startswith(("many-", "a-first"))]
        assert [row.split()[0] for row in rows] == names
        assert sum(line.startswith("dataset ") for line in lines) == 1
        at = lines.index(rows[0])
        assert lines[at : at + len(rows)] == rows, "nothing stands between the pages"


def test_a_node_refuses_what_it_would_not_answer(
    crowded: tuple[Cluster, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPM_CONFIG", crowded[0].config)
    config = load_cluster()
    with Client(config.nodes[0], config.key(), config.cluster) as client:
        with pytest.raises(UsageError, match="1001 groups"):
            client.ask(Status(list(range(1, 1002))), NodeStatus)
        told = client.ask(Status([1, 2, 3]), NodeStatus)
        assert (told.groups, told.covered) == ([], 3), "groups that are not open here"
        assert len(client.ask(List(limit=100_000), Listing).datasets) == MANY + 1


def test_figures_do_not_grow_with_datasets(crowded: tuple[Cluster, list[str]]) -> None:
    cluster, names = crowded
    url = cluster.info["nodes"][0]["metrics_url"]
    text = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).read().decode()
    assert f"dspm_datasets {len(names)}\n" in text
    assert len(text.splitlines()) < 80 and not any(n in text for n in names)


def memory_kib(pid: int) -> int:
    """Anonymous memory of a process; the arena is a file."""
    return int(
        next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("RssAnon")).split()[1]
    )


@pytest.mark.slow
@pytest.mark.seconds(900)
def test_very_many(clusters: Clusters) -> None:
    """More than a message holds: all are listed, and the nodes' memory for each is bounded."""
    cluster = clusters(2, memory="256MiB")
    first = make(cluster, fresh("first"))
    before = max(memory_kib(cluster.pid(n)) for n in cluster.nodes)
    names = fill(cluster, "many", VERY_MANY, first)
    took: dict[str, float] = {}
    for what, arguments in (("ls", ("ls", "--json")), ("status", ("status", "--json"))):
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = cluster.run(*arguments)
        assert done.returncode == 0, done.stderr
        found = [d["name"] for d in json.loads(done.stdout)["datasets"]]
        assert found == sorted([first, *names])
        took[what] = time.monotonic() - began
    most = used.ru_maxrss
    kib = (max(memory_kib(cluster.pid(n)) for n in cluster.nodes) - before) / VERY_MANY
    print(f"\n{VERY_MANY} datasets: {took}, largest command so far {most} KiB, {kib:.2f} KiB of a node for each")
    assert kib < 4
    assert command("status", DSPM_CONFIG=cluster.config).returncode == 0
