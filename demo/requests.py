"""What the demo page's form asks for, how the server is asked, and the command line that asks the same."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from video_action_client import StreamEvent, VideoClient
from video_action_client.http_client import option_header

Mode = Literal["timeline", "clips"]

DEFAULT_TOP_K = 5
"""Is not sent, so that models of fewer classes answer them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The page's fields. `end_sec` 0 is the video's end; `stride_sec` is for timelines, `num_clips` for the rest."""

    model: str
    version: str | None
    mode: Mode = "timeline"
    stride_sec: float = 1.0
    num_clips: int = 1
    num_crops: int = 1
    top_k: int = DEFAULT_TOP_K
    start_sec: float = 0.0
    end_sec: float = 0.0
    average: str = "prob"

    @classmethod
    def of_fields(
        cls,
        model: str,
        version: str | None,
        mode: Mode,
        stride_sec: float | None,
        num_clips: float | None,
        num_crops: Any,
        top_k: float | None,
        start_sec: float | None,
        end_sec: float | None,
        average: str,
    ) -> Form:
        """From the page's components, in `form_fields`'s order; a field that was emptied has its default."""
        return cls(
            model=model,
            version=version or None,
            mode=mode,
            stride_sec=stride_sec or 1.0,
            num_clips=int(num_clips or 1),
            num_crops=int(num_crops or 1),
            top_k=int(top_k or DEFAULT_TOP_K),
            start_sec=start_sec or 0.0,
            end_sec=end_sec or 0.0,
            average=average,
        )

    def explained_options(self) -> dict[str, Any]:
        """As `options`, of which an explanation has all but the number of labels."""
        return {name: value for name, value in self.options().items() if name != "top_k"}

    def options(self) -> dict[str, Any]:
        """The request's options: only those that differ from the server's defaults."""
        given: dict[str, Any] = {}
        if self.mode == "timeline":
            given["stride_sec"] = self.stride_sec
        elif self.num_clips != 1:
            given["num_clips"] = self.num_clips
        if self.top_k != DEFAULT_TOP_K:
            given["top_k"] = self.top_k
        if self.num_crops != 1:
            given["num_crops"] = self.num_crops
        if self.start_sec:
            given["start_sec"] = self.start_sec
        if self.end_sec:
            given["end_sec"] = self.end_sec
        if self.average != "prob":
            given["average"] = self.average
        return given


def ask(client: VideoClient, video: Path, form: Form) -> Generator[StreamEvent, None, None]:
    """The server's answer as it comes; raises ClientError. Closing it early ends the server's work."""
    return client.stream(video, model=form.model, version=form.version, **form.options())


def curl_line(url: str, video: Path, form: Form, *, key_file: Path | None) -> str:
    """The command that repeats the request. The key itself is never in it: it is read when the command runs."""
    words = ["curl"]
    if key_file is not None:
        code = 'import json, sys; print(json.load(open(sys.argv[1]))["inference"]["key"])'
        key = f"$(python3 -c {shlex.quote(code)} {shlex.quote(str(key_file))})"
        words += ["-H", f'"Authorization: Bearer {key}"']
    options: Mapping[str, object] = {"format": "full", **form.options()}
    for name, value in options.items():
        words += ["-H", shlex.quote(f"{option_header(name)}: {value}")]
    path = "/".join(quote(part, safe="") for part in (form.model, form.version) if part)
    return " ".join([*words, "-T", shlex.quote(video.name), shlex.quote(f"{url}/predictions/{path}")])
