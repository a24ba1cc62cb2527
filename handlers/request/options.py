"""The options of a request as they came -> validated, by the rows of `option_table`.

`VideoRequest` is what the rest of the package sees of a request; `wire` finds its parts in a TorchServe row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlers.errors import InvalidOption
from handlers.limits import Limits
from handlers.request.option_table import DEFAULT_TOP_K, OPTIONS, Average, Format, OptionSpec, Output
from handlers.request.option_values import read_class, read_switch, read_value
from handlers.video.sampling import Sampling

_SHOWN_CHARS = 40
LINES_TYPE = "application/x-ndjson"
"""The media type of an answer in lines. A request that accepts it asks for `stream`."""


@dataclass(frozen=True, slots=True)
class Explain:
    """An explanation is asked for: of the class of that id, None for the best one; with a picture or without."""

    target: int | None = None
    image: bool = False


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the client asked for, validated. `explain` is None for a prediction."""

    top_k: int = DEFAULT_TOP_K
    sampling: Sampling = field(default_factory=Sampling)
    average: Average = "prob"
    format: Format = "dict"
    threshold: float = 0.0
    stream: bool = False
    output: Output = "scores"
    explain: Explain | None = None


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """The bytes of one video file, what to do with them, and the client's id of its request, if it gave one."""

    payload: bytes
    options: RequestOptions
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """An option's value as it came. A value from a header is `secret`: no message repeats it."""

    value: object
    secret: bool = False

    def shown(self) -> str:
        return "" if self.secret else f", got {shown(self.value)}"


def shown(value: object) -> str:
    """A client's value for a message: at most `_SHOWN_CHARS` characters of it, whatever its size."""
    if isinstance(value, bytes | bytearray):
        value = bytes(value[: _SHOWN_CHARS + 1]).decode(errors="replace")
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "...")
    if isinstance(value, int) and value.bit_length() > _SHOWN_CHARS:
        return "a number of more than 12 digits"
    return repr(value) if value is None or isinstance(value, int | float) else kind_of(value)


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "something else")


def given_by_name(entries: Mapping[str, object], *, others: str) -> dict[str, Given]:
    """The entries as options; raises InvalidOption for any other name. `others`: what else is allowed there."""
    for name in entries:
        if name not in OPTIONS:
            raise InvalidOption(f"unknown option {shown(name)}; allowed: {', '.join(OPTIONS)}, {others}")
    return {name: Given(value) for name, value in entries.items()}


def given_by_headers(headers: Mapping[str, object]) -> dict[str, Given]:
    """The options among HTTP headers, in upper or lower case; other headers are ignored.

    TorchServe keeps spellings that differ in case apart, in no defined order, so two of them are refused.
    """
    by_header = {option.header.lower(): option.name for option in OPTIONS.values()}
    found: dict[str, Given] = {}
    for header, value in headers.items():
        name = by_header.get(header.lower())
        if header.lower() == "accept" and _asks_for_lines(value):
            found.setdefault("stream", Given(True, secret=True))
        elif name is not None:
            if name in found and not (name == "stream" and found[name].value is True):
                raise InvalidOption(f"the header {OPTIONS[name].header} is given more than once")
            found[name] = Given(value, secret=True)
    return found


def _asks_for_lines(accept: object) -> bool:
    """Whether an Accept header names the media type of streamed lines."""
    return isinstance(accept, str) and any(
        media.split(";")[0].strip().lower() == LINES_TYPE for media in accept.split(",")
    )


def parse_options(
    given: Mapping[str, Given], *, num_classes: int, limits: Limits, explained: Sequence[str] | None = None
) -> RequestOptions:
    """Options as they came -> validated. JSON's null counts as not given. Raises InvalidOption.

    `explained`: the model's labels, for an explanation; None for a prediction.
    """
    bounds = {"num_classes": num_classes, "max_windows": limits.max_windows, "last_class": num_classes - 1}
    values: dict[str, Any] = {}
    for name, entry in given.items():
        if entry.value is not None:
            option = OPTIONS[name]
            if option.explains and explained is None:
                raise InvalidOption(f"{name} is an option of /explanations alone; leave it out of a prediction")
            maximum = bounds[option.maximum_is] if option.maximum_is else option.maximum
            values[name] = _parse(option, entry, maximum, explained or ())
    _check_together(values, given)
    if explained is not None:
        _check_explained(values)
    stride_sec, stream = values.get("stride_sec"), values.get("stream", False)
    return RequestOptions(
        top_k=values.get("top_k", min(DEFAULT_TOP_K, num_classes)),
        sampling=Sampling(
            start_sec=values.get("start_sec", 0.0),
            end_sec=values.get("end_sec"),
            num_clips=values.get("num_clips", 1),
            num_crops=values.get("num_crops", 1),
            stride_sec=stride_sec,
            frame_times=explained is not None,
        ),
        average=values.get("average", "prob"),
        threshold=values.get("threshold", 0.0),
        format=values.get("format", "dict" if stride_sec is None and not stream else "full"),
        stream=stream,
        output=values.get("output", "scores"),
        explain=None if explained is None else Explain(values.get("target"), values.get("image", False)),
    )


def _parse(
    option: OptionSpec, given: Given, maximum: float | None, labels: Sequence[str] = ()
) -> str | int | float | bool:
    if option.kind == "boolean":
        switch = read_switch(given.value)
        if switch is None:
            raise InvalidOption(f"{option.name} must be {option.allowed(maximum)}{given.shown()}")
        return switch
    if option.kind == "class":
        class_id = read_class(given.value, labels)
        if class_id is None:
            raise InvalidOption(f"{option.name} must be {option.allowed(maximum)}{given.shown()}")
        return class_id
    value = read_value(option.kind, given.value)
    fits = value is not None and (not option.choices or value in option.choices)
    if fits and isinstance(value, int | float):
        above = option.minimum is None or (
            value > option.minimum if option.exclusive_minimum else value >= option.minimum
        )
        fits = above and (maximum is None or value <= maximum)
    if value is None or not fits:
        raise InvalidOption(f"{option.name} must be {option.allowed(maximum)}{given.shown()}")
    return value


def _check_explained(values: Mapping[str, Any]) -> None:
    """Rules on the options of an explanation."""
    if values.get("stream"):
        raise InvalidOption("an explanation is answered whole: leave stream out")
    if values.get("output", "scores") != "scores":
        raise InvalidOption("an explanation is of a label: leave output out, or give scores")


def _check_together(values: Mapping[str, Any], given: Mapping[str, Given]) -> None:
    """Rules on more than one option."""
    start, end = values.get("start_sec", 0.0), values.get("end_sec")
    if end is not None and end <= start:
        hidden = any(given[name].secret for name in ("start_sec", "end_sec") if name in given)
        got = "" if hidden else f", got start_sec {start:g} and end_sec {end:g}"
        raise InvalidOption(f"end_sec must be greater than start_sec{got}")
    if values.get("stride_sec") is not None and values.get("num_clips", 1) != 1:
        raise InvalidOption("stride_sec and num_clips exclude each other: give one of them, or num_clips 1")
    if values.get("stream") and values.get("format", "full") != "full":
        raise InvalidOption("the lines of stream hold what the format full holds: leave format out, or give full")
