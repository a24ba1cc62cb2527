"""A Ray cluster of two nodes on this machine, one CPU each, on the loopback interface; for benchmarks and tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "node_ip_address": "127.0.0.1"}


@dataclass
class TwoNodes:
    """`address` is what --ray takes; `lose_one` kills the node that the driver is not on, as a power cut would."""

    cluster: Any
    second: Any

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def lose_one(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster that only this process knows, so it needs no token and leaves none in the user's folder."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,  # sockets: a short path
        # RAY_TMPDIR is where Ray notes the cluster's address, outside of `temp_dir`.
        _environment(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_TMPDIR=folder),
    ):
        from ray.cluster_utils import Cluster

        Path(folder, "ray").mkdir()  # Ray expects it to be there
        node = {**_NODE, "temp_dir": folder}
        cluster: Any = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            yield TwoNodes(cluster, cluster.add_node(**node))
        finally:
            cluster.shutdown()


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
