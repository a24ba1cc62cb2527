"""The client's own id of a request, its header `X-Request-Id`.

TorchServe gives every call an id of its own, and sends that back as `x-request-id` whatever a handler says. So the
client's goes back under another name, into answers that say everything, and into the log beside TorchServe's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HEADER = "X-Request-Id"
ANSWER_HEADER = "X-Client-Request-Id"
MOST_CHARS = 128
_ALLOWED = re.compile(rf"[!-~]{{1,{MOST_CHARS}}}")  # printable ASCII: nothing that could begin a line or a header


def client_request_id(headers: Mapping[str, object]) -> str | None:
    """The id in these headers of a row; None if there is none, or one that is too long or not printable ASCII."""
    for name, value in headers.items():
        if name.lower() == HEADER.lower() and isinstance(value, str):
            return value if _ALLOWED.fullmatch(value) else None
    return None
