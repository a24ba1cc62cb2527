"""The options of a request: one table, from which parsing, error texts, the OpenAPI description and the docs are made.

`VideoRequest` is what the rest of the package sees of a request; `wire` finds its parts in a TorchServe row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from handlers.errors import InvalidOption
from handlers.limits import Limits
from handlers.request.option_values import Kind, read_switch, read_value
from handlers.video.sampling import Sampling

Average = Literal["prob", "score"]
Format = Literal["dict", "list", "full"]
Output = Literal["scores", "embedding"]

MAX_SECONDS = 1e9
"""Largest time in seconds (about 32 years): keeps every timestamp, even in nanoseconds, within 64 bits."""
DEFAULT_TOP_K = 5
_SHOWN_CHARS = 40
LINES_TYPE = "application/x-ndjson"
"""The media type of an answer in lines. A request that accepts it asks for `stream`."""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the client asked for, validated."""

    top_k: int = DEFAULT_TOP_K
    sampling: Sampling = field(default_factory=Sampling)
    average: Average = "prob"
    format: Format = "dict"
    threshold: float = 0.0
    stream: bool = False
    output: Output = "scores"


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """The bytes of one video file, what to do with them, and the client's id of its request, if it gave one."""

    payload: bytes
    options: RequestOptions
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """One row of the table. `maximum_is` names a bound that only the served model knows; `default` is for readers."""

    name: str
    kind: Kind
    help: str
    default: str
    minimum: float | None = None
    exclusive_minimum: bool = False
    maximum: float | None = None
    maximum_is: Literal["num_classes", "max_windows"] | None = None
    choices: tuple[str | int, ...] = ()

    @property
    def header(self) -> str:
        """`top_k` -> `X-Top-K`."""
        return "X-" + "-".join(part.capitalize() for part in self.name.split("_"))

    def allowed(self, maximum: float | None) -> str:
        """What this option takes, in words; `maximum` is the bound in force."""
        if self.kind == "boolean":
            return "true or false"
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        what = {"integer": "a whole number", "share": "a number"}.get(self.kind, "a number of seconds")
        if self.exclusive_minimum:
            return f"{what} above {self.minimum:g} and up to {maximum:.12g}"
        return f"{what} from {self.minimum:g} to {maximum:.12g}"


OPTIONS: Mapping[str, OptionSpec] = {
    option.name: option
    for option in (
        OptionSpec(
            name="top_k",
            kind="integer",
            help="How many labels to answer with, highest score first.",
            default="5, or the number of classes if there are fewer",
            minimum=1,
            maximum_is="num_classes",
        ),
        OptionSpec(
            name="start_sec",
            kind="number",
            help="Start of the part of the video to look at, seconds from its first timestamp; included.",
            default="0",
            minimum=0,
            maximum=MAX_SECONDS,
        ),
        OptionSpec(
            name="end_sec",
            kind="number",
            help="End of the part of the video to look at, seconds; not included; greater than start_sec.",
            default="the end of the video",
            minimum=0,
            exclusive_minimum=True,
            maximum=MAX_SECONDS,
        ),
        OptionSpec(
            name="num_clips",
            kind="integer",
            help="How many clips to spread uniformly over the part looked at; their scores are averaged.",
            default="1",
            minimum=1,
            maximum_is="max_windows",
        ),
        OptionSpec(
            name="num_crops",
            kind="integer",
            help="1: the centre crop. 3: left, centre, right (of an upright video: top, centre, bottom), averaged.",
            default="1",
            choices=(1, 3),
        ),
        OptionSpec(
            name="stride_sec",
            kind="number",
            help="Slide the clip over the part looked at in steps of this many seconds and answer a timeline.",
            default="off",
            minimum=0,
            exclusive_minimum=True,
            maximum=MAX_SECONDS,
        ),
        OptionSpec(
            name="average",
            kind="choice",
            help="How views are averaged. prob: mean of their probabilities. score: softmax of their mean logits.",
            default="prob",
            choices=get_args(Average),
        ),
        OptionSpec(
            name="format",
            kind="choice",
            help="Shape of the answer. dict: label to score. list: objects with label, score and class_id. "
            "full: that list with clips (or a timeline with stride_sec), video, sampling and timing.",
            default="dict, or full with stride_sec",
            choices=get_args(Format),
        ),
        OptionSpec(
            name="threshold",
            kind="share",
            help="Leave out labels with a lower score than this, also among the top_k.",
            default="0",
            minimum=0,
            maximum=1,
        ),
        OptionSpec(
            name="stream",
            kind="boolean",
            help="true: answer in lines of JSON, each sent as soon as its window is computed (HTTP only). They hold "
            "what the format full holds.",
            default="false",
        ),
        OptionSpec(
            name="output",
            kind="choice",
            help="embedding: the features that go into the model's last layer, averaged over the views, and in the "
            "format full those of each clip or window, instead of labels.",
            default="scores",
            choices=get_args(Output),
        ),
    )
}
"""Every option by name, in the order of the documentation."""


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


def parse_options(given: Mapping[str, Given], *, num_classes: int, limits: Limits) -> RequestOptions:
    """Options as they came -> validated. JSON's null counts as not given. Raises InvalidOption."""
    bounds = {"num_classes": num_classes, "max_windows": limits.max_windows}
    values: dict[str, Any] = {}
    for name, entry in given.items():
        if entry.value is not None:
            option = OPTIONS[name]
            maximum = bounds[option.maximum_is] if option.maximum_is else option.maximum
            values[name] = _parse(option, entry, maximum)
    _check_together(values, given)
    stride_sec, stream = values.get("stride_sec"), values.get("stream", False)
    return RequestOptions(
        top_k=values.get("top_k", min(DEFAULT_TOP_K, num_classes)),
        sampling=Sampling(
            start_sec=values.get("start_sec", 0.0),
            end_sec=values.get("end_sec"),
            num_clips=values.get("num_clips", 1),
            num_crops=values.get("num_crops", 1),
            stride_sec=stride_sec,
        ),
        average=values.get("average", "prob"),
        threshold=values.get("threshold", 0.0),
        format=values.get("format", "dict" if stride_sec is None and not stream else "full"),
        stream=stream,
        output=values.get("output", "scores"),
    )


def _parse(option: OptionSpec, given: Given, maximum: float | None) -> str | int | float | bool:
    if option.kind == "boolean":
        switch = read_switch(given.value)
        if switch is None:
            raise InvalidOption(f"{option.name} must be {option.allowed(maximum)}{given.shown()}")
        return switch
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
