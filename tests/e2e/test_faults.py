"""Neighbours in one batch, and a worker that is killed: what one request's misfortune does to the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.server import TorchServe
from tests.support.decoding import wait_until
from tests.support.traffic import Answer, Client, steady, variant

pytestmark = pytest.mark.e2e

BATCH = 8
DELAY_MS = 4000
"""How long TorchServe waits for a batch to fill: eight answers that come sooner were computed together."""


@pytest.fixture(scope="module")
def crowded(server: TorchServe, x3d_xs_archive: Path) -> str:
    """The model again, registered so that eight requests share a batch."""
    path = variant(x3d_xs_archive, "crowded", settings={"batchSize": BATCH, "maxBatchDelay": DELAY_MS})
    server.register(path.name)
    return "crowded"


@pytest.fixture(scope="module")
def batch(indexed_video: Callable[[str], bytes]) -> list[tuple[bytes, int]]:
    """Good and bad requests, mixed, with the status of each: as many as a batch holds."""
    good, other = indexed_video("h264"), indexed_video("vp9")
    return [
        (good, 200),
        (b"not a video at all", 415),
        (other, 200),
        (good[:3000], 422),
        (indexed_video("mpeg4"), 200),
        (b"", 400),
        (indexed_video("h264_ts"), 200),
        (good[: good.index(b"moov")], 422),
    ]


def test_good_answers_are_bit_identical_in_a_batch_with_bad_ones(
    server: TorchServe, crowded: str, batch: list[tuple[bytes, int]]
) -> None:
    alone = Client(server, "x3d_xs")
    together = Client(server, crowded)
    expected = [alone.post(video, Top_K="400") for video, _ in batch]
    assert [answer.status for answer in expected] == [status for _, status in batch]
    videos = [video for video, _ in batch]
    for turn in range(3):
        rotated = videos[turn:] + videos[:turn]
        started = time.monotonic()
        answers = together.post_all(rotated, threads=BATCH, Top_K="400")
        assert time.monotonic() - started < DELAY_MS / 1000, "the requests did not share a batch"
        assert_same(answers, expected[turn:] + expected[:turn])


def test_the_same_over_grpc(server: TorchServe, crowded: str, batch: list[tuple[bytes, int]]) -> None:
    videos = [video for video, _ in batch]
    expected = [Client(server, "x3d_xs").grpc_all([video], top_k="400")[0] for video in videos]
    assert [answer.status for answer in expected] == [status for _, status in batch]
    started = time.monotonic()
    answers = Client(server, crowded).grpc_all(videos, top_k="400")
    assert time.monotonic() - started < DELAY_MS / 1000, "the requests did not share a batch"
    assert_same(answers, expected)
    http = Client(server, "x3d_xs").post(videos[0], Top_K="400")
    assert http.body == expected[0].body


def assert_same(answers: list[Answer], expected: list[Answer]) -> None:
    """The same bytes: every score to its last digit, every message."""
    for answer, wanted in zip(answers, expected, strict=True):
        assert (answer.status, answer.body) == (wanted.status, wanted.body)
    assert len({answer.body for answer in answers if answer.status == 200}) > 1, "all answers are alike"


def test_a_worker_killed_under_load_is_replaced(server: TorchServe, x3d_xs_archive: Path, h264_video: bytes) -> None:
    server.register(variant(x3d_xs_archive, "mortal").name)
    client = Client(server, "mortal")
    expected = client.post(h264_video)
    assert expected.status == 200
    pid = server.worker_pids("mortal")[0]
    with steady(lambda: client.post(h264_video), threads=4) as stream:
        wait_until("some answers", lambda: len(stream.answers) > 20, within_sec=60)
        os.kill(pid, signal.SIGKILL)
        wait_until("a refusal while there is no worker", lambda: any(a.status != 200 for a in stream.answers[20:]),
                   within_sec=60)  # fmt: skip
        wait_until("another worker", lambda: server.is_ready("mortal"), within_sec=120)
    assert server.worker_pids("mortal") != [pid]
    assert {answer.body for answer in stream.answers if answer.status == 200} == {expected.body}
    assert all(answer.status in (200, 500, 503, 507) for answer in stream.answers)
    assert stream.failures == []
    after = [client.post(h264_video) for _ in range(5)]
    assert [(answer.status, answer.body) for answer in after] == [(200, expected.body)] * 5
    server.unregister("mortal")
