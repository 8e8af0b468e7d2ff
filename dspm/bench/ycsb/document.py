"""Results as a JSON document. Fields are only ever added."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from dspm.bench.ycsb.result import Comparison, Entry, Result
from dspm.bench.ycsb.settings import Settings
from dspm.errors import UsageError

JsonObject = dict[str, object]


def settings_document(settings: Settings) -> JsonObject:
    """What was chosen."""
    return {
        "workload": settings.workload.name,
        "binding": settings.binding,
        "records": settings.records,
        "operations": settings.operations,
        "processes": settings.processes,
        "threads": settings.threads,
        "rate_per_s": settings.rate_per_s,
        "seconds_max": settings.seconds_max,
        "seed": settings.seed,
        "db": settings.db,
        "cache_size": settings.cache_size,
        "fields": settings.fields,
        "field_length": settings.field_length,
        "batch": settings.batch,
        "cores": os.cpu_count(),
    }


def result_document(result: Result) -> JsonObject:
    """One phase against one target."""
    found = result.verification
    return {
        "phase": result.phase,
        "target": result.target.name,
        "durability": result.facts.durability,
        "copies": result.facts.copies,
        "journal_mode": result.facts.journal_mode,
        "page_size": result.facts.page_size,
        "database_bytes": result.facts.size_bytes,
        "runtime_ms": result.runtime_ms,
        "operations_done": result.operations,
        "throughput": result.throughput,
        "throughput_each": result.throughput_each,
        "latencies": {name: dataclasses.asdict(latency) for name, latency in result.latencies.items()},
        "returns": result.statuses,
        "errors": result.errors,
        "last_error": result.last_error,
        "retries": result.retries,
        "noop_throughput": result.noop_throughput,
        "client_share": result.client_share,
        "fdatasync_us": result.fdatasync_us,
        "verified": result.verified,
        "interrupted": result.interrupted,
        "verification": None if found is None else dataclasses.asdict(found),
    }


def phase_document(result: Result) -> JsonObject:
    """The document of a load or a run."""
    return {**settings_document(result.settings), **result_document(result), "compare": []}


def comparison_document(comparison: Comparison) -> JsonObject:
    """The document of a comparison: the base's median round, then every target with its ratio."""
    results = comparison.results
    base = comparison.base
    return {
        **settings_document(comparison.settings),
        **result_document(base.middle),
        "throughput": base.throughput,
        "rounds": len(base.rounds),
        "interrupted": comparison.interrupted,
        "errors": sum(result.errors for result in results),
        "retries": sum(result.retries for result in results),
        "verified": comparison.verified,
        "fdatasync_us": comparison.fdatasync_us,
        "compare": [_entry_document(comparison, entry) for entry in comparison.entries],
    }


def _entry_document(comparison: Comparison, entry: Entry) -> JsonObject:
    ratios = entry.ratios_to(comparison.base)
    return {
        "target": entry.target.name,
        "title": entry.target.title,
        "ratio": comparison.ratio(entry),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "throughput": entry.throughput,
        "throughput_min": min(entry.throughputs),
        "throughput_max": max(entry.throughputs),
        "throughputs": entry.throughputs,
        "durability": entry.middle.facts.durability,
        "copies": entry.middle.facts.copies,
        "errors": sum(result.errors for result in entry.rounds),
        "retries": sum(result.retries for result in entry.rounds),
        "verified": entry.verified,
        "fdatasync_us": [result.fdatasync_us for result in entry.rounds],
        "latencies": {name: dataclasses.asdict(latency) for name, latency in entry.middle.latencies.items()},
    }


def check_document(destination: str) -> None:
    """Refuses a file that could not be written, before hours of measuring. Empty means that none is wanted."""
    if destination in ("", "-"):
        return
    if destination.startswith("-"):
        raise UsageError(f"--json needs a file, not {destination}", "--json - writes to standard output")
    if not Path(destination).parent.is_dir():
        raise UsageError(f"cannot write {destination}: there is no such directory", "make the directory first")


def write_document(document: JsonObject, destination: str) -> None:
    """Writes the document to a file, or to standard output if `destination` is "-"."""
    text = json.dumps(document, indent=2) + "\n"
    if destination == "-":
        sys.stdout.write(text)
        return
    try:
        Path(destination).write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {destination}: {error.strerror}", "give --json another file") from error
