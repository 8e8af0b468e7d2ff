"""What a run amounts to: build/torture.json, and its summary in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from dspm.bench.torture.check import Verdict, writes
from dspm.bench.torture.history import BEGIN, NEMESIS, OK, History
from dspm.bench.torture.runner import Story

ERRORS_MAX = 40
PROBLEMS_MAX = 100


@dataclass(frozen=True)
class Ran:
    """Where it ran: in namespaces, or what was left out without them."""

    apart: bool
    left_out: list[str]


class Away(msgspec.Struct):
    """Milliseconds of the longest time of each fault without an acknowledged write while somebody tried."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Result(msgspec.Struct):
    """build/torture.json."""

    seed: int
    seconds: float
    apart: bool
    left_out: list[str]
    faults: int
    faults_by_kind: dict[str, int]
    recoveries: int
    flips: dict[str, int]
    unavailable_ms: Away
    unavailable_ms_by_kind: dict[str, Away]
    acknowledged: int
    unknown: int
    failed: int
    read: int
    lost: int
    wrong: int
    stumps: int
    errors: dict[str, int]
    problems: list[dict[str, str]]
    stuck: list[str]
    verdict: str


Gap = tuple[int, int]


def gaps(history: History) -> list[Gap]:
    """For each database the times without an acknowledged write, each from the first attempt in it to its end."""
    found: list[Gap] = []
    for database in history.setups():
        steps: list[tuple[int, int]] = []
        for o in history.operations(database):
            if writes(o):
                steps.append((o.start, _ASKED))
                if o.done is not None:
                    steps.append((o.done.time, _ACKNOWLEDGED if o.outcome == OK else _ENDED))
        found += _gaps(sorted(steps))
    return found


_ASKED, _ENDED, _ACKNOWLEDGED = range(3)


def _gaps(steps: list[tuple[int, int]]) -> Iterator[Gap]:
    tried: int | None = None
    under_way = 0
    for moment, what in steps:
        under_way += 1 if what == _ASKED else -1
        if what == _ASKED and tried is None:
            tried = moment
        elif what == _ACKNOWLEDGED:
            if tried is not None:
                yield tried, moment
            tried = moment if under_way else None


def longest(history: History) -> list[tuple[str, float]]:
    """Of each fault its kind, and the longest gap in ms that overlaps with it or with the time until the next one."""
    begins = [e for e in history.events if e.process == NEMESIS and e.operation == BEGIN]
    all_gaps = gaps(history)
    found = []
    for number, e in enumerate(begins):
        until = begins[number + 1].time if number + 1 < len(begins) else history.events[-1].time
        within = [b - a for a, b in all_gaps if b > e.time and a < max(until, e.time + 1)]
        found.append((str(e.value["fault"]), max(within, default=0) / 1e6))
    return found


def away(times: list[float]) -> Away:
    """Percentiles by nearest rank."""
    ranked = sorted(times)
    if not ranked:
        return Away()
    at = {p: ranked[min(len(ranked) - 1, int(p * len(ranked)))] for p in (0.5, 0.99)}
    return Away(round(at[0.5], 1), round(at[0.99], 1), round(ranked[-1], 1))


def errors(history: History) -> dict[str, int]:
    """How often operations failed with which words; numbers and names are left out of them."""
    texts = Counter(_NUMBERS.sub("#", e.error.partition("\n")[0])[:200] for e in history.events if e.error)
    return dict(texts.most_common(ERRORS_MAX))


_NUMBERS = re.compile(r"\b[0-9a-f]{16}\b|\d+(\.\d+)*(:\d+)?")


def result(seed: int, seconds: float, rig: Ran, story: Story, history: History, verdict: Verdict) -> Result:
    """All figures."""
    times = longest(history)
    kinds = Counter(kind for kind, _ in times)
    by_kind = {k: away([ms for kind, ms in times if kind == k]) for k in sorted(kinds)}
    wrong = len(verdict.problems) - verdict.lost
    return Result(
        seed=seed,
        seconds=round(seconds, 1),
        apart=rig.apart,
        left_out=rig.left_out,
        faults=story.done,
        faults_by_kind=dict(sorted(kinds.items())),
        recoveries=story.recovered,
        flips=story.flips,
        unavailable_ms=away([ms for _, ms in times]),
        unavailable_ms_by_kind=by_kind,
        acknowledged=verdict.acknowledged,
        unknown=verdict.unknown,
        failed=verdict.failed,
        read=verdict.read,
        lost=verdict.lost,
        wrong=wrong,
        stumps=verdict.stumps,
        errors=errors(history),
        problems=[msgspec.to_builtins(p) for p in verdict.problems[:PROBLEMS_MAX]],
        stuck=story.stuck,
        verdict="ok" if verdict.sound and not story.stuck else "failed",
    )


def summary(r: Result) -> list[str]:
    """For people."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in r.faults_by_kind.items())
    u = r.unavailable_ms
    lines = [
        f"seed {r.seed}: {r.faults} faults in {r.seconds:.0f} s: {kinds}",
        *(f"  left out: {text}" for text in r.left_out),
        f"  {r.recoveries} times everything served again; without an acknowledged write, while somebody tried: "
        f"p50 {u.p50:,.0f} ms, p99 {u.p99:,.0f} ms, longest {u.max:,.0f} ms",
        f"  writes: {r.acknowledged:,} acknowledged, {r.unknown:,} with an unknown outcome, {r.failed:,} failed; "
        f"{r.read:,} reads",
        f"  lost {r.lost}, wrong {r.wrong}",
    ]
    lines += [f"  {n:6d} x {text}" for text, n in list(r.errors.items())[:10]]
    lines += [f"  WRONG {p['kind']} in {p['database']}: {p['detail'][:300]}" for p in r.problems[:10]]
    lines += [f"  STUCK {text}" for text in r.stuck]
    return [*lines, "NOTHING IS LOST, NOTHING IS WRONG" if r.verdict == "ok" else "FAILED"]
