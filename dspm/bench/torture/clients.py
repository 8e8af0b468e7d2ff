"""The client processes: several workloads on several hosts, each process in the place of the one that was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dspm.bench.torture.rig import Rig, wait
from dspm.errors import DspmError

SETUP_S = 60.0
END_S = 30.0
IMPATIENT_MS = 400


@dataclass(frozen=True)
class Database:
    """A dataset under load."""

    name: str
    workload: str
    copies: int
    durability: str


DATABASES = (
    Database("bank", "bank", 2, "memory"),
    Database("list", "list", 2, "disk"),
    Database("list3", "list", 3, "memory"),
)


@dataclass
class Seat:
    """A place for a process that works on a database from a host."""

    host: str
    database: Database
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0


class Clients:
    """All of them."""

    def __init__(self, rig: Rig, history: Path, log: Path) -> None:
        self._rig = rig
        self._history = history
        self._log = log
        self._numbers = 0
        self.seats = [Seat(host, d) for d in DATABASES for host in rig.clients]

    def setup(self) -> None:
        """Makes the databases."""
        for d in DATABASES:
            made = self.spawn("setup", "setup", d, self._rig.clients[0])
            if made.wait(SETUP_S):
                raise DspmError(f"the database {d.name} could not be made", f"see {self._log}")

    def start(self) -> None:
        """Puts a process on every seat that is empty."""
        for seat in self.seats:
            if seat.process is None or seat.process.poll() is not None:
                seat.lives += 1
                name = f"{seat.host}-{seat.database.name}-{seat.lives}"
                seat.process = self.spawn(name, "work", seat.database, seat.host)

    def spawn(self, name: str, role: str, database: Database, host: str) -> subprocess.Popen[bytes]:
        """Starts a process on a host. Those on the last one give up early, and have to find out what became of it."""
        self._numbers += 1
        env = {k: v for k, v in os.environ.items() if not k.startswith("DSPM_")}
        env |= {"DSPM_CONFIG": str(self._rig.config_path), "DSPM_LOG": "off"}
        env |= {"DSPM_COPIES": str(database.copies), "DSPM_DURABILITY": database.durability}
        if host == self._rig.clients[-1] and role == "work":
            env["DSPM_COMMIT_TIMEOUT"] = f"{IMPATIENT_MS}ms"
        command = [sys.executable, "-P", "-m", "dspm.bench.torture.worker", str(self._history.absolute())]
        command += [name, role, database.workload, database.name, str(self._numbers)]
        network = self._rig.network
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [*(network.inside(host) if network is not None else []), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )

    def run(self, name: str, role: str, database: Database, host: str, seconds: float) -> bool:
        """Starts one and waits for its end. False if it failed, or did not end in time."""
        p = self.spawn(name, role, database, host)
        try:
            return p.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            p.kill()
            p.wait()

    def died(self) -> list[str]:
        """Seats whose process ended though nobody killed it."""
        return [
            f"{s.host}-{s.database.name}-{s.lives}" for s in self.seats if s.process and s.process.poll() is not None
        ]

    def kill(self, seat: Seat) -> None:
        """SIGKILL; the seat is empty then."""
        if seat.process is not None:
            seat.process.kill()
            seat.process.wait(END_S)
            seat.process = None

    def end(self) -> None:
        """Lets all finish what they are at; kills those that do not."""
        running = [s.process for s in self.seats if s.process is not None]
        for p in running:
            with contextlib.suppress(ProcessLookupError):
                p.send_signal(signal.SIGCONT)
                p.send_signal(signal.SIGTERM)
        wait(lambda: all(p.poll() is not None for p in running), END_S)
        for seat in self.seats:
            self.kill(seat)
