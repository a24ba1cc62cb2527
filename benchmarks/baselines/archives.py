"""The archives of one run: this package's, the recipe's with the very same weights and labels, and the echo's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from handlers.errors import InvalidConfig, SetupError
from handlers.model.archive_info import CONFIG_FILE, LABELS_FILE, WEIGHTS_FILE, ArchiveInfo
from handlers.specs import ModelSpec, get_spec
from serving.archive_settings import change_archive

_BASELINES = Path(__file__).resolve().parent
_ROOT = _BASELINES.parent.parent
OURS, BFLOAT16, RECIPE, ECHO = "ours", "ours_bfloat16", "recipe", "echo"
"""Names under which the contenders are registered, and by which results tell them apart."""

HUB_MODELS = ("x3d_xs", "x3d_s", "x3d_m", "x3d_l", "slow_r50", "slowfast_r50", "slowfast_r101")
"""Models that PyTorchVideo's hub builds, by the names of `handlers.specs`, which are the hub's."""

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class BenchmarkArchives:
    """`store` holds ours.mar, recipe.mar and echo.mar; `model_dir` is ours unpacked, for in-process contenders.

    With `bfloat16` there is ours_bfloat16.mar as well: ours with that precision.
    """

    store: Path
    model_dir: Path
    spec: ModelSpec
    weights_sha256: str
    bfloat16: bool = False


def prepare_archives(
    folder: Path,
    *,
    spec: str,
    weights: str,
    seed: int,
    archive: Path | None = None,
    recipe_workers: int = 1,
    bfloat16: bool = False,
) -> BenchmarkArchives:
    """Writes everything below `folder`. `archive` is used instead of packaging `spec`. Raises SetupError."""
    store, model_dir = folder / "store", folder / "model"
    store.mkdir(parents=True, exist_ok=True)
    ours = store / f"{OURS}.mar"
    if archive is None:
        _package(spec, ours, weights=weights, seed=seed)
    else:
        ours.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(ours) as packed:
        packed.extractall(model_dir)
    info = ArchiveInfo.read(model_dir)
    found = get_spec(info.spec)
    parameters = recipe(info)
    _write_archive(
        store / f"{RECIPE}.mar",
        handler=_BASELINES / "recipe_handler.py",
        config={"minWorkers": recipe_workers, "maxWorkers": recipe_workers, "batchSize": 1, "recipe": parameters},
        files=[model_dir / WEIGHTS_FILE, model_dir / LABELS_FILE],
    )
    _write_archive(
        store / f"{ECHO}.mar",
        handler=_BASELINES / "echo_handler.py",
        config={"minWorkers": 1, "maxWorkers": 1, "batchSize": 1},
        files=[],
    )
    if bfloat16:
        change_archive(shutil.copyfile(ours, store / f"{BFLOAT16}.mar"), {"handler.precision": "bfloat16"})
    return BenchmarkArchives(store, model_dir, found, _same_weights(ours, store / f"{RECIPE}.mar"), bfloat16)


def recipe(info: ArchiveInfo) -> dict[str, Any]:
    """The tutorial's parameters of an archive's model, as it names them.

    Raises InvalidConfig for a model that PyTorchVideo's hub does not have: there is no recipe for it.
    """
    spec = get_spec(info.spec)
    if spec.name not in HUB_MODELS or info.head != "pytorchvideo":
        raise InvalidConfig(
            f"there is no recipe to compare {spec.name} with the {info.head} head to; there is one for "
            f"{', '.join(HUB_MODELS)} with the pytorchvideo head"
        )
    return {
        "model": spec.name,
        "num_classes": info.num_classes,
        "side_size": spec.short_side,
        "crop_size": spec.crop_size,
        "num_frames": spec.num_frames,
        "sampling_rate": spec.sampling_rate,
        "frames_per_second": spec.frames_per_second,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "alpha": spec.alpha,
    }


def _package(spec: str, target: Path, *, weights: str, seed: int) -> None:
    """The real command, in a process of its own, so that this one stays small."""
    command = [sys.executable, "-W", "ignore", "-m", "scripts.package", spec, "--name", target.stem, "--force"]
    command += ["--output", str(target.parent), "--weights", weights]
    if weights == "random":
        command += ["--seed", str(seed)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"packaging {spec} failed: {done.stderr.strip().splitlines()[-1:] or 'it said nothing'}")


def _write_archive(target: Path, *, handler: Path, config: dict[str, Any], files: list[Path]) -> None:
    """What torch-model-archiver writes for one handler file, its settings and `files`."""
    manifest = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": target.stem,
            "handler": handler.name,
            "modelVersion": "1.0",
            "configFile": CONFIG_FILE,
        },
        "archiverVersion": "0.12.0",
    }
    timeouts = {"responseTimeout": 300, "startupTimeout": 120}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for name, text in (
            ("MAR-INF/MANIFEST.json", json.dumps(manifest, indent=2)),
            (CONFIG_FILE, yaml.safe_dump({**config, **timeouts})),
            (handler.name, handler.read_text(encoding="utf-8")),
        ):
            packed.writestr(zipfile.ZipInfo(name, _ZIP_DATE), text)
        for file in files:
            packed.write(file, file.name)


def _same_weights(ours: Path, theirs: Path) -> str:
    """The SHA-256 of both archives' weights; raises SetupError if they differ, for then no answers can be compared."""
    digests = set()
    for path in (ours, theirs):
        with zipfile.ZipFile(path) as packed:
            digests.add(hashlib.sha256(packed.read(WEIGHTS_FILE)).hexdigest())
    if len(digests) != 1:
        raise SetupError("the two archives hold different weights")
    return digests.pop()
