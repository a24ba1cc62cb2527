"""The methods that people call, in terms of what a transport carries."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from .errors import InvalidAnswer
from .explanation import Explanation
from .live.reader import ReaderOptions
from .live.watch import Watch, WatchOptions
from .management import Management
from .results import Embedding, Prediction, Timeline
from .source import Source, Video

Average = Literal["prob", "score"]


class BaseClient(Management):
    """Predictions and management. Safe to share between threads."""

    def classify(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        top_k: int | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        average: Average | None = None,
        threshold: float | None = None,
    ) -> Prediction:
        """The labels of a video: of the clip at `start_sec`, or averaged over `num_clips` x `num_crops` views.

        `video` is a path, the file's bytes or a binary file; the part looked at is `[start_sec, end_sec)`. What is
        not given is left to the server: the model's default version, 5 labels, one centre clip from 0 s.
        """
        options = {
            "top_k": top_k,
            "start_sec": start_sec,
            "end_sec": end_sec,
            "num_clips": num_clips,
            "num_crops": num_crops,
            "average": average,
            "threshold": threshold,
        }
        answer = self.answer(video, model=model, version=version, options={**options, "format": "full"})
        return Prediction.from_json(answer)

    def timeline(
        self,
        video: Video,
        *,
        model: str,
        stride_sec: float,
        version: str | None = None,
        top_k: int | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_crops: int | None = None,
        average: Average | None = None,
        threshold: float | None = None,
    ) -> Timeline:
        """What happens when: the clip slides over `[start_sec, end_sec)` in steps of `stride_sec`."""
        options = {
            "stride_sec": stride_sec,
            "top_k": top_k,
            "start_sec": start_sec,
            "end_sec": end_sec,
            "num_crops": num_crops,
            "average": average,
            "threshold": threshold,
        }
        answer = self.answer(video, model=model, version=version, options={**options, "format": "full"})
        return Timeline.from_json(answer)

    def embed(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        stride_sec: float | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
    ) -> Embedding:
        """A video's features, for retrieval or a classifier of one's own: what goes into the model's last layer.

        Averaged over the views that `classify` would average; `clips` has those of each, or of each window with
        `stride_sec`. Raises InvalidOption where the model's graph gives no features.
        """
        options = {
            "output": "embedding",
            "stride_sec": stride_sec,
            "start_sec": start_sec,
            "end_sec": end_sec,
            "num_clips": num_clips,
            "num_crops": num_crops,
        }
        answer = self.answer(video, model=model, version=version, options={**options, "format": "full"})
        return Embedding.from_json(answer)

    def watch(
        self,
        source: str | os.PathLike[str],
        *,
        model: str,
        version: str | None = None,
        stride_sec: float | None = None,
        window_sec: float | None = None,
        top_k: int | None = None,
        num_crops: int | None = None,
        threshold: float | None = None,
        smooth: int = 1,
        under_way: int = 2,
        waiting: int = 4,
        give_up_sec: float | None = None,
        source_timeout_sec: float = 10.0,
        speed: float = 1.0,
        max_buffer_bytes: int = 64 * 2**20,
    ) -> Watch:
        """Labels of a live source, window by window, as it goes on: iterate over what this returns.

        `source` is an address (rtsp, http, HLS, ...), a capture device (`/dev/video0`) or a file, which is played in
        real time, or `speed` times as fast. Window `k` is `[k * stride_sec, k * stride_sec + window_sec)` since the
        first picture. A window is as long as the model's clip unless `window_sec` says otherwise, and begins where the
        one before it ends unless `stride_sec` does. Nothing is encoded anew: each window is sent with the packets from
        the key frame before it. `smooth` averages scores over that many windows.

        Memory is bounded: `under_way` windows are asked about at once, `waiting` more may wait, and when another comes
        the oldest is skipped, which is an event, too; up to `max_buffer_bytes` are kept of the source. A lost source
        is tried again, with pauses up to 30 s, for `give_up_sec`, None is for ever. `source_timeout_sec` without a
        packet is lost. Needs PyAV: `pip install 'video-action-client[watch]'`.

        Raises SourceFailed where the source cannot be opened, and as `classify` does where the model cannot be asked.
        """
        options = WatchOptions(
            model=model,
            version=version,
            stride_sec=stride_sec,
            window_sec=window_sec,
            top_k=top_k,
            num_crops=num_crops,
            threshold=threshold,
            smooth=smooth,
            under_way=under_way,
            waiting=waiting,
            max_buffer_bytes=max_buffer_bytes,
            reading=ReaderOptions(timeout_sec=source_timeout_sec, give_up_sec=give_up_sec, speed=speed),
        )
        return Watch(self, source, options)

    def explain(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        target: str | int | None = None,
        image: bool = False,
        stride_sec: float | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        average: Average | None = None,
    ) -> Explanation:
        """Where and when the model saw the class `target`, a label or class id; without it the best label.

        `image` asks for a picture of the frames with the heat on them. Raises InvalidOption for a label that the model
        does not have, and for models that cannot be explained. Works over HTTP alone.
        """
        options = {
            "target": target,
            "image": "true" if image else None,
            "stride_sec": stride_sec,
            "start_sec": start_sec,
            "end_sec": end_sec,
            "num_clips": num_clips,
            "num_crops": num_crops,
            "average": average,
            "format": None if stride_sec is None else "dict",
        }
        source = Source.of(video)
        texts = {name: str(value) for name, value in options.items() if value is not None}
        body = self._call("inference", lambda key: self._explain(key, source, model, version, texts), repeatable=True)
        try:
            return Explanation.from_json(json.loads(body))
        except ValueError:
            raise InvalidAnswer(f"the answer of {model} is not JSON: {body[:80]!r}") from None

    def answer(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Any:
        """The server's answer as parsed JSON, in whatever format the options ask for; for programs that pass it on.

        Options are those of the wire contract; those that are None are not sent.
        """
        source = Source.of(video)
        texts = {name: str(value) for name, value in (options or {}).items() if value is not None}
        body = self._call(
            "inference", lambda key: self._predict_once(key, source, model, version, texts), repeatable=True
        )
        try:
            return json.loads(body)
        except ValueError:
            raise InvalidAnswer(f"the answer of {model} is not JSON: {body[:80]!r}") from None
