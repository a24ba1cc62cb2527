"""The demo page's second tab: the camera, live. The browser records one window after the other, and each is a question.

The windows do not go through Gradio, whose events are made for whole videos: camera.js sends them to the routes here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo import html
from video_action_client import ClientError, Prediction, VideoClient

_MARKUP = Path(__file__).with_name("camera.html")
_SCRIPT = Path(__file__).with_name("camera.js")

MAX_WINDOW_BYTES = 32 * 2**20
"""What one window may have: several seconds of what browsers record, many times over."""
MAX_UNDER_WAY = 4
"""Windows of all open pages that the server is asked about at once; more are refused, and the page says skipped."""


@contextlib.contextmanager
def in_tabs() -> Iterator[None]:
    """Around what else the page shows: that is the first of two tabs, the camera's is the second."""
    with gr.Tabs():
        with gr.Tab("A video", elem_id="va-tab-video"):
            yield
        with gr.Tab("The camera, live", elem_id="va-tab-camera"):
            gr.HTML(
                _MARKUP.read_text(encoding="utf-8"),
                js_on_load=_SCRIPT.read_text(encoding="utf-8"),
                elem_id="va-camera",
            )


def camera_routes(client: VideoClient) -> list[Route]:
    """What camera.js asks: which models there are, and what is in a window."""
    camera = _Camera(client)
    return [
        Route("/camera/models", camera.models, methods=["GET"]),
        Route("/camera/window", camera.window, methods=["POST"]),
    ]


class _Camera:
    def __init__(self, client: VideoClient) -> None:
        self._client = client
        self._under_way = 0

    async def models(self, request: Request) -> Response:
        """`{"models": [...]}`, the names."""
        try:
            served = await run_in_threadpool(self._client.models)
        except ClientError as error:
            return _refused(error.message, 502)
        return JSONResponse({"models": sorted({info.name for info in served})})

    async def window(self, request: Request) -> Response:
        """The body is a video of one window; `?model=` names the model. Its labels, also as HTML, and how long the
        model's clip is."""
        model = request.query_params.get("model")
        if not model:
            return _refused("There is no model to ask: start the server and load the page again.", 400)
        if self._under_way >= MAX_UNDER_WAY:
            return _refused(f"{MAX_UNDER_WAY} windows are under way, and more are not taken at once.", 503)
        self._under_way += 1
        try:
            video = await _body(request)
            if video is None:
                return _refused(f"A window may have {MAX_WINDOW_BYTES} bytes, and this one has more.", 413)
            answer = await run_in_threadpool(self._client.classify, video, model=model)
            return JSONResponse(_answer(answer))
        except ClientError as error:
            return _refused(error.message, 502)
        except ClientDisconnect:
            return _refused("The page was closed.", 400)
        finally:
            self._under_way -= 1


async def _body(request: Request) -> bytes | None:
    """None if it is longer than allowed."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MAX_WINDOW_BYTES:
            return None
    return bytes(parts)


def _answer(answer: Prediction) -> dict[str, Any]:
    best = answer.predictions[0] if answer.predictions else None
    return {
        "label": "-" if best is None else best.label,
        "score": None if best is None else best.score,
        "window_sec": answer.sampling.clip_duration_sec,
        "html": html.bars(answer.predictions),
    }


def _refused(message: str, status: int) -> Response:
    return JSONResponse({"message": message}, status_code=status)
