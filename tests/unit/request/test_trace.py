"""What the log says of a request, and what it does not."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from handlers.errors import REQUEST_ERRORS, InvalidOption
from handlers.request.streaming import AnswerLines
from handlers.request.trace import log_line, sentence
from handlers.request.wire import Envelope, Reply, error_reply, render_reply
from handlers.video.refusals import refused


def test_a_refused_video_is_logged_as_the_client_gets_it() -> None:
    error = refused("duration", duration=20000.0, allowed=14400.0)
    line = log_line("5f", error_reply(error), videos=1, milliseconds=12.4)
    assert line == f"request 5f: 422 in 12 ms, VideoTooLong: {error.message}"


@pytest.mark.parametrize("error", REQUEST_ERRORS.values(), ids=lambda error: error.__name__)
def test_any_other_error_is_logged_without_its_message(error: type[InvalidOption]) -> None:
    said = sentence(error("the client wrote 4711"))
    assert "4711" not in said
    assert said[0].islower() or said.startswith("JSON")
    assert not said.endswith(".")
    assert "\n" not in said


def test_an_answer_names_its_videos() -> None:
    assert (
        log_line("5f", Reply(HTTPStatus.OK, b"{}"), videos=2, milliseconds=9.6) == "request 5f: 200 in 10 ms, 2 videos"
    )


def test_replies_hold_their_errors() -> None:
    bad = refused("still_image")
    envelope = Envelope("kserve_v1", (bad, bad))
    assert render_reply(envelope, [{"a": 1.0}, bad], model="m", version="1").errors == (bad,)
    assert render_reply(envelope, [bad, bad], model="m", version="1").errors == (bad, bad)
    assert AnswerLines.failed(bad).errors == (bad,)
