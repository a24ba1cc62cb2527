"""The events of a timeline that comes window by window, as the client gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from video_action_client import StreamEvent
from video_action_client.events import events_of_answer


def streamed(labels: Sequence[str]) -> list[StreamEvent]:
    """The events of a timeline whose windows have these best labels, a second apart, with a score of 0.5 and more."""
    windows: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    for at, label in enumerate(labels):
        score = 0.5 + at / 100
        entry = {"label": label, "score": score, "class_id": 0}
        windows.append({"start_sec": float(at), "end_sec": at + 2.0, "predictions": [entry]})
        if segments and segments[-1]["label"] == label:
            segments[-1]["members"].append(score)
            segments[-1]["end_sec"] = at + 2.0
        else:
            segments.append({"start_sec": float(at), "end_sec": at + 2.0, "label": label, "members": [score]})
    for segment in segments:
        members = segment.pop("members")
        segment["score"] = sum(members) / len(members)
    sampling = {
        "num_frames": 4, "sampling_rate": 12, "clip_duration_sec": 2.0, "start_sec": 0.0, "end_sec": 9.0,
        "num_clips": len(labels), "num_crops": 1, "stride_sec": 1.0, "average": "prob",
    }  # fmt: skip
    video = {"duration_sec": 9.0, "width": 64, "height": 48, "fps": 30.0, "codec": "h264", "frames_decoded": 9,
             "warnings": []}  # fmt: skip
    answer = {
        "model": "m", "version": "1.0", "predictions": windows[0]["predictions"], "timeline": windows,
        "segments": segments, "video": video, "sampling": sampling,
        "timing_ms": {"decode": 1.0, "transform": 1.0, "inference": 1.0, "total": 3.0},
    }  # fmt: skip
    return [event for event in events_of_answer(answer) if isinstance(event, StreamEvent)]
