"""The scripted servers, key files and answers of the tests of clients and of the demo page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_grpc import FakeGrpc, running_fake_grpc
from tests.support.fake_server import FakeServer, KeyFile, running_fake


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with running_fake() as server:
        yield server


@pytest.fixture
def fake_grpc() -> Iterator[FakeGrpc]:
    with running_fake_grpc() as server:
        yield server


@pytest.fixture
def write_keys(tmp_path: Path) -> KeyFile:
    """`write_keys(inference="a", management="b")`: a key file as TorchServe writes it."""

    def write(**keys: str) -> Path:
        path = tmp_path / "key_file.json"
        entries: dict[str, Any] = {"API": {"key": "api-key"}}
        for name, key in keys.items():
            entries[name] = {"key": key, "expiration time": "2026-01-01T00:00:00.000000000Z"}
        path.write_text(json.dumps(entries, indent=2))
        return path

    return write


@pytest.fixture
def full_answer() -> dict[str, Any]:
    """An answer in the format `full`, with a timeline of two segments."""
    return make_full_answer()


def make_full_answer() -> dict[str, Any]:
    def labels(first: str, score: float) -> list[dict[str, Any]]:
        return [{"label": first, "score": score, "class_id": 3}, {"label": "static", "score": 0.1, "class_id": 0}]

    windows = [
        {"start_sec": 0.0, "end_sec": 2.0, "predictions": labels("pan left", 0.8)},
        {"start_sec": 1.0, "end_sec": 3.0, "predictions": labels("pan left", 0.6)},
        {"start_sec": 2.0, "end_sec": 4.0, "predictions": labels("zoom in", 0.9)},
    ]
    return {
        "model": "camera_motion",
        "version": "1.0",
        "predictions": labels("pan left", 0.5),
        "timeline": windows,
        "segments": [
            {"start_sec": 0.0, "end_sec": 3.0, "label": "pan left", "score": 0.7},
            {"start_sec": 2.0, "end_sec": 4.0, "label": "zoom in", "score": 0.9},
        ],
        "video": {
            "duration_sec": 4.0,
            "width": 320,
            "height": 240,
            "fps": 30.0,
            "codec": "h264",
            "frames_decoded": 120,
            "warnings": ["the last frame is damaged"],
        },
        "sampling": {
            "num_frames": 8,
            "sampling_rate": 8,
            "clip_duration_sec": 2.0,
            "start_sec": 0.0,
            "end_sec": 4.0,
            "num_clips": 3,
            "num_crops": 1,
            "stride_sec": 1.0,
            "average": "prob",
        },
        "timing_ms": {"decode": 10.0, "transform": 2.0, "inference": 30.0, "total": 45.0},
    }
