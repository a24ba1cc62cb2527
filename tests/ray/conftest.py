"""A Ray cluster of two nodes on this machine, one CPU each, on the loopback interface."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bulk_support import make_videos
from tests.support.archives import package

_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}


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


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="pip install -r requirements/ray.txt")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Nodes that only this test knows need no token, and none is left in the user's folder.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # sockets: a short path
        # Where Ray notes the cluster's address, outside of `temp_dir`; it expects the folder to be there.
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        node = {**_NODE, "temp_dir": folder}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            yield TwoNodes(cluster, cluster.add_node(**node))
        finally:
            cluster.shutdown()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package("x3d_xs", tmp_path_factory.mktemp("store"), "--seed", "0")


@pytest.fixture(scope="session")
def two_hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 199 videos and a file that is none."""
    folder = tmp_path_factory.mktemp("ray") / "videos"
    make_videos(folder, 199)
    (folder / "junk.mp4").write_bytes(b"not a video at all")
    return folder
