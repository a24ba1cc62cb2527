"""Views -> logits, on whatever runs the model here: torch eager, torch.compile or OpenVINO.

All take the pathways as numpy arrays (N, 3, T, S, S) float32 and return logits (N, classes) float32. On a CPU a view's
logits do not depend on which others it is run with: OpenVINO computes one view per request, so that a request's answer
is the same alone and in a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from handlers.config import HandlerConfig
from handlers.cpu import cores
from handlers.errors import InvalidConfig, RuntimeUnavailable
from handlers.model.archive_info import PROGRAM_FILE, WEIGHTS_FILE, ArchiveInfo, read_config
from handlers.model.head import HeadWeights
from handlers.model.openvino_runtime import OpenVinoRuntime, import_openvino
from handlers.model.outputs import Outputs
from handlers.specs import ModelSpec
from handlers.video.transforms import FloatArray, Pathways

Logits = FloatArray
Turn = Callable[[], AbstractContextManager[None]]

_GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and either's below Windows


class Runtime(Protocol):
    """One model on one device. `features_length`: how long a view's features are, None where it gives none.

    `head`: what makes explanations of its feature maps, None where it gives none.
    """

    features_length: int | None

    @property
    def head(self) -> HeadWeights | None: ...

    def logits(self, pathways: Pathways) -> Logits:
        """(N, classes) for the N views in each pathway array."""

    def describe(self) -> dict[str, Any]:
        """Name, device, precision and threads, as `?customized=true` returns them."""

    def close(self) -> None:
        """Give back threads and memory."""


class BatchedRuntime(Runtime, Protocol):
    """Computes a batch at once; `max_batch` views are worth waiting for, and as many as one call takes."""

    kind: Literal["batched"]
    max_batch: int

    def outputs(self, pathways: Pathways, *, features: bool, maps: bool = False) -> Outputs:
        """Of the N views, the features, or maps, of all of them if any is asked for."""


class StreamedRuntime(Runtime, Protocol):
    """Computes each view by itself, up to `streams` of them at the same time."""

    kind: Literal["streamed"]
    streams: int

    def submit(
        self,
        pathways: Pathways,
        *,
        alone: bool,
        turn: Turn | None = None,
        features: bool = False,
        maps: bool = False,
    ) -> Future[Outputs]:
        """Those of one view; `alone`: nothing else wants the cores meanwhile, so it may have all of them.

        `turn` is entered in the thread that computes, before it begins, and may wait.
        """


def create_runtime(
    spec: ModelSpec, config: HandlerConfig, archive: ArchiveInfo, model_dir: Path, *, device: str
) -> BatchedRuntime | StreamedRuntime:
    """The runtime that the configuration names, on `device` ("cpu" or "cuda:N"); `auto` picks by the device.

    Raises RuntimeUnavailable when it cannot work here.
    """
    threads = config.threads or cores()
    name = _choose(config, archive, device)
    if name == "openvino":
        return OpenVinoRuntime(model_dir, archive, precision=config.precision, threads=threads, device=device)
    if not any((model_dir / file).is_file() for file in (WEIGHTS_FILE, PROGRAM_FILE)):
        raise RuntimeUnavailable(
            f"runtime {name} needs weights for torch, and this archive holds an OpenVINO model alone; package it again "
            f"with --runtime auto or --runtime {name}"
        )
    from handlers.model.torch_runtime import TorchRuntime  # seconds of imports that OpenVINO's workers do without

    return TorchRuntime(
        spec, archive, model_dir, precision=config.precision, threads=threads, device=device, compiled=name == "compile"
    )


def best_device(config: HandlerConfig) -> str:
    """`cuda:0` where the configured runtime can use it and it is there, else `cpu`."""
    return "cpu" if config.runtime == "openvino" else assigned_device(0)


def assigned_device(gpu_id: object) -> str:
    """`cuda:N` for the GPU of that number where torch can use it, else `cpu`; None stands for no GPU."""
    if gpu_id is None or not has_gpu_driver():
        return "cpu"
    import torch  # takes seconds

    return f"cuda:{gpu_id}" if torch.cuda.is_available() else "cpu"


def needs_torch(model_dir: Path, *, torch_installed: bool) -> bool:
    """Whether a worker that serves this unpacked archive has to import torch, asked before anything has imported it.

    A GPU's driver on this machine is reason enough if torch is installed: which GPU a worker gets, if any, it is told
    only later. True, too, if the settings cannot be read: the handler then refuses them in its own words.
    """
    try:
        config, archive = read_config(model_dir), ArchiveInfo.read(model_dir)
    except InvalidConfig:
        return torch_installed
    profiled = bool(os.environ.get("ENABLE_TORCH_PROFILER"))  # TorchServe then wraps every request in torch's profiler
    if profiled or config.decoder == "encoded_video" or _choose(config, archive, "cpu") != "openvino":
        return True
    return torch_installed and has_gpu_driver()


def has_gpu_driver() -> bool:
    """Whether this machine has a GPU's driver; asks neither the driver nor torch."""
    return any(Path(driver).exists() for driver in _GPU_DRIVERS)


def _choose(config: HandlerConfig, archive: ArchiveInfo, device: str) -> str:
    if config.runtime != "auto":
        return config.runtime
    if device != "cpu" or config.precision == "float16" or archive.openvino is None:
        return "eager"
    return "openvino" if import_openvino() is not None else "eager"
