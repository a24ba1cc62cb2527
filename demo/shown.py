"""What the demo page's components show of one video's answer, from the click until it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from demo import html
from demo.progress import Progress
from video_action_client import StreamEnd, Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page shows of one video's answer, which may still be coming. `video` is the file that it belongs to."""

    timeline: str = ""
    labels: str = ""
    facts: str = ""
    command: str | None = None
    answer: str | None = None
    video: str = ""
    busy: bool = False

    def after(self, state: Progress | StreamEnd) -> Shown:
        """The same with what is known now."""
        if isinstance(state, Progress):
            drawn = html.timeline(state.segments, state.duration_sec) if state.is_timeline else ""
            return replace(self, timeline=drawn, labels=html.progress(state.done, state.windows, state.latest))
        answer = state.answer
        drawn = html.timeline(answer.segments, answer.video.duration_sec) if isinstance(answer, Timeline) else ""
        return replace(
            self,
            timeline=drawn,
            labels=html.bars(answer.predictions),
            facts=html.facts(answer),
            answer=json.dumps(state.json, indent=1, ensure_ascii=False),
            busy=False,
        )

    def values(self) -> tuple[Any, ...]:
        """Of the components timeline, labels, facts, command, answer, what the answer belongs to, and the button."""
        return (
            self.timeline,
            self.labels,
            self.facts,
            gr.Code(self.command, visible=self.command is not None),
            gr.Code(self.answer, visible=self.answer is not None),
            self.video,
            classify_button(busy=self.busy),
        )


def classify_button(*, busy: bool) -> Any:
    return gr.Button("Classifying ..." if busy else "Classify", interactive=not busy)
