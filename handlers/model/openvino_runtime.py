"""Pathways -> logits on OpenVINO: the archive's converted model on the CPU."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handlers.config import Precision
from handlers.errors import RuntimeUnavailable
from handlers.model.archive_info import HEAD_FILE, OPENVINO_FILE, ArchiveInfo
from handlers.model.head import HeadWeights
from handlers.model.head_file import read_head
from handlers.model.outputs import Outputs
from handlers.video.transforms import FloatArray, Pathways

logger = logging.getLogger(__name__)

Requests = queue.SimpleQueue[Any]
"""OpenVINO's infer requests that are free now."""

FEATURES = "features"
"""Name of the converted model's second output, (N, length)."""
MAPS = "maps."
"""How the names of the outputs behind it begin: the last feature maps of each pathway, (N, C, T, H, W)."""
_OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoRuntime:
    """The archive's converted model on the CPU.

    Two compiled forms of it: one view that is alone is spread over all cores; several views go side by side, one thread
    each, and so does a view while other videos are decoded, because threads that share a view's every layer wait for
    whichever of them has lost its core. Both forms compute the same bits, so the second is compiled when it is first
    wanted, and the first takes its place meanwhile: a worker is ready sooner, and smaller until it has company. The
    first explanation compiles a third form, which gives feature maps as well.
    """

    kind: Literal["streamed"] = "streamed"

    def __init__(
        self, model_dir: Path, archive: ArchiveInfo, *, precision: Precision, threads: int, device: str
    ) -> None:
        openvino = import_openvino()
        if openvino is None:
            raise RuntimeUnavailable("runtime openvino needs the openvino package; install it or use runtime auto")
        if precision == "float16":
            raise RuntimeUnavailable("runtime openvino computes in float32 or bfloat16 on a CPU, not in float16")
        if device != "cpu":
            raise RuntimeUnavailable(f"runtime openvino runs on a CPU, not on {device}; use runtime auto or eager")
        if archive.openvino is None or not (model_dir / OPENVINO_FILE).is_file():
            raise RuntimeUnavailable(
                "this archive holds no OpenVINO model; package it again with --runtime openvino, or use runtime eager"
            )
        self._precision, self._threads, self._version = precision, threads, openvino.__version__
        self.streams = threads
        self._model_dir, self._core = model_dir, openvino.Core()
        model = self._read_without_maps()
        self.features_length = _lengths(model.output(FEATURES))[0] if has_features(model) else None
        self._alone = _requests(self._compile(model, {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}), 1)
        self._side_by_side = self._alone if threads == 1 else None
        self._explaining: Requests | None = None
        self._compilation: Future[None] | None = None
        self._compiling = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="view")

    def _read_without_maps(self) -> Any:
        model = self._read()
        for result in model.get_results():
            if any(name.startswith(MAPS) for name in result.input_value(0).get_names()):
                model.remove_result(result)
        return model

    def _read(self) -> Any:
        model = self._core.read_model(self._model_dir / OPENVINO_FILE)
        model.reshape({port: [1, *_lengths(port)] for port in model.inputs})
        return model

    def _compile(self, model: Any, settings: dict[str, Any]) -> Any:
        common = {
            "INFERENCE_PRECISION_HINT": _OPENVINO_TYPES[self._precision],
            "INFERENCE_NUM_THREADS": self._threads,
            # Every process would pin its threads to the same first cores: two workers with one thread each would share
            # one core and leave the others idle, and a thread could not move away from a core that decodes.
            "ENABLE_CPU_PINNING": False,
        }
        return self._core.compile_model(model, "CPU", {**common, **settings})

    @cached_property
    def head(self) -> HeadWeights | None:
        return read_head(self._model_dir / HEAD_FILE)

    def logits(self, pathways: Pathways) -> FloatArray:
        count = len(pathways[0])
        views = [[pathway[index : index + 1] for pathway in pathways] for index in range(count)]
        outputs = [view.result() for view in [self.submit(view, alone=count == 1) for view in views]]
        return np.concatenate([output.logits for output in outputs])

    @property
    def side_by_side(self) -> bool:
        """Whether several views can be computed at the same time by now."""
        return self._side_by_side is not None

    def submit(
        self,
        pathways: Pathways,
        *,
        alone: bool,
        turn: Callable[[], AbstractContextManager[None]] | None = None,
        features: bool = False,
        maps: bool = False,
    ) -> Future[Outputs]:
        infer: Callable[[], Outputs]
        if maps:
            infer = partial(self._infer_maps, pathways)
        elif alone:
            infer = partial(self._infer_alone, pathways, features)
        else:
            infer = partial(self._infer_beside_others, pathways, features)
            if self._side_by_side is None and self._compilation is None:
                self._compilation = self._pool.submit(self._compile_side_by_side)
        return self._pool.submit(infer) if turn is None else self._pool.submit(_in_turn, turn, infer)

    def _compile_side_by_side(self) -> None:
        try:
            compiled = self._compile(self._read_without_maps(), {"NUM_STREAMS": self._threads})
            self._side_by_side = _requests(compiled, self._threads)
        except Exception as error:  # noqa: BLE001  whatever it is, the form that is there computes the same
            logger.error("views are computed one after the other, for the model could not be compiled again: %s", error)

    def _infer_alone(self, pathways: Pathways, features: bool) -> Outputs:
        with _taken(self._alone) as request:
            return _infer(request, pathways, features)

    def _infer_beside_others(self, pathways: Pathways, features: bool) -> Outputs:
        with _taken(self._side_by_side or self._alone) as request:
            return _infer(request, pathways, features)

    def _infer_maps(self, pathways: Pathways) -> Outputs:
        with _taken(self._requests_with_maps()) as request:
            outputs = _infer(request, pathways, False)
            numbers = range(2, len(request.model_outputs))
            return Outputs(outputs.logits, maps=tuple(request.get_output_tensor(at).data.copy() for at in numbers))

    def _requests_with_maps(self) -> Requests:
        """Compiled when the first of them is wanted, in the thread that wants it."""
        with self._compiling:
            if self._explaining is None:
                compiled = self._compile(self._read(), {"NUM_STREAMS": self._threads})
                self._explaining = _requests(compiled, self._threads)
            return self._explaining

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "openvino",
            "device": "cpu",
            "precision": self._precision,
            "threads": self._threads,
            "runtime_version": self._version,
        }

    def close(self) -> None:
        self._pool.shutdown()
        self._side_by_side = self._explaining = None
        while not self._alone.empty():
            self._alone.get()


def _requests(compiled: Any, count: int) -> Requests:
    """So many requests of a compiled form, each for one view at a time."""
    requests: Requests = queue.SimpleQueue()
    for _ in range(count):
        requests.put(compiled.create_infer_request())
    return requests


@contextmanager
def _taken(requests: Requests) -> Iterator[Any]:
    """One of them, which nobody else has meanwhile; waits until one is free."""
    request = requests.get()
    try:
        yield request
    finally:
        requests.put(request)


def has_features(model: Any) -> bool:
    """Whether an OpenVINO model's outputs are logits and features; maps may follow."""
    return len(model.outputs) >= 2 and FEATURES in model.outputs[1].get_names()


def _in_turn(turn: Callable[[], AbstractContextManager[None]], infer: Callable[[], Outputs]) -> Outputs:
    with turn():
        return infer()


def _infer(request: Any, pathways: Pathways, features: bool) -> Outputs:
    """Started and awaited, so that it runs in the model's own threads and not in this one's."""
    request.start_async(list(pathways), share_inputs=True)
    request.wait()
    logits: FloatArray = request.get_output_tensor(0).data.copy()
    return Outputs(logits, request.get_output_tensor(1).data.copy() if features else None)


def _lengths(port: Any) -> list[int]:
    """The port's shape without the batch."""
    return [int(dimension.get_length()) for dimension in list(port.get_partial_shape())[1:]]


def import_openvino() -> Any:
    """The package, or None where it is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    return openvino
