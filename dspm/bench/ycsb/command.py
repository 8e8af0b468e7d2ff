"""What `dspm ycsb` does, apart from `cli`, so that the command line starts and helps without numpy and histograms."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dspm.bench.interruption import measured
from dspm.bench.ycsb.bindings import check_binding
from dspm.bench.ycsb.cli import Options
from dspm.bench.ycsb.compare import compare
from dspm.bench.ycsb.document import check_document, comparison_document, phase_document, write_document
from dspm.bench.ycsb.plot import check_destination, plot_comparison
from dspm.bench.ycsb.result import Comparison, Result
from dspm.bench.ycsb.runner import check, load, run
from dspm.bench.ycsb.settings import Settings, default_directory
from dspm.bench.ycsb.summary import context_lines, summary_lines
from dspm.bench.ycsb.table import print_comparison
from dspm.bench.ycsb.target import compared, target_named
from dspm.bench.ycsb.workload import workload_named
from dspm.errors import UsageError

TABLE_WIDTH_PIPED = 160
CACHE_SIZES = {"sqlite": -2000, "wiredtiger": -64 * 1024}
"""What --cache-size is where it is not given: SQLite's own default; WiredTiger does not work well with so little."""


def settings_of(options: Options) -> Settings:
    """The settings that the options mean, checked."""
    check_binding(options.binding)
    check_document(options.json)
    for name in options.target:
        target_named(name, options.binding)
    return Settings(
        workload=workload_named(options.workload),
        binding=options.binding,
        records=options.records,
        operations=options.operations,
        processes=_or(options.processes, 1 if options.binding == "wiredtiger" else 2),
        threads=options.threads,
        rate_per_s=options.rate,
        seconds_max=options.seconds,
        seed=options.seed,
        db=options.db,
        directory=options.dir or default_directory(),
        cache_size=_or(options.cache_size, CACHE_SIZES[options.binding]),
        page_size=options.page_size,
        fields=options.fields,
        field_length=options.field_length,
        batch=options.batch,
        library=options.wiredtiger,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def load_phase(options: Options) -> None:
    """Loads one target and reports."""
    settings = settings_of(options)
    _report_phase(load(settings, _one_target(options), verify=options.verify), options)


def run_phase(options: Options) -> None:
    """Runs against one target and reports."""
    settings = settings_of(options)
    _report_phase(measured(run, settings, _one_target(options), verify=options.verify), options)


def run_comparison(options: Options, rounds: int, plot: Path | None) -> None:
    """Compares several targets and reports."""
    settings = settings_of(options)
    if plot is not None:
        check_destination(plot)
    targets: Sequence[str] = options.target or compared(options.binding)
    found = measured(compare, settings, targets, rounds=rounds, verify=options.verify, progress=_progress)
    _report_comparison(found, options, plot)
    if found.interrupted:
        raise KeyboardInterrupt(f"{len(found.base.rounds)} of {rounds} rounds were measured")


def _one_target(options: Options) -> str:
    if len(options.target) > 1:
        raise UsageError("several targets were given", "run --compare takes several; load and run take one")
    return options.target[0] if options.target else compared(options.binding)[0]


def _progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _report_phase(result: Result, options: Options) -> None:
    if options.json != "-":
        print(*summary_lines(result), *context_lines(result), sep="\n")
    if options.json:
        write_document(phase_document(result), options.json)
    check([result])
    if result.interrupted:
        raise KeyboardInterrupt(f"{result.operations} operations were measured, and nothing was read back")


def _report_comparison(comparison: Comparison, options: Options, plot: Path | None) -> None:
    if options.json != "-":
        for entry in comparison.entries:
            print(*summary_lines(entry.middle), *context_lines(entry.middle), sep="\n", end="\n\n")
        console = Console()
        print_comparison(comparison, console if console.is_terminal else Console(width=TABLE_WIDTH_PIPED))
    if options.json:
        write_document(comparison_document(comparison), options.json)
    if plot is not None:
        plot_comparison(comparison, plot)
    check(comparison.results)
