"""A database path with many files, owned by one process of a real cluster: owners and nodes are killed and stopped."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cluster import Cluster, eventually, fresh
from .conftest import Clusters
from .owner import Owner, OwnerError, program

MANY = 300
PAST_THE_LEASE_S = 1.0

Owners = Callable[..., Owner]


@pytest.fixture(scope="module")
def binary() -> Path:
    """The owner's program."""
    return program()


@pytest.fixture
def owners(binary: Path, children: object) -> Iterator[Owners]:
    """Starts owners that end with the test; clusters that it harmed are mended after that."""
    started: list[Owner] = []

    def start(cluster: Cluster, name: str, *, wait_ms: int | None = 5000, **env: str) -> Owner:
        started.append(Owner(binary, cluster, name, **env))
        if wait_ms is not None:
            started[-1].call("own", wait_ms)
        return started[-1]

    yield start
    for owner in started:
        owner.end()


@pytest.fixture(scope="module")
def trio(clusters: Clusters) -> Cluster:
    """Three nodes, two copies, in memory."""
    return clusters(3)


@pytest.fixture(scope="module")
def disks(clusters: Clusters) -> Cluster:
    """Three nodes, two copies; what is acknowledged is on disks, and most of it in base files: memory is small."""
    return clusters(3, durability="disk", memory="16MiB", scrub__rate="0")


def fails(number: int, owner: Owner, *words: object) -> None:
    with pytest.raises(OwnerError) as e:
        owner.call(*words)
    assert e.value.errno == number, e.value


def test_one_owner_at_a_time(trio: Cluster, owners: Owners) -> None:
    """Guards 'one owner': a second is refused while the first lives, idle too, and follows it when it dies."""
    name = fresh("path")
    first = owners(trio, name)
    first.call("fill", "a.wt", 0, 10_000, 1)
    second = owners(trio, name, wait_ms=None)
    fails(errno.EBUSY, second, "own", 0)
    fails(errno.EBUSY, second, "own", 1500)
    first.call("check", "a.wt", 0, 10_000, 1)
    first.kill()
    begun = time.monotonic()
    assert second.call("own", 5000) == "1"
    print(f"took over after {time.monotonic() - begun:.2f} s")
    second.call("check", "a.wt", 0, 10_000, 1)
    second.call("fill", "a.wt", 5_000, 10_000, 2)
    second.call("close")
    third = owners(trio, name, wait_ms=0)
    third.call("check", "a.wt", 5_000, 10_000, 2)


def test_an_owner_that_was_replaced_while_it_stood_still(trio: Cluster, owners: Owners) -> None:
    """Guards invariant 5: it reads and writes nothing, what it had in its cache neither."""
    name = fresh("path")
    first = owners(trio, name)
    first.call("fill", "a.wt", 0, 10_000, 1)
    first.call("check", "a.wt", 0, 10_000, 1)
    first.stop()
    second = owners(trio, name)
    second.call("fill", "a.wt", 0, 10_000, 2)
    first.go_on()
    fails(errno.EIO, first, "check", "a.wt", 0, 10_000, 1)
    fails(errno.EIO, first, "fill", "a.wt", 0, 10_000, 3)
    fails(errno.EIO, first, "fill", "b.wt", 0, 10_000, 3)
    fails(errno.EIO, first, "size", "a.wt")
    second.call("check", "a.wt", 0, 10_000, 2)
    second.call("fill", "b.wt", 0, 10_000, 4)


def test_an_owner_that_was_replaced_by_one_that_wrote_nothing(trio: Cluster, owners: Owners) -> None:
    """Guards the same where no commit tells the two apart: while the second lives, the first is not the owner."""
    name = fresh("path")
    first = owners(trio, name)
    first.call("fill", "a.wt", 0, 10_000, 1)
    first.stop()
    second = owners(trio, name)
    second.call("check", "a.wt", 0, 10_000, 1)
    first.go_on()
    fails(errno.EIO, first, "fill", "a.wt", 0, 10_000, 3)
    second.call("fill", "a.wt", 0, 10_000, 2)
    fails(errno.EIO, first, "check", "a.wt", 0, 10_000, 1)
    second.call("check", "a.wt", 0, 10_000, 2)


def test_an_owner_that_stood_still_and_was_not_replaced(trio: Cluster, owners: Owners) -> None:
    """Guards against needless ends: nobody came in between, so it goes on."""
    owner = owners(trio, fresh("path"))
    owner.call("fill", "a.wt", 0, 10_000, 1)
    owner.stop()
    time.sleep(PAST_THE_LEASE_S)
    owner.go_on()
    owner.call("check", "a.wt", 0, 10_000, 1)
    owner.call("fill", "a.wt", 0, 10_000, 2)
    owner.call("check", "a.wt", 0, 10_000, 2)


def test_the_primary_dies_and_the_owner_dies(trio: Cluster, owners: Owners) -> None:
    """Guards invariant 1: every block whose sync returned is there for the next owner."""
    name = fresh("path")
    owner = owners(trio, name)
    owner.begin("append", "journal/log", 0, 100_000)
    owner.wait(200)
    trio.kill(trio.pid(trio.members(name)[0]))
    owner.wait(owner.progress[-1] + 200)
    trio.up()
    owner.wait(owner.progress[-1] + 200)
    trio.wait_whole(name)
    trio.kill(trio.pid(trio.members(name)[0]))
    owner.wait(owner.progress[-1] + 200)
    owner.kill()
    trio.up()
    after = owners(trio, name)
    blocks = int(after.call("size", "journal/log")) // 1024
    assert blocks >= owner.progress[-1] + 1
    for n in range(blocks):
        after.call("check", "journal/log", n * 1024, 1024, n)


def test_a_mongods_first_boot_while_nodes_die(trio: Cluster, owners: Owners) -> None:
    """Guards the whole: the recorded calls get the answers of a directory, whichever node is killed meanwhile."""
    name = fresh("path")
    owner = owners(trio, name)
    owner.begin("replay", "first_boot_1000j")
    for i, node in enumerate(trio.nodes):
        owner.wait(500 * (i + 1))
        trio.kill(trio.pid(node))
        trio.up()
        trio.wait_whole(name)
    owner.answer()


@pytest.mark.seconds(300)
@pytest.mark.slow
@pytest.mark.parametrize("log", ["recovery_after_kill9", "reboot_clean"])
def test_other_calls_of_a_mongod(trio: Cluster, owners: Owners, log: str) -> None:
    """The boots that find files, whose state the owner makes first."""
    owners(trio, fresh("path")).call("replay", log)


@pytest.mark.seconds(300)
def test_many_files_outlive_all_nodes(disks: Cluster, owners: Owners, tmp_path: Path) -> None:
    """Guards recovery of groups with many datasets: from arenas, from disks alone, by a join; and removal."""
    name, size = fresh("path"), 30_000
    owner = owners(disks, name, DSPM_COMMIT_TIMEOUT="60s")
    owner.call("many", MANY, size, 1)
    for pid in disks.pids():
        disks.kill(pid)
    disks.up()
    owner.call("check_many", MANY, size, 1)
    owner.call("many", MANY, size, 2)
    disks.cut_power()
    disks.up()
    owner.kill()
    owner = owners(disks, name, DSPM_COMMIT_TIMEOUT="60s")
    owner.call("check_many", MANY, size, 2)
    scrub_finds_nothing(disks)
    rejoin(disks, name)
    owner.kill()
    owner = owners(disks, name)
    owner.call("check_many", MANY, size, 2)
    owner.call("fill", "one-more.wt", 0, size, 3)
    disks.up()
    disks.wait_whole(name)
    scrub_finds_nothing(disks)
    owner.call("close")
    listed = {d["name"]: d["size"] for d in json.loads(disks.run("ls", "--json").stdout)["datasets"]}
    assert listed[name] > MANY * size, "all files, not the directory alone"
    done = disks.run("export", name, tmp_path / "exported")
    assert done.returncode == 1 and "WiredTiger" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
    disks.down()
    done = disks.run("fsck", "--dir", disks.directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(base_files(disks)) > MANY
    disks.up()
    done = disks.run("rm", name)
    assert done.returncode == 0, done.stderr
    eventually("no base files are left", lambda: not base_files(disks))


def scrub_finds_nothing(cluster: Cluster) -> None:
    done = cluster.run("scrub", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {n["bad"] for n in json.loads(done.stdout)["nodes"]} == {0}


def rejoin(cluster: Cluster, name: str) -> None:
    """One copy goes for good; the group is copied to the node that has none, and is whole again."""
    primary, backups = cluster.members(name)
    cluster.kill(cluster.pid(backups[0]))
    eventually("another node has joined", lambda: backups[0] not in cluster.members(name)[1])
    cluster.wait_whole(name)
    cluster.kill(cluster.pid(primary))  # what is read from here on is the newcomer's
    eventually("the newcomer serves", lambda: cluster.members(name)[0] != primary)


def base_files(cluster: Cluster) -> list[Path]:
    """Files of datasets on the nodes' disks."""
    return [f for d in cluster.info["nodes"] for f in Path(d["data_dir"]).glob("base/*")]
