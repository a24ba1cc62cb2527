"""What the page shows of an explanation: everything escaped, parts to scale, errors in words."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import cast

from demo.heat import explained, heat
from demo.requests import Form
from video_action_client import ApiError, Explanation, VideoClient

ANSWER = Explanation.from_json(
    {
        "label": "<b>pan</b>",
        "class_id": 1,
        "score": 0.75,
        "method": "grad_cam",
        "times": [
            {"start_sec": 0.0, "end_sec": 1.0, "weight": 1.0},
            {"start_sec": 1.0, "end_sec": 4.0, "weight": 0.25},
        ],
        "maps": [
            {
                "time_sec": 0.5,
                "weight": 1.0,
                "heatmap": [[0.0, 1.0], [0.25, 0.126]],
                "crop": {"left": 0.125, "top": 0.0, "width": 0.75, "height": 1.0},
            }
        ],
    }
)


def test_parts_are_to_scale_and_carry_their_start() -> None:
    parts = re.findall(
        r'data-seek="([\d.]+)".*?left:([\d.]+)%;width:([\d.]+)%;--weight:([\d.]+)', heat(ANSWER, Path("v"))
    )
    assert [tuple(map(float, part)) for part in parts] == [(0.0, 0.0, 25.0, 1.0), (1.0, 25.0, 75.0, 0.25)]


def test_maps_can_be_read_back_and_nothing_is_markup() -> None:
    drawn = heat(ANSWER, Path('a"<b>.mp4'))
    assert "<b>" not in drawn
    found = re.search(r'data-video="([^"]*)" data-maps="([^"]*)"', drawn)
    assert found is not None
    assert unescape(found[1]) == 'a"<b>.mp4'
    assert json.loads(unescape(found[2])) == [
        {"time": 0.5, "heat": [[0.0, 1.0], [0.25, 0.13]], "crop": [0.125, 0.0, 0.75, 1.0]}
    ]


class _Refusing:
    def explain(self, video: Path, *, model: str, version: str | None, **options: object) -> Explanation:
        assert (model, version, options) == ("m", None, {"stride_sec": 1.0})
        raise ApiError("this model has no <head>", status=400, type="InvalidOption")


def test_a_model_that_cannot_be_explained_is_said_so() -> None:
    client = cast(VideoClient, _Refusing())
    form = Form(model="m", version=None, top_k=3)
    first, last = explained(client, Path("v.mp4"), form, lambda error: error.message)
    assert "Looking" in first
    assert last == '<div class="va-error" role="alert">this model has no &lt;head&gt;</div>'
