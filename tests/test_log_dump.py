"""`dspm log dump` against transactions whose pages, sizes and order are known: what was written is what it prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import xxhash
from conftest import Run
from system.cluster import Cluster

from dspm.txn import PAGE_SIZE, Dataset, PageNo, locate

Line = dict[str, Any]


def page(seed: int) -> bytes:
    """Content that no other seed has, and that no delta of half a page leads to."""
    return b"".join(xxhash.xxh3_64_digest(bytes([seed % 256, seed // 256, i % 256, i // 256])) for i in range(512))


def summed(content: bytes) -> int:
    return xxhash.xxh3_64_intdigest(content)


class Wrote(NamedTuple):
    """A stopped node, and what was committed to a dataset on it: the pages of each transaction, the sizes after it."""

    data: Path
    group: int
    dataset: int
    contents: list[dict[int, bytes]]
    sizes: list[int]


@pytest.fixture(scope="module")
def wrote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wrote]:
    cluster = Cluster(tmp_path_factory.mktemp("dump") / "c", 2, {"memory": "64MiB", "durability": "disk"})
    try:
        cluster.up()
        yield transactions(cluster)
    finally:
        cluster.end()


def transactions(cluster: Cluster) -> Wrote:
    """Full pages, a delta, zeros, growing and shrinking; another dataset's commits in between."""
    small = bytearray(page(1))
    small[100:110] = b"0123456789"
    zeros = bytes(PAGE_SIZE)
    contents: list[dict[int, bytes]] = [
        {0: page(0), 1: page(1), 2: page(2)},
        {1: bytes(small)},
        {2: zeros, 7: page(7)},
        {0: page(8), 4: zeros},
    ]
    contents += [{0: page(100 + i), 3: page(200 + i)} for i in range(10)]
    sizes = []
    with (
        Dataset.open("known", create=True, config=cluster.config) as known,
        Dataset.open("other", create=True, config=cluster.config) as other,
    ):
        for i, content in enumerate(contents):
            with known.transaction() as t:
                if i == 3:  # the writer sends the last page anew: what is behind the end reads as zeros
                    t.truncate(5 * PAGE_SIZE - 7)
                for number, data in content.items():
                    if not (i == 3 and number == 4):
                        t.write(PageNo(number), data)
            sizes.append(known.size)
            if i % 3 == 0:
                with other.transaction() as t:
                    t.write(PageNo(i), page(i))
    entry = locate("known", config=cluster.config)
    cluster.down()
    return Wrote(Path(cluster.info["nodes"][0]["data_dir"]), entry.group, entry.dataset, contents, sizes)


def dumped(dspm: Run, *arguments: object) -> list[Line]:
    done = dspm("log", "dump", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_records_are_what_was_written(wrote: Wrote, dspm: Run) -> None:
    records = [x for x in dumped(dspm, wrote.data, "--group", wrote.group, "--pages") if x["line"] == "record"]
    assert [r["lsn"] for r in records] == list(range(1, len(wrote.contents) + 1))
    assert {r["group"] for r in records} == {wrote.group}
    assert {r["generation"] for r in records} == {1}
    assert len({(r["token"], r["client"], r["session"]) for r in records}) == 1
    assert len({r["transaction"] for r in records}) == len(records)
    for record, content, size in zip(records, wrote.contents, wrote.sizes, strict=True):
        assert record["datasets"] == [{"dataset": wrote.dataset, "size": size}]
        found = {p["page"]: p for p in record["pages"]}
        assert found.keys() == content.keys()
        for number, data in content.items():
            is_zero = not any(data)
            assert found[number]["checksum"] == (0 if is_zero else summed(data)), (record["lsn"], number)
            assert (found[number]["kind"] == "zero") == is_zero
        assert record["sent_bytes"] == sum(p["bytes"] for p in found.values())


def test_kinds_of_pages(wrote: Wrote, dspm: Run) -> None:
    records = [x for x in dumped(dspm, wrote.data, "--group", f"{wrote.group:#x}", "--pages") if x["line"] == "record"]
    assert [r["page_kinds"] for r in records[:4]] == [
        {"full": 3, "delta": 0, "zero": 0},
        {"full": 0, "delta": 1, "zero": 0},
        {"full": 1, "delta": 0, "zero": 1},
        {"full": 1, "delta": 0, "zero": 1},
    ]
    [delta] = records[1]["pages"]
    assert delta["base"] == 1 and 0 < delta["bytes"] < PAGE_SIZE // 2


def test_the_hashes_are_a_chain(wrote: Wrote, dspm: Run) -> None:
    lines = dumped(dspm, wrote.data)
    for group in {x["group"] for x in lines if x["line"] == "record"}:
        records = [x for x in lines if x["line"] == "record" and x["group"] == group]
        assert [r["predecessor"] for r in records] == [0, *(r["hash"] for r in records[:-1])]
        assert len({r["hash"] for r in records}) == len(records)


def test_batches_are_numbered_without_a_gap(wrote: Wrote, dspm: Run) -> None:
    lines = dumped(dspm, wrote.data)
    batches = [x for x in lines if x["line"] == "batch"]
    first = batches[0]["number"]
    assert [b["number"] for b in batches] == list(range(first, first + len(batches)))
    assert sum(b["entries"] for b in batches) == len(lines) - len(batches)
    assert all(b["offset"] % 4096 == 0 for b in batches)


def test_from_leaves_out_what_is_older(wrote: Wrote, dspm: Run) -> None:
    lines = dumped(dspm, wrote.data, "--group", wrote.group, "--from", 9)
    assert [x["lsn"] for x in lines if x["line"] == "record"] == list(range(9, len(wrote.contents) + 1))
    assert all("pages" not in x for x in lines)
    assert dumped(dspm, wrote.data, "--group", 1) == []


def test_text_is_one_line_for_each(wrote: Wrote, dspm: Run) -> None:
    json_lines = dumped(dspm, wrote.data, "--pages")
    done = dspm("log", "dump", wrote.data, "--pages")
    shown = done.stdout.splitlines()
    assert [x.split(",")[0].strip() for x in shown] == [x["line"] for x in json_lines]
    for line, text in zip(json_lines, shown, strict=True):
        if line["line"] == "record":
            assert f"lsn {line['lsn']}, " in text and f"hash {line['hash']:#018x}" in text
            assert f"group {line['group']:#018x}" in text and f"token {line['token']}" in text
            assert all(f"page {p['page']} of {p['dataset']:#018x} {p['kind']}" in text for p in line["pages"])


def test_wrong_arguments(wrote: Wrote, dspm: Run) -> None:
    for group in ("zebra", "-1", str(1 << 64)):
        done = dspm("log", "dump", wrote.data, f"--group={group}")
        assert done.returncode == 2 and "expected an id" in done.stderr


def test_damage_ends_it_with_bad_data(wrote: Wrote, dspm: Run, tmp_path: Path) -> None:
    """What is in front of the damage is printed all the same."""
    import shutil

    data = tmp_path / "n1"
    shutil.copytree(wrote.data, data)
    batches = [x for x in dumped(dspm, data) if x["line"] == "batch"]
    victim = batches[len(batches) // 2]
    with open(data / "log" / victim["file"], "r+b") as f:
        f.seek(victim["offset"] + 70)
        f.write(b"\xff" * 8)
    done = dspm("log", "dump", data, "--json")
    assert done.returncode == 4 and victim["file"] in done.stderr
    kept = [json.loads(x) for x in done.stdout.splitlines()]
    assert [x["number"] for x in kept if x["line"] == "batch"] == list(range(batches[0]["number"], victim["number"]))
