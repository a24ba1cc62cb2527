"""What an archive says of itself, and archives that say nothing that can be read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bulk.archives import WorkerShare, read_model, unpacked
from handlers.errors import InvalidConfig
from handlers.model.archive_info import ArchiveInfo, WeightsInfo
from scripts.classify import main

CONFIG = "handler:\n  spec: x3d_xs\n  runtime: eager\n"


def archive(path: Path, config: str) -> Path:
    """An archive without a model: what is read before anything is loaded."""
    info = ArchiveInfo(
        spec="x3d_xs",
        name="m",
        version="1.0",
        num_classes=2,
        head="pytorchvideo",
        weights=WeightsInfo(kind="random", source=None, sha256="0", seed=1),
        package_version="0",
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive.json", json.dumps(info.to_json()))
        file.writestr("index_to_name.json", '{"0": "a", "1": "b"}')
        file.writestr("model-config.yaml", config)
    return path


def test_reads_what_decides_the_scores(tmp_path: Path) -> None:
    model = read_model(archive(tmp_path / "m.mar", CONFIG))
    assert (model.info.spec, model.labels, model.config.runtime) == ("x3d_xs", ("a", "b"), "eager")
    with unpacked(model.archive, WorkerShare(threads=3)) as folder:
        assert "threads: 3" in (folder / "model-config.yaml").read_text()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("handler: [unclosed", "the archive has no readable model-config.yaml: ParserError"),
        ("a: b: c", "the archive has no readable model-config.yaml: ScannerError"),
        ("just text", "model-config.yaml holds no settings"),
        ("minWorkers: 1", "handler"),
    ],
)
def test_settings_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str, message: str
) -> None:
    path = archive(tmp_path / "m.mar", config)
    with pytest.raises(InvalidConfig, match=message):
        read_model(path)
    with pytest.raises(InvalidConfig, match=message), unpacked(path, WorkerShare(threads=1)):
        pass
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    assert main([str(path), str(tmp_path / "videos"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
