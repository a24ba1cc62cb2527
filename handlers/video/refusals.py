"""Why a video is refused: a code, the numbers that belong to it, and the sentence that the client gets.

A decoding process says the code and the numbers; the server writes the sentence. So code that controls such a process
cannot put text of its own into an answer.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from handlers.errors import (
    DecodeTimeout,
    EmptyClip,
    FrameTooLarge,
    InternalError,
    InvalidOption,
    RequestError,
    UndecodableVideo,
    UnsupportedVideo,
    VideoTooLong,
)
from handlers.video.codecs import FORMATS

Values = Mapping[str, float | str]
"""Numbers, finite and of at most `_MOST` in size. Under `codec` a codec's name as FFmpeg writes it, under `formats` a
key of codecs.FORMATS."""

_MOST = 1e30
_CODEC = re.compile(r"[a-z0-9_.-]{1,32}", re.ASCII)

# FFmpeg's own error numbers are the negated bytes of four letters (libavutil/error.h); others are the system's.
_FFMPEG_ERRORS = {
    0x41444E49: "invalid data found",  # INDA
    0x20464F45: "the file ends too early",  # EOF
    0x45574150: "a feature that FFmpeg does not have",  # PAWE
    0x21475542: "an internal error of FFmpeg",  # BUG!
    0x20475542: "an internal error of FFmpeg",  # BUG
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error's class and its sentence, with a field in braces for each value.

    The value `formats` is written as the containers or the codecs that it allows.
    """

    error: type[RequestError]
    sentence: str
    is_of_ffmpeg: bool = False
    """Whether FFmpeg failed in the middle of its work, and not one of our checks before or after it."""

    @property
    def fields(self) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(self.sentence) if name}


REFUSALS: Mapping[str, Refusal] = {
    "container": Refusal(UnsupportedVideo, "this is not a video file that can be decoded here; allowed: {formats}"),
    "codec": Refusal(UnsupportedVideo, "video codec {codec} is not allowed; allowed: {formats}"),
    "no_video_stream": Refusal(UnsupportedVideo, "this file has no video stream"),
    "attached_picture": Refusal(UnsupportedVideo, "the only video stream of this file is an attached picture"),
    "still_image": Refusal(UnsupportedVideo, "a still image is not a video; an animated GIF is"),
    "ffmpeg": Refusal(UndecodableVideo, "this video cannot be decoded: {reason}", is_of_ffmpeg=True),
    "memory": Refusal(UndecodableVideo, "decoding this video needs more memory than is allowed", is_of_ffmpeg=True),
    "streams": Refusal(
        UndecodableVideo,
        "this file has more than {allowed:.0f} streams, or an index that needs more memory than is allowed",
        is_of_ffmpeg=True,
    ),
    "no_frame": Refusal(UndecodableVideo, "no frame could be decoded from this video", is_of_ffmpeg=True),
    "unstable": Refusal(UndecodableVideo, "the video decodes differently each time; it is damaged", is_of_ffmpeg=True),
    "frame_size": Refusal(
        FrameTooLarge,
        "frames of {width:.0f}x{height:.0f} are too large; at most {allowed:.0f} pixels are allowed",
    ),
    "duration": Refusal(VideoTooLong, "the video lasts {duration:.1f} s; at most {allowed:g} s are allowed"),
    "packets": Refusal(VideoTooLong, "the video has more than {allowed:.0f} packets"),
    "frames_before": Refusal(VideoTooLong, "more than {allowed:.0f} frames lie before the part asked for"),
    "frames_inside": Refusal(VideoTooLong, "more than {allowed:.0f} frames lie in the part asked for"),
    "frames_in_clip": Refusal(
        VideoTooLong, "one clip of this video holds {frames:.0f} frames; at most {allowed:.0f} are allowed"
    ),
    "windows": Refusal(InvalidOption, "this request asks for {windows:.0f} windows; at most {allowed:.0f} are allowed"),
    "length_unknown": Refusal(
        InvalidOption, "the length of this video is unknown; ask for one clip (num_clips 1, no stride_sec)"
    ),
    "start_past_end": Refusal(
        EmptyClip, "start_sec {start:g} is past the end of the video, which lasts {duration:.3f} s"
    ),
    "empty_part": Refusal(EmptyClip, "the video has no frame between {start:.3f} s and {end:.3f} s"),
    "empty_video": Refusal(EmptyClip, "this video holds no frame"),
    "time": Refusal(DecodeTimeout, "decoding took longer than the {allowed:g} s that are allowed"),
    "unexpected": Refusal(InternalError, "decoding failed unexpectedly; try again", is_of_ffmpeg=True),
}
"""Every code. The sentences are for the client: what is wrong, what was got, what is allowed."""


class UnknownRefusal(ValueError):
    """A code that is none, or values that are not its own."""


def refused(code: str, **values: float | str) -> RequestError:
    """The error of that code with its sentence written; raises UnknownRefusal."""
    entry = REFUSALS.get(code)
    expected = {"errno"} if code == "ffmpeg" else entry.fields if entry is not None else set()
    if entry is None or values.keys() != expected or not all(_is_allowed(*item) for item in values.items()):
        raise UnknownRefusal(f"no refusal {code!r} with these values")
    error = entry.error(entry.sentence.format(**_written(code, values)))
    error.refusal = (code, dict(values))
    return error


def refusal_of(error: RequestError) -> tuple[str, Values]:
    """The code and the values that `refused` made this error of; "unexpected" for any other error."""
    return error.refusal or ("unexpected", {})


def _written(code: str, values: Values) -> Values:
    """The values as the sentence has them."""
    if code == "ffmpeg":
        return {"reason": _ffmpeg_reason(int(values["errno"]))}
    if "formats" in values:
        formats = FORMATS[str(values["formats"])]
        return {**values, "formats": formats.shown_containers if code == "container" else ", ".join(formats.decoders)}
    return values


def _is_allowed(name: str, value: float | str) -> bool:
    if name == "codec":
        return isinstance(value, str) and _CODEC.fullmatch(value) is not None
    if name == "formats":
        return isinstance(value, str) and value in FORMATS
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and abs(value) <= _MOST


def _ffmpeg_reason(errno: int) -> str:
    """What an error number of FFmpeg's means; PyAV gives it without its sign."""
    if errno in _FFMPEG_ERRORS:
        return _FFMPEG_ERRORS[errno]
    return os.strerror(errno).lower() if 0 < errno < 200 else "its data is invalid"


WARNINGS: Mapping[str, str] = {
    "damaged": "the video is damaged; what was decoded before the damage was used",
}
"""Code -> sentence of everything that is said about a video that was answered all the same."""
