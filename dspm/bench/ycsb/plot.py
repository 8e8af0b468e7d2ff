"""A comparison as a picture. matplotlib is imported only when one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dspm.bench.ycsb.result import Comparison, Entry
from dspm.bench.ycsb.table import operation_names
from dspm.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png")
_BASE_COLOUR, _OTHER_COLOUR, _INK = "#2563a8", "#b4bcc8", "#222222"
_P50_SHAPE, _P99_SHAPE = "o", "|"


def check_destination(path: Path) -> None:
    """Refuses a file that could not be written, before hours of measuring."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path} is neither .svg nor .png", "give the file one of these endings")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no directory {path.parent}", "make it first")


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draws throughput (median, lowest to highest) and latency (p50 to p99) for every target."""
    check_destination(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = comparison.entries[::-1]
    names = operation_names(comparison)
    height_in = 1.6 + 0.55 * len(entries) * max(1, len(names) / 2)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, height_in), sharey=True, layout="constrained")
    _draw_throughput(left, comparison, entries)
    _draw_latency(right, entries, names)
    workload = comparison.settings.workload
    figure.suptitle(
        f"YCSB {workload.name.upper()} ({workload.title}), {comparison.settings.clients_text}, "
        f"median of {len(comparison.base.rounds)} rounds; fdatasync p50 {comparison.fdatasync_us:,.0f} µs"
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _label(entry: Entry) -> str:
    facts = entry.middle.facts
    copies = "1 copy" if facts.copies == 1 else f"{facts.copies} copies"
    return f"{entry.target.title}\n{facts.durability}, {copies}"


def _draw_throughput(axes: Axes, comparison: Comparison, entries: list[Entry]) -> None:
    from matplotlib.ticker import MaxNLocator

    medians = [entry.throughput for entry in entries]
    below = [entry.throughput - min(entry.throughputs) for entry in entries]
    above = [max(entry.throughputs) - entry.throughput for entry in entries]
    colours = [_BASE_COLOUR if entry is comparison.base else _OTHER_COLOUR for entry in entries]
    rows = range(len(entries))
    axes.barh(rows, medians, xerr=[below, above], color=colours, ecolor=_INK, capsize=3)
    reach = max(max(entry.throughputs) for entry in entries)
    for row, entry in zip(rows, entries, strict=True):
        axes.text(max(entry.throughputs) + reach * 0.02, row, f"{entry.throughput:,.0f}", va="center", color=_INK)
    axes.set_xlim(0, reach * 1.18)
    axes.set_yticks(rows, [_label(entry) for entry in entries])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("operations a second (whisker: lowest to highest round)")
    _plain(axes)


def _draw_latency(axes: Axes, entries: list[Entry], names: list[str]) -> None:
    """For each operation a line from p50 (dot) to p99 (tick), of the median round."""
    for place, name in enumerate(names):
        offset = 0.18 * ((len(names) - 1) / 2 - place) * 2 if len(names) > 1 else 0.0
        for row, entry in enumerate(entries):
            latency = entry.middle.latencies.get(name)
            if latency is None:
                continue
            height = row + offset
            axes.plot([latency.p50_us, latency.p99_us], [height, height], color=_OTHER_COLOUR, zorder=1)
            axes.plot(latency.p50_us, height, _P50_SHAPE, color=_BASE_COLOUR, zorder=2)
            axes.plot(latency.p99_us, height, _P99_SHAPE, color=_BASE_COLOUR, markersize=10, zorder=2)
            axes.annotate(name, (latency.p99_us, height), (6, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("latency in µs, logarithmic (dot p50, tick p99)")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e7ec", zorder=0)
    axes.set_axisbelow(True)
