"""Models on a GPU, and the whole pipeline with them: `python -m benchmarks.gpu`.

For each model, variant (eager, channels_last_3d, compile) and precision: milliseconds per batch and views per second at
several batch sizes, and the most memory that was taken. Then VideoClassifier end to end, videos per second with
decoding in parallel. `--device cpu` runs the same code where there is no GPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import machine
from benchmarks.samples import summarise
from benchmarks.videos import VIDEOS, ensure_video
from handlers.errors import PackageError, RequestError
from handlers.model.network import build_model
from handlers.pipeline import VideoClassifier
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import SPECS, ModelSpec, get_spec
from serving.package import PackageOptions, package

FORMAT = 1
MODELS = ("x3d_s", "slow_r50", "slowfast_r50")
BATCH_SIZES = (1, 4, 8, 16, 32)
VARIANTS = ("eager", "channels_last_3d", "compile")
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_WARM_UP = 3
_VIDEO = "320x240"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """What to measure; the fields are the command's options. `rounds`: timed forwards, and timed end-to-end batches."""

    device: str = "cuda:0"
    models: tuple[str, ...] = MODELS
    variants: tuple[str, ...] = VARIANTS
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    rounds: int = 20
    quick: bool = False

    def shortened(self) -> GpuOptions:
        """The smallest run that goes through everything but the compiler, which takes minutes."""
        return GpuOptions(
            device=self.device,
            models=self.models[:1],
            variants=tuple(name for name in self.variants if name != "compile") or self.variants,
            precisions=self.precisions[:1],
            batch_sizes=self.batch_sizes[:1],
            rounds=2,
            quick=True,
        )


class NoDevice(Exception):
    """The device asked for is not there; one sentence."""


def check_device(name: str) -> torch.device:
    """Raises NoDevice."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise NoDevice(f"{name!r} is no device; allowed: cuda, cuda:N, or cpu for a dry run") from None
    if device.type not in ("cuda", "cpu"):
        raise NoDevice(f"{name!r} is not measured here; allowed: cuda, cuda:N, or cpu for a dry run")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NoDevice("there is no CUDA device on this machine; --device cpu --quick tries the benchmark without one")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NoDevice(f"{name} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def measure_gpu(options: GpuOptions, *, command: str) -> dict[str, Any]:
    """The result, JSON values. Raises NoDevice and PackageErrors."""
    device = check_device(options.device)
    result: dict[str, Any] = {
        "format": FORMAT,
        "command": command,
        "settings": asdict(options),
        "machine": machine.machine(),
        "versions": machine.versions(),
        "git": machine.git_state(),
        "models": {},
        "end_to_end": {},
    }
    for name in options.models:
        spec = get_spec(name)
        result["models"][name] = _measure_model(spec, device, options)
        result["end_to_end"][name] = _measure_pipeline(spec, device, options)
    return result


def _measure_model(spec: ModelSpec, device: torch.device, options: GpuOptions) -> list[dict[str, Any]]:
    """An entry per variant, precision and batch size; what fails, for want of memory say, has an `error`."""
    cases = list(product(options.variants, options.precisions, options.batch_sizes))
    entries = []
    for variant, precision, batch_size in tqdm(cases, desc=spec.name, disable=None):
        entry: dict[str, Any] = {"variant": variant, "precision": precision, "batch_size": batch_size}
        try:
            entry |= _measure_case(spec, device, variant, precision, batch_size, options.rounds)
        except (RuntimeError, NotImplementedError) as error:
            entry["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        entries.append(entry)
    return entries


def _measure_case(
    spec: ModelSpec, device: torch.device, variant: str, precision: str, batch_size: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds of one forward, input and weights on the device already."""
    kind = PRECISIONS[precision]
    layout = torch.contiguous_format if variant == "eager" else torch.channels_last_3d
    torch.manual_seed(0)
    built: Any = build_model(spec, num_classes=spec.num_classes, head=spec.head)
    model: Any = built.to(device=device, memory_format=layout)
    inputs = [tensor.to(device).contiguous(memory_format=layout) for tensor in _inputs(spec, batch_size)]
    if variant == "compile":
        model = torch.compile(model, dynamic=False)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, kind, enabled=kind is not torch.float32):
            model(list(inputs) if spec.alpha is not None else inputs[0])

    summary = summarise(_timed(forward, device, rounds))
    found: dict[str, Any] = {"ms": summary.to_json(), "views_per_sec": round(batch_size / summary.median * 1e3, 1)}
    if device.type == "cuda":
        found["peak_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return found


def _inputs(spec: ModelSpec, batch_size: int) -> list[torch.Tensor]:
    """Random pathways, (N, 3, T, S, S) float32 each."""
    size = (spec.crop_size, spec.crop_size)
    lengths = [spec.num_frames] if spec.alpha is None else [spec.num_frames // spec.alpha, spec.num_frames]
    return [torch.randn(batch_size, 3, length, *size) for length in lengths]


def _timed(work: Callable[[], object], device: torch.device, rounds: int) -> list[float]:
    """Milliseconds of each round, each waited for."""
    times = []
    for turn in range(-_WARM_UP, rounds):
        _synchronise(device)
        started = time.perf_counter()
        work()
        _synchronise(device)
        if turn >= 0:
            times.append((time.perf_counter() - started) * 1e3)
    return times


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measure_pipeline(spec: ModelSpec, device: torch.device, options: GpuOptions) -> list[dict[str, Any]]:
    """VideoClassifier, from bytes to scores, per precision and batch size; videos are decoded in parallel."""
    video = ensure_video(VIDEOS[_VIDEO]).read_bytes()
    entries = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        for precision in options.precisions:
            archive = package(
                PackageOptions(
                    spec=spec.name,
                    weights="random",
                    runtime="eager",
                    precision=precision,
                    output=Path(folder),
                    force=True,
                    progress=False,
                )
            ).path
            try:
                with VideoClassifier.from_archive(archive, device=str(device)) as classifier:
                    for batch_size in options.batch_sizes:
                        entries.append(_measure_batch(classifier, device, video, precision, batch_size, options.rounds))
            except PackageError as error:
                entries.append({"precision": precision, "error": error.message})
    return entries


def _measure_batch(
    classifier: VideoClassifier, device: torch.device, video: bytes, precision: str, batch_size: int, rounds: int
) -> dict[str, Any]:
    requests = [VideoRequest(video, RequestOptions())] * batch_size

    def classify() -> None:
        for scores in classifier.classify(requests):
            if isinstance(scores, RequestError):
                raise scores

    summary = summarise(_timed(classify, device, rounds))
    return {
        "precision": precision,
        "batch_size": batch_size,
        "video": _VIDEO,
        "ms": summary.to_json(),
        "videos_per_sec": round(batch_size / summary.median * 1e3, 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Measure the models and the whole pipeline on a GPU, with random weights.",
    )
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for a dry run (default cuda:0)")
    parser.add_argument(
        "--models", nargs="+", choices=tuple(SPECS), default=list(MODELS), help="default x3d_s and both R50"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default all")
    parser.add_argument(
        "--precisions", nargs="+", choices=tuple(PRECISIONS), default=list(PRECISIONS), help="default all"
    )
    parser.add_argument(
        "--batch-sizes", nargs="+", type=int, default=list(BATCH_SIZES), metavar="N", help="default 1 to 32"
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="timed rounds (default 20)")
    parser.add_argument("--quick", action="store_true", help="first model, precision and batch size, two rounds")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="where to write (default: stdout)")
    return parser


def options_from(argv: Sequence[str]) -> tuple[GpuOptions, Path | None]:
    """The command line -> options, and where to write."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if min(arguments.batch_sizes) < 1 or arguments.rounds < 1:
        parser.error("--batch-sizes and --rounds must be at least 1")
    options = GpuOptions(
        device=arguments.device,
        models=tuple(arguments.models),
        variants=tuple(arguments.variants),
        precisions=tuple(arguments.precisions),
        batch_sizes=tuple(arguments.batch_sizes),
        rounds=arguments.rounds,
    )
    return (options.shortened() if arguments.quick else options), arguments.output


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 1 with one sentence when it cannot measure here; 130 after Ctrl-C."""
    given = list(sys.argv[1:] if argv is None else argv)
    options, output = options_from(given)
    try:
        result = measure_gpu(options, command=shlex.join(["python", "-m", "benchmarks.gpu", *given]))
    except (NoDevice, PackageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
