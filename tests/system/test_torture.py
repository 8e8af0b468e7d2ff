"""Failures of all kinds, one after the other and at once, under two writers; then all comes up and is verified.

Fault model: nodes and the registry are killed, stopped and continued at random, one of the writers too; links and the
machine hold. The clusters' memories live.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from .child import Children
from .cluster import Cluster, alive, fresh, state_of
from .conftest import Clusters, seconds
from .ledger import Ledger, Writer

LONGEST_PAUSE_S = 0.6


class Torturer:
    """Does one thing after the other to a cluster and to its writers."""

    def __init__(self, cluster: Cluster, ledger: Ledger, seed: int) -> None:
        self.cluster = cluster
        self.ledger = ledger
        self.chance = random.Random(seed)
        self.story: list[str] = []
        # The second one gives up early: often it is told that the outcome is unknown, and has to find out.
        self.writers: list[Writer] = [ledger.writer(0), ledger.writer(1, DSPM_COMMIT_TIMEOUT="300ms")]

    def step(self) -> None:
        """Harms something, or lets it go on."""
        pid = self.chance.choice(self.cluster.pids())
        do = self.chance.choice(["kill", "stop", "stop", "continue", "continue", "up", "writer"])
        self.story.append(f"{do} {pid}")
        if do == "kill" and alive(pid):
            self.cluster.kill(pid)
        elif do == "stop" and alive(pid):
            os.kill(pid, signal.SIGSTOP)
        elif do == "continue":
            self.go_on()
        elif do == "up":
            self.go_on()  # `dspm up` waits for what is stopped
            self.cluster.up()
        elif do == "writer":
            self.replace_writer(all(state_of(p) in ("S", "R") for p in self.cluster.pids()))
        time.sleep(self.chance.random() * LONGEST_PAUSE_S)

    def go_on(self) -> None:
        """SIGCONT for all that is stopped."""
        for pid in self.cluster.pids():
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)

    def replace_writer(self, start: bool) -> None:
        """SIGKILL for the first writer, if it lives; another one in its place where the cluster can open databases."""
        if alive(self.writers[0].process.pid):
            self.writers[0].kill()
        if start:
            self.writers[0] = self.ledger.writer(0)

    def finish(self) -> None:
        """Everything is up; the writers go on, are ended, and the ledger is right."""
        self.go_on()
        self.cluster.up()
        if not alive(self.writers[0].process.pid):
            self.writers[0] = self.ledger.writer(0)
        for w in self.writers:
            w.wait(5)
            w.kill()
        self.ledger.verify()


def torture(ledger: Ledger, seed: int, length: float) -> None:
    torturer = Torturer(ledger.cluster, ledger, seed)
    end = time.monotonic() + length
    try:
        while time.monotonic() < end:
            torturer.step()
        torturer.finish()
    except BaseException as e:
        e.add_note(f"seed {seed}: {', '.join(torturer.story)}")
        raise


@pytest.fixture(scope="module", params=["memory", "disk"])
def trio(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    """Three nodes, two copies, of either durability."""
    return clusters(3, durability=request.param)


def test_a_few_faults(trio: Cluster, children: Children) -> None:
    """Guards invariants 1 to 3 under faults that meet: what was acknowledged is there, in order, once."""
    torture(Ledger(trio, children, fresh("torture")), seed=int(os.environ.get("SYSTEM_SEED", "1")), length=6)


@pytest.mark.slow
@pytest.mark.seconds(3600)
def test_many_faults(trio: Cluster, children: Children) -> None:
    """Guards the same for longer, with a seed that is printed when it fails."""
    seed = int(os.environ.get("SYSTEM_SEED", str(random.randrange(1 << 32))))
    torture(Ledger(trio, children, fresh("torture")), seed, seconds(60))
