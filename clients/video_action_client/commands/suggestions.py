"""What a command says after a mistyped model: the names that are served, the most similar one first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Protocol

from ..errors import ClientError
from ..results import ModelInfo


class _ListsModels(Protocol):
    def models(self) -> Iterable[ModelInfo]: ...


def served_instead(client: _ListsModels, name: str) -> str | None:
    """`did you mean x3d_s? served are camera_motion, x3d_s`; None where the server does not tell its models.

    The list comes from the management API, which many clients cannot reach; what was wrong has been said without it.
    """
    try:
        served = sorted({info.name for info in client.models()})
    except ClientError:
        return None
    if name in served:
        return None  # the version is what is missing, and the message names it
    if not served:
        return "no model is served"
    similar = difflib.get_close_matches(name, served, n=1)
    return f"{f'did you mean {similar[0]}? ' if similar else ''}served are {', '.join(served)}"
