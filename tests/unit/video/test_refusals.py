"""Why a video is refused: every code, its values and its sentence."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

import handlers.video
from handlers.video.refusals import REFUSALS, UnknownRefusal, refusal_of, refused

SOURCES = "".join(path.read_text() for path in Path(handlers.video.__file__).parent.glob("*.py"))
SOURCES += (Path(handlers.video.__file__).parent.parent / "decode" / "worker.py").read_text()


def example(code: str) -> dict[str, float | str]:
    """Values that fit the code."""
    if code == "ffmpeg":
        return {"errno": errno.EIO}
    texts = {"codec": "hap", "formats": "wide"}
    return {name: texts.get(name, 7.0) for name in REFUSALS[code].fields}


@pytest.mark.parametrize("code", REFUSALS)
def test_every_code_is_used_and_has_a_sentence(code: str) -> None:
    assert re.search(rf'refused\(\s*"{code}"', SOURCES)
    error = refused(code, **example(code))
    assert isinstance(error, REFUSALS[code].error)
    assert error.message
    assert "{" not in error.message
    assert refusal_of(error) == (code, example(code))


def test_every_code_in_the_sources_exists() -> None:
    assert set(re.findall(r'refused\(\s*"(\w+)"', SOURCES)) == set(REFUSALS)


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("none", {}),
        ("memory", {"more": 1.0}),
        ("packets", {}),
        ("packets", {"allowed": float("inf")}),
        ("packets", {"allowed": float("nan")}),
        ("packets", {"allowed": True}),
        ("packets", {"allowed": "7"}),
        ("packets", {"allowed": 1e300}),
        ("codec", {"codec": "two words", "formats": "wide"}),
        ("codec", {"codec": "x" * 33, "formats": "wide"}),
        ("codec", {"codec": 7.0, "formats": "wide"}),
        ("codec", {"codec": "hap"}),
        ("codec", {"codec": "hap", "formats": "all of them"}),
        ("container", {"formats": 7.0}),
    ],
)
def test_values_that_do_not_fit_are_refused(code: str, values: dict[str, float | str]) -> None:
    with pytest.raises(UnknownRefusal):
        refused(code, **values)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1094995529, "invalid data found"),
        (541478725, "the file ends too early"),
        (errno.EIO, "input/output error"),
        (10**9, "its data is invalid"),
        (0, "its data is invalid"),
    ],
)
def test_ffmpegs_error_numbers_have_words(number: int, words: str) -> None:
    assert refused("ffmpeg", errno=number).message == f"this video cannot be decoded: {words}"
