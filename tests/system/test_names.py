"""What databases may be called, and which cluster a name means."""

from __future__ import annotations

import json

import pytest

from .child import Children, SqlError
from .cluster import Cluster, fresh
from .conftest import Clusters

CANTOPEN = 14
NAME_MAX = 1024
THROUGH_SQLITE_MAX = 504  # its limit for a path is 512 bytes, "-journal" included

NAMES = [
    "with spaces and  two.db",
    "dots.in.the.name",
    ".hidden",
    "no-suffix",
    "a/b/c/deep.db",
    "/absolute/path/x.db",
    "datenbank-äöü-日本語-🙂.db",
    "question?mark.db",
    "hash#mark.db",
    "per%cent%20.db",
    "amper&sand=equals;semi.db",
    "quote'double\"back\\slash.db",
    "line\nfeed\ttab.db",
    "x-journal",
    "-leading-dash",
    "x" * THROUGH_SQLITE_MAX,
    "é" * (THROUGH_SQLITE_MAX // 2),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n[:24]))
def test_a_name_is_taken_as_it_is(cluster: Cluster, children: Children, name: str) -> None:
    """Guards names: every one is a database of its own, the same in each process, and listed as it was given."""
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(a)")
    db.sql("INSERT INTO t VALUES(?)", name)
    assert db.status()["dataset"] == name
    assert children.session(cluster, name).one("SELECT a FROM t") == name
    listed = json.loads(cluster.run("ls", "--json").stdout)["datasets"]
    assert [d["name"] for d in listed].count(name) == 1
    db.close()
    removed = cluster.run("rm", "--", name)
    assert removed.returncode == 0, removed.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("a/./{}", "a/{}"), ("a//{}", "a/{}"), ("a/b/../{}", "a/{}"), ("./{}", "{}"), ("//r/{}", "/r/{}")],
)
def test_relative_names_are_cleaned(cluster: Cluster, children: Children, typed: str, meant: str) -> None:
    """Guards one database for one place: ways to write the same path are one name."""
    stem = fresh("clean")
    db = children.session(cluster, typed.format(stem))
    db.sql("CREATE TABLE t(a)")
    assert db.status()["dataset"] == meant.format(stem)
    assert children.session(cluster, meant.format(stem)).one("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("size", [THROUGH_SQLITE_MAX + 1, THROUGH_SQLITE_MAX + 8, NAME_MAX, NAME_MAX + 1])
@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_name_that_is_too_long(cluster: Cluster, children: Children, letter: str, size: int) -> None:
    """Guards the limits: CANTOPEN with the limit in the text, and nothing is made."""
    name = letter * (size // len(letter.encode())) + "x" * (size % len(letter.encode()))
    before = cluster.run("ls", "--json").stdout
    db = children.session(cluster)
    with pytest.raises(SqlError) as failed:
        db.open(name)
        db.sql("CREATE TABLE t(a)")
    assert failed.value.primary == CANTOPEN, failed.value
    for said in (failed.value.text, failed.value.reason):
        assert f"{size} bytes" in said and f"at most {THROUGH_SQLITE_MAX}" in said, failed.value
    assert cluster.run("ls", "--json").stdout == before


def test_attach_by_name(cluster: Cluster, children: Children) -> None:
    """Guards ATTACH: the other database is found by its name, and read and written beside the main one."""
    one, other = fresh("main"), fresh("other one")
    db = children.session(cluster, one)
    db.sql("CREATE TABLE t(a)")
    children.session(cluster, other).sql("CREATE TABLE u(a)")
    db.sql("ATTACH ? AS o", other)
    db.sql("INSERT INTO o.u VALUES(1)")
    db.sql("INSERT INTO t SELECT a + 1 FROM o.u")
    assert children.session(cluster, other).one("SELECT a FROM u") == 1
    assert children.session(cluster, one).one("SELECT a FROM t") == 2


def test_two_clusters_in_one_process(cluster: Cluster, clusters: Clusters, children: Children) -> None:
    """Guards config=: one process uses two clusters at once, and the same name in each is another database."""
    second = clusters(2)
    name = fresh("same name")
    (found,) = children.results(cluster, "places", (name, cluster.config, second.config))
    assert found == {"rows": [[0], [1]], "configs": [cluster.config, second.config]}
    assert children.session(cluster, name).sql("SELECT a FROM t") == [[0]]
    assert children.session(second, name).sql("SELECT a FROM t") == [[1]]


def test_no_cluster_is_configured(cluster: Cluster, children: Children) -> None:
    """Guards the first mistake of all: one sentence says that no cluster is configured."""
    db = children.session(cluster, DSPM_CONFIG="/nonexistent/dspm.toml")
    with pytest.raises(SqlError) as failed:
        db.open(fresh("nowhere"))
    assert failed.value.primary == CANTOPEN and "/nonexistent/dspm.toml" in failed.value.reason, failed.value
