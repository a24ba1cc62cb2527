"""Package a model into an archive that stock TorchServe serves. `python -m scripts.package` is its command."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file

from handlers import __version__
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
from handlers.specs import ModelSpec
from serving.build_archive import build_archive, entry_file
from serving.download import sha256_of
from serving.graph import import_graph
from serving.huggingface import folder_labels, import_folder, licence_note
from serving.import_program import import_program
from serving.openvino_export import convert, openvino_installed
from serving.package_options import PRECISIONS, RUNTIMES, PackageOptions, checked_target, settings_text, with_settings
from serving.settings import check_runtime
from serving.spec_file import graph_file, resolve_spec
from serving.weights import (
    WEIGHTS_FOLDER,
    WeightsSource,
    checkpoint_weights,
    published_weights,
    random_weights,
)

__all__ = ["PRECISIONS", "RUNTIMES", "PackageOptions", "Packaged", "package", "summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """The archive that was written, and what archive.json inside it says."""

    path: Path
    info: ArchiveInfo
    notes: tuple[str, ...] = ()


def package(options: PackageOptions) -> Packaged:
    """Writes the archive; raises SetupError or DownloadError with one sentence, and then leaves nothing behind."""
    spec, is_own = resolve_spec(options.spec)
    options = with_settings(options, spec, own=is_own)
    name = options.name or spec.name
    target = checked_target(options, name)
    entry = entry_file(spec.pathways)
    _check_runtime(options)
    given_labels = None if options.labels is None else read_labels(options.labels)
    graph = graph_file(options.spec, spec)
    if graph is not None:
        return _package_graph(options, spec, graph, given_labels, target, name)
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
        config.write_text(settings_text(options, info, spec if is_own else None), encoding="utf-8")
        build_archive(stage, config, entry, target, name=name, version=options.version)
    return Packaged(path=target, info=info, notes=notes)


def _package_graph(
    options: PackageOptions, spec: ModelSpec, graph: Path, labels: tuple[str, ...] | None, target: Path, name: str
) -> Packaged:
    """The archive of an architecture that is not known here: its graph is all that a worker needs."""
    if options.checkpoint is not None or options.weights != "published":
        raise InvalidConfig(f"{spec.name} is a graph, which holds its weights: give neither --checkpoint nor --weights")
    is_program = graph.suffix == ".pt2"
    if options.runtime not in ("auto", "openvino") and not is_program:
        raise RuntimeUnavailable(f"{spec.name} is a graph for OpenVINO; the runtime {options.runtime} cannot run it")
    is_folder = graph.is_dir()
    if labels is None and is_folder:
        labels = folder_labels(graph)
    if labels is None:
        raise InvalidLabels(f"{spec.name} is a model of yours: give its labels, --labels FILE")
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        stage, config = Path(folder) / "stage", Path(folder) / CONFIG_FILE
        stage.mkdir()
        options, source = _import_network(options, spec, graph, stage)
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
            openvino=(
                OpenVinoInfo(model=OPENVINO_FILE, weights_sha256=source.info.sha256)
                if (stage / OPENVINO_FILE).is_file()
                else None
            ),
        )
        (stage / ARCHIVE_FILE).write_text(json.dumps(info.to_json(), indent=2) + "\n", encoding="utf-8")
        (stage / LABELS_FILE).write_text(index_to_name(labels), encoding="utf-8")
        write_own_spec(stage, spec)
        config.write_text(settings_text(options, info, spec), encoding="utf-8")
        build_archive(stage, config, entry_file(spec.pathways), target, name=name, version=options.version)
    note = licence_note(graph) if is_folder else None
    return Packaged(path=target, info=info, notes=() if note is None else (note,))


def _import_network(
    options: PackageOptions, spec: ModelSpec, graph: Path, stage: Path
) -> tuple[PackageOptions, WeightsSource]:
    """Writes the network's forms into `stage`; the options with the runtime that they are for."""
    if graph.suffix == ".pt2":
        source = import_program(
            graph,
            spec,
            stage,
            for_torch=options.runtime != "openvino",
            for_openvino=options.runtime in ("auto", "openvino") and openvino_installed(),
        )
        return options, source
    source = (import_folder if graph.is_dir() else import_graph)(graph, spec, stage / OPENVINO_FILE)
    return replace(options, runtime="openvino"), source


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


def _check_runtime(options: PackageOptions) -> None:
    if options.runtime not in RUNTIMES:
        raise InvalidConfig(f"unknown runtime {options.runtime!r}; known: {', '.join(RUNTIMES)}")
    if options.precision not in PRECISIONS:
        raise InvalidConfig(f"unknown precision {options.precision!r}; known: {', '.join(PRECISIONS)}")
    check_runtime(options.runtime, options.precision)
    if options.runtime == "openvino" and not openvino_installed():
        raise RuntimeUnavailable("the openvino runtime needs the package openvino: pip install openvino")


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
