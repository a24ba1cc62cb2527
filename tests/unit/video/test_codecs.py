"""Which codecs and containers are allowed where, and that the rarer ones give the recipe's frames, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

import av
import pytest

from handlers.errors import UnsupportedVideo
from handlers.specs import get_spec
from handlers.video.clip_events import PickedFrame
from handlers.video.codecs import FORMATS, MODERN, UNCONFINED, WIDE, Formats, formats_of
from handlers.video.containers import DEMUXERS, identify
from handlers.video.recipe import open_encoded_video
from handlers.video.sampling import Sampling
from handlers.video.windows import plan_windows
from tests.golden.theora_video import THEORA_VIDEO
from tests.support.frames import picked_frames, recipe_window, sampled_frames
from tests.support.videos import PLANS, RARE_PLANS, VideoPlan, frame_index, make_video

XS = get_spec("x3d_xs")
RARE = (*RARE_PLANS, "theora_ogg")


@cache
def rare_video(name: str) -> bytes:
    return THEORA_VIDEO.read_bytes() if name == "theora_ogg" else make_video(RARE_PLANS[name])


@pytest.mark.parametrize("name", sorted(set(RARE) - {"h264_mxf"}))
def test_frames_of_rare_formats_equal_the_recipes(name: str) -> None:
    payload = rare_video(name)
    video = open_encoded_video(payload)
    for start_sec in (0.0, 0.4, 1.0, 1.9):
        ours, _ = sampled_frames(payload, XS, Sampling(start_sec=start_sec), formats=WIDE)
        assert ours[0] == recipe_window(video, start_sec, start_sec + XS.clip_duration_sec, XS), start_sec
    windows = plan_windows(Sampling(num_clips=3), XS, Fraction(video.duration))
    expected = {index: recipe_window(video, w.start_sec, w.end_sec, XS) for index, w in enumerate(windows)}
    assert sampled_frames(payload, XS, Sampling(num_clips=3), formats=WIDE)[0] == expected
    video.close()


def shown(frame: PickedFrame) -> int:
    return frame_index(frame.load().array())


def test_mxf_without_presentation_times_keeps_the_order_of_output() -> None:
    """Where the recipe, which sorts by the stamps of decoding, shuffles frames: as for AVI with B-frames."""
    with_times = make_video(replace(RARE_PLANS["h264_mxf"], container="mp4"))
    for sampling in (Sampling(), Sampling(start_sec=1.0), Sampling(stride_sec=0.5, end_sec=2.4)):
        ours, _ = picked_frames(shown, rare_video("h264_mxf"), XS, sampling, formats=WIDE)
        expected, _ = picked_frames(shown, with_times, XS, sampling)
        assert ours == expected


def with_empty_packets(video: bytes, frames: set[int]) -> bytes:
    """The Ogg file with these frames empty, which in Theora means that the picture before is shown once more.

    Source: RFC 3533, 6: after 26 bytes of header the number of segments, then their sizes; under 255 ends a packet.
    """
    pages, at, packet = [], 0, -3  # three headers come first
    while at < len(video):
        count = video[at + 26]
        sizes, header = list(video[at + 27 : at + 27 + count]), video[at : at + 26]
        at += 27 + count
        kept, body = bytearray(), b""
        for size in sizes:
            if packet not in frames:
                body += video[at : at + size]
            kept += bytes([size]) if packet not in frames else b"" if size == 255 else b"\0"
            at += size
            packet += size < 255
        page = header[:22] + bytes(4) + bytes([len(kept)]) + kept + body
        pages.append(page[:22] + _ogg_crc(page).to_bytes(4, "little") + page[26:])
    return b"".join(pages)


def _ogg_crc(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7) & 0xFFFFFFFF if value & 0x80000000 else value << 1
    return value


def test_repeated_pictures_of_theora_do_not_end_the_video() -> None:
    """FFmpeg refuses such packets, so the recipe gives nothing there."""
    payload = rare_video("theora_ogg")
    assert with_empty_packets(payload, set()) == payload
    repeated = with_empty_packets(payload, {11, 23, 35})  # each before a key frame
    for start_sec, expected in ((0.0, [0, 15, 31, 47]), (0.9, [27, 38, 48, 59])):
        ours, video = picked_frames(shown, repeated, XS, Sampling(start_sec=start_sec), formats=WIDE)
        assert ours[0] == expected
        assert video._fallback is None


@pytest.mark.parametrize("name", ["prores_mov", "dnxhr_mov"])
def test_frames_that_are_not_wanted_are_not_decoded(name: str) -> None:
    _, video = sampled_frames(rare_video(name), XS, Sampling(start_sec=1.0), formats=WIDE)
    assert video.file.frames_decoded == XS.num_frames


@pytest.mark.parametrize("formats", [MODERN, UNCONFINED])
@pytest.mark.parametrize("name", RARE)
def test_rare_formats_are_for_the_sandbox_alone(name: str, formats: Formats) -> None:
    with pytest.raises(UnsupportedVideo) as caught:
        sampled_frames(rare_video(name), XS, formats=formats)
    message = caught.value.message
    if "mov" in name:
        assert message.startswith(f"video codec {'prores' if 'prores' in name else 'dnxhd'} is not allowed; allowed: ")
        assert message.endswith(f": {', '.join(formats.decoders)}")
    else:
        assert message.endswith(f"decoded here; allowed: {formats.shown_containers}")


MODERN_PLANS = ("h264", "h264_mkv", "h264_ts", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg4_avi", "mjpeg")


@pytest.mark.parametrize("plan", MODERN_PLANS)
def test_the_modern_profile_takes(indexed_video: Callable[[str], bytes], plan: str) -> None:
    payload = indexed_video(plan)
    assert sampled_frames(payload, XS, formats=MODERN)[0] == sampled_frames(payload, XS)[0]


@pytest.mark.parametrize("plan", sorted(set(PLANS) - set(MODERN_PLANS) - {"h264_no_b", "h264_audio"}))
def test_the_modern_profile_refuses(indexed_video: Callable[[str], bytes], plan: str) -> None:
    with pytest.raises(UnsupportedVideo, match="allowed: "):
        sampled_frames(indexed_video(plan), XS, formats=MODERN)


def test_a_raw_stream_is_not_modern() -> None:
    payload = make_video(VideoPlan(num_frames=6, width=96, height=80, container="h264"))
    assert identify(payload).demuxer == "h264"
    with pytest.raises(UnsupportedVideo, match=r"allowed: MP4/MOV/3GP, Matroska/WebM, AVI or MPEG-TS$"):
        identify(payload, MODERN)


def test_what_is_allowed_grows_from_profile_to_profile() -> None:
    for narrow, wider in ((MODERN, UNCONFINED), (UNCONFINED, WIDE)):
        assert set(narrow.decoders) < set(wider.decoders)
        assert narrow.demuxers < wider.demuxers
    assert WIDE.demuxers == set(DEMUXERS)
    assert set(WIDE.decoders) - set(UNCONFINED.decoders) == {"prores", "dnxhd", "theora"}
    assert WIDE.demuxers - UNCONFINED.demuxers == {"ogg", "ivf", "mxf"}
    assert all(FORMATS[formats.name] is formats for formats in (MODERN, UNCONFINED, WIDE))
    for name in ("Ogg", "IVF", "MXF"):
        assert name in WIDE.shown_containers
        assert name not in UNCONFINED.shown_containers


@pytest.mark.parametrize("formats", FORMATS.values())
def test_every_name_is_one_of_ffmpegs(formats: Formats) -> None:
    for decoder in formats.decoders:
        assert av.Codec(decoder, "r").name == decoder
    for demuxer in formats.demuxers:
        assert demuxer in {part for name in av.formats_available for part in name.split(",")}


@pytest.mark.parametrize(
    ("profile", "layers", "formats"),
    [
        ("wide", ("landlock", "seccomp"), WIDE),
        ("wide", ("seccomp",), WIDE),
        ("wide", ("landlock",), UNCONFINED),
        ("wide", (), UNCONFINED),
        ("modern", ("landlock", "seccomp"), MODERN),
        ("modern", (), MODERN),
    ],
)
def test_the_sandbox_decides_what_wide_means(profile: str, layers: tuple[str, ...], formats: Formats) -> None:
    assert formats_of(profile, layers) is formats  # type: ignore[arg-type]


def test_alpha_does_not_change_colours() -> None:
    """ProRes 4444 has an alpha channel, which the recipe's RGB leaves out."""
    plan = replace(RARE_PLANS["prores_mov"], pix_fmt="yuva444p10le", num_frames=30, options={"profile": "4444"})
    payload = make_video(plan)
    video = open_encoded_video(payload)
    assert sampled_frames(payload, XS, formats=WIDE)[0][0] == recipe_window(video, 0.0, XS.clip_duration_sec, XS)
    video.close()
