"""Where and when the model looked: the demo page's third question about a video, and what it shows of the answer.

heat.js lays the maps over the player. What it needs is in the HTML, so that maps and picture cannot come apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from html import escape
from pathlib import Path

import gradio as gr

from demo import html
from demo.requests import Form
from video_action_client import ClientError, Explanation, HeatMap, TimeWeight, VideoClient
from video_action_client.text import clock

_SCRIPT = Path(__file__).with_name("heat.js")

NO_HEAT = "() => ''"
"""In the browser: take the heat away."""
KEEP_HEAT = """(video, heat) => {
    const path = (video?.path ?? '').replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll("'", '&#x27;')
        .replaceAll('<', '&lt;').replaceAll('>', '&gt;');
    return path && heat && heat.includes(`data-video="${path}"`) ? heat : '';
}"""
"""In the browser: heat stays with the video that it belongs to alone. `build` says why not from here."""

_METHODS = {"cam": "class activation, exact for this model's head", "grad_cam": "Grad-CAM"}


def heat_box() -> gr.HTML:
    """The component, empty until something is explained."""
    return gr.HTML(elem_id="va-heat", js_on_load=_SCRIPT.read_text(encoding="utf-8"))


def explained(
    client: VideoClient, video: Path, form: Form, said: Callable[[ClientError], str]
) -> Generator[str, None, None]:
    """The box's content while the server looks, and then; `said` puts an error into words."""
    yield html.panel("Where it looked", '<div class="va-hint" role="status">Looking ...</div>')
    try:
        yield heat(client.explain(video, model=form.model, version=form.version, **form.explained_options()), video)
    except ClientError as error:
        yield html.error(said(error))


def heat(answer: Explanation, video: Path) -> str:
    """The weight of each part as a button that seeks to it, and the maps for the player."""
    maps = json.dumps([_map(each) for each in answer.maps], separators=(",", ":"))
    end_sec = max([1e-6, *(each.end_sec for each in answer.times)])
    buttons = "".join(_weight(each, end_sec) for each in answer.times)
    method = _METHODS.get(answer.method, answer.method)
    note = f"{answer.label} ({answer.score:.1%}), by {method}. The brighter, the more it spoke for this label."
    return html.panel(
        "Where it looked",
        f'<div class="va-heat" data-video="{escape(str(video))}" data-maps="{escape(maps)}">'
        f'<div class="va-hint">{escape(note)}</div>'
        f'<div class="va-weights" role="group" aria-label="Weight over time">{buttons}</div>'
        '<label class="va-heat-switch"><input type="checkbox" class="va-heat-on" checked> Heat over the player</label>'
        "</div>",
    )


def _weight(part: TimeWeight, end_sec: float) -> str:
    left, width = part.start_sec / end_sec, max(part.end_sec - part.start_sec, 0) / end_sec
    title = escape(f"{clock(part.start_sec)} to {clock(part.end_sec)}: weight {part.weight:.2f}")
    return (
        f'<button type="button" class="va-weight" data-seek="{part.start_sec:.3f}" title="{title}" '
        f'aria-label="{title}" style="left:{left:.3%};width:{width:.3%};--weight:{part.weight:.3f}"></button>'
    )


def _map(each: HeatMap) -> dict[str, object]:
    crop = each.crop
    return {
        "time": round(each.time_sec, 3),
        "heat": [[round(value, 2) for value in row] for row in each.heatmap],
        "crop": [round(value, 4) for value in (crop.left, crop.top, crop.width, crop.height)],
    }
