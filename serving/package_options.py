"""What to package, and what follows from it before anything is read: the archive's file and its model-config.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from handlers.config import Precision, RuntimeName, model_settings
from handlers.errors import InvalidConfig
from handlers.model.archive_info import ArchiveInfo
from handlers.model.runtimes import has_gpu_driver
from handlers.specs import ModelSpec
from serving.model_config import model_config
from serving.settings import check_fixed, check_server_settings, edited, flattened

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


def checked_target(options: PackageOptions, name: str) -> Path:
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


def with_settings(options: PackageOptions, spec: ModelSpec, *, own: bool) -> PackageOptions:
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


def settings_text(options: PackageOptions, info: ArchiveInfo, own: ModelSpec | None) -> str:
    """The archive's model-config.yaml; `own` is the spec that the archive brings, None for one of handlers.specs."""
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


def _runs_on_openvino(options: PackageOptions, info: ArchiveInfo) -> bool:
    """Whether workers on this machine will run the converted model; `auto` takes a GPU where there is one."""
    if info.openvino is None or options.precision == "float16":
        return False
    return options.runtime == "openvino" or not has_gpu_driver()
