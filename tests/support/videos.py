"""Synthesised videos whose frames carry their own index, written as blocks that survive any codec.

A frame is a coloured, slowly moving pattern with a 4 x 4 board of black and white cells in its centre square: 16 bits,
twelve of the index, most significant first, and four of checksum. The board lies inside the
central 80 % of the centre square, so a centre crop whose side is the short side still shows it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

MAX_INDEX = 4095
_CELLS = 4
_BOARD = 0.8  # of the centre square's side; the rest is margin for crops that are a little smaller
_CHECK_BITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    """What to encode. Sizes in pixels, `width` and `height` even for yuv420p.

    `pts_ms` gives each frame's timestamp in milliseconds (variable frame rate); without it frame `i` is shown at
    `start_ms / 1000 + i / fps` seconds.
    """

    num_frames: int = 60
    fps: Fraction = Fraction(30)
    width: int = 320
    height: int = 240
    codec: str = "libx264"
    container: str = "mp4"
    pix_fmt: str = "yuv420p"
    b_frames: int = 2
    gop: int = 30
    start_ms: int = 0
    pts_ms: Sequence[int] | None = None
    audio: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.num_frames <= MAX_INDEX + 1:
            raise ValueError(f"num_frames is {self.num_frames}; allowed are 1 to {MAX_INDEX + 1}")
        if self.pts_ms is not None and len(self.pts_ms) != self.num_frames:
            raise ValueError(f"pts_ms has {len(self.pts_ms)} entries for {self.num_frames} frames")


PLANS: Mapping[str, VideoPlan] = {
    "h264": VideoPlan(),
    "h264_no_b": VideoPlan(b_frames=0),
    "h264_mkv": VideoPlan(container="matroska"),
    "h264_ts": VideoPlan(container="mpegts"),
    "h264_flv": VideoPlan(container="flv"),
    "h264_audio": VideoPlan(audio=True),
    "hevc": VideoPlan(codec="libx265", options={"x265-params": "log-level=none:pools=1"}),
    "vp8": VideoPlan(codec="libvpx", container="webm", b_frames=0, options={"deadline": "realtime", "cpu-used": "8"}),
    "vp9": VideoPlan(
        codec="libvpx-vp9", container="webm", b_frames=0, options={"deadline": "realtime", "cpu-used": "8"}
    ),
    # Faster presets of SVT-AV1 smear the blocks of neighbouring frames into each other.
    "av1": VideoPlan(codec="libsvtav1", b_frames=0, options={"preset": "8", "crf": "25"}),
    "mpeg4": VideoPlan(codec="mpeg4", b_frames=2),
    "mpeg4_avi": VideoPlan(codec="mpeg4", container="avi", b_frames=0),
    "mpeg2": VideoPlan(codec="mpeg2video", container="mpegts"),
    "mjpeg": VideoPlan(codec="mjpeg", container="avi", pix_fmt="yuvj420p", b_frames=0),
}
"""One two-second video per codec and container that people upload; `make_video(PLANS[name])`."""

_RARE = VideoPlan(width=160, height=120, b_frames=0)
_REALTIME = {"deadline": "realtime", "cpu-used": "8"}
_DNXHR = replace(
    _RARE, codec="dnxhd", pix_fmt="yuv422p", width=256, height=144, fps=Fraction(25), options={"profile": "dnxhr_lb"}
)

RARE_PLANS: Mapping[str, VideoPlan] = {
    "prores_mov": replace(_RARE, codec="prores_ks", container="mov", pix_fmt="yuv422p10le"),
    "prores_mxf": replace(_RARE, codec="prores_ks", container="mxf", pix_fmt="yuv422p10le"),
    "dnxhr_mov": replace(_DNXHR, container="mov"),
    "dnxhr_mxf": replace(_DNXHR, container="mxf"),
    "mpeg2_mxf": replace(_RARE, codec="mpeg2video", container="mxf", b_frames=2, fps=Fraction(25)),
    "h264_mxf": replace(_RARE, container="mxf", b_frames=2, fps=Fraction(25)),
    "vp8_ivf": replace(_RARE, codec="libvpx", container="ivf", options=_REALTIME),
    "vp9_ivf": replace(_RARE, codec="libvpx-vp9", container="ivf", options=_REALTIME),
    "av1_ivf": replace(_RARE, codec="libsvtav1", container="ivf", options={"preset": "8", "crf": "25"}),
    "vp8_ogg": replace(_RARE, codec="libvpx", container="ogg", options=_REALTIME),
}
"""What is decoded in the sandbox alone; H.264 in MXF has no presentation times. Theora: tests/golden/theora.ogv."""

_BIT_RATES = {"libx264": 0, "libx265": 0, "libsvtav1": 0}  # these have a sensible constant-quality default


def make_video(plan: VideoPlan = PLANS["h264"]) -> bytes:
    """The plan, encoded. Single-threaded, so that the same FFmpeg build gives the same bytes every time."""
    file = io.BytesIO()
    # These muxers draw random identifiers unless told not to.
    exact = {"fflags": "bitexact"} if plan.container in ("matroska", "webm", "mxf", "ogg") else {}
    with av.open(file, "w", format=plan.container, options=exact) as output:
        video: Any = output.add_stream(plan.codec, rate=plan.fps, options=_options(plan))
        video.width, video.height, video.pix_fmt = plan.width, plan.height, plan.pix_fmt
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = plan.gop
        video.codec_context.max_b_frames = plan.b_frames
        if plan.codec not in _BIT_RATES:
            video.bit_rate = 2_000_000
        time_base = Fraction(1, 1000) if plan.pts_ms is not None or plan.start_ms else 1 / plan.fps
        video.codec_context.time_base = time_base
        sound: Any = output.add_stream("aac", rate=16000, layout="mono") if plan.audio else None
        for index in range(plan.num_frames):
            frame = av.VideoFrame.from_ndarray(index_frame(index, plan.width, plan.height), format="rgb24")
            frame.pts, frame.time_base = _pts(plan, index), time_base
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound is not None:
            _mux_tone(output, sound, float(plan.num_frames / plan.fps))
    return file.getvalue()


def index_frame(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """The picture of frame `index`: (height, width, 3) uint8 RGB."""
    if not 0 <= index <= MAX_INDEX:
        raise ValueError(f"index is {index}; allowed are 0 to {MAX_INDEX}")
    rows, columns = np.mgrid[0:height, 0:width]
    red = 128 + 100 * np.sin((columns + 3 * index) * 2 * np.pi / max(width, 1))
    green = 128 + 100 * np.sin((rows + 2 * index) * 2 * np.pi / max(height, 1))
    blue = (64 + index * 5) % 192 + np.zeros_like(red)
    frame = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    for bit, (top, bottom, left, right) in zip(_encode(index), _boxes(height, width), strict=True):
        frame[top:bottom, left:right] = 235 if bit else 20
    return frame


def frame_index(rgb: NDArray[Any]) -> int:
    """The index carried by a picture, (H, W, 3) in 0..255 or 0..1; raises ValueError if the checksum does not hold."""
    picture = np.asarray(rgb, dtype=np.float32)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3), got {picture.shape}")
    threshold = 0.5 if picture.max() <= 1.5 else 127.5
    bits = []
    for top, bottom, left, right in _boxes(picture.shape[0], picture.shape[1]):
        margin_rows, margin_columns = (bottom - top) // 4, (right - left) // 4
        cell = picture[top + margin_rows : bottom - margin_rows, left + margin_columns : right - margin_columns]
        bits.append(bool(cell.mean() > threshold))
    index = int("".join("1" if bit else "0" for bit in bits[:-_CHECK_BITS]), 2)
    if bits != _encode(index):
        raise ValueError(f"the picture carries no index: bits {''.join(str(int(bit)) for bit in bits)}")
    return index


def frame_indices(frames: NDArray[Any]) -> list[int]:
    """`frame_index` of each picture of a clip, (T, H, W, 3)."""
    return [frame_index(frame) for frame in frames]


def decode_indices(video: bytes) -> list[int]:
    """The indices that a plain decode of the whole file gives, in output order."""
    with av.open(io.BytesIO(video), "r") as container:
        return [frame_index(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def _options(plan: VideoPlan) -> dict[str, str]:
    """The plan's options, with B-frames where it asks for them: x264 and x265 would decide by content and use none.

    With B-frames at fixed places their macroblock trees read memory that nothing wrote, and give other bytes each time.
    """
    forced, tree = {"libx264": ("x264-params", "mbtree"), "libx265": ("x265-params", "cutree")}.get(
        plan.codec, (None, None)
    )
    if forced is None:
        return dict(plan.options)
    parameters = f"b-adapt=0:bframes={plan.b_frames}:scenecut=0:{tree}=0"
    given = plan.options.get(forced)
    return {**plan.options, forced: f"{parameters}:{given}" if given else parameters}


def _encode(index: int) -> list[bool]:
    payload = [bool(index >> shift & 1) for shift in range(11, -1, -1)]
    # Twelve nibble-summed bits plus 5: an all-black and an all-white board both fail the check.
    check = ((index & 15) + (index >> 4 & 15) + (index >> 8 & 15) + 5) & 15
    return payload + [bool(check >> shift & 1) for shift in range(_CHECK_BITS - 1, -1, -1)]


def _boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of the 16 cells, row by row."""
    side = min(height, width)
    origin_row, origin_column = (height - side * _BOARD) / 2, (width - side * _BOARD) / 2
    cell = side * _BOARD / _CELLS
    edges = [(origin_row + cell * i, origin_column + cell * i) for i in range(_CELLS + 1)]
    return [
        (round(edges[row][0]), round(edges[row + 1][0]), round(edges[column][1]), round(edges[column + 1][1]))
        for row in range(_CELLS)
        for column in range(_CELLS)
    ]


def _pts(plan: VideoPlan, index: int) -> int:
    if plan.pts_ms is not None:
        return plan.start_ms + plan.pts_ms[index]
    if plan.start_ms:
        return plan.start_ms + round(index * 1000 / plan.fps)
    return index


def _mux_tone(output: Any, stream: Any, duration_sec: float) -> None:
    """A quiet 440 Hz tone of that length."""
    rate, block = stream.rate, 1024
    for start in range(0, int(duration_sec * rate), block):
        phase = np.arange(start, start + block) * (2 * np.pi * 440 / rate)
        frame = av.AudioFrame.from_ndarray((0.1 * np.sin(phase)).astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def make_with_stamps(stamps: Sequence[int], *, width: int = 96, height: int = 80) -> bytes:
    """MJPEG in Matroska whose frame `i` carries index `i` and timestamp `stamps[i]`, in milliseconds and in any order.

    No encoder writes such a file, but anybody can: the order of output then contradicts the timestamps.
    """
    file = io.BytesIO()
    options = {"fflags": "bitexact", "avoid_negative_ts": "disabled"}
    with av.open(file, "w", format="matroska", options=options) as output:
        video: Any = output.add_stream("mjpeg", rate=30)
        video.width, video.height, video.pix_fmt = width, height, "yuvj420p"
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(index_frame(index, width, height), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            for packet in video.encode(frame):
                # The muxer wants decoding times that grow and lie before the time shown; only the latter is stored.
                packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), stamp, index - 1_000_000
                output.mux(packet)
    return file.getvalue()
