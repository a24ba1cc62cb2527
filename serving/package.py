"""Package a model into an archive that stock TorchServe serves. `python -m scripts.package` is its command."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from safetensors.torch import save_file

from handlers import __version__
from handlers.config import Precision, RuntimeName, model_settings
from handlers.errors import InvalidConfig, InvalidLabels, RuntimeUnavailable
from handlers.model.archive_info import (
    ARCHIVE_FILE,
    CONFIG_FILE,
    LABELS_FILE,
    OPENVINO_FILE,
    WEIGHTS_FILE,
    ArchiveInfo,
    OpenVinoInfo,
)
from handlers.model.checkpoints import HEAD_METADATA_KEY
from handlers.model.labels import check_label_count, checked_labels, index_to_name, read_labels
from handlers.model.network import load_model
from handlers.model.own_spec import write_own_spec
from handlers.model.runtimes import has_gpu_driver
from handlers.specs import ModelSpec
from serving.build_archive import build_archive, entry_file
from serving.download import sha256_of
from serving.graph import import_graph
from serving.model_config import model_config
from serving.openvino_export import convert, openvino_installed
from serving.settings import check_fixed, check_runtime, check_server_settings, edited, flattened
from serving.spec_file import graph_file, resolve_spec
from serving.weights import (
    WEIGHTS_FOLDER,
    WeightsSource,
    checkpoint_weights,
    published_weights,
    random_weights,
)

RUNTIMES: tuple[str, ...] = get_args(RuntimeName)
PRECISIONS: tuple[str, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """What to package; the fields are the command's options.

    `file` is the archive's name in `output`, NAME.mar without it. `settings` are those of model-config.yaml that shall
    differ from the defaults, by their keys, as in `handler.limits.max_video_sec`.
    """

    spec: str
    checkpoint: str | None = None
    key: str | None = None
    strip_prefix: str | None = None
    labels: Path | None = None
    name: str | None = None
    file: str | None = None
    version: str = "1.0"
    runtime: str = "auto"
    precision: str = "float32"
    weights: str = "published"
    seed: int = 0
    output: Path = Path("model_store")
    force: bool = False
    offline: bool = False
    progress: bool = True
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """The archive that was written, and what archive.json inside it says."""

    path: Path
    info: ArchiveInfo
    notes: tuple[str, ...] = ()


def package(options: PackageOptions) -> Packaged:
    """Writes the archive; raises SetupError or DownloadError with one sentence, and then leaves nothing behind."""
    spec, is_own = resolve_spec(options.spec)
    options = _with_settings(options, spec, own=is_own)
    name = options.name or spec.name
    target = _checked_target(options, name)
    entry = entry_file(spec.pathways)
    _check_runtime(options)
    given_labels = None if options.labels is None else read_labels(options.labels)
    graph = graph_file(options.spec, spec)
    if graph is not None:
        return _package_graph(options, spec, graph, given_labels, target)
    source = _weights(options, spec, None if given_labels is None else len(given_labels))
    labels = given_labels or _default_labels(spec, source.num_classes)
    origin = options.labels.name if options.labels else f"the label set of {spec.name}"
    check_label_count(labels, source.num_classes, origin=origin)
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        stage, config = Path(folder) / "stage", Path(folder) / CONFIG_FILE
        stage.mkdir()
        info, notes = _write_stage(stage, options, spec, source, name)
        (stage / LABELS_FILE).write_text(index_to_name(labels), encoding="utf-8")
        if is_own:
            write_own_spec(stage, spec)
        config.write_text(_settings_text(options, info, spec if is_own else None), encoding="utf-8")
        build_archive(stage, config, entry, target, name=name, version=options.version)
    return Packaged(path=target, info=info, notes=notes)


def _package_graph(
    options: PackageOptions, spec: ModelSpec, graph: Path, labels: tuple[str, ...] | None, target: Path
) -> Packaged:
    """The archive of an architecture that is not known here: its graph is all that a worker needs."""
    if options.checkpoint is not None or options.weights != "published":
        raise InvalidConfig(f"{spec.name} is a graph, which holds its weights: give neither --checkpoint nor --weights")
    if options.runtime not in ("auto", "openvino"):
        raise RuntimeUnavailable(f"{spec.name} is a graph for OpenVINO; the runtime {options.runtime} cannot run it")
    if labels is None:
        raise InvalidLabels(f"{spec.name} is a model of yours: give its labels, --labels FILE")
    name = target.stem
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        stage, config = Path(folder) / "stage", Path(folder) / CONFIG_FILE
        stage.mkdir()
        source = import_graph(graph, spec, stage / OPENVINO_FILE)
        if source.num_classes != spec.num_classes:
            raise InvalidConfig(f"{graph.name} answers {source.num_classes} classes, the spec says {spec.num_classes}")
        check_label_count(labels, source.num_classes, origin=options.labels.name if options.labels else name)
        info = ArchiveInfo(
            spec=spec.name,
            name=name,
            version=options.version,
            num_classes=source.num_classes,
            head=source.head,
            weights=source.info,
            package_version=__version__,
            openvino=OpenVinoInfo(model=OPENVINO_FILE, weights_sha256=source.info.sha256),
        )
        (stage / ARCHIVE_FILE).write_text(json.dumps(info.to_json(), indent=2) + "\n", encoding="utf-8")
        (stage / LABELS_FILE).write_text(index_to_name(labels), encoding="utf-8")
        write_own_spec(stage, spec)
        config.write_text(_settings_text(replace(options, runtime="openvino"), info, spec), encoding="utf-8")
        build_archive(stage, config, entry_file(spec.pathways), target, name=name, version=options.version)
    return Packaged(path=target, info=info)


def summary(packaged: Packaged) -> str:
    """A few lines for people: where the archive is, how large, and what weights it holds."""
    info = packaged.info
    origin = {
        "published": f"published, {info.weights.source}",
        "checkpoint": f"checkpoint {info.weights.source}",
        "bundled": f"bundled, {info.weights.source}",
        "random": f"RANDOM (seed {info.weights.seed}): the answers mean nothing",
    }[info.weights.kind]
    lines = [
        f"{packaged.path}  {packaged.path.stat().st_size / 1e6:.1f} MB",
        f"  model    {info.name} {info.version}: {info.spec}, {info.num_classes} classes, {info.head} head",
        f"  weights  {origin}",
        f"  sha256   {info.weights.sha256}",
        *(f"  note     {note}" for note in packaged.notes),
    ]
    return "\n".join(lines)


def _with_settings(options: PackageOptions, spec: ModelSpec, *, own: bool) -> PackageOptions:
    """With the runtime and the precision that the settings name, which decide what goes into the archive.

    Raises InvalidConfig where an option and a setting contradict, or a setting is wrong in itself.
    """
    sources = {"runtime": options.runtime, "precision": options.precision}
    for name, default in (("runtime", "auto"), ("precision", "float32")):
        wanted = str(options.settings.get(f"handler.{name}", sources[name]))
        if sources[name] not in (default, wanted):
            raise InvalidConfig(
                f"--{name} {sources[name]} and the setting handler.{name}={wanted} contradict each other"
            )
        sources[name] = wanted
    chosen = replace(options, runtime=sources["runtime"], precision=sources["precision"])
    # Most mistakes are in the text alone: found here, before weights are read and a model is converted.
    head = options.settings.get("handler.head", spec.head)
    light = chosen.runtime in ("auto", "openvino") and not has_gpu_driver()
    _checked_settings(chosen, name=spec.name, spec=spec.name, head=head, own=spec if own else None, light_workers=light)
    return chosen


def _settings_text(options: PackageOptions, info: ArchiveInfo, own: ModelSpec | None) -> str:
    light = _runs_on_openvino(options, info)
    return _checked_settings(options, name=info.name, spec=info.spec, head=info.head, own=own, light_workers=light)


def _checked_settings(
    options: PackageOptions, *, name: str, spec: str, head: Any, own: ModelSpec | None, light_workers: bool
) -> str:
    """model-config.yaml with the chosen settings; what a worker would refuse is refused here with InvalidConfig."""
    text = model_config(
        name=name,
        spec=spec,
        head=head,
        runtime=options.runtime,
        precision=options.precision,
        light_workers=light_workers,
    )
    check_fixed(options.settings, flattened(yaml.safe_load(text)))
    text = edited(text, options.settings)
    content = yaml.safe_load(text)
    check_server_settings(content)
    model_settings(content, own=own)
    return text


def _checked_target(options: PackageOptions, name: str) -> Path:
    """The .mar to write; raises InvalidConfig for a name TorchServe refuses or a target that is in the way."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-.]*", name):
        raise InvalidConfig(f"the model name {name!r} may hold letters, digits, '_', '-' and '.' alone")
    if not re.fullmatch(r"\d+(\.\d+)*", options.version):
        raise InvalidConfig(f"the version {options.version!r} must be numbers and dots, as in 1.0")
    file = options.file or f"{name}.mar"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-.]*\.mar", file):
        raise InvalidConfig(
            f"--file {file!r} must be a name that ends in .mar, as in x3d_s-2.0.mar; --output names the folder"
        )
    target = options.output / file
    if options.output.exists() and not options.output.is_dir():
        raise InvalidConfig(f"--output {options.output} is a file; it must be a folder")
    if target.exists() and not options.force:
        raise InvalidConfig(f"{target} exists; --force replaces it")
    return target


def _check_runtime(options: PackageOptions) -> None:
    if options.runtime not in RUNTIMES:
        raise InvalidConfig(f"unknown runtime {options.runtime!r}; known: {', '.join(RUNTIMES)}")
    if options.precision not in PRECISIONS:
        raise InvalidConfig(f"unknown precision {options.precision!r}; known: {', '.join(PRECISIONS)}")
    check_runtime(options.runtime, options.precision)
    if options.runtime == "openvino" and not openvino_installed():
        raise RuntimeUnavailable("the openvino runtime needs the package openvino: pip install openvino")


def _runs_on_openvino(options: PackageOptions, info: ArchiveInfo) -> bool:
    """Whether workers on this machine will run the converted model; `auto` takes a GPU where there is one."""
    if info.openvino is None or options.precision == "float16":
        return False
    return options.runtime == "openvino" or not has_gpu_driver()


def _weights(options: PackageOptions, spec: ModelSpec, label_count: int | None) -> WeightsSource:
    if options.checkpoint is not None:
        return checkpoint_weights(
            options.checkpoint,
            spec,
            key=options.key,
            strip_prefix=options.strip_prefix,
            offline=options.offline,
            progress=options.progress,
        )
    if options.weights == "random":
        return random_weights(spec, num_classes=label_count or spec.num_classes, seed=options.seed)
    if options.weights != "published":
        raise InvalidConfig(f"unknown weights {options.weights!r}; known: published, random")
    return published_weights(spec, offline=options.offline, progress=options.progress)


def _default_labels(spec: ModelSpec, num_classes: int) -> tuple[str, ...]:
    """The labels that belong to the spec; raises InvalidLabels when the weights have another number of classes."""
    if num_classes != spec.num_classes:
        raise InvalidLabels(
            f"the checkpoint has {num_classes} classes and {spec.name} has {spec.num_classes}: give its labels, "
            "--labels FILE"
        )
    if spec.weights.source == "own":
        raise InvalidLabels(f"{spec.name} is a model of yours: give its labels, --labels FILE")
    if spec.weights.bundled_labels is not None:
        return read_labels(WEIGHTS_FOLDER / spec.weights.bundled_labels)
    from torchvision.models.video import R3D_18_Weights  # slow to import, and needed only here

    return checked_labels(R3D_18_Weights.KINETICS400_V1.meta["categories"], origin="torchvision's Kinetics-400 labels")


def _write_stage(
    stage: Path, options: PackageOptions, spec: ModelSpec, source: WeightsSource, name: str
) -> tuple[ArchiveInfo, tuple[str, ...]]:
    """Weights, the converted model and archive.json; returns what archive.json says, and remarks for the user."""
    weights = stage / WEIGHTS_FILE
    save_file(dict(source.state_dict), weights, metadata={HEAD_METADATA_KEY: source.head})
    digest = sha256_of(weights)
    info = ArchiveInfo(
        spec=spec.name,
        name=name,
        version=options.version,
        num_classes=source.num_classes,
        head=source.head,
        weights=source.info if source.info.sha256 else replace(source.info, sha256=digest),
        package_version=__version__,
    )
    notes: tuple[str, ...] = ()
    if options.runtime in ("auto", "openvino"):
        if openvino_installed():
            model = load_model(spec, weights, num_classes=source.num_classes, head=source.head)
            convert(model, spec, stage / OPENVINO_FILE)
            info = replace(info, openvino=OpenVinoInfo(model=OPENVINO_FILE, weights_sha256=digest))
            if options.runtime == "openvino":
                weights.unlink()  # the converted model has them, and no other runtime will ask
        else:
            notes = ("openvino is not installed: the archive holds no converted model, workers will use torch",)
    (stage / ARCHIVE_FILE).write_text(json.dumps(info.to_json(), indent=2) + "\n", encoding="utf-8")
    return info, notes
