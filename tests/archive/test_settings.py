"""`package --set`, `package --file` and `python -m scripts.settings`: an archive's settings, from outside the zip."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from handlers.pipeline import VideoClassifier
from serving import archive_settings
from serving.download import sha256_of
from tests.support.archives import package
from tests.support.bulk import run

SETTINGS = ["--set", "handler.limits.max_video_sec=600", "--set", "batchSize=4"]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package("x3d_xs", tmp_path_factory.mktemp("store"), "--runtime", "openvino")


@pytest.fixture
def archive(packaged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(packaged, tmp_path / "x3d_xs.mar"))


def settings_of(archive: Path) -> dict[str, object]:
    return dict(archive_settings.read_archive(archive).values)


def test_package_writes_the_settings_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("handler:\n  runtime: eager\n  threads: 1\nbatchSize: 2\n")
    arguments = ["--weights", "random", "--version", "2.0", "--file", "x3d_xs-2.0.mar"]
    run("package", "x3d_xs", *arguments, "--output", tmp_path, "--config", tmp_path / "mine.yaml", *SETTINGS)
    archive = tmp_path / "x3d_xs-2.0.mar"
    values = settings_of(archive)
    assert (values["batchSize"], values["handler.threads"]) == (4, 1)
    assert values["handler.limits.max_video_sec"] == 600
    assert values["handler.runtime"] == "eager"
    with zipfile.ZipFile(archive) as zipped:  # `handler.runtime` decides what is packaged, as --runtime does
        assert "openvino/model.xml" not in zipped.namelist()
        assert json.loads(zipped.read("MAR-INF/MANIFEST.json"))["model"]["modelName"] == "x3d_xs"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "batchsize=4"], "unknown setting batchsize"),
        (["--set", "handler.limits.max_video_sec=0"], "limits.max_video_sec must be a positive float, got 0"),
        (["--set", "handler.decodr=sampled"], "unknown key handler.decodr; known keys of handler"),
        (["--set", "responseTimeout=60"], "must be smaller than responseTimeout (60 s)"),
        (["--set", "handler.spec=x3d_m"], "handler.spec belongs to the weights"),
        (["--set", "handler.runtime=openvino", "--runtime", "eager"], "contradict each other"),
        (["--set", "handler.precision=float16", "--runtime", "openvino"], "float16 needs a GPU"),
        (["--set", "batchSize"], "write KEY=VALUE"),
        (["--file", "../x.mar"], "--file '../x.mar' must be a name that ends in .mar"),
    ],
)
def test_wrong_settings_are_not_packaged(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = run("package", "x3d_xs", "--weights", "random", "--output", tmp_path, *arguments, status=1)
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_are_shown_as_the_archive_has_them(archive: Path) -> None:
    shown = run("settings", archive).stdout
    with zipfile.ZipFile(archive) as zipped:
        assert shown == zipped.read("model-config.yaml").decode()
    assert json.loads(run("settings", archive, "--json").stdout) == settings_of(archive)


def test_an_archive_is_found_by_its_name(
    archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "model_store").symlink_to(archive.parent)
    monkeypatch.chdir(folder)
    assert run("settings", "x3d_xs").stdout == run("settings", archive).stdout
    assert "there is no archive absent, nor model_store/absent.mar" in run("settings", "absent", status=1).stderr


def test_settings_are_changed_in_place_and_nothing_else_is(archive: Path, h264_video: bytes) -> None:
    archive.chmod(0o640)
    with zipfile.ZipFile(archive) as before:
        old = {entry.filename: entry for entry in before.infolist()}
    done = run("settings", archive, *SETTINGS)
    assert "2 settings changed" in done.stdout
    assert "handler.limits.max_video_sec: 600 (was 14400.0)" in done.stdout
    with zipfile.ZipFile(archive) as after:
        assert after.testzip() is None
        new = {entry.filename: entry for entry in after.infolist()}
        assert list(new) == list(old)
        differing = [
            name for name in old if (old[name].CRC, old[name].date_time) != (new[name].CRC, new[name].date_time)
        ]
        assert differing == ["model-config.yaml"]
        # Java's reader takes stored entries only with their size in front.
        assert {(entry.compress_type, entry.flag_bits & 0x08) for entry in new.values()} == {(0, 0)}
        text = after.read("model-config.yaml").decode()
    assert yaml.safe_load(text)["batchSize"] == 4
    assert all("#" in line for line in text.splitlines() if line.strip() not in ("", "handler:"))
    assert archive.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    with VideoClassifier.from_archive(archive) as classifier:
        assert classifier.config.limits.max_video_sec == 600
    digest = sha256_of(archive)
    assert "has these settings already" in run("settings", archive, *SETTINGS).stdout
    assert sha256_of(archive) == digest


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("handler.limits.max_viedos=4", "unknown key handler.limits.max_viedos"),
        ("handler.sandbox=maybe", "handler.sandbox must be one of auto, required, none, got 'maybe'"),
        ("handler.limits.request_timeout_sec=120", "must be smaller than responseTimeout"),
        ("handler.runtime=eager", "this archive holds an OpenVINO model alone"),
        ("handler.precision=float16", "float16 needs a GPU"),
        ("handler.spec=slow_r50", "belongs to the weights"),
        ("maxWorkers=0", "maxWorkers must be a whole number"),
    ],
)
def test_an_archive_that_would_not_load_is_not_written(archive: Path, assignment: str, sentence: str) -> None:
    digest = sha256_of(archive)
    done = run("settings", archive, "--set", "batchSize=4", "--set", assignment, status=1)
    assert sentence in done.stderr
    assert sha256_of(archive) == digest


def test_the_archives_own_code_decides_which_settings_there_are(archive: Path, tmp_path: Path) -> None:
    """An archive of another version may know settings that this checkout does not, and the other way round."""
    other = tmp_path / "other.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "handlers/config.py":
                content = content.replace(b"decode_processes", b"decoders")
            if name == "model-config.yaml":
                content = content.replace(b"decode_processes", b"decoders")
            target.writestr(name, content)
    run("settings", other, "--set", "handler.decoders=1")
    assert settings_of(other)["handler.decoders"] == 1
    done = run("settings", other, "--set", "handler.decode_processes=1", status=1)
    assert "unknown key handler.decode_processes" in done.stderr


def test_a_change_that_breaks_off_leaves_the_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256_of(archive)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("serving.archive_settings.shutil.copyfileobj", full)
    assert "No space left" in run("settings", archive, "--set", "batchSize=4", status=1).stderr
    assert sha256_of(archive) == digest
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_a_link_to_an_archive_stays_one(archive: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.mar"
    link.symlink_to(archive)
    run("settings", link, "--set", "batchSize=4")
    assert link.is_symlink()
    assert settings_of(archive)["batchSize"] == 4


def test_what_is_no_archive_of_this_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mar").write_text("no zip")
    assert "is not a readable model archive" in run("settings", tmp_path / "text.mar", status=1).stderr
    with zipfile.ZipFile(tmp_path / "other.mar", "w") as zipped:
        zipped.writestr("handler.py", "")
    assert "is no archive of scripts.package" in run("settings", tmp_path / "other.mar", status=1).stderr
