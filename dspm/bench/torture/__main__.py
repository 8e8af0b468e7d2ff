"""`python -m dspm.bench.torture` runs faults; `python -m dspm.bench.torture check FILE` checks a history.

Exit status: 0 nothing lost, nothing wrong, everything served again after each fault; 1 if not; 2 and more as of `dspm`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from dspm.bench.torture import history as histories
from dspm.bench.torture.check import check
from dspm.bench.torture.report import Ran, Result, result, summary
from dspm.bench.torture.rig import Rig
from dspm.bench.torture.runner import Runner
from dspm.errors import DspmError, UsageError
from dspm.netram import netns

FAULTS_MAX = 100_000
NODES = 5
NODES_MIN = 4
MEMORY = "64MiB"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dspm.bench.torture", description=__doc__)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, help="repeats the choice of faults")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--memory", default=MEMORY, help="of each node")
    parser.add_argument(
        "--directory", type=Path, default=Path("build/torture-cluster"), help="of the cluster; made anew"
    )
    parser.add_argument("--output", type=Path, default=Path("build/torture.json"), help="the history lies beside it")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, even where they could be made")
    parser.add_argument("--keep", action="store_true", help="leave the cluster's directory, with its logs")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Runs it, or checks a history; returns the exit status."""
    try:
        if list(argv[:1]) == ["check"]:
            return _check(argv[1:])
        return _run(_arguments(argv))
    except DspmError as e:
        print(f"dspm: error: {e}", file=sys.stderr)
        print(f"hint: {e.hint or 'see docs/torture.md'}", file=sys.stderr)
        return e.exit_code
    except OSError as e:
        print(f"dspm: error: {e.filename or 'a file'}: {e.strerror or e}", file=sys.stderr)
        print("hint: check permissions and room", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dspm: interrupted", file=sys.stderr)
        return 130


def _check(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UsageError(
            "check: expected one file, a history", "python -m dspm.bench.torture check build/torture.jsonl"
        )
    verdict = check(histories.read(Path(argv[0])))
    print(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
    return 0 if verdict.sound else 1


def _run(asked: argparse.Namespace) -> int:
    for name, number, least, most in (
        ("faults", asked.faults, 1, FAULTS_MAX),
        ("nodes", asked.nodes, NODES_MIN, 64),
    ):
        if not least <= number <= most:
            raise UsageError(
                f"--{name} {number}: expected a number from {least} to {most}", "60 faults take two minutes"
            )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    for name in [n for n in os.environ if n.startswith("DSPM_")]:
        del os.environ[name]  # it has a cluster of its own
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    found = _torture(asked, seed)
    asked.output.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    print("\n".join(summary(found)))
    print(f"{asked.output} holds the figures, {asked.output.with_suffix('.jsonl')} the history")
    return 0 if found.verdict == "ok" else 1


def _torture(asked: argparse.Namespace, seed: int) -> Result:
    reason = "--loopback was given" if asked.loopback else netns.why_not()
    ran = Ran(not reason, [f"cut links, unplugged hosts and full disks: {reason}"] if reason else [])
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    history, log = asked.output.with_suffix(".jsonl"), asked.output.with_suffix(".log")
    for path in (history, log):
        path.unlink(missing_ok=True)
    rig = Rig(asked.directory, asked.nodes, asked.memory, ran.apart)
    runner = Runner(rig, history, log, seed, asked.faults, _say)
    started = time.monotonic()
    _say(f"seed {seed}, {asked.faults} faults, {asked.nodes} nodes{'' if ran.apart else ' on loopback'}")
    try:
        runner.go()
    finally:
        runner.close()
        if not asked.keep:
            rig.remove()
        else:
            rig.stop()
    seconds = time.monotonic() - started
    all_said = histories.read(history)
    return result(seed, seconds, ran, runner.story, all_said, check(all_said))


def _say(text: str) -> None:
    print(text, flush=True)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
