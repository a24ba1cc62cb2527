"""What the log says of a request: one line, with the ids by which it is found, and nothing else that a client wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from handlers.errors import RequestError
from handlers.request.wire import Reply


def log_line(request_id: str, client_id: str | None, reply: Reply, *, videos: int, milliseconds: float) -> str:
    """The one line about a row: TorchServe's id, the client's, the status, and why it or its videos were refused.

    `videos`: how many its body held. `milliseconds`: from its arrival in the worker.
    """
    outcome = _failures(reply.errors, videos) if reply.errors else f"{videos} video{'' if videos == 1 else 's'}"
    ids = request_id if client_id is None else f"{request_id} client {client_id}"
    return f"request {ids}: {int(reply.status)} in {milliseconds:.0f} ms, {outcome}"


def _failures(errors: Sequence[RequestError], videos: int) -> str:
    if len(errors) == 1 and videos <= 1:
        return f"{errors[0].type}: {sentence(errors[0])}"
    counted = ", ".join(f"{error_type} {count}" for error_type, count in Counter(each.type for each in errors).items())
    return f"{len(errors)} of {videos} videos failed: {counted}; the first: {sentence(errors[0])}"


def sentence(error: RequestError) -> str:
    """What went wrong, without anything that a client wrote.

    A video's refusal is written by the server from numbers and names of codecs, so it is logged as the client gets it.
    Any other message may repeat a value of the request, and its class's own words take its place.
    """
    return error.message if error.refusal is not None else error.when
