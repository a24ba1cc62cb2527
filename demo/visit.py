"""Which video an open demo page shows, and which question about it is still wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Visit:
    """One open page. Its questions are numbered from 1; only the newest can be wanted."""

    video: str | None = None
    newest: int = 0
    given_up: bool = False
    """The newest question is not wanted any more: the page shows another video, or was closed."""

    def show(self, video: str | None) -> None:
        """The page shows that video. If it is another one, the question about the one before is given up."""
        if self.video != video:
            self.video = video
            self.given_up = True

    def ask(self, video: str | None) -> int:
        """The number of a new question, about that video."""
        self.video = video
        self.given_up = False
        self.newest += 1
        return self.newest

    def leave(self) -> None:
        """The page was closed."""
        self.given_up = True

    def wants(self, question: int) -> bool:
        return self.newest == question and not self.given_up
