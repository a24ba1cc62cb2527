"""One progress bar per part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Progress:
    """Bars on stderr; none where `visible` is False or stderr is no terminal."""

    def __init__(self, *, visible: bool = True) -> None:
        self._visible = visible

    @contextmanager
    def part(self, name: str, steps: int) -> Iterator[tqdm[None]]:
        """A bar of that many steps; call its `update(1)` after each."""
        # disable=None hides the bar where stderr is no terminal.
        with tqdm(total=steps, desc=name, unit="step", disable=None if self._visible else True) as bar:
            yield bar
