"""Pathways -> logits on torch, eager or compiled, on a CPU or a GPU. Importing it takes seconds: only its users do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from handlers.config import Precision
from handlers.errors import RuntimeUnavailable
from handlers.model.archive_info import PROGRAM_FILE, WEIGHTS_FILE, ArchiveInfo
from handlers.model.head import HeadWeights
from handlers.model.network import WithFeatures, features_length, load_model
from handlers.model.outputs import Outputs
from handlers.model.program import load_program, output_lengths
from handlers.model.torch_head import head_weights
from handlers.specs import ModelSpec
from handlers.video.transforms import FloatArray, Pathways

_GPU_BATCH = 32  # views in one forward on a GPU, at most
_CPU_BATCH = 8  # likewise on a CPU, where more only takes memory
_TORCH_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchRuntime:
    """torch, eager or compiled; half precision where asked for. channels_last_3d, but for an exported program, whose
    operators may count on the order of numbers that it was exported with."""

    kind: Literal["batched"] = "batched"

    def __init__(
        self,
        spec: ModelSpec,
        archive: ArchiveInfo,
        model_dir: Path,
        *,
        precision: Precision,
        threads: int,
        device: str,
        compiled: bool,
    ) -> None:
        self._device, self._precision, self._threads = torch.device(device), precision, threads
        self._name = "compile" if compiled else "eager"
        if precision == "float16" and self._device.type == "cpu":
            raise RuntimeUnavailable("precision float16 needs a GPU; on a CPU use float32 or bfloat16")
        if self._device.type == "cpu":
            torch.set_num_threads(threads)
        self.max_batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH
        self._type = _TORCH_TYPES[precision]
        self.features_length: int | None
        self.head: HeadWeights | None = None
        network: torch.nn.Module
        if (model_dir / PROGRAM_FILE).is_file():
            program = load_program(model_dir / PROGRAM_FILE, self._device)
            lengths = output_lengths(program)
            self.features_length = int(lengths[1]) if len(lengths) > 1 else None
            self._format, network = torch.contiguous_format, program.module()
        else:
            model = load_model(spec, model_dir / WEIGHTS_FILE, num_classes=archive.num_classes, head=archive.head)
            self._format = torch.channels_last_3d
            self.head = head_weights(model, spec)
            model = model.to(device=self._device, memory_format=self._format)  # type: ignore[call-overload]
            self.features_length = features_length(model, spec.classifier)
            network = WithFeatures(model, spec.classifier, spec.last_block)
        self._model: Any = torch.compile(network, dynamic=False) if compiled else network

    def logits(self, pathways: Pathways) -> FloatArray:
        return self.outputs(pathways, features=False).logits

    def outputs(self, pathways: Pathways, *, features: bool, maps: bool = False) -> Outputs:
        with torch.inference_mode(), torch.autocast(self._device.type, self._type, enabled=self._is_mixed):
            answer = self._model(*(self._to_device(pathway) for pathway in pathways))
        logits, *more = answer if isinstance(answer, tuple) else (answer,)
        return Outputs(
            _to_numpy(logits),
            _to_numpy(more[0]) if features and more else None,
            tuple(_to_numpy(pathway) for pathway in more[1:]) if maps else (),
        )

    @property
    def _is_mixed(self) -> bool:
        return self._type is not torch.float32

    def _to_device(self, pathway: FloatArray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(pathway))
        if self._device.type == "cuda":
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.contiguous(memory_format=self._format)

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": self._name,
            "device": str(self._device),
            "precision": self._precision,
            "threads": self._threads,
            "runtime_version": torch.__version__,
        }

    def close(self) -> None:
        self._model = None


def _to_numpy(tensor: torch.Tensor) -> FloatArray:
    numbers: FloatArray = tensor.float().cpu().numpy()
    return numbers
