"""What the tests on a Ray cluster share: two nodes on this machine, an archive and two hundred videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ray_cluster import TwoNodes
from benchmarks.ray_cluster import two_nodes as start_two_nodes
from tests.support.archives import package
from tests.support.bulk import make_videos


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="pip install -r requirements/ray.txt")
    with start_two_nodes() as nodes:
        yield nodes


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
