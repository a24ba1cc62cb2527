"""The shared corpus's files, and what its reference.json knows of them. Everything is empty where it is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.paths import CORPUS

STILL_IMAGES = frozenset(f"made/x_image.{kind}" for kind in ("bmp", "gif", "jpg", "png", "tiff"))

HUGE = frozenset({"real/xo_portrait_4k60.mp4", "made/g_4096x2160_3f.mp4"})
"""The largest pictures. The recipe needs gigabytes for these, as it holds a whole clip at full size."""

ONE_PER_CODEC = (
    "made/c_av1.mp4",
    "made/c_ffv1.mkv",
    "made/c_flv1.flv",
    "made/c_gif.gif",
    "made/c_h263.3gp",
    "made/c_h264.mp4",
    "made/c_hevc.mp4",
    "made/c_mjpeg.mkv",
    "made/c_mpeg1.mpg",
    "made/c_raw_rgb.nut",
    "made/c_vp9.webm",
    "made/c_wmv2.wmv",
    "real/tv_v_SoccerJuggling_g23_c01.avi",
    "real/xo_sample_h262_mpeg_audio.ps",
)
"""The files on which the recipe itself runs in every run of the suite; on all others with `--all`."""

NOTHING = "(no corpus)"
"""The parameter of tests that are collected where the corpus is missing, only to be skipped."""


@cache
def reference() -> dict[str, Any]:
    """reference.json: per file and model, what another program's run of the recipe gave."""
    path = CORPUS / "reference.json"
    return json.loads(path.read_text()) if path.is_file() else {}


@cache
def codecs() -> dict[str, str]:
    """File -> the decoder of its first video stream, by the manifest."""
    path = CORPUS / "manifest.json"
    manifest = json.loads(path.read_text()) if path.is_file() else {}
    return {
        f"{folder}/{entry['file']}": entry["codec"]
        for folder, entries in manifest.items()
        for entry in entries
        if "codec" in entry
    }


def names() -> list[str]:
    """Every file in reference.json."""
    return [name for name in reference() if not name.startswith("_")]


def videos(*, readable: bool) -> list[str]:
    """The files that are no still images and that the recipe can read, or cannot."""
    return [
        name for name in names() if name not in STILL_IMAGES and ("error" not in reference()[name]["x3d_s"]) == readable
    ]


def has_stable_pixels(name: str) -> bool:
    """Whether its frames do not depend on the decoder's thread count, as concealed damage does."""
    return name not in reference()["_thread_dependent"]


def live(name: str, *more: str) -> Any:
    """The parameters of a test that runs the recipe: slow, but for one file per codec."""
    marks = [] if name in ONE_PER_CODEC or name == NOTHING else [pytest.mark.slow]
    return pytest.param(name, *more, marks=marks, id="-".join((name, *more)))


def statistics(tensor: torch.Tensor) -> dict[str, Any]:
    """What reference.json holds of a tensor: its shape, moments, extremes and 64 samples at documented places."""
    # In float64: float32 sums of a nearly constant picture depend on the number of threads.
    std, mean = torch.std_mean(tensor.double())
    least, greatest = torch.aminmax(tensor)
    flat = tensor.flatten()
    places = np.random.RandomState(20240501).randint(0, flat.numel(), 64)
    return {
        "shape": list(tensor.shape),
        "mean": mean.item(),
        "std": std.item(),
        "min": least.item(),
        "max": greatest.item(),
        "samples": flat[torch.from_numpy(places)].tolist(),
    }


def assert_statistics(tensor: torch.Tensor, expected: Mapping[str, Any]) -> None:
    """The tensor's shape is the expected one, and every other number of its `statistics` to 1e-4."""
    found = statistics(tensor)
    assert found["shape"] == expected["shape"]
    for name in ("mean", "std", "min", "max", "samples"):
        assert found[name] == pytest.approx(expected[name], abs=1e-4), name
