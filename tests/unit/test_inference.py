"""How decoded views meet the model: side by side, in their windows' places, each failure with its video alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeService, Wakeup
from handlers.decode.threads import ThreadDecodeService
from handlers.errors import InternalError
from handlers.inference import create_inference
from handlers.limits import Limits
from handlers.model.outputs import Outputs
from handlers.model.runtimes import Logits, Turn
from handlers.neighbours import Activity, Neighbours
from handlers.pending import PendingVideo
from handlers.request.option_table import Output
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from handlers.video.transforms import Pathways
from handlers.video.view_reader import VideoReader

SPEC = get_spec("x3d_xs")
STREAMS = 2


def mark(view: np.ndarray) -> Logits:
    """Logits that tell which view they came from."""
    return np.array([[view.mean(dtype=np.float64), view.std(dtype=np.float64)]], dtype=np.float32)


class Marker:
    """A streamed runtime that answers a mark of each view, takes its time, and watches what runs beside it."""

    kind: Literal["streamed"] = "streamed"
    streams = STREAMS
    features_length: int | None = 2
    head = None

    def __init__(self, *, seconds: float = 0.01, fail_at: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(max_workers=STREAMS + 1)
        self._seconds, self._fail_at = seconds, fail_at
        self._lock = threading.Lock()
        self._running = 0
        self.most_running = 0
        self.alone: list[bool] = []
        self.turns: list[bool] = []

    def submit(
        self, pathways: Pathways, *, alone: bool, turn: Turn | None = None, features: bool = False, maps: bool = False
    ) -> Future[Outputs]:
        self.alone.append(alone)
        self.turns.append(turn is not None)
        return self._pool.submit(self._work, pathways[0], len(self.alone), turn or nullcontext, features)

    def _work(self, view: np.ndarray, number: int, turn: Turn, features: bool) -> Outputs:
        with turn():
            logits = self._compute(view, number)
            return Outputs(logits, logits + 1 if features else None)

    def _compute(self, view: np.ndarray, number: int) -> Logits:
        with self._lock:
            self._running += 1
            self.most_running = max(self.most_running, self._running)
        time.sleep(self._seconds)
        with self._lock:
            self._running -= 1
        if number == self._fail_at:
            raise RuntimeError("a secret of the model")
        assert view.shape == (1, 3, SPEC.num_frames, SPEC.crop_size, SPEC.crop_size)
        return mark(view)

    def logits(self, pathways: Pathways) -> Logits:
        return np.concatenate([mark(view) for view in pathways[0]])

    def describe(self) -> dict[str, object]:
        return {}

    def close(self) -> None:
        self._pool.shutdown()


class BatchMarker:
    """The same marks from a batched runtime."""

    kind: Literal["batched"] = "batched"
    max_batch = 4
    features_length: int | None = 2
    head = None

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.with_features: list[bool] = []

    def logits(self, pathways: Pathways) -> Logits:
        return self.outputs(pathways, features=False).logits

    def outputs(self, pathways: Pathways, *, features: bool, maps: bool = False) -> Outputs:
        self.sizes.append(len(pathways[0]))
        self.with_features.append(features)
        logits = np.concatenate([mark(view) for view in pathways[0]])
        return Outputs(logits, logits + 1 if features else None)

    def describe(self) -> dict[str, object]:
        return {}

    def close(self) -> None: ...


def open_video(payload: bytes | memoryview) -> VideoReader:
    return VideoReader(payload, SPEC, Limits(), autorotate=True, allocate=lambda shape: np.empty(shape, np.float32))


@pytest.fixture(params=["thread", "process"])
def decoder(request: pytest.FixtureRequest) -> Iterator[DecodeService]:
    service: DecodeService
    if request.param == "thread":
        service = ThreadDecodeService(open_video, workers=2)
    else:
        service = ProcessDecodeService(SPEC, Limits(), processes=2)
    yield service
    service.close()


@pytest.fixture
def marker() -> Iterator[Marker]:
    marker = Marker()
    yield marker
    marker.close()


def begin(decoder: DecodeService, payload: bytes, sampling: Sampling, *, output: Output = "scores") -> PendingVideo:
    request = VideoRequest(payload, RequestOptions(sampling=sampling, output=output))
    return PendingVideo(request, decoder.submit(payload, sampling), time.perf_counter())


def pack(views: np.ndarray) -> list[np.ndarray]:
    return [views]


def scores(video: PendingVideo) -> np.ndarray:
    """(windows, crops, 2), in the windows' order."""
    assert video.failure is None
    assert video.job.error is None
    assert video.job.report is not None
    return np.stack([video.scores[index].logits for index in sorted(video.scores)])


MANY = Sampling(num_clips=5, num_crops=3)


def test_those_with_and_without_features_share_batches(
    decoder: DecodeService, marker: Marker, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.inference._FILL_SEC", 60.0)
    monkeypatch.setattr(BatchMarker, "max_batch", 100)
    for runtime in (marker, batched := BatchMarker()):
        plain = begin(decoder, h264_video, Sampling(num_clips=2))
        embedded = begin(decoder, h264_video, Sampling(num_clips=2, num_crops=3), output="embedding")
        create_inference(runtime, decoder, pack).run([plain, embedded])
        assert all(window.features is None for window in plain.scores.values())
        for window in embedded.scores.values():
            assert window.features is not None
            np.testing.assert_array_equal(window.features, window.logits + 1)
            assert window.features.shape == (3, 2)
    assert (batched.sizes, batched.with_features) == ([8], [True])


def test_streams_and_batches_answer_the_same(decoder: DecodeService, marker: Marker, h264_video: bytes) -> None:
    samplings = [MANY, Sampling(), Sampling(num_clips=3)]
    streamed = [begin(decoder, h264_video, sampling) for sampling in samplings]
    create_inference(marker, decoder, pack).run(streamed)
    batches = BatchMarker()
    batched = [begin(decoder, h264_video, sampling) for sampling in samplings]
    create_inference(batches, decoder, pack).run(batched)
    for one, other in zip(streamed, batched, strict=True):
        np.testing.assert_array_equal(scores(one), scores(other))
    assert scores(streamed[0]).shape == (5, 3, 2)
    assert len(np.unique(scores(streamed[0]).reshape(-1, 2), axis=0)) == 15  # else places could be mixed up unseen
    assert len(marker.alone) == sum(batches.sizes) == 19
    assert max(batches.sizes) == BatchMarker.max_batch


def test_streams_are_filled_and_never_more(decoder: DecodeService, marker: Marker, h264_video: bytes) -> None:
    create_inference(marker, decoder, pack).run([begin(decoder, h264_video, MANY) for _ in range(3)])
    assert marker.most_running == STREAMS
    assert len(marker.alone) == 45


def test_only_a_lone_view_gets_all_cores(decoder: DecodeService, marker: Marker, h264_video: bytes) -> None:
    inference = create_inference(marker, decoder, pack)
    inference.run([begin(decoder, h264_video, Sampling())])
    assert marker.alone == [True]
    inference.run([begin(decoder, h264_video, Sampling(num_crops=3))])
    assert marker.alone[1:3] == [False, False]


def test_time_in_the_model_counts_once(decoder: DecodeService, h264_video: bytes) -> None:
    """What two views take side by side is the video's wait once, not twice."""
    marker = Marker(seconds=0.05)
    video = begin(decoder, h264_video, MANY)
    started = time.perf_counter()
    create_inference(marker, decoder, pack).run([video])
    elapsed = time.perf_counter() - started
    marker.close()
    assert 15 / STREAMS * 0.05 * 0.99 <= video.inference_sec <= elapsed


def test_a_view_that_fails_fails_its_video_alone(decoder: DecodeService, h264_video: bytes) -> None:
    marker = Marker(fail_at=1)
    videos = [begin(decoder, h264_video, MANY) for _ in range(4)]
    inference = create_inference(marker, decoder, pack)
    inference.run(videos)
    failed = [video for video in videos if video.failure is not None]
    assert len(failed) == 1
    assert isinstance(failed[0].failure, InternalError)
    assert "secret" not in failed[0].failure.message
    assert {scores(video).shape for video in videos if video.failure is None} == {(5, 3, 2)}
    again = begin(decoder, h264_video, MANY)  # nothing of the failure is left over
    inference.run([again])
    marker.close()
    assert scores(again).shape == (5, 3, 2)


def test_a_runtime_that_cannot_even_start(decoder: DecodeService, marker: Marker, h264_video: bytes) -> None:
    def broken(_: np.ndarray) -> list[np.ndarray]:
        raise MemoryError

    video = begin(decoder, h264_video, Sampling())
    create_inference(marker, decoder, broken).run([video])
    assert isinstance(video.failure, InternalError)


def test_no_video_at_all(decoder: DecodeService, marker: Marker) -> None:
    create_inference(marker, decoder, pack).run([])
    assert marker.alone == []


def test_a_bell_wakes_who_waits(decoder: DecodeService) -> None:
    ring: Callable[[], None] = decoder.wakeup.notify
    timer = threading.Timer(0.05, ring)
    timer.start()
    decoder.wait(30.0, also_for_wakeup=True)
    timer.join()
    started = time.perf_counter()
    decoder.wait(0.05, also_for_wakeup=True)  # the notification is used up
    assert time.perf_counter() - started > 0.04


def test_a_bell_rings_without_anyone() -> None:
    wakeup = Wakeup()
    for _ in range(100_000):  # far more than the pipe holds
        wakeup.notify()
    wakeup.clear()
    wakeup.close()
    wakeup.notify()


def test_a_long_run_takes_turns_and_a_quick_one_does_not(
    decoder: DecodeService, marker: Marker, tmp_path: Path, h264_video: bytes
) -> None:
    mine = Neighbours(tmp_path, cores=STREAMS)
    inference = create_inference(marker, decoder, pack, mine)
    inference.run([begin(decoder, h264_video, Sampling(num_clips=2, num_crops=3))])
    assert marker.turns == [False] * 6
    inference.run([begin(decoder, h264_video, MANY)])
    assert marker.turns[6:] == [True] * 15
    mine.close()


def test_beside_a_quick_one_a_long_run_leaves_a_stream(
    decoder: DecodeService, marker: Marker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, h264_video: bytes
) -> None:
    mine = Neighbours(tmp_path, cores=STREAMS)
    inference = create_inference(marker, decoder, pack, mine)
    inference.run([begin(decoder, h264_video, MANY)])
    assert marker.most_running == STREAMS
    marker.most_running = 0
    monkeypatch.setattr(mine, "busy", lambda: [Activity.QUICK])
    inference.run([begin(decoder, h264_video, MANY)])
    assert marker.most_running == STREAMS - 1
    mine.close()


def test_beside_others_no_view_gets_all_cores(
    decoder: DecodeService, marker: Marker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, h264_video: bytes
) -> None:
    mine = Neighbours(tmp_path, cores=STREAMS)
    inference = create_inference(marker, decoder, pack, mine)
    inference.run([begin(decoder, h264_video, Sampling())])
    monkeypatch.setattr(mine, "busy", lambda: [Activity.LONG])
    inference.run([begin(decoder, h264_video, Sampling())])
    assert marker.alone == [True, False]
    mine.close()


def test_the_video_that_had_least_is_next(decoder: DecodeService, h264_video: bytes) -> None:
    """A quick one does not wait until the many views before it are done."""
    marker = Marker(seconds=0.02)
    long, quick = begin(decoder, h264_video, MANY), begin(decoder, h264_video, Sampling())
    done: list[int] = []
    quick.on_scores = lambda video: done.append(long.views_begun)
    create_inference(marker, decoder, pack).run([long, quick])
    marker.close()
    assert len(done) == 1
    assert done[0] < 15


def test_a_listener_hears_of_each_window_and_its_failure_is_its_videos_alone(
    decoder: DecodeService, marker: Marker, h264_video: bytes
) -> None:
    heard, broken, fine = (begin(decoder, h264_video, MANY) for _ in range(3))
    counts: list[int] = []
    heard.on_scores = lambda video: counts.append(len(video.scores))

    def fail(video: PendingVideo) -> None:
        raise OSError("the connection is gone")

    broken.on_scores = fail
    create_inference(marker, decoder, pack).run([heard, broken, fine])
    assert counts == [1, 2, 3, 4, 5]
    assert isinstance(broken.failure, InternalError)
    assert "connection" not in broken.failure.message
    assert scores(heard).shape == scores(fine).shape == (5, 3, 2)
