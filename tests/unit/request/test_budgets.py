"""What a request may cost while it runs: its time, its views, its predictions; others of its batch are not affected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import wait as wait_for
from typing import Literal

import numpy as np
import pytest

from handlers.config import HandlerConfig
from handlers.decode.service import DecodeJob, Delivery, Wakeup
from handlers.errors import InvalidOption, RequestTimeout
from handlers.limits import Limits
from handlers.model.archive_info import ArchiveInfo, WeightsInfo
from handlers.model.outputs import Outputs
from handlers.model.runtimes import Logits, Turn
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores
from handlers.request.budgets import Budget, Demand, planned_views
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import get_spec
from handlers.video.sampling import Sampling, VideoReport, Window, WindowViews
from handlers.video.transforms import Pathways

SPEC = get_spec("x3d_xs")
REPORT = VideoReport(
    duration_sec=1.0, width=8, height=8, fps=30.0, codec="h264", frames_decoded=1, decode_ms=1.0, transform_ms=1.0
)
ARCHIVE = ArchiveInfo(
    spec=SPEC.name,
    name="tiny",
    version="1.0",
    num_classes=3,
    head=SPEC.head,
    weights=WeightsInfo(kind="random", source=None, sha256="0" * 64, seed=3),
    package_version="test",
)


class ScriptedDecoder:
    """A decode service whose payloads are its script: a number of windows, `endless`, or `stuck`.

    Each `wait` delivers one window of every job under way. `tells`: jobs know their number of windows beforehand.
    """

    sandbox = ()
    restarts: Mapping[str, int] = {}

    def __init__(self, *, tells: bool = True) -> None:
        self.wakeup, self._tells = Wakeup(), tells
        self.submitted: list[DecodeJob] = []
        self.cancelled: list[DecodeJob] = []
        self.delivered: Counter[int] = Counter()
        self.released = 0

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        self.submitted.append(DecodeJob(payload, sampling))
        return self.submitted[-1]

    def wait(self, timeout_sec: float | None = None, *, also_for_wakeup: bool = False) -> None:
        busy = [job for job in self.submitted if not job.ended and not job.cancelled]
        moving = [job for job in busy if bytes(job.payload) != b"stuck"]
        for job in moving:
            self._advance(job)
        if not moving and (also_for_wakeup or busy):
            wait_for([self.wakeup.fileno()], timeout_sec)
        self.wakeup.clear()

    def _advance(self, job: DecodeJob) -> None:
        total = 10**9 if bytes(job.payload) == b"endless" else int(bytes(job.payload))
        if self._tells:
            job.num_windows = total
        number = self.delivered[id(job)]
        if number >= total:
            job.report = REPORT
            return
        self.delivered[id(job)] += 1
        views = np.full((job.sampling.num_crops, 3, 1, 1, 1), number, dtype=np.float32)
        job.deliveries.append(Delivery(WindowViews(number, Window(0.0, 1.0), views), self._release))

    def _release(self) -> None:
        self.released += 1

    def await_ready(self) -> None:
        """It needs no start."""

    def cancel(self, job: DecodeJob) -> None:
        job.cancelled = True
        self.cancelled.append(job)
        while job.deliveries:
            job.deliveries.popleft().release()

    def close(self) -> None:
        self.wakeup.close()


class Streamed:
    """A runtime whose views come out at once."""

    kind: Literal["streamed"] = "streamed"
    streams = 2
    features_length: int | None = None
    head = None

    def submit(
        self, pathways: Pathways, *, alone: bool, turn: Turn | None = None, features: bool = False, maps: bool = False
    ) -> Future[Outputs]:
        done: Future[Outputs] = Future()
        done.set_result(Outputs(self.logits(pathways)))
        return done

    def logits(self, pathways: Pathways) -> Logits:
        return np.tile(np.array([[0.0, 1.0, 2.0]], dtype=np.float32), (len(pathways[0]), 1))

    def describe(self) -> dict[str, object]:
        return {}

    def close(self) -> None: ...


class Batched:
    kind: Literal["batched"] = "batched"
    max_batch = 4
    features_length: int | None = None
    head = None
    describe, close = Streamed.describe, Streamed.close

    def logits(self, pathways: Pathways) -> Logits:
        return Streamed().logits(pathways)

    def outputs(self, pathways: Pathways, *, features: bool, maps: bool = False) -> Outputs:
        return Outputs(self.logits(pathways))


Make = Callable[..., tuple[VideoClassifier, ScriptedDecoder]]


@pytest.fixture(params=[Streamed, Batched])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """`make(tells=True)`: a classifier on either kind of runtime, and its decoder."""
    made: list[VideoClassifier] = []

    def classifier(*, tells: bool = True) -> tuple[VideoClassifier, ScriptedDecoder]:
        decoder = ScriptedDecoder(tells=tells)
        made.append(
            VideoClassifier(
                spec=SPEC,
                labels=("a", "b", "c"),
                config=HandlerConfig(spec=SPEC.name),
                archive=ARCHIVE,
                decoder=decoder,
                runtime=request.param(),
            )
        )
        return made[-1], decoder

    yield classifier
    for each in made:
        each.close()


def video(script: str, *, top_k: int = 1, full: bool = False, crops: int = 1) -> VideoRequest:
    """A request for a timeline, so that only the decoder knows how many windows it has."""
    sampling = Sampling(stride_sec=1.0, num_crops=crops)
    return VideoRequest(
        script.encode(), RequestOptions(top_k=top_k, sampling=sampling, format="full" if full else "dict")
    )


def budget(*videos: VideoRequest, seconds: float = 60.0, **limits: int) -> Budget:
    bounds = Limits(**limits, request_timeout_sec=60.0)
    return Budget(bounds, time.monotonic() + seconds, planned_views((each.options for each in videos), bounds))


def run(classifier: VideoClassifier, *bodies: tuple[Budget, list[VideoRequest]]) -> list[list[str]]:
    """Bodies in one batch -> per body the kinds of its outcomes."""
    requests = [request for _, videos in bodies for request in videos]
    budgets = [budget for budget, videos in bodies for _ in videos]
    results = iter(classifier.score(classifier.prepare(requests, budgets)))
    return [[type(next(results)).__name__ for _ in videos] for _, videos in bodies]


OK = ["VideoScores"]
LATE = ["RequestTimeout"]


@pytest.mark.parametrize("script", ["endless", "stuck"])
def test_a_request_ends_at_its_deadline_and_the_others_are_answered(make: Make, script: str) -> None:
    classifier, decoder = make(tells=False)
    heavy, quick = [video(script)], [video("3")]
    found = run(classifier, (budget(seconds=0.3, max_views=10**8), heavy), (budget(), quick))
    assert found == [LATE, OK]
    assert [bytes(job.payload) for job in decoder.cancelled] == [script.encode()]
    assert decoder.released == decoder.delivered.total()
    assert run(classifier, (budget(), quick)) == [OK]


def test_the_message_says_what_is_allowed(make: Make) -> None:
    classifier, _ = make()
    (failure,) = classifier.score(classifier.prepare([video("stuck")], [budget(seconds=0.0)]))
    assert isinstance(failure, RequestTimeout)
    assert failure.message == "the request took longer than the 60 s that are allowed"


def test_all_videos_of_a_late_request_fail_and_those_that_wait_are_cancelled_first(make: Make) -> None:
    """Else the decoder that one of them leaves would be given the next."""
    classifier, decoder = make()
    body = [video("2"), video("stuck"), video("stuck")]
    assert run(classifier, (budget(seconds=0.2), body)) == [LATE * 3]
    assert decoder.cancelled == decoder.submitted[::-1]


def test_a_request_that_was_done_in_time_is_not_late(make: Make) -> None:
    classifier, _ = make()
    early, late = budget(seconds=1.0), budget(seconds=1.5)
    assert run(classifier, (early, [video("2"), video("1")]), (late, [video("stuck")])) == [OK * 2, LATE]


@pytest.mark.parametrize("tells", [True, False])
def test_views_are_counted_over_a_body_once_the_windows_are_known(make: Make, tells: bool) -> None:
    classifier, decoder = make(tells=tells)
    body = [video("5", crops=3), video("6", crops=3)]
    results = classifier.score(classifier.prepare(body, [budget(max_views=30)] * 2))
    for failure in results:
        assert isinstance(failure, InvalidOption)
        assert failure.message.startswith("this body asks for 33 views in all; at most 30 are allowed")
    assert set(decoder.cancelled) == set(decoder.submitted)
    assert decoder.released == decoder.delivered.total()
    if tells:
        assert max(decoder.delivered.values()) <= 1  # refused with the first word of the second video
    assert run(classifier, (budget(max_views=33), body)) == [OK * 2]


@pytest.mark.parametrize("tells", [True, False])
def test_another_bodys_views_do_not_count(make: Make, tells: bool) -> None:
    classifier, _ = make(tells=tells)
    bodies = [(budget(max_views=10), [video("6")]), (budget(max_views=10), [video("11")]), (budget(), [video("9")])]
    assert run(classifier, *bodies) == [OK, ["InvalidOption"], OK]


@pytest.mark.parametrize("tells", [True, False])
def test_predictions_are_counted_where_the_answer_holds_each_window(make: Make, tells: bool) -> None:
    classifier, _ = make(tells=tells)
    long, short = [video("6", top_k=2, full=True)], [video("6", top_k=2)]
    found = run(classifier, (budget(max_predictions=11), long), (budget(max_predictions=11), short))
    assert found == [["InvalidOption"], OK]
    assert run(classifier, (budget(max_predictions=12), long)) == [OK]


def test_an_embedding_counts_as_many_predictions() -> None:
    options = RequestOptions(output="embedding", format="full", top_k=400)
    assert Demand(options, 3).predictions == 3 * 128
    assert Demand(replace(options, format="dict"), 3).predictions == 128


def test_those_who_ask_for_few_views_are_decoded_first(make: Make) -> None:
    classifier, decoder = make()
    clips = VideoRequest(b"3", RequestOptions(sampling=Sampling(num_clips=3)))
    quick = VideoRequest(b"1", RequestOptions())
    bodies = [[video("7")], [clips], [quick, quick], [quick]]
    found = run(classifier, *[(budget(*body), body) for body in bodies])
    assert found == [OK, OK, OK * 2, OK]
    assert [bytes(job.payload) for job in decoder.submitted] == [b"1", b"1", b"1", b"3", b"7"]
    assert decoder.submitted[0].sampling.num_clips == 1


def test_without_a_budget_nothing_is_bounded(make: Make) -> None:
    classifier, _ = make()
    (result,) = classifier.classify([video("13000", crops=1)])
    assert isinstance(result, VideoScores)
    assert len(result.windows) == 13000


def test_a_batch_that_breaks_leaves_no_decoder_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, decoder = make()

    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    pending = classifier.prepare([video("3"), video("stuck")])
    monkeypatch.setattr(decoder, "wait", broken)
    with pytest.raises(MemoryError):
        classifier.score(pending)
    assert set(decoder.cancelled) == set(decoder.submitted)
