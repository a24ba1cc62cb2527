"""When a failed call is tried again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import ClientError, ConnectionFailed, ServerBusy


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with jitter: `attempts` calls in all, the pause doubling from `first_delay_sec`.

    The jitter takes up to half of each pause off, so that clients refused together do not come back together.
    """

    attempts: int = 5
    first_delay_sec: float = 0.2
    max_delay_sec: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_delay_sec < 0 or self.max_delay_sec < 0:
            raise ValueError(f"attempts must be at least 1 and delays not negative, got {self}")

    def delays_sec(self) -> Iterator[float]:
        """The pauses between attempts, one fewer than there are attempts."""
        for attempt in range(self.attempts - 1):
            delay = min(self.first_delay_sec * 2**attempt, self.max_delay_sec)
            yield delay * random.uniform(0.5, 1.0)


NO_RETRY = Retry(attempts=1)


def is_safe(error: ClientError, *, repeatable: bool) -> bool:
    """Whether repeating cannot do anything twice.

    Busy (503, no free place in the queue) and a refused connection mean that nothing was started: always safe. A
    connection lost while waiting is safe for a `repeatable` call, one that changes nothing on the server: predictions
    and questions, not registering or scaling. A timeout is never repeated: the server may still be at work.
    """
    if isinstance(error, ServerBusy):
        return True
    return isinstance(error, ConnectionFailed) and (repeatable or not error.sent)
