"""The command line of `dspm-node`, which crates/node parses."""

from __future__ import annotations

from pathlib import Path

from dspm.netram.config import load
from dspm.netram.node import Node, arguments


def test_arguments(stand_in: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'cluster = "c"\nkey_file = "key"\nmemory = "64MiB"\nlease = "1s"\ndirty_max = "25%"\nhistory_max = "1MiB"\n'
        'join_rate = "8MiB"\n'
    )
    node = Node("n1", "n1@local", "/d", "/dev/shm/a")
    assert arguments(node, load(path), "127.0.0.1:0", "127.0.0.1:9", insecure=True) == [
        str(stand_in),
        *("--name", "n1", "--cluster", "c", "--machine", "n1@local", "--listen", "127.0.0.1:0"),
        *("--data-dir", "/d", "--arena", "/dev/shm/a", "--memory", "67108864", "--key-file", str(tmp_path / "key")),
        *("--lease-ms", "1000", "--flush-interval-ms", "100"),
        *("--dirty-max-bytes", "16777216", "--history-max-bytes", "1048576", "--outcome-retention-ms", "3600000"),
        *("--join-rate-bytes", "8388608"),
        *("--scrub-rate-bytes", "16777216", "--scrub-interval-ms", "86400000"),
        *("--metrics", "127.0.0.1:9", "--insecure"),
    ]
