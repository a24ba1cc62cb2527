"""Settings by key: parsing, checks, and model-config.yaml with another value and the same comments."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from handlers.config import model_settings
from handlers.errors import InvalidConfig
from serving.model_config import model_config
from serving.settings import check_fixed, check_server_settings, edited, flattened, given_settings

TEXT = model_config(
    name="mine", spec="x3d_s", head="pytorchvideo", runtime="auto", precision="float32", light_workers=False
)


def test_assignments_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("batchSize: 2\nhandler:\n  autorotate: false\n  limits:\n    max_videos: 3\n")
    assert given_settings(file, ["batchSize=4", "handler.limits.max_video_sec=600", "deviceIds=[0, 1]"]) == {
        "batchSize": 4,
        "handler.autorotate": False,
        "handler.limits.max_videos": 3,
        "handler.limits.max_video_sec": 600,
        "deviceIds": [0, 1],
    }


@pytest.mark.parametrize("text", ["batchSize", "batch size=1", "=4", "handler.=1", "batchSize=[1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig):
        given_settings(None, [text])


@pytest.mark.parametrize("content", ["- 1\n", "text", "a: [1\n"])
def test_a_file_without_settings_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "file.yaml").write_text(content)
    with pytest.raises(InvalidConfig):
        given_settings(tmp_path / "file.yaml", [])
    with pytest.raises(InvalidConfig, match="No such file"):
        given_settings(tmp_path / "absent.yaml", [])


def test_a_value_is_changed_in_its_line_and_nothing_else_is() -> None:
    changed = edited(TEXT, {"handler.limits.max_video_sec": 600, "batchSize": 64, "handler.autorotate": False})
    before, after = TEXT.splitlines(), changed.splitlines()
    differing = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [new.split("#")[0].strip() for _, new in differing] == [
        "batchSize: 64",
        "autorotate: false",
        "max_video_sec: 600",
    ]
    assert [old.partition("#")[2] for old, _ in differing] == [new.partition("#")[2] for _, new in differing]
    assert [old.index("#") for old, _ in differing] == [new.index("#") for _, new in differing]
    config = model_settings(yaml.safe_load(changed))
    assert (config.limits.max_video_sec, config.autorotate) == (600, False)


def test_a_setting_that_is_not_there_gets_a_line() -> None:
    changed = edited(TEXT, {"jobQueueSize": 20})
    assert yaml.safe_load(changed) == {**yaml.safe_load(TEXT), "jobQueueSize": 20}
    assert len(changed.splitlines()) == len(TEXT.splitlines()) + 1


@pytest.mark.parametrize(
    "text", ["handler: {spec: x3d_s}\n", "handler:\n  spec: x3d_s\n  limits:\n", "handler:\n  spec: x3d_s\n"]
)
def test_other_layouts_get_the_same_values(text: str) -> None:
    assert yaml.safe_load(edited(text, {"handler.limits.max_views": 3, "batchSize": 2})) == {
        "handler": {"spec": "x3d_s", "limits": {"max_views": 3}},
        "batchSize": 2,
    }


def test_sections_are_no_settings() -> None:
    with pytest.raises(InvalidConfig, match="is a section; name one of its settings: max_video_bytes"):
        edited(TEXT, {"handler.limits": 3})
    with pytest.raises(InvalidConfig, match=r"handler\.decoder is a setting and no section"):
        edited(TEXT, {"handler.decoder.name": 3})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batchsize": 2}, "unknown setting batchsize; known: minWorkers"),
        ({"batchSize": 0}, "batchSize must be a whole number of at least 1, got 0"),
        ({"batchSize": True}, "got True"),
        ({"maxBatchDelay": 1.5}, "maxBatchDelay must be a whole number"),
        ({"minWorkers": 3}, r"minWorkers \(3\) must not be larger than maxWorkers \(1\)"),
        ({"deviceType": "tpu"}, "cpu or gpu"),
        ({"deviceIds": 0}, "list of GPU numbers"),
    ],
)
def test_torchserves_own_settings_are_checked(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        check_server_settings(yaml.safe_load(edited(TEXT, settings)))


def test_the_packaged_settings_pass_the_check() -> None:
    check_server_settings(yaml.safe_load(TEXT))


def test_what_the_weights_decide_stays() -> None:
    present = flattened(yaml.safe_load(TEXT))
    check_fixed({"handler.spec": "x3d_s", "handler.head": "pytorchvideo"}, present)
    with pytest.raises(InvalidConfig, match=r"handler\.spec belongs to the weights and is x3d_s, got 'x3d_m'"):
        check_fixed({"handler.spec": "x3d_m"}, present)
