"""Pathways -> logits on OpenVINO: the archive's converted model on the CPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
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

FEATURES = "features"
"""Name of the converted model's second output, (N, length)."""
MAPS = "maps."
"""How the names of the outputs behind it begin: the last feature maps of each pathway, (N, C, T, H, W)."""
_OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoRuntime:
    """The archive's converted model on the CPU.

    Two compiled forms of it: one view that is alone is spread over all cores; several views go side by side, one thread
    each, and so does a view while other videos are decoded, because threads that share a view's every layer wait for
    whichever of them has lost its core. Both forms compute the same bits. The first explanation compiles a third form,
    which gives feature maps as well: those who never ask for one pay nothing for it.
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
        model = self._read()
        for result in model.get_results():
            if any(name.startswith(MAPS) for name in result.input_value(0).get_names()):
                model.remove_result(result)
        self.features_length = _lengths(model.output(FEATURES))[0] if has_features(model) else None
        single = self._compile(model, {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1})
        self._single = single.create_infer_request()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._explaining: queue.SimpleQueue[Any] | None = None
        self._compiling = threading.Lock()
        if threads > 1:
            side_by_side = self._compile(model, {"NUM_STREAMS": threads})
            for _ in range(threads):
                self._requests.put(side_by_side.create_infer_request())
        else:
            self._requests.put(self._single)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="view")

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
        else:
            infer = partial(self._infer_alone if alone and self._threads > 1 else self._infer, pathways, features)
        return self._pool.submit(infer) if turn is None else self._pool.submit(_in_turn, turn, infer)

    def _infer_alone(self, pathways: Pathways, features: bool) -> Outputs:
        return _infer(self._single, pathways, features)

    def _infer(self, pathways: Pathways, features: bool) -> Outputs:
        request = self._requests.get()
        try:
            return _infer(request, pathways, features)
        finally:
            self._requests.put(request)

    def _infer_maps(self, pathways: Pathways) -> Outputs:
        requests = self._requests_with_maps()
        request = requests.get()
        try:
            outputs = _infer(request, pathways, False)
            numbers = range(2, len(request.model_outputs))
            return Outputs(outputs.logits, maps=tuple(request.get_output_tensor(at).data.copy() for at in numbers))
        finally:
            requests.put(request)

    def _requests_with_maps(self) -> queue.SimpleQueue[Any]:
        """Compiled when the first of them is wanted, in the thread that wants it."""
        with self._compiling:
            if self._explaining is None:
                compiled = self._compile(self._read(), {"NUM_STREAMS": self._threads})
                self._explaining = queue.SimpleQueue()
                for _ in range(self._threads):
                    self._explaining.put(compiled.create_infer_request())
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
        self._single = self._explaining = None
        while not self._requests.empty():
            self._requests.get()


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
