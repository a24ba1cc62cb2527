from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from video_action_client.errors import UnreadableVideo
from video_action_client.source import Source


def test_each_kind_of_source_can_be_sent_twice(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"12345")
    with path.open("rb") as file:
        for video in (path, str(path), b"12345", bytearray(b"12345"), memoryview(b"12345"), io.BytesIO(b"12345"), file):
            source = Source.of(video)
            assert (source.read(), source.read(), source.size()) == (b"12345", b"12345", 5)


def test_an_open_file_is_sent_from_where_it_stands() -> None:
    file = io.BytesIO(b"header12345")
    file.seek(6)
    source = Source.of(file)
    assert source.size() == 5
    assert (source.read(), source.read()) == (b"12345", b"12345")


def test_a_pipe_is_read_once_and_sent_as_often_as_needed() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"12345")
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        source = Source.of(pipe)
    assert (source.read(), source.read(), source.size()) == (b"12345", b"12345", 5)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("clip.mp4", "video/mp4"),
        ("clip.webm", "video/webm"),
        ("clip.gif", "image/gif"),
        # TorchServe would parse JSON and decode text before any handler runs.
        ("clip.json", "application/octet-stream"),
        ("clip.txt", "application/octet-stream"),
        ("clip", "application/octet-stream"),
    ],
)
def test_the_content_type_is_explicit_and_never_one_that_torchserve_parses(
    tmp_path: Path, name: str, content_type: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert Source.of(tmp_path / name).content_type == content_type


def test_what_cannot_be_sent_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="does not exist"):
        Source.of(tmp_path / "none.mp4")
    with pytest.raises(UnreadableVideo, match="is a folder"):
        Source.of(tmp_path)
    with pytest.raises(TypeError, match="got int"):
        Source.of(3)  # type: ignore[arg-type]
