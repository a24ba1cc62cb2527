"""The literal recipe against what the recipe gave elsewhere: reference.json of the shared corpus.

One file per codec, and with `--all` every file.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers.errors import EmptyClip, UndecodableVideo, UnsupportedVideo
from handlers.specs import get_spec
from handlers.video.recipe import open_encoded_video, read_clip, transform_clip
from handlers.video.transforms import pack_pathways
from tests.support.corpus import NOTHING, assert_statistics, has_stable_pixels, live, names, reference

pytestmark = pytest.mark.corpus

SPECS = ("x3d_s", "slowfast_r50")


def _cases() -> list[Any]:
    """(file, spec) pairs. The recipe holds the clip at full size: large frames are slow, and need one spec only."""
    cases = []
    for name in names():
        x3d = reference()[name]["x3d_s"]
        pixels = x3d.get("h", 0) * x3d.get("w", 0)
        cases += [live(name, spec) for spec in (SPECS if pixels < 500_000 else SPECS[:1])]
    return cases or [live(NOTHING, SPECS[0])]


def _check(tensor: torch.Tensor, expected: dict[str, Any], *, values: bool) -> None:
    """The values are left out where concealed pixels of a damaged file depend on the decoder's thread count."""
    if values:
        assert_statistics(tensor, expected)
    assert list(tensor.shape) == expected["shape"]


@pytest.mark.parametrize(("name", "spec_name"), _cases())
def test_the_recipe_gives_the_reference(corpus: Path, name: str, spec_name: str) -> None:
    """Frames, picked frames bit for bit, and the tensors' statistics and samples; or an error where it had one."""
    spec, wanted = get_spec(spec_name), reference()[name][spec_name]
    exact = has_stable_pixels(name)
    try:
        video = open_encoded_video((corpus / name).read_bytes())
    except (UnsupportedVideo, UndecodableVideo):
        assert wanted["error"]["stage"] == "open"
        return
    try:
        clip = read_clip(video, 0.0, spec.clip_duration_sec)
    except (EmptyClip, UndecodableVideo):
        assert "error" in wanted
        return
    finally:
        video.close()
    assert clip.shape[1] == wanted["frames"]
    assert tuple(clip.shape[2:]) == (wanted["h"], wanted["w"])
    if exact:
        picked = clip[:, wanted["picked"]].to(torch.uint8).permute(1, 2, 3, 0).numpy()
        assert [f"{zlib.crc32(frame.tobytes()):08x}" for frame in picked] == wanted["picked_crc32"]
    tensor = transform_clip(clip, spec)[0]
    if spec.alpha is None:
        _check(tensor, wanted["tensor"], values=exact)
        return
    slow, fast = pack_pathways(tensor[None].numpy(), spec.alpha)
    _check(torch.from_numpy(slow[0]), wanted["tensor"]["slow"], values=exact)
    _check(torch.from_numpy(fast[0]), wanted["tensor"]["fast"], values=exact)
