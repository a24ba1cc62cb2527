"""Pods of the real manifests under load: uploads as large as they may be, and replicas that come and go.

VIDEO_SERVING_IMAGE names the image, as in test_image.py.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.deployment import edge, padded
from tests.support.pods import Pod, pod

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]
ALICE = {"Authorization": "Bearer alices-key", "Content-Type": "video/mp4"}


def predict(url: str, body: bytes) -> requests.Response:
    # A connection of its own for each, as from many clients.
    return requests.post(f"{url}/predictions/camera_motion", data=body, headers=ALICE, timeout=300, verify=False)


class Load:
    """What clients that ask without a pause were answered, `None` where they got no answer; one entry per request."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes] | None] = []

    def wait_for(self, more: int) -> None:
        """Until so many more requests are answered."""
        until = len(self.answers) + more
        while len(self.answers) < until:
            time.sleep(0.05)


@contextmanager
def load(url: str, body: bytes, *, clients: int) -> Iterator[Load]:
    found, stopping = Load(), threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            try:
                answer = predict(url, body)
                found.answers.append((answer.status_code, answer.content))
            except requests.RequestException:
                found.answers.append(None)

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(ask)
        try:
            yield found
        finally:
            stopping.set()


def take_out(leaving: Pod, change_edge: Callable[[], None]) -> None:
    """The pod is told to stop; that it is gone reaches those who send it requests a second later."""
    deletion = threading.Thread(target=leaving.delete)
    deletion.start()
    time.sleep(1.0)
    change_edge()
    deletion.join()


def test_replicas_are_replaced_drained_and_killed_without_a_loss(
    image: str, embedded_store: Path, tmp_path: Path, h264_video: bytes
) -> None:
    """A thousand requests of 0.8 MB meanwhile, to two pods behind the edge.

    A rolling update as the Deployment orders it, no replica less and one more; a drained node, whose pod is replaced
    only after it has gone; and a pod that is gone at once.
    """
    body = padded(h264_video)
    with ExitStack() as stack:

        def start(name: str) -> Pod:
            made = stack.enter_context(pod(image, embedded_store, tmp_path / name))
            made.wait_ready()
            return made

        serving = [start("one"), start("two")]
        before_them = stack.enter_context(edge([each.address for each in serving], tmp_path))

        def change_edge() -> None:
            before_them.change([each.address for each in serving])

        expected = predict(before_them.url, body)
        assert expected.status_code == 200
        with load(before_them.url, body, clients=4) as found:
            for name in ("three", "four"):
                found.wait_for(100)
                serving.append(start(name))
                change_edge()
                take_out(serving.pop(0), change_edge)
            found.wait_for(100)
            take_out(serving.pop(0), change_edge)
            serving.append(start("five"))
            change_edge()
            found.wait_for(100)
            serving[0].kill()
            found.wait_for(max(1000 - len(found.answers), 100))
    assert len(found.answers) >= 1000
    assert Counter(found.answers) == {(200, expected.content): len(found.answers)}


def test_two_of_the_largest_uploads_at_once_are_answered_within_the_limit(
    image: str, embedded_store: Path, tmp_path: Path, h264_video: bytes
) -> None:
    """Two bodies of 190 MB into one pod with the manifest's memory: they wait for each other."""
    body = padded(h264_video, 190)
    with pod(image, embedded_store, tmp_path / "alone") as alone, edge([alone.address], tmp_path) as before_it:
        alone.wait_ready()
        small = predict(before_it.url, h264_video)
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: predict(before_it.url, body), range(2)))
        assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
        assert {answer.content for answer in answers} == {small.content}
        assert predict(before_it.url, h264_video).content == small.content
        assert alone.inspect("State", "Running") is True
        assert alone.inspect("State", "OOMKilled") is False
        assert "ended by itself" not in alone.logs()
