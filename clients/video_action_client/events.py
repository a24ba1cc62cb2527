"""An answer that comes in lines, as typed events: a start, windows and segments as they are known, an end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ClientError, InvalidAnswer, api_error
from .results import Clip, EffectiveSampling, EmbeddedClip, Embedding, Prediction, Segment, Timeline

LINES_TYPE = "application/x-ndjson"

_OF_THE_MODEL = ("model", "version", "weights", "sampling")
_OF_THE_VIDEO = ("frames_decoded", "plan_fallback", "warnings")
"""What an end says of the video; in the format `full` it is among the rest that is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStart:
    """The first window is there. None where the container does not say.

    `windows` is how many there will be; a damaged video may end with fewer.
    """

    model: str
    version: str
    windows: int
    duration_sec: float | None
    width: int
    height: int
    fps: float | None
    codec: str
    sampling: EffectiveSampling


@dataclass(frozen=True, slots=True)
class StreamWindow:
    """One window's labels. They come in order, `index` counts from 0."""

    index: int
    clip: Clip


@dataclass(frozen=True, slots=True)
class StreamSegment:
    """Neighbouring windows with the same top label, complete: the next window has another one."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """Everything is there: the answer that the same request without `stream` gets, and its JSON (`format="full"`)."""

    answer: Prediction | Timeline
    json: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StreamEmbeddedWindow:
    """One window's features, where embeddings were asked for. They come in order, `index` counts from 0."""

    index: int
    clip: EmbeddedClip


@dataclass(frozen=True, slots=True)
class StreamEmbeddingEnd:
    """Everything is there: what `embed` gets with the same options, and its JSON (`format="full"`)."""

    answer: Embedding
    json: Mapping[str, Any]


StreamEvent = StreamStart | StreamWindow | StreamSegment | StreamEnd
EmbeddingEvent = StreamStart | StreamEmbeddedWindow | StreamEmbeddingEnd


def events_of(lines: Iterable[bytes]) -> Iterator[StreamEvent | EmbeddingEvent]:
    """The lines of one answer as events. Raises what the server says went wrong, InvalidAnswer for anything else."""
    gathered: dict[str, Any] = {}
    ended = False
    for line in lines:
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            event = _event(content, gathered)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidAnswer(f"a line of the answer is not one of this project's: {line[:120]!r}") from None
        ended = isinstance(event, StreamEnd | StreamEmbeddingEnd)
        yield event
    if not ended:
        raise InvalidAnswer("the answer ended before its last line")


def events_of_answer(answer: Mapping[str, Any]) -> Iterator[StreamEvent | EmbeddingEvent]:
    """The events of an answer that came whole, from a server that does not stream."""
    video, windows = answer["video"], answer["timeline" if "timeline" in answer else "clips"]
    start = {"event": "start", "video": video, "windows": len(windows)}
    gathered: dict[str, Any] = {}
    yield _event({**start, **{name: answer[name] for name in _OF_THE_MODEL if name in answer}}, gathered)
    for index, window in enumerate(windows):
        yield _event({"event": "window", "index": index, **window}, gathered)
    for segment in answer.get("segments", ()):
        yield _event({"event": "segment", **segment}, gathered)
    ends = {name: video[name] for name in _OF_THE_VIDEO if name in video}
    yield _event({"event": "end", **_result(answer), "timing_ms": answer["timing_ms"], **ends}, gathered)


def _result(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of the video: its features, or its labels."""
    return {name: entry[name] for name in (("embedding", "length") if "embedding" in entry else ("predictions",))}


def _event(content: dict[str, Any], gathered: dict[str, Any]) -> StreamEvent | EmbeddingEvent:
    """The event; `gathered` grows to the answer in the format `full`."""
    kind = content.pop("event")
    if kind == "start":
        video = content["video"]
        timeline = content["sampling"]["stride_sec"] is not None
        gathered.update({name: content[name] for name in _OF_THE_MODEL if name in content}, video=dict(video))
        gathered.update({"timeline": []} if timeline else {"clips": []})
        return StreamStart(
            model=str(content["model"]),
            version=str(content["version"]),
            windows=int(content["windows"]),
            duration_sec=video["duration_sec"],
            width=int(video["width"]),
            height=int(video["height"]),
            fps=video["fps"],
            codec=str(video["codec"]),
            sampling=EffectiveSampling.from_json(content["sampling"]),
        )
    if kind == "window":
        index = int(content.pop("index"))
        gathered["timeline" if "timeline" in gathered else "clips"].append(content)
        if "embedding" in content:
            return StreamEmbeddedWindow(index, EmbeddedClip.from_json(content))
        return StreamWindow(index, Clip.from_json(content))
    if kind == "segment":
        gathered.setdefault("segments", []).append(content)
        return StreamSegment(Segment.from_json(content))
    if kind == "end":
        gathered["video"].update({name: content[name] for name in _OF_THE_VIDEO if name in content})
        windows = gathered["timeline" if "timeline" in gathered else "clips"]
        gathered["sampling"] = {**gathered["sampling"], "num_clips": len(windows)}  # damage may have left fewer
        answer = {**gathered, **_result(content), "timing_ms": content["timing_ms"]}
        if "embedding" in answer:
            return StreamEmbeddingEnd(Embedding.from_json(answer), answer)
        if "timeline" in answer:
            answer.setdefault("segments", [])
        return StreamEnd((Timeline if "timeline" in answer else Prediction).from_json(answer), answer)
    if kind == "error":
        raise _error(content)
    raise ValueError(kind)


def _error(content: Mapping[str, Any]) -> ClientError:
    return api_error(int(content["code"]), str(content["type"]), str(content["message"]))
