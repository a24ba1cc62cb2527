"""Workers of a real TorchServe with and without torch: what they have loaded, and what they answer."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handlers.model.runtimes import has_gpu_driver
from serving.server import TorchServe
from tests.support.archives import package
from tests.support.traffic import ONE_WORKER, Client, change_settings, variant

pytestmark = pytest.mark.e2e

# With a GPU's driver every worker imports torch: it may be given the GPU.
EVERY_WORKER_HAS_TORCH = has_gpu_driver()
OPTIONS: dict[str, Any] = {"Top_K": "400", "format": "list", "Num_Clips": "2"}


@contextmanager
def registered(server: TorchServe, archive: Path) -> Iterator[Client]:
    server.register(archive.name)
    try:
        yield Client(server, archive.stem)
    finally:
        server.unregister(archive.stem)


def has_torch(server: TorchServe, model: str) -> bool:
    """Whether the model's one worker has torch's library in its address space."""
    (pid,) = server.worker_pids(model)
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "site-packages/numpy" in maps, "this is no worker that has loaded its model"
    return "libtorch" in maps


def answer(client: Client, video: bytes) -> bytes:
    response = client.post(video, **OPTIONS)
    assert response.status == 200, response.body
    return response.body


def without_stand_in(archive: Path, name: str) -> Path:
    """A copy that takes the installed torch, as archives of earlier versions do."""
    path = variant(archive, name)
    with zipfile.ZipFile(path) as whole:
        content = {entry: whole.read(entry) for entry in whole.namelist()}
    del content["torch.py"]
    with zipfile.ZipFile(path, "w") as copy:
        for entry, data in content.items():
            copy.writestr(entry, data)
    return path


def scores(server: TorchServe, archive: Path, video: bytes, *, torch: bool) -> np.ndarray[Any, Any]:
    """All scores by class, of a worker that has or has not loaded torch."""
    with registered(server, archive) as client:
        assert has_torch(server, archive.stem) is torch
        response = client.post(video, **OPTIONS)
        assert response.status == 200, response.body
        assert has_torch(server, archive.stem) is torch
        return np.array([entry["score"] for entry in sorted(response.json(), key=lambda entry: entry["class_id"])])


def test_a_worker_on_openvino_loads_no_torch_and_answers_the_same(
    server: TorchServe, x3d_xs_archive: Path, h264_video: bytes
) -> None:
    light = Client(server, x3d_xs_archive.stem)
    assert has_torch(server, light.model) is EVERY_WORKER_HAS_TORCH
    expected = answer(light, h264_video)
    with registered(server, without_stand_in(x3d_xs_archive, "with_torch")) as heavy:
        assert has_torch(server, heavy.model)
        assert answer(heavy, h264_video) == expected
    assert has_torch(server, light.model) is EVERY_WORKER_HAS_TORCH


def test_where_the_settings_ask_for_torch_it_is_there(
    server: TorchServe, x3d_xs_archive: Path, h264_video: bytes
) -> None:
    light = scores(server, variant(x3d_xs_archive, "light"), h264_video, torch=EVERY_WORKER_HAS_TORCH)
    eager = scores(server, variant(x3d_xs_archive, "eager", settings={"runtime": "eager"}), h264_video, torch=True)
    np.testing.assert_allclose(eager, light, atol=1e-4, rtol=0)
    recipe = variant(x3d_xs_archive, "recipe", settings={"decoder": "encoded_video"})
    np.testing.assert_allclose(scores(server, recipe, h264_video, torch=True), light, atol=1e-4, rtol=0)


def test_an_archive_without_torch_weights_is_served(server: TorchServe, model_store: Path, h264_video: bytes) -> None:
    archive = package("x3d_xs", model_store, "--name", "once", "--runtime", "openvino", "--seed", "0")
    change_settings(archive, ONE_WORKER)
    once = scores(server, archive, h264_video, torch=EVERY_WORKER_HAS_TORCH)
    with registered(server, archive) as client:
        assert client.post(h264_video, **OPTIONS).json()[0]["score"] == once.max()
