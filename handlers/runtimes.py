"""Views -> logits, on whatever runs the model here: torch eager, torch.compile or OpenVINO.

All take the pathways as numpy arrays (N, 3, T, S, S) float32 and answer logits (N, classes) float32. On a CPU a view's
logits do not depend on which others it is run with: OpenVINO computes one view per request, so that a request's answer
is the same alone and in a batch.
"""

from __future__ import annotations

import os
import queue
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from handlers.archive import OPENVINO_FILE, ArchiveInfo
from handlers.config import HandlerConfig, Precision
from handlers.errors import RuntimeUnavailable
from handlers.specs import ModelSpec
from handlers.video.transforms import FloatArray, Pathways

Logits = FloatArray

_OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16"}
_GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and either's below Windows


class Runtime(Protocol):
    """One model on one device."""

    def logits(self, pathways: Pathways) -> Logits:
        """(N, classes) for the N views in each pathway array."""

    def describe(self) -> dict[str, Any]:
        """Name, device, precision and threads, as `?customized=true` tells them."""

    def close(self) -> None:
        """Give back threads and memory."""


class BatchedRuntime(Runtime, Protocol):
    """Computes a batch at once; `max_batch` views are worth waiting for, and as many as one call takes."""

    max_batch: int


@runtime_checkable
class StreamedRuntime(Runtime, Protocol):
    """Computes each view by itself, up to `streams` of them at the same time."""

    streams: int

    def submit(self, pathways: Pathways, *, alone: bool) -> Future[Logits]:
        """(1, classes) of one view; `alone`: nothing else wants the cores meanwhile, so it may have all of them."""


def create_runtime(
    spec: ModelSpec, config: HandlerConfig, archive: ArchiveInfo, model_dir: Path, *, device: str
) -> BatchedRuntime | StreamedRuntime:
    """The runtime that the configuration names, on `device` ("cpu" or "cuda:N"); `auto` picks by the device.

    Raises RuntimeUnavailable when it cannot work here.
    """
    threads = config.threads or cores()
    name = _choose(config, device)
    if name == "openvino":
        return OpenVinoRuntime(model_dir, archive, precision=config.precision, threads=threads, device=device)
    from handlers.torch_runtime import TorchRuntime  # seconds of imports that OpenVINO's workers do without

    return TorchRuntime(
        spec, archive, model_dir, precision=config.precision, threads=threads, device=device, compiled=name == "compile"
    )


def best_device(config: HandlerConfig) -> str:
    """`cuda:0` where the configured runtime can use it and it is there, else `cpu`."""
    if config.runtime == "openvino" or not any(Path(driver).exists() for driver in _GPU_DRIVERS):
        return "cpu"
    import torch  # takes seconds

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _choose(config: HandlerConfig, device: str) -> str:
    if config.runtime != "auto":
        return config.runtime
    if device != "cpu" or config.precision == "float16":
        return "eager"
    return "openvino" if _openvino() is not None else "eager"


class OpenVinoRuntime:
    """The archive's converted model on the CPU.

    Two compiled forms of it: one view that is alone is spread over all cores; several views go side by side, one thread
    each, and so does a view while other videos are decoded, because threads that share a view's every layer wait for
    whichever of them has lost its core. Both forms compute the same bits.
    """

    def __init__(
        self, model_dir: Path, archive: ArchiveInfo, *, precision: Precision, threads: int, device: str
    ) -> None:
        openvino = _openvino()
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
        core = openvino.Core()
        model = core.read_model(model_dir / OPENVINO_FILE)
        model.reshape({port: [1, *_lengths(port)] for port in model.inputs})
        common = {
            "INFERENCE_PRECISION_HINT": _OPENVINO_TYPES[precision],
            "INFERENCE_NUM_THREADS": threads,
            # Every process would pin its threads to the same first cores: two workers with one thread each would share
            # one core and leave the others idle, and a thread could not move away from a core that decodes.
            "ENABLE_CPU_PINNING": False,
        }
        single = core.compile_model(model, "CPU", {**common, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1})
        self._single = single.create_infer_request()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        if threads > 1:
            side_by_side = core.compile_model(model, "CPU", {**common, "NUM_STREAMS": threads})
            for _ in range(threads):
                self._requests.put(side_by_side.create_infer_request())
        else:
            self._requests.put(self._single)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="view")

    def logits(self, pathways: Pathways) -> Logits:
        count = len(pathways[0])
        views = [[pathway[index : index + 1] for pathway in pathways] for index in range(count)]
        return np.concatenate([view.result() for view in [self.submit(view, alone=count == 1) for view in views]])

    def submit(self, pathways: Pathways, *, alone: bool) -> Future[Logits]:
        return self._pool.submit(self._infer_alone if alone and self._threads > 1 else self._infer, pathways)

    def _infer_alone(self, pathways: Pathways) -> Logits:
        return _infer(self._single, pathways)

    def _infer(self, pathways: Pathways) -> Logits:
        request = self._requests.get()
        try:
            return _infer(request, pathways)
        finally:
            self._requests.put(request)

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
        self._single = None
        while not self._requests.empty():
            self._requests.get()


def _infer(request: Any, pathways: Pathways) -> Logits:
    """Started and awaited, so that it runs in the model's own threads and not in this one's."""
    request.start_async(list(pathways), share_inputs=True)
    request.wait()
    logits: Logits = request.get_output_tensor(0).data.copy()
    return logits


def _lengths(port: Any) -> list[int]:
    """The port's shape without the batch."""
    return [int(dimension.get_length()) for dimension in list(port.get_partial_shape())[1:]]


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        return None
    return openvino


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
