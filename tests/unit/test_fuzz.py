"""Damaged files through the decoding processes: an answer or a 4xx, never anything else.

FUZZ_COUNT=5000 runs that many mutants instead of the default; FUZZ_FIRST=300 starts behind those of an earlier run.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from tests.conftest import CORPUS
from tests.support.decoding import decode, decode_all
from tests.support.mutation import mutate
from tests.support.videos import VideoPlan, make_video

COUNT = int(os.environ.get("FUZZ_COUNT", "300"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
BATCH = 10
SMALL = VideoPlan(num_frames=20, width=96, height=80)
SPEC = get_spec("x3d_xs")
_SMALL_BYTES = 200_000


def made_here() -> list[bytes]:
    """A small video of each container and codec family."""
    plans = (
        SMALL,
        replace(SMALL, container="matroska"),
        replace(SMALL, container="mpegts"),
        replace(SMALL, container="flv"),
        replace(SMALL, container="h264"),
        replace(SMALL, codec="mpeg4", container="avi", b_frames=0),
        replace(SMALL, codec="mpeg4"),
        replace(SMALL, codec="mjpeg", container="avi", pix_fmt="yuvj420p", b_frames=0),
        replace(SMALL, codec="libvpx-vp9", container="webm", b_frames=0, options={"cpu-used": "8"}),
        replace(SMALL, codec="mpeg2video", container="mpegts"),
        replace(SMALL, codec="gif", container="gif", pix_fmt="rgb8", b_frames=0),
        replace(SMALL, codec="wmv2", container="asf", b_frames=0),
        replace(SMALL, codec="ffv1", container="nut", b_frames=0),
    )
    return [make_video(plan) for plan in plans]


def seeds() -> list[bytes]:
    """Those made here, and what is small in the shared corpus."""
    paths = [path for name in ("made", "real") for path in sorted((CORPUS / name).glob("*"))] if CORPUS.is_dir() else []
    return made_here() + [path.read_bytes() for path in paths if 0 < path.stat().st_size < _SMALL_BYTES]


def sampling(number: int) -> Sampling:
    """The plain request most of the time; now and then one that seeks, spreads or slides."""
    chance = random.Random(number)
    return chance.choice(
        (
            Sampling(),
            Sampling(),
            Sampling(start_sec=chance.choice((0.1, 1.0, 3.7, 1e6, 1e9))),
            Sampling(num_clips=chance.choice((2, 5)), num_crops=3),
            Sampling(stride_sec=chance.choice((0.5, 1e-3)), end_sec=chance.choice((0.5, 2.0))),
        )
    )


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc, which only Linux has")
def test_mutants_get_an_answer_or_a_4xx(capsys: pytest.CaptureFixture[str]) -> None:
    files = seeds()
    service = ProcessDecodeService(SPEC, Limits(max_windows=64, decode_timeout_sec=10.0), processes=2)
    try:
        good = decode(service, files[0])
        types: Counter[str] = Counter()
        slowest = 0.0
        deaths = 0
        for first in range(FIRST, FIRST + COUNT, BATCH):
            numbers = range(first, min(first + BATCH, FIRST + COUNT))
            pids = service.process_ids()
            outcomes = decode_all(service, [mutate(files, number) for number in numbers], sampling(first))
            deaths += sum(pid not in service.process_ids() for pid in pids)
            for number, outcome in zip(numbers, outcomes, strict=True):
                assert outcome.status in ("ok", "4xx", "504"), f"mutant {number}: {outcome.error}"
                assert "Too many open files" not in str(outcome.error), f"mutant {number}: {outcome.error}"
            types.update(outcome.type for outcome in outcomes)
            slowest = max(slowest, *(outcome.seconds for outcome in outcomes))
        assert (decode(service, files[0]).views[0] == good.views[0]).all()
    finally:
        service.close()
    with capsys.disabled():
        print(f"\n{COUNT} mutants of {len(files)} files: {dict(types)}; batch of {BATCH} at most {slowest:.1f} s; "
              f"{deaths} processes replaced")  # fmt: skip
    assert types["ok"] > COUNT // 20, "hardly a mutant can be decoded: they test the container check alone"
    assert len(types) > 2
