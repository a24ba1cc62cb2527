"""Pods of the real manifests under load: uploads as large as they may be.

VIDEO_SERVING_IMAGE names the image, as in test_image.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.deployment import edge, padded
from tests.support.pods import pod

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
