"""One TorchServe under its process 1, and one gateway before it, for the tests that break neither."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import package
from tests.support.deployment import Gateway, Supervised, gateway, program, supervised, wait_for_status
from tests.support.traffic import ONE_WORKER, change_settings


@pytest.fixture(scope="session")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with `camera_motion`, one worker."""
    store = tmp_path_factory.mktemp("store")
    archive = package("camera_motion", store, "--weights", "published")
    change_settings(archive, ONE_WORKER)
    store.chmod(0o755)  # made by pytest for its own user; a container's is another one
    archive.chmod(0o644)
    return store


@pytest.fixture(scope="session")
def image() -> str:
    name = os.environ.get("VIDEO_SERVING_IMAGE")
    if name is None:
        pytest.skip("VIDEO_SERVING_IMAGE names no image: podman build -f deploy/Dockerfile --target cpu -t NAME .")
    return name


@pytest.fixture(scope="session")
def replica(embedded_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    program("haproxy", "haproxy")
    with supervised(embedded_store, tmp_path_factory.mktemp("replica") / "serving") as running:
        wait_for_status(running.ready_url, 200)
        yield running


@pytest.fixture(scope="session")
def before_it(replica: Supervised, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(replica, tmp_path_factory.mktemp("gateway"), MAX_BODY="4000000", LARGE_BODY="1000000") as running:
        wait_for_status(f"{running.operations_url}/healthz", 200)
        yield running
