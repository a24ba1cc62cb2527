"""The demo page: a Gradio form, the events behind it, and the settings that keep it on this machine."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from demo import html
from demo.camera import camera_routes, in_tabs
from demo.form import MOST_LABELS, form_fields
from demo.heat import KEEP_HEAT, NO_HEAT, explained, heat_box
from demo.progress import progress_of
from demo.requests import Form, ask, curl_line
from demo.security import ALLOWED_HOSTS, SameOriginOnly
from demo.shown import Shown, classify_button
from demo.uploads import UploadCap, UploadLimits
from demo.visit import Visit
from serving.connection import START_HINT
from video_action_client import ClientError, ModelInfo, VideoClient
from video_action_client.commands.connection import advice

# Nothing is loaded from outside: system fonts, no images.
_FONTS = ("system-ui", "sans-serif")
_MONO_FONTS = ("ui-monospace", "monospace")
_STYLE = Path(__file__).with_name("style.css")
_SCRIPT = Path(__file__).with_name("page.js")
_SAMPLE = Path(__file__).with_name("sample.mp4")
"""The camera pans left, then zooms in: `camera_motion.sample_clips.two_part_clip()`."""

_VIDEO_ID = "va-video"
"""The player's element, by which style.css and page.js find it."""

_said = partial(advice, start_hint=START_HINT)
"""An error in words, with what to do about it."""

_TITLE = "What happens in this video?"
_INTRO = "Drop a video or record one; a model served by TorchServe on this machine says what it sees, and when."
_NOTHING_YET = "Labels appear here once a video has been classified."
_SENDING = "Sending the video ..."
# Uploads are looked at every 10 minutes and removed when they are an hour old; all of them when the page is stopped.
_CLEANING_SEC = (600, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """Which server the page asks, where its keys are, for the line that repeats a request, and where uploads go.

    `uploads` is Gradio's folder: what GRADIO_TEMP_DIR names.
    """

    client: VideoClient
    key_file: Path | None
    uploads: Path
    limits: UploadLimits = field(default_factory=UploadLimits)


class Page:
    """The functions that the page's events call. Each gives the new values of its components."""

    def __init__(self, settings: PageSettings) -> None:
        self._client = settings.client
        self._key_file = settings.key_file
        self._uploads = settings.uploads
        self._visits: defaultdict[str, Visit] = defaultdict(Visit)
        """Open pages by Gradio's session."""

    def models(self) -> tuple[Any, Any, str]:
        """Choices of models and versions, and an error where they cannot be listed."""
        try:
            served = self._client.models()
        except ClientError as error:
            return (
                gr.Dropdown(choices=[], value=None),
                gr.Dropdown(choices=[], value=None),
                html.error(_said(error)),
            )
        names = list(dict.fromkeys(info.name for info in served))
        if not names:
            empty = gr.Dropdown(choices=[], value=None)
            return empty, empty, html.error("The server runs, but serves no model: python -m scripts.models register")
        return gr.Dropdown(choices=names, value=names[0]), version_choices(served, names[0]), ""

    def versions(self, model: str | None) -> Any:
        """Choices of versions of that model."""
        try:
            served = self._client.models() if model else ()
        except ClientError:  # reported when the page was loaded, and again when a video is sent
            served = ()
        return version_choices(served, model)

    def most_labels(self, model: str | None) -> Any:
        """The slider of how many labels to show, up to as many as the model has."""
        try:
            metadata = (self._client.describe(model).metadata or {}) if model else {}
        except ClientError:  # reported when a video is sent
            metadata = {}
        return gr.Slider(maximum=min(int(metadata.get("num_labels", MOST_LABELS)), MOST_LABELS))

    def choose(self, video: str | None, request: gr.Request) -> Any:
        """Another video is shown: what is asked about the one before is given up. The button, for the new one."""
        self._visits[_session(request)].show(video)
        return classify_button(busy=False)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        if visit := self._visits.pop(_session(request), None):
            visit.leave()

    def sample(self) -> str:
        """The sample clip, as if it had been dropped."""
        path = self._uploads / "sample" / _SAMPLE.name
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(_SAMPLE, path)  # old uploads are removed there, so it is copied each time
        return str(path)

    def classify(
        self, request: gr.Request, video: str | None, model: str | None, version: str | None, *fields: Any
    ) -> Generator[tuple[Any, ...], None, None]:
        """What the page shows while the answer comes, and then; an error takes the labels' place. See `Shown`."""
        visit = self._visits[_session(request)]
        question = visit.ask(video)
        yield Shown(busy=True).values()
        if problem := _missing(video, model):
            yield Shown(labels=html.error(problem)).values()
            return
        assert video is not None
        assert model is not None
        form = Form.of_fields(model, version, *fields)
        line = curl_line(self._client.url, Path(video), form, key_file=self._key_file)
        shown = Shown(labels=html.hint(_SENDING), command=line, video=video, busy=True)
        yield shown.values()
        try:
            with closing(ask(self._client, Path(video), form)) as events:
                for state in progress_of(events):
                    if not visit.wants(question):
                        break
                    shown = shown.after(state)
                    yield shown.values()
        except ClientError as error:
            shown = replace(shown, labels=html.error(_said(error)), busy=False)
            if visit.wants(question):
                yield shown.values()
        if visit.wants(question):
            return
        # The last state may have been under way when the page was given another video, and have come after what
        # `choose` said of the button: what it drew is taken back. A newer question draws over it. An update that skips
        # must never follow one that has to be seen: Gradio sends differences, and the one before may not be drawn yet.
        blank = Shown(labels=html.hint(_NOTHING_YET)).values()
        yield blank if visit.newest == question else (gr.skip(),) * len(blank)

    def explain(
        self, request: gr.Request, video: str | None, model: str | None, version: str | None, *fields: Any
    ) -> Generator[str, None, None]:
        """Where and when the model looked, see `heat`; nothing once the page shows another video."""
        if problem := _missing(video, model):
            yield html.error(problem)
            return
        assert video is not None
        assert model is not None
        visit = self._visits[_session(request)]
        visit.show(video)
        for drawn in explained(self._client, Path(video), Form.of_fields(model, version, *fields), _said):
            yield drawn if visit.video == video else ""
        if visit.video != video:  # what was drawn may have come after the page took it away
            yield ""


def _session(request: gr.Request) -> str:
    return request.session_hash or ""


def _missing(video: str | None, model: str | None) -> str | None:
    """What keeps a video from being sent, in a visitor's words."""
    if not video:
        return "There is no video yet: drop one into the box, or record one."
    if Path(video).stat().st_size == 0:
        return "The file is empty. Choose another video, or record one."
    if not model:
        return "There is no model to ask: start the server and list the models again."
    return None


def version_choices(served: Sequence[ModelInfo], model: str | None) -> Any:
    """A dropdown of the model's versions with its default one chosen."""
    infos = [info for info in served if info.name == model]
    choices = [(f"{info.version} (default)" if info.default else info.version, info.version) for info in infos]
    default = next((info.version for info in infos if info.default), None)
    return gr.Dropdown(choices=choices, value=default)


def build(settings: PageSettings) -> gr.Blocks:
    """The page, not yet served."""
    page = Page(settings)
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=_CLEANING_SEC) as blocks, in_tabs():
        gr.HTML(f"<h1>{_TITLE}</h1><p>{_INTRO}</p>", elem_id="va-title")
        status = gr.HTML(elem_id="va-status")
        with gr.Row(elem_id="va-grid"):
            with gr.Column(elem_id="va-watch"):
                # Both sources and sound as it is: for anything else Gradio would run an ffmpeg program.
                video = gr.Video(
                    label="Video", sources=["upload", "webcam"], include_audio=True, elem_id=_VIDEO_ID, buttons=[]
                )
                timeline = gr.HTML(elem_id="va-timeline", js_on_load=_SCRIPT.read_text(encoding="utf-8"))
                with gr.Row():
                    button = gr.Button("Classify", variant="primary", elem_id="va-classify", scale=3)
                    why = gr.Button("Where it looked", elem_id="va-explain", min_width=180)
                    sample = gr.Button("Sample clip", elem_id="va-sample", min_width=140)
                heat = heat_box()
            with gr.Column(elem_id="va-ask"):
                model, version, refresh, top_k, fields = form_fields()
            with gr.Column(elem_id="va-answer"):
                labels = gr.HTML(html.hint(_NOTHING_YET), elem_id="va-labels")
                facts = gr.HTML(elem_id="va-facts")
                command = gr.Code(
                    label="The same from a shell",
                    language="shell",
                    interactive=False,
                    wrap_lines=True,
                    show_line_numbers=False,
                    elem_id="va-curl",
                    visible=False,
                )
                answer = gr.Code(
                    label="The answer",
                    language="json",
                    interactive=False,
                    max_lines=12,
                    buttons=["copy", "download"],
                    elem_id="va-json",
                    visible=False,
                )
                # The file that the answer belongs to, for the browser; it is never seen.
                answered = gr.Textbox(visible="hidden", elem_id="va-answered")
        shown = [timeline, labels, facts]
        listed = [model, version, status]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        blocks.load(page.models, None, listed, **quiet).then(page.most_labels, model, top_k, **quiet)
        refresh.click(page.models, None, listed, api_visibility="private").then(page.most_labels, model, top_k, **quiet)
        model.input(page.versions, model, version, **quiet)
        model.input(page.most_labels, model, top_k, **quiet)
        button.click(
            page.classify,
            [video, model, version, *fields],
            [*shown, command, answer, answered, button],
            concurrency_limit=4,
            trigger_mode="multiple",  # the button says when it takes a click
            **quiet,
        )
        button.click(None, None, heat, js=NO_HEAT)
        why.click(page.explain, [video, model, version, *fields], heat, concurrency_limit=2, **quiet)
        sample.click(page.sample, None, video, **quiet)
        # Another video makes the old answer wrong. It is taken away in the browser: from here that could overtake the
        # next answer. The browser may say late that the video is another one; an answer that belongs to it stays.
        video.change(page.choose, video, button, trigger_mode="always_last", **quiet)
        blocks.unload(page.leave)
        blank = json.dumps(["", html.hint(_NOTHING_YET), ""])
        video.change(
            None,
            [video, answered, *shown],
            shown,
            js=f"(video, answered, ...shown) => video && video.path === answered ? shown : {blank}",
        )
        video.change(None, [video, heat], heat, js=KEEP_HEAT)
    return blocks


def serve(settings: PageSettings, *, port: int | None, block: bool = True) -> str:
    """Serve the page on loopback; its address. With `block`, returns when the page is stopped."""
    blocks = build(settings)
    _, url, _ = blocks.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        allowed_paths=[],
        max_file_size=settings.limits.max_upload_bytes,
        theme=gr.themes.Default(primary_hue="blue", font=list(_FONTS), font_mono=list(_MONO_FONTS)),
        css=_STYLE.read_text(encoding="utf-8"),
        app_kwargs={
            "middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=list(ALLOWED_HOSTS)),
                Middleware(SameOriginOnly),
                Middleware(UploadCap, folder=settings.uploads, limits=settings.limits),
            ],
            "routes": camera_routes(settings.client),
            "docs_url": None,
            "redoc_url": None,
        },
        prevent_thread_lock=True,
    )
    print(f"The page: {url}")
    if block:
        blocks.block_thread()
    return str(url)
