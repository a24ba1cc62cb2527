"""What is wrong with real videos, and the defined answer to each: made here from scratch."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handlers.decode.threads import ThreadDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.packet_plan import PacketTable, PlanCheck, PlanMismatch, PlannedClip
from handlers.video.sampling import Sampling, Window
from handlers.video.view_reader import VideoReader
from tests.support.decoding import Outcome, decode, shown_indices
from tests.support.videos import PLANS, VideoPlan, make_video

SPEC = get_spec("x3d_xs")
FRAMES = PLANS["h264"].num_frames


def service_for(*, autorotate: bool) -> ThreadDecodeService:
    def open_video(payload: bytes | memoryview) -> VideoReader:
        return VideoReader(
            payload, SPEC, Limits(), autorotate=autorotate, allocate=lambda shape: np.empty(shape, dtype=np.float32)
        )

    return ThreadDecodeService(open_video, workers=1)


@pytest.fixture(scope="module")
def read() -> Iterator[Callable[..., Outcome]]:
    """`read(payload, autorotate=True, **sampling)`: decode in a thread of this process."""
    services = {flag: service_for(autorotate=flag) for flag in (True, False)}

    def outcome(payload: bytes, *, autorotate: bool = True, **sampling: Any) -> Outcome:
        return decode(services[autorotate], payload, Sampling(**sampling))

    yield outcome
    for service in services.values():
        service.close()


def picks(first: int, count: int) -> list[int]:
    """UniformTemporalSubsample of `count` frames from `first`, by torch itself."""
    return [first + int(index) for index in torch.linspace(0, count - 1, SPEC.num_frames).long()]


def clip_frames(fps: float = 30.0) -> int:
    return round(SPEC.clip_duration_sec * fps)


def shown(outcome: Outcome) -> list[int]:
    assert outcome.error is None, outcome.error
    return shown_indices(outcome.views[0], SPEC)


def unseekable(plan: VideoPlan) -> bytes:
    """The plan's video written as to a pipe: no duration in the header, no index at the end."""
    source = make_video(plan)

    class Pipe:
        def __init__(self) -> None:
            self.content = bytearray()

        def write(self, data: bytes) -> int:
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    with av.open(io.BytesIO(source), "r") as original, av.open(pipe, "w", format="matroska") as copy:
        stream: Any = copy.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return bytes(pipe.content)


# Cut short ------------------------------------------------------------------------------------------------------------


def test_mp4_without_its_index_is_undecodable(read: Callable[..., Outcome], h264_video: bytes) -> None:
    outcome = read(h264_video[: h264_video.index(b"moov") - 4])
    assert outcome.type == "UndecodableVideo"


@pytest.mark.parametrize("name", ["h264_mkv", "h264_ts", "h264_flv", "mpeg2", "mpeg4_avi"])
def test_a_truncated_stream_is_answered_with_what_is_there(
    read: Callable[..., Outcome], indexed_video: Callable[[str], bytes], name: str
) -> None:
    video = indexed_video(name)
    indices = shown(read(video[: len(video) // 2]))
    assert indices[0] == 0
    assert indices == sorted(indices)
    assert 0 < indices[-1] < clip_frames() - 1


def test_an_index_that_promises_more_than_there_is(read: Callable[..., Outcome]) -> None:
    """A download that broke off: the index is in front, half of the frames are missing."""
    whole = make_video(VideoPlan(options={"movflags": "faststart"}))
    moov_first = fast_start(whole)
    indices = shown(read(moov_first[: len(moov_first) * 2 // 3]))
    assert indices[0] == 0
    assert indices == sorted(indices)


def fast_start(video: bytes) -> bytes:
    """The mp4 with its index in front."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(video), "r") as original,
        av.open(file, "w", format="mp4", options={"movflags": "faststart+frag_keyframe"}) as copy,
    ):
        stream: Any = copy.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return file.getvalue()


# Damaged --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264_mkv", "h264", "hevc", "vp9", "mpeg4", "mjpeg"])
def test_damage_in_the_middle_leaves_what_comes_before(
    read: Callable[..., Outcome], indexed_video: Callable[[str], bytes], name: str
) -> None:
    video = bytearray(indexed_video(name))
    middle = len(video) // 2
    video[middle : middle + 400] = np.random.RandomState(5).bytes(400)
    outcome = read(bytes(video))
    assert outcome.error is None, outcome.error
    first = outcome.views[0][0, :, 0]
    np.testing.assert_array_equal(first, read(indexed_video(name)).views[0][0, :, 0])


def test_noise_instead_of_frames_is_undecodable(read: Callable[..., Outcome], h264_video: bytes) -> None:
    start, end = h264_video.index(b"mdat") + 4, h264_video.index(b"moov") - 4
    noise = np.random.RandomState(7).bytes(end - start)
    assert read(h264_video[:start] + noise + h264_video[end:]).type == "UndecodableVideo"


def test_a_clip_whose_frame_never_came_out_is_not_done() -> None:
    """Found by fuzzing: a picked picture that its packet promised, but the decoder swallowed."""
    table = PacketTable()
    for pts in (0, 10, 20):
        table.add(pts, is_key=pts == 0, is_discarded=False)
    clip = PlannedClip(index=0, window=Window(0.0, 1.0), first=0, end=30, picks=(0, 10, 20))
    check = PlanCheck(table, [clip])
    for pts in (0, 20):
        check.came_out(pts)
    with pytest.raises(PlanMismatch, match="missing_frame"):
        check.check_complete(0)


# The part asked for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264", "h264_mkv", "h264_ts", "vp9", "mpeg4_avi"])
def test_past_the_end_there_is_no_clip(
    read: Callable[..., Outcome], indexed_video: Callable[[str], bytes], name: str
) -> None:
    for start_sec in (2.5, 1000.0, 1e9):
        outcome = read(indexed_video(name), start_sec=start_sec)
        assert outcome.type == "EmptyClip", outcome.error
        assert read(indexed_video(name), start_sec=start_sec, num_clips=3).type == "EmptyClip"


def test_a_clip_that_reaches_past_the_end_takes_what_is_there(read: Callable[..., Outcome], h264_video: bytes) -> None:
    assert shown(read(h264_video, start_sec=1.5)) == picks(45, FRAMES - 45)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fewer_frames_than_the_model_takes_are_repeated(read: Callable[..., Outcome], count: int) -> None:
    assert shown(read(make_video(VideoPlan(num_frames=count)))) == picks(0, count)


def test_audio_alone_is_no_video(read: Callable[..., Outcome]) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    outcome = read(file.getvalue())
    assert outcome.type == "UnsupportedVideo"
    assert outcome.error is not None
    assert "no video stream" in outcome.error.message


# Time -----------------------------------------------------------------------------------------------------------------


def test_no_duration_in_the_header(read: Callable[..., Outcome]) -> None:
    video = unseekable(VideoPlan())
    with av.open(io.BytesIO(video), "r") as container:
        assert container.duration is None
    assert shown(read(video)) == picks(0, clip_frames())
    spread = read(video, num_clips=3)
    assert [shown_indices(views, SPEC)[0] for views in spread.views] == [0, 4, 8]


@pytest.mark.parametrize("name", ["h264_ts", "start", "late"])
def test_time_is_counted_from_the_first_frame(
    read: Callable[..., Outcome], indexed_video: Callable[[str], bytes], name: str
) -> None:
    videos = {
        "h264_ts": lambda: indexed_video("h264_ts"),
        "start": lambda: make_video(VideoPlan(start_ms=2000, container="matroska")),
        "late": lambda: make_video(VideoPlan(start_ms=60_000, container="mpegts")),
    }
    video = videos[name]()
    assert shown(read(video)) == picks(0, clip_frames())
    assert shown(read(video, start_sec=0.3))[0] == 9


def test_variable_frame_rate_goes_by_timestamps(read: Callable[..., Outcome]) -> None:
    """Ten frames in the first second, then fifty in the next: the clip of 1.6 s holds the ten and thirty more."""
    stamps = [index * 100 for index in range(10)] + [1000 + index * 20 for index in range(50)]
    video = make_video(VideoPlan(pts_ms=stamps, container="matroska"))
    assert shown(read(video)) == picks(0, 40)


def test_stamps_far_apart(read: Callable[..., Outcome]) -> None:
    video = make_video(VideoPlan(num_frames=4, pts_ms=[0, 10, 3_600_000, 7_200_000], container="matroska", b_frames=0))
    assert shown(read(video)) == picks(0, 2)
    assert shown(read(video, start_sec=3599.5)) == [2] * SPEC.num_frames


# Shape ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "pix_fmt"),
    [(16, 16, "yuv420p"), (2, 2, "yuv420p"), (161, 121, "yuv444p"), (2000, 16, "yuv420p"), (16, 1200, "yuv420p")],
)
def test_odd_and_tiny_sizes(read: Callable[..., Outcome], width: int, height: int, pix_fmt: str) -> None:
    video = make_video(VideoPlan(num_frames=8, width=width, height=height, pix_fmt=pix_fmt, container="matroska"))
    outcome = read(video, num_crops=3)
    assert outcome.error is None, outcome.error
    assert outcome.views[0].shape == (3, 3, SPEC.num_frames, SPEC.crop_size, SPEC.crop_size)
    assert outcome.report is not None
    assert (outcome.report.width, outcome.report.height) == (width, height)
    assert np.isfinite(outcome.views[0]).all()
    expected = documented(stored_frames(video), 8)
    np.testing.assert_allclose(read(video).views[0][0], expected, atol=1e-4)


def test_a_size_that_changes_in_mid_stream(read: Callable[..., Outcome]) -> None:
    """Each frame is scaled by its own size: the pictures go on as if nothing had happened."""
    first = make_video(VideoPlan(num_frames=24, container="h264", b_frames=0))
    second = make_video(VideoPlan(num_frames=24, width=160, height=120, container="h264", b_frames=0))
    # FFmpeg gives a raw stream 25 frames a second: 40 in the clip.
    indices = shown(read(first + second))
    assert indices == [index % 24 for index in picks(0, 40)]


TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    "90": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "180": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "270": ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda frame: np.rot90(np.fliplr(frame), 1)),
}
"""Name: the display matrix's a, b, c, d (ISO 14496-12: p' = a x + c y, q' = b x + d y), and the same in numpy."""


@pytest.mark.parametrize("name", TURNS)
def test_rotation_is_applied_unless_switched_off(read: Callable[..., Outcome], h264_video: bytes, name: str) -> None:
    matrix, turn = TURNS[name]
    video = with_matrix(h264_video, matrix)
    frames = stored_frames(video)
    turned = [np.ascontiguousarray(turn(frame)) for frame in frames]
    applied, stored = read(video), read(video, autorotate=False)
    np.testing.assert_allclose(applied.views[0][0], documented(turned, clip_frames()), atol=1e-4)
    np.testing.assert_allclose(stored.views[0][0], documented(frames, clip_frames()), atol=1e-4)
    assert np.abs(applied.views[0] - stored.views[0]).max() > 1
    assert applied.report is not None
    assert (applied.report.height, applied.report.width) == turned[0].shape[:2]


def test_a_slant_is_left_alone(read: Callable[..., Outcome], h264_video: bytes) -> None:
    video = with_matrix(h264_video, (46341 / 65536, 46341 / 65536, -46341 / 65536, 46341 / 65536))
    np.testing.assert_array_equal(read(video).views[0], read(h264_video).views[0])


def with_matrix(video: bytes, matrix: tuple[float, float, float, float]) -> bytes:
    """The mp4 with that display matrix in its track header."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    at = video.index(b"tkhd") + 4 + 40  # version and flags, times, ids, duration, layer, volume: 40 bytes in version 0
    return video[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + video[at + 36 :]


def stored_frames(video: bytes) -> list[NDArray[np.uint8]]:
    with av.open(io.BytesIO(video), "r") as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8) for frame in container.decode(video=0)]


def documented(frames: list[NDArray[np.uint8]], count: int) -> NDArray[np.float32]:
    """The tutorial's transforms of the first `count` frames: (3, T, S, S)."""
    picked = np.stack([frames[index] for index in picks(0, count)])
    clip = torch.from_numpy(picked).permute(3, 0, 1, 2).float() / 255.0
    clip = (clip - SPEC.mean[0]) / SPEC.std[0]
    height, width = clip.shape[2:]
    short = SPEC.short_side
    size = (int(height / width * short), short) if width < height else (short, int(width / height * short))
    clip = torch.nn.functional.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    top, left = round((size[0] - SPEC.crop_size) / 2.0), round((size[1] - SPEC.crop_size) / 2.0)
    crop: NDArray[np.float32] = clip[..., top : top + SPEC.crop_size, left : left + SPEC.crop_size].numpy()
    return crop
