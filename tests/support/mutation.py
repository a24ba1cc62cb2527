"""Small video files, and damaged copies of them, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from handlers.video.sampling import Sampling
from tests.golden.theora_video import THEORA_VIDEO
from tests.support.paths import CORPUS
from tests.support.videos import RARE_PLANS, VideoPlan, make_video

_HEADER_BYTES = 600  # where most containers keep their tables
_SMALL = VideoPlan(num_frames=20, width=96, height=80)
_SEED_BYTES = 200_000  # of the corpus's files, the largest taken


def made_here() -> list[bytes]:
    """A small video of each container and codec family."""
    plans = (
        _SMALL,
        replace(_SMALL, container="matroska"),
        replace(_SMALL, container="mpegts"),
        replace(_SMALL, container="flv"),
        replace(_SMALL, container="h264"),
        replace(_SMALL, codec="mpeg4", container="avi", b_frames=0),
        replace(_SMALL, codec="mpeg4"),
        replace(_SMALL, codec="mjpeg", container="avi", pix_fmt="yuvj420p", b_frames=0),
        replace(_SMALL, codec="libvpx-vp9", container="webm", b_frames=0, options={"cpu-used": "8"}),
        replace(_SMALL, codec="mpeg2video", container="mpegts"),
        replace(_SMALL, codec="gif", container="gif", pix_fmt="rgb8", b_frames=0),
        replace(_SMALL, codec="wmv2", container="asf", b_frames=0),
        replace(_SMALL, codec="ffv1", container="nut", b_frames=0),
    )
    return [make_video(plan) for plan in plans]


def rare_here() -> list[bytes]:
    """A small video of each container and codec that is decoded in the sandbox alone."""
    plans = [replace(plan, num_frames=20) for plan in RARE_PLANS.values()]
    return [*(make_video(plan) for plan in plans), THEORA_VIDEO.read_bytes()]


def seed_files() -> list[bytes]:
    """A small video of each container and codec, rare ones too, and what is small in the shared corpus."""
    paths = [path for name in ("made", "real") for path in sorted((CORPUS / name).glob("*"))] if CORPUS.is_dir() else []
    return made_here() + rare_here() + [path.read_bytes() for path in paths if 0 < path.stat().st_size < _SEED_BYTES]


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


def mutate(seeds: Sequence[bytes], number: int) -> bytes:
    """Mutant `number` of these files: one of them, damaged in one to four ways."""
    chance = random.Random(20240501 + number)
    content = bytearray(seeds[number % len(seeds)])
    for _ in range(chance.choice((1, 1, 2, 4))):
        chance.choice((_flip, _flip, _number, _number, _cut, _repeat, _move, _blank, _splice))(content, chance, seeds)
    return bytes(content)


def _place(content: bytearray, chance: random.Random) -> int:
    """Anywhere, but as often near one of the ends, where the tables are."""
    size = max(len(content), 1)
    where = chance.random()
    if where < 0.35:
        return chance.randrange(min(size, _HEADER_BYTES))
    if where < 0.6:
        return size - 1 - chance.randrange(min(size, 3 * _HEADER_BYTES))
    return chance.randrange(size)


def _flip(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    for _time in range(chance.choice((1, 4, 32))):
        if content:
            content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _number(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """A count, size or time that is absurd, in the place of four bytes."""
    value = chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24, 65535, chance.randrange(2**32)))
    at = _place(content, chance)
    content[at : at + 4] = value.to_bytes(4, chance.choice(("big", "little")))


def _cut(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del content[_place(content, chance) :]


def _repeat(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(content, chance), chance.randrange(1, 2000)
    content[at:at] = content[at : at + size] * chance.choice((1, 1, 20))


def _move(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(content, chance), chance.randrange(1, 2000)
    piece = content[at : at + size]
    del content[at : at + size]
    to = _place(content, chance)
    content[to:to] = piece


def _blank(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(content, chance), chance.randrange(1, 400)
    end = min(at + size, len(content))
    content[at:end] = bytes([chance.choice((0, 255))]) * (end - at)


def _splice(content: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    """The rest of another file."""
    other = chance.choice(seeds)
    content[_place(content, chance) :] = other[chance.randrange(len(other)) :]
