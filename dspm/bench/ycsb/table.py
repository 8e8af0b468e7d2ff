"""A comparison as a table for the terminal, durability and copies beside every figure."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from dspm.bench.ycsb.result import Comparison, Entry

COLUMNS = ("target", "durability", "copies", "ops/s", "spread", "ratio", "verified")


def operation_names(comparison: Comparison) -> list[str]:
    """The operations of the workload, in its own order."""
    return [op.value for op, _ in comparison.settings.workload.mix]


def comparison_table(comparison: Comparison) -> Table:
    """One line a target: medians over the rounds, lowest and highest, and the base's speed relative to it."""
    settings = comparison.settings
    base = comparison.base
    table = Table(
        title=f"YCSB {settings.workload.name.upper()}, {settings.workload.title}: {settings.clients_text}, "
        f"{settings.records} records, {settings.operations} operations, median of {len(base.rounds)}",
        caption=_caption(comparison),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("target", "durability") else "right", overflow="fold")
    for name in operation_names(comparison):
        table.add_column(f"{name} p50 / p99 µs", justify="right", overflow="fold")
    for entry in comparison.entries:
        table.add_row(*_cells(comparison, entry))
    return table


def _cells(comparison: Comparison, entry: Entry) -> list[str]:
    facts = entry.middle.facts
    cells = [
        entry.target.title,
        facts.durability,
        str(facts.copies),
        f"{entry.throughput:,.0f}",
        f"{min(entry.throughputs):,.0f} to {max(entry.throughputs):,.0f}",
        f"{comparison.ratio(entry):.2f}",
        _verdict(entry),
    ]
    for name in operation_names(comparison):
        latency = entry.middle.latencies.get(name)
        cells.append(f"{latency.p50_us:,.1f} / {latency.p99_us:,.1f}" if latency else "none")
    return cells


def _verdict(entry: Entry) -> str:
    if not entry.keeps_data:
        return "keeps nothing"
    return "yes" if entry.verified else "no"


def _caption(comparison: Comparison) -> str:
    results = comparison.results
    syncs = [result.fdatasync_us for result in results]
    retries = sum(result.retries for result in results)
    return (
        f"ratio: throughput of {comparison.base.target.title} over that of the line. "
        f"Disk: fdatasync of 4 KiB p50 {comparison.fdatasync_us:,.0f} µs "
        f"({min(syncs):,.0f} to {max(syncs):,.0f} between rounds). "
        f"Client: at most {100 * comparison.client_share:.0f} % of its own ceiling. "
        f"cache_size {comparison.settings.cache_size}, database "
        f"{comparison.base.middle.facts.size_bytes / 2**20:,.1f} MiB, {retries} retries."
    )


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the table."""
    console.print(comparison_table(comparison))
