"""Spec files: the fields that differ from a known model's, each checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.errors import InvalidConfig, UnknownSpec
from handlers.specs import get_spec
from serving.spec_file import read_spec_file, resolve_spec


def _written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_what_is_not_named_is_the_architectures(tmp_path: Path) -> None:
    path = _written(tmp_path, "architecture: x3d_xs\nnum_classes: 3\nactivation: sigmoid\ncombine: max\n")
    spec, base = read_spec_file(path), get_spec("x3d_xs")
    assert (spec.name, spec.num_classes, spec.activation, spec.combine) == ("mine", 3, "sigmoid", "max")
    assert (spec.architecture, spec.num_frames, spec.mean) == (base.architecture, base.num_frames, base.mean)
    assert (spec.published.top1, spec.weights.url, spec.preprocessing_source) == (None, None, "own")


def test_every_field_of_preprocessing(tmp_path: Path) -> None:
    spec = read_spec_file(
        _written(
            tmp_path,
            "{architecture: tv_r3d_18, name: small, temporal: whole_video, num_frames: 8, sampling_rate: 4, "
            "short_side: 120, exact_size: [120, 160], crop_size: 112, antialias: true, resize_as: torchvision, "
            "mean: 0.5, std: [0.2, 0.3, 0.4], channel_order: bgr, layout: N3TSS}",
        )
    )
    assert (spec.name, spec.temporal, spec.exact_size, spec.antialias) == ("small", "whole_video", (120, 160), True)
    assert (spec.mean, spec.std, spec.channel_order) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4), "bgr")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "must hold fields and values"),
        ("a: {", "not a readable YAML file"),
        ("num_classes: 3", "architecture must name a spec"),
        ("{architecture: x3d_s, colour: red}", "unknown field colour; known: name, architecture"),
        ("{architecture: x3d_s, num_classes: three}", "num_classes must be a whole number from 1"),
        ("{architecture: x3d_s, num_frames: 0}", "num_frames must be a whole number from 1"),
        ("{architecture: x3d_s, activation: relu}", "activation must be one of softmax, sigmoid, got 'relu'"),
        ("{architecture: x3d_s, mean: [1, 2]}", "mean must be a number or three"),
        ("{architecture: x3d_s, std: 0}", "std must be positive"),
        ("{architecture: x3d_s, exact_size: 128}", r"exact_size must be \[height, width\]"),
        ("{architecture: x3d_s, antialias: maybe}", "antialias must be true or false"),
        ("{architecture: x3d_s, antialias: true}", "antialias needs resize_as torchvision"),
        ("{architecture: x3d_s, crop_size: 500}", "crop 500 is larger than the short side 182"),
        ("{architecture: x3d_s, name: ../x}", "may hold letters"),
        ("{architecture: x3d_s, name: slow_r50}", "slow_r50 is the name of a spec that is known here"),
    ],
)
def test_what_is_wrong_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        read_spec_file(_written(tmp_path, text))


def test_a_name_is_a_row_and_a_file_is_ones_own(tmp_path: Path) -> None:
    assert resolve_spec("x3d_s") == (get_spec("x3d_s"), False)
    assert resolve_spec(str(_written(tmp_path, "architecture: x3d_s")))[1]
    with pytest.raises(UnknownSpec, match="unknown spec 'x3d_z'"):
        read_spec_file(_written(tmp_path, "architecture: x3d_z"))
    with pytest.raises(InvalidConfig, match=r"none.yaml is not a readable YAML file"):
        resolve_spec(str(tmp_path / "none.yaml"))
