"""Where an archive's weights come from: published, a checkpoint, bundled with this repository, or random for tests."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from handlers.errors import InvalidCheckpoint
from handlers.model.archive_info import WeightsInfo
from handlers.model.checkpoints import read_checkpoint
from handlers.model.network import build_model, expected_shapes
from handlers.specs import Head, ModelSpec
from serving.download import DownloadError, check_hash, sha256_of
from serving.weights_cache import cached

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"
"""Weights that this repository holds itself, float16."""

# Variance gains of a random convolution's weights (2 keeps the scale of activations behind a ReLU), and of a random
# classifier's: answers then depend on the video, and are neither flat nor saturated, as a trained network's are not.
_CONVOLUTION_GAIN = 2.0
_CLASSIFIER_GAIN = 0.05
_TRANSFORMER_CLASSIFIER_GAIN = 2.0  # behind a layer normalisation, whose outputs are of size 1
_BLOCK = re.compile(r"(.+\.res_blocks)\.(\d+)\..+")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """Canonical weights, and what the archive says of them; `info.sha256` is empty for random ones until packaged."""

    state_dict: Mapping[str, torch.Tensor]
    head: Head
    num_classes: int
    info: WeightsInfo


def published_weights(spec: ModelSpec, *, offline: bool = False, progress: bool = True) -> WeightsSource:
    """The spec's own weights: bundled ones from this repository, others from their URL, or the cache of it."""
    weights = spec.weights
    if weights.bundled is not None:
        path = WEIGHTS_FOLDER / weights.bundled
        if not path.is_file():
            raise InvalidCheckpoint(f"the weights of {spec.name} are not in this checkout: weights/{weights.bundled}")
        digest = sha256_of(path)
        check_hash(digest, weights.sha256_prefix, origin=path.name)
        return _from_file(path, spec, WeightsInfo(kind="bundled", source=weights.bundled, sha256=digest))
    if weights.url is None:
        raise InvalidCheckpoint(f"{spec.name} has no published weights; give --checkpoint FILE or --weights random")
    try:
        path, digest = cached(weights.url, sha256_prefix=weights.sha256_prefix, offline=offline, progress=progress)
    except DownloadError as error:
        raise DownloadError(
            f"{error}. Ways out: python -m scripts.package {spec.name} --checkpoint FILE, with a file fetched in "
            "another way; --weights random, to try things out; or camera_motion, a model that needs no download"
        ) from error
    return _from_file(path, spec, WeightsInfo(kind="published", source=weights.url, sha256=digest))


def checkpoint_weights(
    location: str,
    spec: ModelSpec,
    *,
    key: str | None = None,
    strip_prefix: str | None = None,
    offline: bool = False,
    progress: bool = True,
) -> WeightsSource:
    """Weights of a checkpoint file, or of a URL, which is cached as published ones are.

    `key` and `strip_prefix` are read_checkpoint's.
    """
    if location.startswith(("http://", "https://")):
        path, digest = cached(location, offline=offline, progress=progress)
        source = location
    else:
        path = Path(location).expanduser()
        if not path.is_file():
            raise InvalidCheckpoint(f"there is no checkpoint file {location}")
        digest, source = sha256_of(path), path.name
    info = WeightsInfo(kind="checkpoint", source=source, sha256=digest)
    return _from_file(path, spec, info, key=key, strip_prefix=strip_prefix)


def random_weights(spec: ModelSpec, *, num_classes: int, seed: int) -> WeightsSource:
    """Weights that depend on nothing but the spec, the class count and the seed."""
    shapes = expected_shapes(spec, num_classes=num_classes, head=spec.head)
    blocks_per_stage = Counter(
        stage for stage, _ in {match.groups() for match in map(_BLOCK.fullmatch, shapes) if match}
    )
    state_dict = dict(_tables(spec, num_classes))
    for key, shape in shapes.items():
        if key in state_dict:
            continue
        gain = _classifier_gain(spec) if key == f"{spec.classifier}.weight" else _CONVOLUTION_GAIN
        value = _random_tensor(key, tuple(shape), seed, gain)
        if key.endswith(".norm_c.weight") and (block := _BLOCK.fullmatch(key)):
            # Every block adds to its stage's activations; so the sum stays in scale however many blocks there are.
            value /= math.sqrt(blocks_per_stage[block[1]])
        state_dict[key] = value
    info = WeightsInfo(kind="random", source=None, sha256="", seed=seed)
    return WeightsSource(state_dict=state_dict, head=spec.head, num_classes=num_classes, info=info)


def _classifier_gain(spec: ModelSpec) -> float:
    model = getattr(spec.architecture, "model", "")
    return _TRANSFORMER_CLASSIFIER_GAIN if model.startswith(("mvit", "swin")) else _CLASSIFIER_GAIN


def _tables(spec: ModelSpec, num_classes: int) -> Mapping[str, torch.Tensor]:
    """The entries of the state dict that are no weights but follow from the architecture: Swin's tables of offsets."""
    if spec.family != "torchvision":
        return {}
    entries = build_model(spec, num_classes=num_classes, head=spec.head).state_dict()
    return {key: value for key, value in entries.items() if key.endswith(".relative_position_index")}


def _random_tensor(key: str, shape: tuple[int, ...], seed: int, gain: float) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    # One generator per key: a tensor does not change when another one is added, or the order of keys does.
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    if key.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        value = rng.normal(0.0, math.sqrt(gain / math.prod(shape[1:])), shape)
    elif key.endswith("weight"):
        value = rng.uniform(0.8, 1.2, shape)
    else:
        value = rng.normal(0.0, 0.1, shape)
    return torch.from_numpy(value.astype(np.float32))


def _from_file(
    path: Path, spec: ModelSpec, info: WeightsInfo, *, key: str | None = None, strip_prefix: str | None = None
) -> WeightsSource:
    checkpoint = read_checkpoint(path, spec, key=key, strip_prefix=strip_prefix)
    return WeightsSource(
        state_dict=checkpoint.state_dict, head=checkpoint.head, num_classes=checkpoint.num_classes, info=info
    )
