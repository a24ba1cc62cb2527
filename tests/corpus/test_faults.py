"""The corpus's files with something wrong, and the defined answer to each; tests/unit/test_faults.py makes its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from handlers.decode.threads import ThreadDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.view_reader import VideoReader
from tests.support.corpus import NOTHING, has_stable_pixels, reference
from tests.support.decoding import decode
from tests.support.paths import CORPUS

pytestmark = pytest.mark.corpus

SPEC = get_spec("x3d_xs")
FAULTS = "adgmnrtxz"
"""Prefixes of the files' names: sound, duration, geometry, metadata, count, rotation, time, no video, damage."""
REFUSED = {
    "z_trunc_moov_cut.mp4": "UnsupportedVideo",
    "z_trunc_no_moov.mp4": "UndecodableVideo",
    "x_ftyp_only.mp4": "UndecodableVideo",
}
"""Every other x_ file but the polyglot is UnsupportedVideo."""
WARNED = ("z_corrupt_2000_early.mp4",)
"""Damaged within the clip, so that the recipe gives nothing; the default answers with the frames before the damage."""


def faults() -> list[str]:
    folder = CORPUS / "made"
    return sorted(path.name for path in folder.iterdir() if path.name[0] in FAULTS) if folder.is_dir() else []


@pytest.fixture(scope="module")
def service() -> Iterator[ThreadDecodeService]:
    """Decodes in a thread of this process, and ignores rotation as the recipe does."""

    def open_video(payload: bytes | memoryview) -> VideoReader:
        return VideoReader(
            payload, SPEC, Limits(), autorotate=False, allocate=lambda shape: np.empty(shape, dtype=np.float32)
        )

    opened = ThreadDecodeService(open_video, workers=1)
    yield opened
    opened.close()


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("name", faults() or [NOTHING])
def test_fault_of_the_corpus(service: ThreadDecodeService, name: str) -> None:
    outcome = decode(service, (CORPUS / "made" / name).read_bytes())
    if name in REFUSED or (name.startswith("x_") and name != "x_mp4_mkv_polyglot.mp4"):
        assert outcome.type == REFUSED.get(name, "UnsupportedVideo"), outcome.error
        return
    assert outcome.error is None, outcome.error
    assert outcome.report is not None
    assert bool(outcome.report.warnings) == (name in WARNED)
    assert outcome.report.frames_decoded > 0
    recipe = reference()[f"made/{name}"].get(SPEC.name, {})
    if "tensor" in recipe and has_stable_pixels(f"made/{name}"):
        numel = int(np.prod(recipe["tensor"]["shape"]))
        at = np.random.RandomState(20240501).randint(0, numel, 64)
        np.testing.assert_allclose(outcome.views[0][0].reshape(-1)[at], recipe["tensor"]["samples"], atol=1.1e-4)
