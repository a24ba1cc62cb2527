"""Models that are no rows of this repository, over HTTP: Hugging Face's, packaged from their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.package import PackageOptions, package
from serving.server import TorchServe
from tests.support import huggingface
from tests.support.traffic import ONE_WORKER, Client, change_settings


@pytest.mark.parametrize("name", huggingface.NAMES)
def test_a_hugging_face_model_is_served(server: TorchServe, name: str, h264_video: bytes, tmp_path: Path) -> None:
    folder = huggingface.save_model(name, tmp_path / name)
    options = PackageOptions(spec=str(folder), name=f"hf_{name}", output=Path(server.model_store), progress=False)
    archive = package(options).path
    change_settings(archive, ONE_WORKER)
    server.register(archive.name)
    try:
        answer = Client(server, f"hf_{name}").post(h264_video)
    finally:
        server.unregister(f"hf_{name}")
        archive.unlink()
    expected = huggingface.probabilities(folder, huggingface.tensor(name, folder, h264_video))
    assert answer.status == 200, answer.body
    assert answer.json() == pytest.approx(dict(zip(huggingface.LABELS, expected, strict=True)), abs=2e-3)
