"""What the log says of a request, and what it does not."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from handlers.errors import REQUEST_ERRORS, InvalidOption
from handlers.request.request_id import MOST_CHARS, client_request_id
from handlers.request.streaming import AnswerLines
from handlers.request.trace import log_line, sentence
from handlers.request.wire import Envelope, Reply, error_reply, render_reply
from handlers.video.refusals import refused


def test_a_refused_video_is_logged_as_the_client_gets_it() -> None:
    error = refused("duration", duration=20000.0, allowed=14400.0)
    line = log_line("5f", None, error_reply(error), videos=1, milliseconds=12.4)
    assert line == f"request 5f: 422 in 12 ms, VideoTooLong: {error.message}"


@pytest.mark.parametrize("error", REQUEST_ERRORS.values(), ids=lambda error: error.__name__)
def test_any_other_error_is_logged_without_its_message(error: type[InvalidOption]) -> None:
    said = sentence(error("the client wrote 4711"))
    assert "4711" not in said
    assert said[0].islower() or said.startswith("JSON")
    assert not said.endswith(".")
    assert "\n" not in said


def test_an_answer_names_its_videos() -> None:
    line = log_line("5f", "job-7/a", Reply(HTTPStatus.OK, b"{}"), videos=2, milliseconds=9.6)
    assert line == "request 5f client job-7/a: 200 in 10 ms, 2 videos"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "job-7/a"}, "job-7/a"),
        ({"x-request-id": "~" * MOST_CHARS}, "~" * MOST_CHARS),
        ({"X-Request-Id": "~" * (MOST_CHARS + 1)}, None),
        ({"X-Request-Id": ""}, None),
        ({"X-Request-Id": "a b"}, None),
        ({"X-Request-Id": "a\n"}, None),
        ({"X-Request-Id": "a\r\nSet-Cookie: b"}, None),
        ({"X-Request-Id": "caf\u00e9"}, None),
        ({"X-Request-Id": {"content-type": "a form's field of that name"}}, None),
        ({"Host": "a"}, None),
    ],
)
def test_a_clients_id_is_taken_if_it_cannot_do_harm(headers: dict[str, object], expected: str | None) -> None:
    assert client_request_id(headers) == expected


def test_replies_hold_their_errors() -> None:
    bad = refused("still_image")
    envelope = Envelope("kserve_v1", (bad, bad))
    assert render_reply(envelope, [{"a": 1.0}, bad], model="m", version="1").errors == (bad,)
    assert render_reply(envelope, [bad, bad], model="m", version="1").errors == (bad, bad)
    assert AnswerLines.failed(bad).errors == (bad,)
