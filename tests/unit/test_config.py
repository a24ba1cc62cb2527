"""The `handler:` section of model-config.yaml."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import yaml

from handlers.config import HandlerConfig, model_settings
from handlers.errors import InvalidConfig, UnknownSpec
from handlers.limits import Limits
from handlers.specs import SPECS
from serving.model_config import model_config


def test_defaults() -> None:
    config = HandlerConfig.from_mapping({"spec": "x3d_s"})
    assert config == HandlerConfig(spec="x3d_s")
    assert config.spec == "x3d_s"
    assert (config.decoder, config.autorotate, config.isolation) == ("sampled", True, "process")
    assert (config.sandbox, config.codecs) == ("auto", "wide")
    assert (config.runtime, config.precision, config.threads, config.decode_processes) == ("auto", "float32", 0, 0)
    assert config.limits == Limits()


def test_everything_given() -> None:
    values: dict[str, Any] = {
        "spec": "slowfast_r50",
        "head": "pyslowfast",
        "decoder": "encoded_video",
        "autorotate": False,
        "isolation": "none",
        "sandbox": "none",
        "codecs": "modern",
        "decode_processes": 3,
        "runtime": "eager",
        "precision": "bfloat16",
        "threads": 2,
    }
    config = HandlerConfig.from_mapping({**values, "limits": {"max_video_sec": 60, "max_windows": 7}})
    assert {name: getattr(config, name) for name in values} == values
    assert (config.limits.max_video_sec, config.limits.max_windows) == (60, 7)


def test_what_packaging_writes_is_accepted() -> None:
    text = model_config(
        name="x3d_s", spec="x3d_s", head="pytorchvideo", runtime="auto", precision="float32", light_workers=True
    )
    assert model_settings(yaml.safe_load(text)) == HandlerConfig(spec="x3d_s", head="pytorchvideo")
    section = yaml.safe_load(text)["handler"]
    assert HandlerConfig.from_mapping(section) == HandlerConfig(spec="x3d_s", head="pytorchvideo")
    assert set(section) == {field.name for field in fields(HandlerConfig)}


@pytest.mark.parametrize("spec", [*SPECS, "a name that is longer than any column of comments"])
def test_what_packaging_writes_of_each_model_is_yaml(spec: str) -> None:
    text = model_config(
        name=spec, spec=spec, head="pytorchvideo", runtime="openvino", precision="float32", light_workers=False
    )
    assert yaml.safe_load(text)["handler"]["spec"] == spec
    assert all(" #" in line for line in text.splitlines()[1:] if "#" in line)


def test_an_empty_limits_section_is_the_defaults() -> None:
    assert HandlerConfig.from_mapping({"spec": "x3d_s", "limits": None}).limits == Limits()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, "handler.spec is missing"),
        ({}, "handler.spec is missing"),
        ([1], "handler must be a section of keys and values"),
        ({"spec": "x3d_s", "presicion": "float32"}, "unknown key handler.presicion; known keys of handler: spec, head"),
        ({"spec": "x3d_s", 5: 1}, "unknown key handler.5"),
        ({"spec": 5}, "handler.spec must be the name of a spec, got 5"),
        ({"spec": "x3d_s", "precision": "float64"}, "handler.precision must be one of float32, bfloat16, float16, got"),
        ({"spec": "x3d_s", "runtime": None}, "handler.runtime must be one of auto, eager, compile, openvino, got None"),
        ({"spec": "x3d_s", "head": ["pytorchvideo"]}, "handler.head must be one of"),
        ({"spec": "x3d_s", "autorotate": "yes"}, "handler.autorotate must be true or false, got 'yes'"),
        ({"spec": "x3d_s", "threads": True}, "handler.threads must be a whole number of at least 0, got True"),
        ({"spec": "x3d_s", "threads": -1}, "handler.threads must be a whole number of at least 0, got -1"),
        ({"spec": "x3d_s", "decode_processes": 1.5}, "handler.decode_processes must be a whole number"),
        ({"spec": "x3d_s", "limits": {"max_video_mb": 1}}, "unknown key handler.limits.max_video_mb; known keys of"),
        ({"spec": "x3d_s", "limits": {"max_windows": 0}}, "handler.limits.max_windows must be a positive int, got 0"),
        ({"spec": "x3d_s", "limits": {"max_windows": "9"}}, "handler.limits.max_windows must be a positive int"),
        ({"spec": "x3d_s", "limits": {"max_videos": 1.5}}, "handler.limits.max_videos must be a positive int, got 1.5"),
        (
            {"spec": "x3d_s", "limits": {"request_timeout_sec": 0}},
            "handler.limits.request_timeout_sec must be a positive",
        ),
        ({"spec": "x3d_s", "sandbox": "on"}, "handler.sandbox must be one of auto, required, none, got 'on'"),
        (
            {"spec": "x3d_s", "sandbox": "required", "isolation": "none"},
            "handler.sandbox: required needs decoder: sampled and isolation: process or request, got",
        ),
        (
            {"spec": "x3d_s", "sandbox": "required", "decoder": "encoded_video"},
            "handler.sandbox: required needs decoder: sampled and isolation: process or request, got",
        ),
        ({"spec": "x3d_s", "limits": 5}, "handler.limits must be a section of keys and values, got 5"),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(section: object, message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        HandlerConfig.from_mapping(section)
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "model-config.yaml holds no settings"),
        ([], "model-config.yaml holds no settings"),
        ({"responseTimeout": 60}, "handler.limits.request_timeout_sec (60 s) must be smaller than responseTimeout (60"),
        (
            {"responseTimeout": 5},
            "handler.limits.request_timeout_sec (60 s) must be smaller than responseTimeout (5 s)",
        ),
        ({"responseTimeout": None}, "responseTimeout must be a number of seconds, got None"),
        ({"responseTimeout": True}, "responseTimeout must be a number of seconds, got True"),
    ],
)
def test_a_worker_must_not_be_killed_before_a_request_times_out(content: Any, message: str) -> None:
    if isinstance(content, dict):
        content = {**content, "handler": {"spec": "x3d_s"}}
    with pytest.raises(InvalidConfig) as caught:
        model_settings(content)
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message


def test_the_time_of_a_request_follows_torchserves_own() -> None:
    handler = {"spec": "x3d_s", "limits": {"request_timeout_sec": 119.5}}
    assert model_settings({"handler": handler}).limits.request_timeout_sec == 119.5  # 120 s where nothing is said
    assert model_settings({"handler": handler, "responseTimeout": 120}).limits.request_timeout_sec == 119.5
    with pytest.raises(InvalidConfig, match=r"\(120 s\) must be smaller than responseTimeout \(120 s\)"):
        model_settings({"handler": {"spec": "x3d_s", "limits": {"request_timeout_sec": 120}}})


def test_unknown_spec_lists_the_known() -> None:
    with pytest.raises(UnknownSpec, match="unknown spec 'x3d'; known: x3d_xs, x3d_s"):
        HandlerConfig.from_mapping({"spec": "x3d"})
