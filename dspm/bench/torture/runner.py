"""One run: a cluster, clients that work, one fault after the other, and the final state read back by fresh processes.

Every step has a deadline, and so has the whole. What does not recover in time is written down as *stuck*; the run goes
on as far as it is safe.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dspm.bench.torture.clients import DATABASES, Clients
from dspm.bench.torture.faults import Choice, Faults, choose
from dspm.bench.torture.history import BEGIN, END, INFO, NEMESIS, Recorder
from dspm.bench.torture.progress import Progress
from dspm.bench.torture.rig import Rig, wait
from dspm.errors import DspmError

RECOVER_S = 30.0
WHOLE_S = 60.0
WARM_S = 0.5
FINAL_S = 120.0
FAULT_S = 15.0
"""For the whole, on average."""
START_S = 120.0
BESIDE = 0.2
"""How often a light fault comes beside another one."""

Say = Callable[[str], None]


@dataclass
class Story:
    """What the runner itself saw."""

    asked: int
    done: int = 0
    recovered: int = 0
    stuck: list[str] = field(default_factory=list)
    flips: dict[str, int] = field(default_factory=dict)


class Runner:
    """Plays one seed."""

    def __init__(self, rig: Rig, history: Path, log: Path, seed: int, faults: int, say: Say) -> None:
        self._rig = rig
        self._clients = Clients(rig, history, log)
        self._faults = Faults(rig, self._clients)
        self._recorder = Recorder(history, NEMESIS)
        self._progress = Progress(history)
        self._chance = random.Random(seed)
        self._say = say
        self._end = time.monotonic() + START_S + faults * FAULT_S
        self._copies_taken = False
        self.story = Story(faults)

    def go(self) -> None:
        """All of it."""
        self._rig.start()
        self._clients.setup()
        self._clients.start()
        try:
            self._recover(0, "the start", 0)
            while self.story.done < self.story.asked:
                if time.monotonic() > self._end:
                    self.story.stuck.append(f"the run: {self.story.done} of {self.story.asked} faults in its time")
                    break
                self._next()
            self._finish()
        finally:
            self.story.flips = dict(self._faults.flips)
            self._clients.end()

    def _next(self) -> None:
        choice = choose(self._chance, self._faults.kinds)
        beside = choose(self._chance, [k for k in self._faults.kinds if self._faults.is_light(k)])
        alone = self._faults.is_light(choice.kind) or self._chance.random() > BESIDE
        if self.story.done + 1 >= self.story.asked:
            alone = True
        if not self._may_begin(choice):
            choice, alone = beside, True
        self._copies_taken |= self._faults.takes_copies(choice.kind)
        begun, before = time.monotonic(), self.story.done
        try:
            with ExitStack() as held:
                self._do(held, choice)
                if not alone:
                    self._do(held, beside)
                time.sleep(choice.hold_s)
        except (DspmError, OSError) as e:
            self._say(f"  {choice.kind}: {e}")
            self.story.stuck.append(f"{choice.kind}: {e}")
        self._recover(time.monotonic_ns(), choice.kind, self.story.done - before)
        self._say(f"  {time.monotonic() - begun:4.1f} s, {self._progress.count} writes acknowledged so far")

    def _may_begin(self, choice: Choice) -> bool:
        """Waits until it takes nothing away that is not held elsewhere; False if that lasts too long."""
        if self._faults.is_light(choice.kind):
            return True
        if choice.hurry and not self._copies_taken and not self._faults.takes_copies(choice.kind):
            return True
        if not self._whole():
            return False
        self._copies_taken = False
        return True

    def _do(self, held: ExitStack, choice: Choice) -> None:
        number = self.story.done + 1
        what = {"number": number, "fault": choice.kind, "database": choice.database.name}
        self._recorder.note(INFO, BEGIN, what)
        held.callback(self._recorder.note, INFO, END, what)
        self.story.done = number
        whom = held.enter_context(self._faults.held(choice))
        self._say(f"{number:4d} {choice.kind} ({whom})")

    def _recover(self, since: int, what: str, faults: int) -> None:
        """Everything serves again: each database acknowledges a write that was asked for after all harm was undone."""
        for name in self._clients.died():
            self.story.stuck.append(f"after {what}: the client {name} ended by itself")
        try:
            self._rig.mend()
        except DspmError as e:
            self.story.stuck.append(f"after {what}: {e}")
        self._clients.start()
        names = [d.name for d in DATABASES]
        if wait(lambda: self._progress.all_since(since, names), RECOVER_S):
            self.story.recovered += faults
            return
        late = [n for n in names if self._progress.acknowledged.get(n, 0) <= since]
        self.story.stuck.append(f"after {what}: no write within {RECOVER_S:g} s to {', '.join(late)}")

    def _whole(self) -> bool:
        """Waits until every copy is there."""
        why = ""

        def true() -> bool:
            nonlocal why
            why = self._rig.why_not_whole()
            return not why

        if wait(true, WHOLE_S, 0.05):
            return True
        self.story.stuck.append(f"not whole within {WHOLE_S:g} s: {why}")
        return False

    def _finish(self) -> None:
        """Fresh processes read all rows: from what is there, and again when the primary of each database is dead."""
        self._rig.mend()
        whole = self._whole()
        time.sleep(WARM_S)
        self._clients.end()
        for d in DATABASES:
            self._read(f"final-{d.name}", d.name)
        if not whole:
            return  # stuck, and noted
        for d in DATABASES:
            self._rig.signal(self._rig.members(d.name)[0], signal.SIGKILL)
            self._read(f"final-{d.name}-other-copy", d.name)
            self._rig.mend()
            if not self._whole():
                return

    def _read(self, process: str, name: str) -> None:
        database = next(d for d in DATABASES if d.name == name)
        if not self._clients.run(process, "final", database, self._rig.clients[1], FINAL_S):
            self.story.stuck.append(f"{process}: the final state could not be read")

    def close(self) -> None:
        """Ends what is open; the cluster is taken away by whoever made the rig."""
        self._recorder.close()
        self._progress.close()
