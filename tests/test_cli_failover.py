"""`dspm status`, `dspm switchover`, `dspm node drain` where members change. Nodes are stand-ins, all else is real."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Run

from dspm.netram.client import ask_any
from dspm.netram.cluster import Asked, up
from dspm.netram.config import load
from dspm.netram.messages import CreateOptions, Locate, Located

Shown = dict[str, Any]


class Cluster:
    """A cluster of `dspm up`, and the command as its user runs it."""

    def __init__(self, dspm: Run, directory: Path, nodes: int, **settings: str) -> None:
        self._dspm = dspm
        self._said = up(directory, Asked(nodes, {"memory": "16MiB", **settings}))
        self.env = {"DSPM_CONFIG": self._said["config"]}

    def create(self, name: str, copies: int = 2) -> list[str]:
        """A dataset; returns its members, the primary first."""
        options = CreateOptions(copies=copies)
        found = ask_any(load(Path(self._said["config"])), Locate(name, options), Located)
        return [m.node for m in found.set.members]

    def run(self, *arguments: str) -> str:
        r = self._dspm(*arguments, env=self.env)
        assert r.returncode == 0, r.stderr
        return str(r.stdout)

    def refused(self, *arguments: str) -> tuple[int, str]:
        r = self._dspm(*arguments, env=self.env)
        assert r.stdout == "" and "Traceback" not in r.stderr
        return r.returncode, str(r.stderr)

    def status(self) -> Shown:
        shown: Shown = json.loads(self.run("status", "--json"))
        return shown

    def send(self, node: str, number: signal.Signals) -> None:
        os.kill(next(n["pid"] for n in self._said["nodes"] if n["name"] == node), number)

    def until(self, condition: Callable[[Shown], bool]) -> Shown:
        end = time.monotonic() + 60
        while not condition(shown := self.status()):
            assert time.monotonic() < end, shown
        return shown


def test_a_node_dies_and_another_takes_its_place(stand_in: Path, directory: Path, dspm: Run) -> None:
    c = Cluster(dspm, directory, 3)
    primary, backup = c.create("a")
    before = c.status()
    assert before["degraded"] is False and before["datasets"][0]["state"] == "active"
    assert [s["members"] for s in before["sets"]] == [[primary, backup]]
    c.send(primary, signal.SIGKILL)
    after = c.until(lambda s: not s["degraded"] and s["datasets"][0]["primary"] == backup)
    (d,), (s,) = after["datasets"], after["sets"]
    assert (d["copies_now"], d["joining"], len(d["backups"])) == (2, [], 1) and primary not in d["backups"]
    assert s["generation"] > before["sets"][0]["generation"] and (s["dropped"], s["waits_for"]) == ([], [])
    c.send(backup, signal.SIGKILL)
    other = d["backups"][0]
    after = c.until(lambda s: s["datasets"][0]["primary"] == other and s["datasets"][0]["state"] == "active")
    assert after["degraded"] is True and after["datasets"][0]["copies_now"] == 1
    assert after["sets"][0]["dropped"] == [backup]
    text = c.run("status")
    assert "DEGRADED" in text and any(backup in line and other in line for line in text.splitlines()), text
    c.send(other, signal.SIGKILL)
    assert up(directory, Asked(None, {})) and c.until(lambda s: not s["degraded"])


def test_fixed_membership_waits(stand_in: Path, directory: Path, dspm: Run) -> None:
    c = Cluster(dspm, directory, 3, failover="false", suspect_after="200ms")
    members = c.create("a")
    for n in members:
        c.send(n, signal.SIGKILL)
    time.sleep(2)  # longer than any change would take
    shown = c.status()
    assert shown["degraded"] is True and shown["sets"][0]["waits_for"] == members
    shown_to_people = c.run("status")
    assert f"down, waits for {' or '.join(members)}" in shown_to_people
    (row,) = [line for line in shown_to_people.splitlines() if line.startswith("a ")]
    assert row.split()[1:6] == ["-", "-", "0", "of", "2"], "nobody knows how much it holds: 0 would be a lie"
    assert (shown["sets"][0]["members"], shown["sets"][0]["generation"]) == (members, 1)
    for arguments in (("switchover", "a", members[1]), ("node", "drain", members[0])):
        status, why = c.refused(*arguments)
        assert status == 2 and "failover = false" in why and "hint: set it to true" in why


def test_operators_move_sets(stand_in: Path, directory: Path, dspm: Run) -> None:
    c = Cluster(dspm, directory, 3)
    primary, backup = c.create("a")
    spare = ({"n1", "n2", "n3"} - {primary, backup}).pop()
    assert c.run("switchover", "a", backup) == f"{backup} serves, in generation 2\n"
    assert c.status()["datasets"][0]["primary"] == backup
    assert c.run("switchover", "a").startswith(f"{primary} serves")
    for name, node, expected, said in (
        ("a", spare, 1, "is no member of its set"),
        ("a", "n9", 1, "there is no node named 'n9'"),
        ("b", primary, 1, "there is no dataset named 'b'"),
    ):
        status, why = c.refused("switchover", name, node)
        assert status == expected and said in why, why
    assert c.refused("node", "drain", "n9")[0] == 1
    assert c.run("node", "drain", primary, "--wait") == f"1 replica set moved away from {primary}\n"
    shown = c.status()
    assert shown["degraded"] is False and {shown["datasets"][0]["primary"], *shown["datasets"][0]["backups"]} == {
        backup,
        spare,
    }
    status, why = c.refused("node", "drain", backup)
    assert status == 3 and f"no node can take over from {backup}" in why and "nothing was changed" in why
    assert c.run("node", "drain", primary, "--undo") == ""
    assert "1 replica set to move away" in c.run("node", "drain", backup)


def test_a_set_whose_datasets_were_removed_holds_up_no_drain(stand_in: Path, directory: Path, dspm: Run) -> None:
    c = Cluster(dspm, directory, 3)
    primary, _ = c.create("a")
    c.run("rm", "--accept-loss", "a")
    assert c.run("node", "drain", primary, "--wait") == f"0 replica sets moved away from {primary}\n"
