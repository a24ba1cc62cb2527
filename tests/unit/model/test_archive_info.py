from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import handlers
from handlers.errors import InvalidConfig, SetupError
from handlers.model.archive_info import ArchiveInfo, OpenVinoInfo, WeightsInfo, verify_package_origin

INFO = ArchiveInfo(
    spec="x3d_s",
    name="mine",
    version="2.0",
    num_classes=10,
    head="pytorchvideo",
    weights=WeightsInfo(kind="random", source=None, sha256="ab" * 32, seed=7),
    package_version="0.1.0",
    openvino=OpenVinoInfo(model="openvino/model.xml", weights_sha256="ab" * 32),
)


@pytest.mark.parametrize("info", [INFO, replace(INFO, openvino=None)], ids=["openvino", "torch"])
def test_reads_back_what_was_written(tmp_path: Path, info: ArchiveInfo) -> None:
    (tmp_path / "archive.json").write_text(json.dumps(info.to_json()))
    assert ArchiveInfo.read(tmp_path) == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "archive.json has format 99, this package reads format 1"),
        ({"format": None}, "archive.json has format None"),
        ({"weights": None}, "archive.json is damaged"),
        ({"surprise": 1}, "archive.json is damaged: .*surprise"),
        ({"head": "resnet"}, "archive.json is damaged: head 'resnet'"),
    ],
)
def test_another_format_or_damage_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "archive.json").write_text(json.dumps({**INFO.to_json(), **change}))
    with pytest.raises(InvalidConfig, match=message):
        ArchiveInfo.read(tmp_path)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '"x"'])
def test_no_or_no_json_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "archive.json").write_text(text)
    with pytest.raises(InvalidConfig, match=r"archive.json"):
        ArchiveInfo.read(tmp_path)


def test_package_origin_is_the_models_folder(tmp_path: Path) -> None:
    checkout = Path(handlers.__file__).parent.parent
    verify_package_origin(checkout)
    with pytest.raises(SetupError, match="imported from outside the model archive; start TorchServe with PYTHONPATH"):
        verify_package_origin(tmp_path)


def test_package_origin_through_a_link(tmp_path: Path) -> None:
    """TorchServe hands a worker a path that may lead through links."""
    link = tmp_path / "model"
    link.symlink_to(Path(handlers.__file__).parent.parent)
    verify_package_origin(link)


def test_archive_metadata_needs_no_torch() -> None:
    code = "import handlers.model.archive_info, handlers.model.labels, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
