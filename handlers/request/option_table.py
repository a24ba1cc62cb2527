"""The table of options, from which parsing, error texts, the OpenAPI description and the docs are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from handlers.request.option_values import Kind

Average = Literal["prob", "score"]
Format = Literal["dict", "list", "full"]
Output = Literal["scores", "embedding"]

MAX_SECONDS = 1e9
"""Largest time in seconds (about 32 years): keeps every timestamp, even in nanoseconds, within 64 bits."""
DEFAULT_TOP_K = 5


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
    maximum_is: Literal["num_classes", "max_windows", "last_class"] | None = None
    choices: tuple[str | int, ...] = ()
    explains: bool = False
    """Whether it is an option of /explanations alone."""

    @property
    def header(self) -> str:
        """`top_k` -> `X-Top-K`."""
        return "X-" + "-".join(part.capitalize() for part in self.name.split("_"))

    def allowed(self, maximum: float | None) -> str:
        """What this option takes, in words; `maximum` is the bound in force."""
        if self.kind == "boolean":
            return "true or false"
        if self.kind == "class":
            return f"a label of this model or a class id from 0 to {maximum:.12g}"
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
        OptionSpec(
            name="target",
            kind="class",
            help="Of /explanations: the label, or the class id, that is explained.",
            default="the best label",
            maximum_is="last_class",
            explains=True,
        ),
        OptionSpec(
            name="image",
            kind="boolean",
            help="Of /explanations. true: answer also a PNG picture, base64: frames of the clip with the heat on them.",
            default="false",
            explains=True,
        ),
    )
}
"""Every option by name, in the order of the documentation."""
