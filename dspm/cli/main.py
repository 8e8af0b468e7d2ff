"""`dspm`: finds the command, loads only what it needs, and turns every error into one sentence, a hint and a status.

Exit status: 0 done, 1 failed, 2 usage or config, 3 unavailable, 4 bad data, 130 interrupted. stderr gets
`dspm: error: …`, then `hint: …`; a traceback never.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dspm.errors import DspmError, UsageError

if TYPE_CHECKING:
    from cyclopts import App

_COMMANDS = {
    "up": ("dspm.cli.up:up", "Start a cluster on this machine, or what is missing of it."),
    "down": ("dspm.cli.up:down", "End the processes of a cluster that up started."),
    "status": ("dspm.cli.inspect:status", "Show datasets and nodes."),
    "ls": ("dspm.cli.datasets:ls", "List the datasets and their sizes."),
    "rm": ("dspm.cli.datasets:rm", "Remove a dataset."),
    "mv": ("dspm.cli.datasets:mv", "Rename a dataset."),
    "import": ("dspm.cli.transfer:import_", "Make a dataset of a SQLite file."),
    "export": ("dspm.cli.transfer:export", "Write a dataset to a SQLite file."),
    "scrub": ("dspm.cli.scrub:scrub", "Look for damage in all copies, and repair it."),
    "fsck": ("dspm.cli.fsck:fsck", "Check all files of a stopped node."),
    "log": ("dspm.cli.log:app", "Print a stopped node's disk log."),
    "config": ("dspm.cli.config:app", "Show the configuration."),
    "path": ("dspm.cli.inspect:path", "Print where a part of dspm lies."),
    "mongo": ("dspm.cli.mongo:app", "Have MongoDB, or another WiredTiger program, keep its files in the cluster."),
    "ycsb": ("dspm.bench.ycsb.cli:app", "Run YCSB workloads."),
    "bench": ("dspm.bench.cli:app", "Measure against the machine's own floor."),
    "switchover": ("dspm.cli.operate:switchover", "Have another member serve a dataset."),
    "recover": ("dspm.cli.recover:recover", "Explain sets that are down; let them go on with a loss."),
    "node": ("dspm.cli.daemons:app", "Run a node in the foreground; drain or remove one."),
    "registry": ("dspm.cli.daemons:registry", "Run the registry in the foreground."),
    "version": ("dspm.cli.inspect:version", "Print the versions."),
}


def build(chosen: str = "") -> App:
    """The application; only the chosen command is imported. The others are listed with a line each."""
    from cyclopts import App

    from dspm import __version__

    app = App(
        name="dspm",
        help="Databases in the memory of a cluster. `dspm up --dir D` starts one on this machine.",
        version=__version__,
        help_format="plaintext",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for name, (target, text) in _COMMANDS.items():
        if _exists(target):
            app.command(target, name=name, help=None if name == chosen else text)
    return app


def _exists(target: str) -> bool:
    """True when the module is part of this installation."""
    module = target.partition(":")[0].removeprefix("dspm.")
    return (Path(__file__).resolve().parent.parent / module.replace(".", "/")).with_suffix(".py").exists()


def run(arguments: Sequence[str]) -> int:
    """Runs a command and returns the exit status."""
    try:
        return _run(arguments)
    except DspmError as e:
        return _fail(e)
    except KeyboardInterrupt as e:
        with contextlib.suppress(OSError):
            print(": ".join(["dspm: interrupted", *map(str, e.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as e:
        name = f"{e.filename}: " if e.filename else ""
        return _fail(DspmError(f"{name}{e.strerror or e}", "check permissions and room"))
    except Exception as e:  # the last line of defence: what gets here is a fault of dspm
        text = " ".join(str(e).split())[:300]
        return _fail(
            DspmError(f"internal error: {type(e).__name__}: {text}", "please report this with the command line")
        )


def _run(arguments: Sequence[str]) -> int:
    from cyclopts import CycloptsError, UnusedCliTokensError

    try:
        result = build(next(iter(arguments), ""))(
            list(arguments), print_error=False, exit_on_error=False, result_action="return_value"
        )
    except UnusedCliTokensError as e:
        raise UsageError(f"not expected: {_one_line(' '.join(e.unused_tokens or []))}", _USAGE_HINT) from None
    except CycloptsError as e:
        raise UsageError(_one_line(e), _USAGE_HINT) from None
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    sys.stdout.flush()
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _one_line(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"


def _fail(error: DspmError) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    hint = " ".join(error.hint.split()) or (_USAGE_HINT if error.exit_code == 2 else _HINT)
    with contextlib.suppress(OSError):
        print(f"dspm: error: {message}\nhint: {hint}", file=sys.stderr)
    return error.exit_code


_USAGE_HINT = "`dspm --help` lists the commands, `dspm COMMAND --help` the options"
_HINT = "`dspm status` shows the state of the cluster"


def main() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(sys.argv[1:]))


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
