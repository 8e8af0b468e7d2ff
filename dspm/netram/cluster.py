"""A cluster on this machine: `dspm up` and `dspm down`.

Invariants: nothing is created before everything that can be checked was; what a failed or interrupted first `up` made
is taken away again, and nothing else: `state.json` is written first and removed last, so that what lies in a directory
without it is somebody else's, and is refused where `up` would have to use its name; a later `up` starts what is missing
with the names, ports, directories and arenas of before; two calls for one directory run one after the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dspm.errors import DataError, DspmError, UnavailableError, UsageError
from dspm.netram import arenas, config, limits, netns, toml
from dspm.netram.config import Config
from dspm.netram.layout import Layout, NodeState, RegistryState, State, write_whole
from dspm.netram.netns import Network
from dspm.netram.node import Node, arena_path, arguments, directory_tag, parse_announcement
from dspm.netram.operator import Operator
from dspm.netram.process import Starting, await_dying, end_all

SERVE_TIMEOUT_S = 60.0
ATTEMPTS_MAX = 3
NODES_DEFAULT = 3
NODES_MAX = 64
_OWN_KEYS = ("nodes", "registry", "key_file")


@dataclass(frozen=True)
class Asked:
    """What the caller of `up` said; None: nothing."""

    nodes: int | None
    settings: Mapping[str, str]
    netns: bool = False


class Registered(msgspec.Struct):
    """The registry's line."""

    url: str
    pid: int


def up(directory: Path, asked: Asked) -> dict[str, Any]:
    """Starts what is missing and returns what `dspm up --json` prints."""
    for key in _OWN_KEYS:
        if key in asked.settings:
            raise UsageError(f"{key} is decided by `dspm up` itself", "leave it out")
    layout = Layout(directory)
    arenas.remove_orphans()
    if layout.read_state() is None:
        _refuse_foreign(layout)
        _check_new(asked)
    with layout.locked(create=True) as made:
        state = layout.read_state()
        if state is not None and state.complete:
            return _Run(layout, state, _check_known(layout, state, asked)).go()
        _refuse_foreign(layout)
        first = _First(layout, made)
        with first.undone_on_failure():
            settings = _check_new(asked)
            state = first.create(asked, settings)
            run = _Run(layout, state, config.load_file(layout.config))
            first.run = run
            return run.go()


def down(directory: Path) -> bool:
    """Ends the cluster's processes; False if none ran."""
    layout = Layout(directory)
    if layout.read_state() is None:
        raise DspmError(f"there is no cluster in {layout.directory}", "`dspm up --dir D` makes one")
    with layout.locked(create=False):
        state = layout.read_state()
        running = [p for p in state.processes() if p.is_running] if state else []
        registry = [p for p in running if state and p == state.registry.process]
        end_all(registry)  # first: it would take the nodes for dead and change their sets
        end_all([p for p in running if p not in registry])
        if state is not None and state.network is not None:
            netns.remove(state.network)
    arenas.remove_orphans()
    return bool(running)


def _refuse_foreign(layout: Layout) -> None:
    """Refuses a directory in which names that `up` uses are taken: what a failed first `up` made is removed by name."""
    taken = next((p for p in layout.made() if os.path.lexists(p)), None)
    if taken is not None and layout.read_state() is None:  # asked last: another call may just have written it
        raise UsageError(
            f"{taken} is there, but no cluster that `dspm up` made", "give --dir a directory that is new or empty"
        )


def _check_new(asked: Asked) -> dict[str, str]:
    """Checks the wishes for a new cluster; returns the settings that stand in its file."""
    nodes = NODES_DEFAULT if asked.nodes is None else asked.nodes
    if not 1 <= nodes <= NODES_MAX:
        raise UsageError(
            f"--nodes {nodes}: expected a number from 1 to {NODES_MAX}",
            f"without it there are {NODES_DEFAULT}; more than {NODES_MAX} are for several machines (`dspm node`)",
        )
    wanted = config.load(config.EMPTY, asked.settings)
    _check(wanted, nodes)
    limits.check_memory(nodes, wanted.memory_bytes)
    limits.check_room(nodes, wanted.memory_bytes)
    if asked.netns:
        netns.check()
    settings = {
        s.key: s.value
        for s in wanted.settings
        if isinstance(s.origin, dict) and s.scope != "client" and s.key not in (*_OWN_KEYS, "cluster")
    }
    return settings | dict(asked.settings)


def _check(wanted: Config, nodes: int) -> None:
    if wanted.durability == "pm":
        raise UsageError("durability = pm needs persistent memory, which nodes cannot use yet", "use memory or disk")
    if wanted.copies > nodes:
        raise UsageError(
            f"{wanted.copies} copies need as many nodes, and --nodes is {nodes}",
            f"give --copies {nodes}, or --nodes {wanted.copies}",
        )


def _check_known(layout: Layout, state: State, asked: Asked) -> Config:
    """The configuration of a cluster that exists, if the wishes agree with it."""
    hint = f"leave the options out, use another --dir, or edit {layout.config} between `dspm down` and `dspm up`"
    if asked.nodes not in (None, len(state.nodes)):
        raise UsageError(f"the cluster in {layout.directory} has {len(state.nodes)} nodes, not {asked.nodes}", hint)
    if asked.netns and state.network is None:
        raise UsageError(f"the cluster in {layout.directory} has no network namespaces", hint)
    if not layout.config.exists() or not layout.key.exists():
        raise DataError(f"{layout.config} or {layout.key} is missing", "put it back, or move the directory aside")
    now = config.load_file(layout.config)
    then = config.load_file(layout.config, asked.settings)
    for key in asked.settings:
        before, after = now.setting(key).value, then.setting(key).value
        if before != after and _values(now) != _values(config.load_file(layout.config, {key: after})):
            raise UsageError(f"the cluster in {layout.directory} has {key} = {before or '(none)'}, not {after}", hint)
    _check(now, len(state.nodes))
    return now


def _values(c: Config) -> dict[str, Any]:
    """What a configuration amounts to, whoever said it and in whatever words."""
    return {k: v for k, v in msgspec.to_builtins(c).items() if k not in ("settings", "path")}


class _First:
    """The first `up` of a directory: makes its files, and takes everything away when it does not come to an end."""

    def __init__(self, layout: Layout, made: bool) -> None:
        self._layout = layout
        self._made = made
        self.run: _Run | None = None

    def create(self, asked: Asked, settings: Mapping[str, str]) -> State:
        """Writes state, key and config."""
        layout = self._layout
        self._remove(keep_lock=True)  # what an earlier first `up` left when it was killed
        names = [f"n{i}" for i in range(1, (NODES_DEFAULT if asked.nodes is None else asked.nodes) + 1)]
        nodes = [NodeState(n, f"{n}@local", str(layout.nodes / n), str(arena_path(layout.directory, n))) for n in names]
        network = netns.plan(directory_tag(layout.directory), names) if asked.netns else None
        state = State(nodes, RegistryState(), network=network)
        layout.write_state(state)  # before all else: it says that the rest is ours
        layout.make_directories()
        layout.make_key()
        cluster = settings.get("cluster", f"local-{directory_tag(layout.directory)}")
        rest = {k: v for k, v in settings.items() if k != "cluster"}
        text = toml.render(cluster, str(layout.key), [], "", rest)
        write_whole(layout.config, text.encode())
        arenas.leave_note(layout.directory, [], network)
        return state

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Runs the body; on any failure ends what was started and removes what was made."""
        try:
            yield
        except BaseException:
            if self.run is not None:
                self.run.end()
            self._remove(keep_lock=False)
            raise

    def _remove(self, keep_lock: bool) -> None:
        layout = self._layout
        with contextlib.suppress(DspmError):
            arenas.clear(layout.directory)
        with contextlib.suppress(DspmError):
            state = layout.read_state()
            if state is not None and state.network is not None:
                netns.remove(state.network)
        if self._made and not keep_lock:
            shutil.rmtree(layout.directory, ignore_errors=True)
            return
        for path in layout.directories():
            shutil.rmtree(path, ignore_errors=True)
        for path in (layout.config, layout.key, layout.state, *([] if keep_lock else [layout.lock])):
            path.unlink(missing_ok=True)


class _Run:
    """Brings the processes of a directory up."""

    def __init__(self, layout: Layout, state: State, settings: Config) -> None:
        self._layout = layout
        self._state = state
        self._config = settings
        self._network = state.network
        self._started: list[Starting] = []

    def go(self) -> dict[str, Any]:
        """Starts what is missing, waits until all serve, and says where everything is."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                self._bring_up()
                break
            except UnavailableError:
                # What died meanwhile is started again; what runs and does not answer is the caller's to see.
                if attempt == ATTEMPTS_MAX or all(p.is_running for p in self._state.processes()):
                    raise
        self._state.complete = True
        self._save()
        return self._describe()

    def _bring_up(self) -> None:
        await_dying(self._state.processes())
        missing = [n for n in self._state.nodes if not n.process.is_running]
        self._layout.make_directories()
        self._check_room(missing)
        if self._network is not None:
            netns.make(self._network)
        try:
            starting = [(n, self._start_node(n)) for n in missing]
            registry = self._start_registry()
            self._save()
            for node, daemon in starting:
                said = parse_announcement(daemon.wait(SERVE_TIMEOUT_S), daemon.what)
                node.address, node.metrics = said.address, said.metrics
            if registry is not None:
                self._serve_registry(registry)
            self._save()
            self._write_config()
            self._register()
        except UnavailableError:
            raise  # tried again, with what runs
        except BaseException:
            # Half a start would be taken for a whole one by the next call, which would ask what does not serve yet.
            self.end()
            raise

    def end(self) -> None:
        """Ends what this call started."""
        for daemon in self._started:
            daemon.end()

    def _check_room(self, missing: list[NodeState]) -> None:
        fresh = sum(not Path(n.arena_file).exists() for n in missing)
        if fresh:
            limits.check_room(fresh, self._config.memory_bytes)

    def _save(self) -> None:
        self._layout.write_state(self._state)
        arenas.leave_note(self._layout.directory, self._state.processes(), self._network)

    def _spawn(self, name: str, what: str, command: list[str]) -> Starting:
        layout = self._layout
        log, announce = layout.log / f"{name}.log", layout.run / f"{name}.json"
        daemon = Starting(what, command, log, announce, layout.directory)
        self._started.append(daemon)
        return daemon

    def _at(self, host: str, port: int) -> str:
        """Where a daemon listens that never did: any port of loopback, or its own on a host of its own."""
        return "127.0.0.1:0" if self._network is None else f"{self._network.address(host)}:{port}"

    def _inside(self, host: str) -> list[str]:
        return [] if self._network is None else self._network.inside(host)

    def _start_node(self, n: NodeState) -> Starting:
        Path(n.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        arenas.begin_anew(Path(n.data_dir), Path(n.arena_file))
        node = Node(n.name, n.machine, n.data_dir, n.arena_file)
        listen = n.address or self._at(n.name, netns.NODE_PORT)
        metrics = n.metrics or self._at(n.name, netns.METRICS_PORT)
        command = arguments(node, self._config, listen, metrics, insecure=self._network is not None)
        daemon = self._spawn(n.name, f"node {n.name}", [*self._inside(n.name), *command])
        n.process = daemon.process
        return daemon

    def _start_registry(self) -> Starting | None:
        registry = self._state.registry
        if registry.process.is_running:
            return None
        command = [sys.executable, "-P", "-m", "dspm.cli.main", "registry", "--config", str(self._layout.config)]
        listen = registry.address or self._at(netns.REGISTRY, netns.REGISTRY_PORT)
        command += ["--dir", str(self._layout.registry), "--listen", listen]
        command += ["--insecure"] if self._network is not None else []
        daemon = self._spawn("registry", "the registry", [*self._inside(netns.REGISTRY), *command])
        registry.process = daemon.process
        return daemon

    def _serve_registry(self, daemon: Starting) -> None:
        line = daemon.wait(SERVE_TIMEOUT_S)
        try:
            said = msgspec.json.decode(line, type=Registered)
        except msgspec.DecodeError:
            raise DspmError(f"the registry announced itself with {line[:80]!r}") from None
        self._state.registry.url = said.url
        self._state.registry.address = said.url.removeprefix("http://")

    def _write_config(self) -> None:
        """Adds to the config file what is known only now. A file that says it already is left alone."""
        nodes, url = [n.address for n in self._state.nodes], self._state.registry.url
        if self._config.nodes == nodes and self._config.registry == url:
            return
        kept = {
            s.key: s.value
            for s in self._config.settings
            if isinstance(s.origin, dict) and s.key not in (*_OWN_KEYS, "cluster")
        }
        text = toml.render(self._config.cluster, str(self._layout.key), nodes, url, kept)
        write_whole(self._layout.config, text.encode())

    def _register(self) -> None:
        with Operator(self._state.registry.url, self._config.key()) as registry:
            for n in self._state.nodes:
                registry.add_node(n.name, n.address, n.machine)

    def _describe(self) -> dict[str, Any]:
        return {
            "config": str(self._layout.config),
            "registry": {"pid": self._state.registry.process.pid, "url": self._state.registry.url},
            "nodes": [
                {
                    "name": n.name,
                    "pid": n.process.pid,
                    "address": n.address,
                    "data_dir": n.data_dir,
                    "arena_file": n.arena_file,
                    "metrics_url": f"http://{n.metrics}/metrics",
                }
                for n in self._state.nodes
            ],
            **({} if self._network is None else {"netns": _describe_network(self._network)}),
        }


def _describe_network(network: Network) -> dict[str, Any]:
    """`ip netns exec NAMESPACE` runs a command on a host."""
    hosts = [{"name": h, "namespace": network.namespace(h), "address": network.address(h)} for h in network.hosts]
    return {
        "bridge": network.bridge,
        "address": f"{network.subnet}.1",
        "hosts": hosts,
        "clients": [h for h in hosts if h["name"] in netns.CLIENTS],
    }
