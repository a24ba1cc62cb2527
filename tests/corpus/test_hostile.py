"""The corpus's hostile files, and its largest ordinary ones: refused or answered, fast and small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.specs import get_spec
from tests.support.corpus import HUGE, NOTHING
from tests.support.decoding import decode, memory_bytes, reset_peak
from tests.support.guarded import MOST_BYTES, Guarded, check, guarded_service, listening
from tests.support.hostile import corpus_classes

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc, which only Linux has"),
]


@pytest.fixture(scope="module")
def guarded(h264_video: bytes) -> Iterator[Guarded]:
    with guarded_service(get_spec("x3d_xs"), h264_video) as service:
        yield service


@pytest.fixture(scope="module")
def callers() -> Iterator[list[str]]:
    with listening() as seen:
        yield seen


@pytest.mark.parametrize("name", sorted(corpus_classes()) or [NOTHING])
def test_hostile_file_of_the_corpus(guarded: Guarded, callers: list[str], corpus: Path, name: str) -> None:
    outcome = check(guarded, (corpus / "hostile" / name).read_bytes())
    expected = corpus_classes()[name]
    if expected != "either":
        assert outcome.status == expected, outcome.error
    assert callers == []


@pytest.mark.parametrize("name", sorted(HUGE))
def test_largest_ordinary_videos_fit(guarded: Guarded, corpus: Path, name: str) -> None:
    pid = guarded.service.process_ids()[0]
    reset_peak(pid)
    outcome = decode(guarded.service, (corpus / name).read_bytes())
    assert outcome.error is None
    assert guarded.service.process_ids() == [pid]
    assert memory_bytes(pid, "VmHWM") < guarded.idle_bytes + MOST_BYTES
