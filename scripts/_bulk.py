"""What `evaluate` and `classify` share: the model to run, where it runs, and how a run ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bulk.archives import Model, read_model
from bulk.engines import Engine, local_engine
from bulk.files import InvalidSelection
from bulk.outcomes import parse_views
from bulk.scratch import remove_leftovers, scratch_folder
from handlers.errors import InvalidConfig, PackageError
from handlers.specs import SPECS
from handlers.video.sampling import Sampling
from serving.archive_settings import MODEL_STORE, find_archive
from serving.download import DownloadError

_LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:")

VIEWS_HELP = "CLIPSxCROPS per video: 1x1 (default), 10x1, 10x3; crops are 1 or 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Where the workers run. `ray` None: on this machine; `workers` 0: one here, as many as fit on a cluster."""

    ray: str | None = None
    workers: int = 0
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    shared_storage: bool = False
    device: str | None = None


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="an archive: its file, or its name in model_store; or the name of a spec that has none there, for its "
        "published or bundled weights",
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on a Ray cluster: auto, HOST:PORT, or local for one on this machine "
        "(pip install -r requirements/ray.txt)",
    )
    where.add_argument(
        "--workers",
        type=whole,
        default=0,
        metavar="N",
        help="workers, each with its own model (default: one here, on all cores; with --ray as many as fit)",
    )
    where.add_argument(
        "--cpus-per-worker", type=positive, default=1, metavar="N", help="cores of each Ray worker (default 1)"
    )
    where.add_argument(
        "--gpus-per-worker", type=float, metavar="N", help="GPUs of each Ray worker (default 1 if the cluster has any)"
    )
    where.add_argument(
        "--shared-storage",
        action="store_true",
        help="every Ray node sees the videos under the same paths: workers read them there "
        "(default: read here and sent; URIs such as s3://... need this option)",
    )
    where.add_argument(
        "--device", metavar="NAME", help="where the model runs without --ray: cpu, cuda:0 (default: best)"
    )
    where.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="videos that are in work together (default 8)"
    )


def engine_options(arguments: argparse.Namespace) -> EngineOptions:
    if arguments.ray is None and (arguments.shared_storage or arguments.gpus_per_worker is not None):
        raise InvalidConfig("--shared-storage and --gpus-per-worker belong to --ray")
    if arguments.ray is not None and arguments.device is not None:
        raise InvalidConfig("--device is for runs without --ray; Ray workers use --gpus-per-worker")
    return EngineOptions(
        ray=arguments.ray,
        workers=arguments.workers,
        cpus_per_worker=arguments.cpus_per_worker,
        gpus_per_worker=arguments.gpus_per_worker,
        shared_storage=arguments.shared_storage,
        device=arguments.device,
    )


@contextmanager
def opened_model(spec_or_mar: str) -> Iterator[Model]:
    """The archive of that path or that name in the model store, or the spec, packaged into a temporary folder."""
    if removed := remove_leftovers():
        print(f"note: removed {removed} temporary folders that killed runs left behind", file=sys.stderr)
    with scratch_folder() as folder:
        yield read_model(_find_archive(spec_or_mar, folder))


def _find_archive(spec_or_mar: str, folder: Path) -> Path:
    archive = find_archive(spec_or_mar)
    if archive is not None:
        if archive != Path(spec_or_mar):
            print(f"note: {spec_or_mar} is the archive {archive}", file=sys.stderr)
        return archive
    if spec_or_mar.endswith(".mar"):
        raise InvalidSelection(f"the archive {spec_or_mar} does not exist")
    if spec_or_mar not in SPECS:
        raise InvalidSelection(
            f"{spec_or_mar!r} is neither an archive, by its path or in {MODEL_STORE}, nor a spec; "
            f"specs: {', '.join(SPECS)}"
        )
    from serving.package import PackageOptions, package  # imports torch, which an archive by its path does not need

    return package(PackageOptions(spec=spec_or_mar, output=folder, progress=sys.stderr.isatty())).path


@contextmanager
def started_engine(model: Model, options: EngineOptions) -> Iterator[Engine]:
    if options.ray is None:
        yield local_engine(model.archive, workers=options.workers or 1, device=options.device)
        return
    if options.ray == "local" or options.ray.startswith(_LOOPBACK):
        # Ray takes "localhost" for the machine's outward address otherwise, and would listen on every interface. Read
        # when ray is imported; its name is about the systems where this is the default.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        from bulk.ray_engine import RayEngine, RayOptions
    except ImportError as error:
        raise InvalidConfig(f"--ray needs Ray ({error.name}): pip install -r requirements/ray.txt") from error
    ray_options = RayOptions(
        address=options.ray,
        workers=options.workers,
        cpus_per_worker=options.cpus_per_worker,
        gpus_per_worker=options.gpus_per_worker,
        shared_storage=options.shared_storage,
    )
    engine = RayEngine(model.archive, ray_options, max_video_bytes=model.config.limits.max_video_bytes)
    try:
        yield engine
    finally:
        engine.close()


def views(text: str) -> Sampling:
    """argparse's type of --views."""
    try:
        return parse_views(text)
    except PackageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def run_command(command: Callable[[], int]) -> int:
    """The command's status; with one sentence for what was wrong 2 where it named what is not there, else 1; 130 when
    interrupted."""
    # A terminated run cleans up behind itself as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return command()
    except (PackageError, DownloadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidSelection) else 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130


def whole(text: str) -> int:
    return _at_least(text, 0)


def positive(text: str) -> int:
    return _at_least(text, 1)


def _at_least(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return int(text)
