"""`dspm recover --registry`: the registry's state is an old one, a node that may know more is away, and an operator
says that it goes on.

The state is of before a member was replaced and a database was created. Two of three nodes are away; one of them is
named by the newest view, so that it is not certain what it knows.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from .child import Children
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters
from .test_recover import on_a_terminal
from .test_registry_state import ROWS, commands, put_back, serving_alone, write

LEAP = 1 << 20


class Outdated:
    """A cluster with one node and no registry, whose state was put back; `command` starts it where it was."""

    def __init__(self, cluster: Cluster, children: Children) -> None:
        self.cluster = cluster
        self.old, self.young = fresh("old"), fresh("young")
        write(cluster, children, self.old)
        backup = (cluster.directory / "registry" / "registry.db").read_bytes()
        primary, (first,) = cluster.members(self.old)
        cluster.kill(cluster.pid(first))
        (self.left,) = set(cluster.nodes) - {primary, first}
        eventually("another one is there", lambda: cluster.members(self.old) == (primary, [self.left]))
        cluster.wait_whole(self.old)
        self.generation = cluster.dataset(self.old)["generation"]
        write(cluster, children, self.young)
        self.away = sorted([primary, first])
        self.command = commands(cluster.registry)
        self.command[self.command.index("--listen") + 1] = urlsplit(cluster.info["registry"]["url"]).netloc
        put_back(cluster, backup)
        cluster.kill(cluster.pid(primary))

    def trouble(self) -> str:
        return str(self.cluster.status()["registry_trouble"])

    def recover(self, *arguments: str) -> tuple[int, str, str]:
        done = self.cluster.run("recover", "--registry", *arguments)
        return done.returncode, done.stdout, done.stderr

    def wait_for_trouble(self) -> None:
        eventually("it is known to be old", lambda: "may know more, and was not heard" in self.trouble())

    def wait_whole(self) -> None:
        """Starts whoever is away, and waits for all copies."""
        self.cluster.up()
        for name in (self.old, self.young):
            self.cluster.wait_whole(name)
        assert self.trouble() == ""


@pytest.fixture
def outdated(clusters: Clusters, children: Children) -> Outdated:
    return Outdated(clusters(3, memory="32MiB"), children)


def check_refusals(outdated: Outdated) -> None:
    """What is not asked for in full changes nothing, and says so in a sentence and a hint."""
    for arguments, status, error in (
        ((), 2, "nothing was changed"),
        (("--json",), 2, "nothing was changed"),
        (("--yes", "--node", "n9"), 1, "there is no node named 'n9'"),
        (("--yes", "--node", outdated.away[0]), 3, f"{outdated.away[0]} does not answer"),
    ):
        code, out, err = outdated.recover(*arguments)
        assert code == status and error in err, err
        assert len(err.splitlines()) == 2 and err.splitlines()[1].startswith("hint: "), err
        explained = not arguments
        assert bool(out) == explained, out
    assert outdated.trouble(), "it decides nothing still"


def check_data(outdated: Outdated, children: Children) -> None:
    for name in (outdated.old, outdated.young):
        assert children.session(outdated.cluster, name).one("SELECT count(*) FROM t") == ROWS


def test_an_operator_is_asked_and_it_goes_on(outdated: Outdated, children: Children) -> None:
    """Guards the order: it says what is given up, does nothing without a word, and then what it said."""
    cluster = outdated.cluster
    with serving_alone(outdated.command):
        outdated.wait_for_trouble()
        check_refusals(outdated)
        code, said = on_a_terminal(cluster, "yes\n", "--registry")
        assert code == 1 and "nothing was changed" in said, said
        assert outdated.trouble()
        code, said = on_a_terminal(cluster, "lose\n", "--registry")
        assert code == 0, said
        assert "older than what nodes know" in said and f"{' and '.join(outdated.away)} do not answer" in said, said
        assert f"goes on from what {outdated.left} knows" in said and f"did not know {outdated.young}." in said, said
        eventually("it decides", lambda: outdated.trouble() == "")
        for name in (outdated.old, outdated.young):
            eventually("its set serves", lambda n=name: cluster.dataset(n)["state"] == "active")  # type: ignore[misc]
        assert cluster.dataset(outdated.old)["generation"] >= outdated.generation + LEAP
        check_data(outdated, children)
        code, _, err = outdated.recover("--yes")
        assert code == 1 and "no node knows more" in err, err
    outdated.wait_whole()
    cluster.kill(cluster.pid(outdated.left))
    check_data(outdated, children)


def test_from_a_named_node_in_a_script(outdated: Outdated, children: Children) -> None:
    """Guards what scripts rely on: one JSON object on standard output, which says from whom and what is new."""
    with serving_alone(outdated.command):
        outdated.wait_for_trouble()
        code, out, err = outdated.recover("--node", outdated.left, "--yes", "--json")
        assert code == 0, err
        told = json.loads(out)
        assert told["version"] > LEAP
        assert {k: told[k] for k in ("node", "gained", "doubtful", "aside")} == {
            "node": outdated.left,
            "gained": [outdated.young],
            "doubtful": [],
            "aside": [],
        }
    outdated.wait_whole()
    check_data(outdated, children)


def test_what_is_not_for_it(cluster: Cluster) -> None:
    """Guards a registry that decides: nothing is given up there."""
    for arguments, status, error in (
        (("--registry", "--yes"), 1, "no node knows more than the registry's state"),
        (("--registry", "a.db"), 2, "goes alone"),
        (("--registry", "--accept-loss"), 2, "goes alone"),
        (("--node", "n1"), 2, "--node goes with --registry"),
    ):
        done = cluster.run("recover", *arguments)
        assert done.returncode == status and error in done.stderr and done.stdout == "", done
        assert len(done.stderr.splitlines()) == 2, done.stderr
