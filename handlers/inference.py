"""Decoded views -> the model -> scores, while other videos of the same batch are still decoded.

Two ways, depending on the runtime: `StreamedInference` gives each view to the model as it comes, several side by
side; `BatchedInference` fills a batch first. Both are driven by one thread and a failure affects only its own video.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handlers.decode.service import DecodeService, Delivery
from handlers.errors import InternalError, RequestError
from handlers.model.outputs import Outputs
from handlers.model.runtimes import BatchedRuntime, StreamedRuntime
from handlers.neighbours import Activity, Neighbours
from handlers.pending import PendingVideo, end, enforce_budgets, time_left
from handlers.request.answer import WindowScores

logger = logging.getLogger(__name__)

_QUICK_VIEWS = 8  # a request of more views is a long one, and leaves cores to those that are not
_FILL_SEC = 0.5  # how long the first views of a batch wait for others; a slow video may take longer

Views = NDArray[np.float32]
Pack = Callable[[Views], list[Views]]
"""Views (N, 3, T, S, S) -> the model's pathways, one array each."""


class Inference(Protocol):
    """Runs the model on the views of these videos as they are decoded, until every video has ended."""

    def run(self, videos: Sequence[PendingVideo]) -> None: ...


def create_inference(
    runtime: BatchedRuntime | StreamedRuntime, decoder: DecodeService, pack: Pack, neighbours: Neighbours | None = None
) -> Inference:
    """The way of running that suits the runtime."""
    if runtime.kind == "streamed":
        return StreamedInference(runtime, decoder, pack, neighbours)
    return BatchedInference(runtime, decoder, pack)


class StreamedInference:
    """Every view is computed by itself, as many side by side as the runtime has streams.

    No core waits for a batch to fill or to end: while decoders work and views come, each stream takes the next view,
    one of the video that has had the fewest so far. Other workers of the model share the cores: beside them a view is
    computed on one core, and the views of a run of many wait for their turn.
    """

    def __init__(
        self, runtime: StreamedRuntime, decoder: DecodeService, pack: Pack, neighbours: Neighbours | None = None
    ) -> None:
        self._runtime, self._decoder, self._pack = runtime, decoder, pack
        self._neighbours = neighbours or Neighbours()

    def run(self, videos: Sequence[PendingVideo]) -> None:
        _StreamedRun(self._runtime, self._decoder, self._pack, self._neighbours, videos).drive()


class _StreamedRun:
    """The views of one batch of videos: those that wait, those that are in the model, and those that came out."""

    def __init__(
        self,
        runtime: StreamedRuntime,
        decoder: DecodeService,
        pack: Pack,
        neighbours: Neighbours,
        videos: Sequence[PendingVideo],
    ) -> None:
        self._runtime, self._decoder, self._pack, self._videos = runtime, decoder, pack, videos
        self._neighbours = neighbours
        self._waiting: deque[_View] = deque()
        self._under_way = 0
        self._is_long = False
        self._done: queue.SimpleQueue[tuple[_View, Future[Outputs], float]] = queue.SimpleQueue()

    def drive(self) -> None:
        while True:
            for window in _new_windows(self._videos):
                self._waiting.extend(_View(window, index) for index in range(len(window.views)))
            enforce_budgets(self._videos, self._decoder)
            self._tell_if_long()
            while self._waiting and self._under_way < self._streams():
                self._start(self._next())
            if self._under_way == 0 and all(video.ended for video in self._videos):
                return
            self._decoder.wait(time_left(self._videos), also_for_wakeup=self._under_way > 0)
            while not self._done.empty():
                self._finish(*self._done.get())

    def _tell_if_long(self) -> None:
        if not self._is_long and sum(video.demand.views for video in self._videos) > _QUICK_VIEWS:
            self._is_long = True
            self._neighbours.set(Activity.LONG)

    def _streams(self) -> int:
        """How many views may be computed at the same time; a long run leaves a core to quick ones beside it."""
        if not self._is_long:
            return self._runtime.streams
        return min(self._runtime.streams, self._neighbours.turns)

    def _next(self) -> _View:
        """The next view of the video that has had the fewest in the model; the first that came among equals."""
        view = min(self._waiting, key=lambda view: view.window.video.views_begun)
        self._waiting.remove(view)
        return view

    def _start(self, view: _View) -> None:
        if view.window.video.failure is not None:
            view.window.release()
            return

        def on_done(future: Future[Outputs]) -> None:  # in a thread of the runtime
            self._done.put((view, future, time.perf_counter()))
            self._decoder.wakeup.notify()

        alone = self._is_alone(view)
        self._under_way += 1
        view.window.video.model_begins()
        self._submit(view, alone=alone).add_done_callback(on_done)

    def _submit(self, view: _View, *, alone: bool) -> Future[Outputs]:
        try:
            pathways = self._pack(view.window.views[view.index : view.index + 1])
            window, turn = view.window, self._neighbours.turn if self._is_long else None
            return self._runtime.submit(
                pathways, alone=alone, turn=turn, features=window.wants_features, maps=window.wants_maps
            )
        except Exception as error:  # noqa: BLE001  whatever it is, it is this view's, as if the model had raised it
            failed: Future[Outputs] = Future()
            failed.set_exception(error)
            return failed

    def _is_alone(self, view: _View) -> bool:
        """Whether no other view is there or will come while this one is computed."""
        mine = view.window.video
        others_ended = all(video.ended or video is mine for video in self._videos)
        is_last = not self._waiting and self._under_way == 0 and others_ended and not mine.may_bring_more
        return is_last and not self._neighbours.busy()

    def _finish(self, view: _View, future: Future[Outputs], at: float) -> None:
        """Record the outputs; an error of the model fails only the video that the view belongs to."""
        self._under_way -= 1
        view.window.video.model_ends(at)
        error = future.exception()
        if error is not None:
            logger.error("the model failed on a view: %s", type(error).__name__)
            view.window.release()
            _give_up(view.window.video, self._decoder)
        elif view.window.add(view.index, future.result(), self._decoder):
            view.window.release()


class BatchedInference:
    """Views of all videos fill a batch; they are copied out of the decoder's memory, so that decoding goes on."""

    def __init__(self, runtime: BatchedRuntime, decoder: DecodeService, pack: Pack) -> None:
        self._runtime, self._decoder, self._pack = runtime, decoder, pack

    def run(self, videos: Sequence[PendingVideo]) -> None:
        while ready := self._gather(videos):
            self._run(ready)

    def _gather(self, videos: Sequence[PendingVideo]) -> list[_Window]:
        """Windows for one batch or a little more, or those that came before a pause; empty when every video is done."""
        ready: list[_Window] = []
        since = 0.0
        while True:
            for window in _new_windows(videos):
                window.detach()
                ready.append(window)
            enforce_budgets(videos, self._decoder)
            ready = [window for window in ready if window.video.failure is None]
            is_full = sum(len(window.views) for window in ready) >= self._runtime.max_batch
            is_waiting = bool(ready) and since > 0.0 and time.monotonic() - since >= _FILL_SEC
            if is_full or is_waiting or all(video.ended for video in videos):
                return ready
            since = since or (time.monotonic() if ready else 0.0)
            limits = [limit for limit in (time_left(videos), _FILL_SEC if ready else None) if limit is not None]
            self._decoder.wait(min(limits, default=None))

    def _run(self, ready: Sequence[_Window]) -> None:
        for window in ready:
            window.video.model_begins()
        try:
            outputs = self._outputs(ready)
        except Exception as error:  # noqa: BLE001  whatever the runtime raises, the server is at fault
            logger.error("the model failed on %d windows: %s", len(ready), type(error).__name__)
            for window in ready:
                _give_up(window.video, self._decoder)
            return
        ended, first = time.perf_counter(), 0
        for window in ready:
            window.video.model_ends(ended)
            for index in range(len(window.views)):
                window.add(index, outputs[first + index], self._decoder)
            first += len(window.views)

    def _outputs(self, ready: Sequence[_Window]) -> list[Outputs]:
        """Those of each view. Windows share batches whatever they want besides logits."""
        views, size = np.concatenate([window.views for window in ready]), self._runtime.max_batch
        wanted = [(window.wants_features, window.wants_maps) for window in ready for _ in window.views]
        parts = [
            self._runtime.outputs(
                self._pack(views[at : at + size]),
                features=any(features for features, _ in wanted[at : at + size]),
                maps=any(maps for _, maps in wanted[at : at + size]),
            )
            for at in range(0, len(views), size)
        ]
        return [part.of_view(index) for part in parts for index in range(len(part.logits))]


class _Window:
    """One window's views on their way to the model, and what the model gives for each, as it comes back."""

    def __init__(self, video: PendingVideo, delivery: Delivery) -> None:
        self.video, self._delivered = video, delivery.window
        self.views = delivery.window.views
        self._release: Callable[[], None] | None = delivery.release
        self._outputs: dict[int, Outputs] = {}
        self.wants_features = video.request.options.output == "embedding"
        self.wants_maps = video.evidence is not None

    def detach(self) -> None:
        """Copy the views, so that the decoder gets its memory back."""
        if self._release is not None:
            self.views = self.views.copy()
            self.release()

    def release(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    def add(self, index: int, outputs: Outputs, decoder: DecodeService) -> bool:
        """One view's outputs. With the last of them the video gets the window's scores: True.

        A failure to send what is streamed ends the video.
        """
        self._outputs[index] = outputs
        if len(self._outputs) < len(self.views):
            return False
        ordered = [self._outputs[index] for index in range(len(self.views))]
        logits = np.concatenate([each.logits for each in ordered])
        features = [each.features for each in ordered if each.features is not None]
        scores = WindowScores(
            self._delivered.window, logits, np.concatenate(features) if features and self.wants_features else None
        )
        try:
            if self.video.evidence is not None:
                self.video.evidence.add(replace(self._delivered, views=self.views), ordered)
            self.video.add_scores(self._delivered.index, scores)
        except RequestError as error:
            end(self.video, error, decoder)
        except Exception as error:  # noqa: BLE001  whatever it is, other videos must not fail with it
            logger.error("the scores of a window were not sent: %s", type(error).__name__)
            _give_up(self.video, decoder)
        return True


@dataclass(frozen=True, slots=True)
class _View:
    """One of a window's crops."""

    window: _Window
    index: int


def _new_windows(videos: Sequence[PendingVideo]) -> Iterator[_Window]:
    """What was delivered since the last call, in the order of the videos."""
    for video in videos:
        while video.job.deliveries:
            video.windows_taken += 1
            yield _Window(video, video.job.deliveries.popleft())


def _give_up(video: PendingVideo, decoder: DecodeService) -> None:
    end(video, InternalError("the model failed on this video; try again"), decoder)
