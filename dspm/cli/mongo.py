"""`dspm mongo`: WiredTiger programs, mongod first."""

from __future__ import annotations

from cyclopts import App

app = App(name="mongo", help="Have MongoDB, or another WiredTiger program, keep its files in the cluster.")


@app.command
def config(
    dataset: str,
    /,
    *,
    program: str = "mongod",
    wiredtiger: str | None = None,
    engine_config: str = "",
    wait: str | None = None,
) -> None:
    """Print WiredTiger's configuration for a database path in the cluster.

    mongod takes it as --wiredTigerEngineConfigString, other programs as the configuration of wiredtiger_open, and
    both take it from the environment as WIREDTIGER_CONFIG.

    Parameters
    ----------
    dataset
        Name of the database path in the cluster. It is made when it is opened for the first time.
    program
        Name or path of the program that has WiredTiger in it, or of the libwiredtiger.so that it is linked to.
    wiredtiger
        Its WiredTiger's version, such as 11.3.1, instead of looking into the program.
    engine_config
        A configuration to add dspm to; what it says stays.
    wait
        How long the program waits, at its start, for a process that is the owner of the path. Default 5s.
    """
    from pathlib import Path

    from dspm import _native
    from dspm.integrations.mongo.engine_config import add_extension
    from dspm.integrations.mongo.program import find, wiredtiger_version
    from dspm.netram.config import load_cluster
    from dspm.netram.names import dataset_name

    cluster = load_cluster()
    dataset_name(cluster.namespace, dataset)  # a name that the program would be refused is refused here
    version = wiredtiger or wiredtiger_version(find(program))
    entry = _native.wiredtiger_entry(version)
    options = {"dataset": dataset, "version": version}
    if cluster.path:
        options["config"] = str(Path(cluster.path).absolute())  # the program runs in a directory of its own
    if wait is not None:
        options["wait"] = wait
    print(add_extension(engine_config, str(_native.library_path()), entry, options))
