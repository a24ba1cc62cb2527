"""What every in-process contender returns: the time of each stage, and the classes it found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

STAGES = ("decode", "transform", "model")


class ContenderAbsent(Exception):
    """This contender cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One video from bytes to answer. Milliseconds; `total_ms` holds what the stages do not.

    `top`: class ids of the five best, best first; empty where the contender does not classify the video.
    """

    stages_ms: dict[str, float]
    total_ms: float
    top: tuple[int, ...] = ()


class Contender(Protocol):
    """Built once with the unpacked archive; `prepare` is not timed, `run` is."""

    def prepare(self, video: bytes) -> None:
        """Whatever may be known about a video beforehand; called once before its first `run`."""

    def run(self, video: bytes) -> Run: ...

    def describe(self) -> dict[str, str]:
        """What it is made of, for the result."""

    def close(self) -> None: ...


@dataclass(slots=True)
class Stopwatch:
    """Adds up the wall time of named stages."""

    stages_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3

    def run(self, top: Sequence[int] = ()) -> Run:
        """A run whose total is the sum of its stages."""
        return Run(self.stages_ms, sum(self.stages_ms.values()), tuple(top))


def top_five(logits: NDArray[np.float32]) -> tuple[int, ...]:
    """Class ids, best first."""
    return tuple(int(index) for index in np.argsort(-logits, kind="stable")[:5])


class BareOpenVino:
    """The archive's converted model, compiled for one request at a time on all cores; nothing around it."""

    def __init__(self, model_dir: Path) -> None:
        try:
            import openvino
        except ImportError:
            raise ContenderAbsent("openvino is not installed") from None
        path = model_dir / "openvino" / "model.xml"
        if not path.is_file():
            raise ContenderAbsent("the archive holds no OpenVINO model")
        core = openvino.Core()
        model = core.read_model(path)
        self.shapes = [
            [1, *(int(length.get_length()) for length in list(port.get_partial_shape())[1:])] for port in model.inputs
        ]
        model.reshape(dict(zip(model.inputs, self.shapes, strict=True)))
        settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.version: str = openvino.__version__

    def logits(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """(classes,) of one view."""
        answer: NDArray[np.float32] = self._request.infer(list(inputs), share_inputs=True)[0][0]
        return answer
