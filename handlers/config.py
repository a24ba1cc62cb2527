"""The `handler:` section of model-config.yaml -> a frozen HandlerConfig; anything unknown is refused at load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from handlers.errors import InvalidConfig
from handlers.limits import Limits
from handlers.specs import Head, ModelSpec, get_spec

Decoder = Literal["sampled", "encoded_video"]
Isolation = Literal["process", "request", "none"]
SandboxPolicy = Literal["auto", "required", "none"]
CodecProfile = Literal["modern", "wide"]
RuntimeName = Literal["auto", "eager", "compile", "openvino"]
Precision = Literal["float32", "bfloat16", "float16"]

DEFAULT_RESPONSE_TIMEOUT_SEC = 120
"""What TorchServe 0.12 takes for `responseTimeout` where a model-config.yaml does not name it."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "head": get_args(Head),
    "decoder": get_args(Decoder),
    "isolation": get_args(Isolation),
    "sandbox": get_args(SandboxPolicy),
    "codecs": get_args(CodecProfile),
    "runtime": get_args(RuntimeName),
    "precision": get_args(Precision),
}


def _help(text: str) -> Mapping[str, str]:
    """The one text about a setting: the comment beside it in model-config.yaml."""
    return {"help": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerConfig:
    """How one model is served. `spec` is a name of handlers.specs; None for `head` means the spec's own.

    `decode_processes` and `threads`: 0 means one per CPU core.
    """

    spec: str = field(metadata=_help("the model: architecture and preprocessing; the archive's weights belong to it"))
    head: Head | None = field(
        default=None,
        metadata=_help(
            "how positions are averaged: pytorchvideo | mmaction2 | pyslowfast, as these weights were trained"
        ),
    )
    decoder: Decoder = field(
        default="sampled",
        metadata=_help("sampled (default): only the frames wanted | encoded_video: the documented recipe, literally"),
    )
    autorotate: bool = field(default=True, metadata=_help("true (default): turn frames as the file's rotation says"))
    isolation: Isolation = field(
        default="process",
        metadata=_help(
            "process (default): decode in child processes | request: in a new one each time | none: in the worker"
        ),
    )
    sandbox: SandboxPolicy = field(
        default="auto",
        metadata=_help("auto (default): confine decoding processes as far as the system permits | required | none"),
    )
    codecs: CodecProfile = field(
        default="wide",
        metadata=_help("wide (default): old formats too, and rare ones in the sandbox | modern: what is in use today"),
    )
    decode_processes: int = field(default=0, metadata=_help("decoding processes; 0 (default): one per core"))
    runtime: RuntimeName = field(
        default="auto",
        metadata=_help("auto (default): the fastest that is installed | eager | compile | openvino"),
    )
    precision: Precision = field(
        default="float32", metadata=_help("float32 (default, exact) | bfloat16 | float16 (GPU)")
    )
    threads: int = field(default=0, metadata=_help("threads of the model; 0 (default): one per core"))
    limits: Limits = field(
        default_factory=Limits, metadata=_help("over one of these a request is refused; others are not affected")
    )

    @property
    def decodes_in_processes(self) -> bool:
        """Whether untrusted bytes are decoded in processes of their own, which alone can be confined."""
        return self.decoder == "sampled" and self.isolation != "none"

    @classmethod
    def from_mapping(cls, mapping: object, *, own: ModelSpec | None = None) -> HandlerConfig:
        """Parse the section as YAML gives it; raises InvalidConfig (UnknownSpec for the name of no spec).

        `own`: the archive's own spec, whose name is known as well.
        """
        known = [entry.name for entry in fields(cls)]
        values = _checked_keys(mapping, known, section="handler")
        if "spec" not in values:
            raise InvalidConfig("handler.spec is missing: it names the model, e.g. `spec: x3d_s`")
        for name, value in values.items():
            if name != "limits":
                _check_value(name, value)
        if own is None or own.name != values["spec"]:
            get_spec(values["spec"])
        if "limits" in values:
            values["limits"] = limits_from_mapping(values["limits"])
        config = cls(**values)
        if config.sandbox == "required" and not config.decodes_in_processes:
            raise InvalidConfig(
                "handler.sandbox: required needs decoder: sampled and isolation: process or request, "
                f"got decoder: {config.decoder} and isolation: {config.isolation}"
            )
        return config


def model_settings(content: object, *, own: ModelSpec | None = None) -> HandlerConfig:
    """The `handler:` section of a parsed model-config.yaml, checked against TorchServe's own settings beside it.

    Raises InvalidConfig.
    """
    if not isinstance(content, Mapping):
        raise InvalidConfig("model-config.yaml holds no settings")
    config = HandlerConfig.from_mapping(content.get("handler"), own=own)
    response_timeout = content.get("responseTimeout", DEFAULT_RESPONSE_TIMEOUT_SEC)
    if isinstance(response_timeout, bool) or not isinstance(response_timeout, int | float):
        raise InvalidConfig(f"responseTimeout must be a number of seconds, got {response_timeout!r}")
    if not config.limits.request_timeout_sec < response_timeout:
        raise InvalidConfig(
            f"handler.limits.request_timeout_sec ({config.limits.request_timeout_sec:g} s) must be smaller than "
            f"responseTimeout ({response_timeout:g} s), after which TorchServe kills the worker"
        )
    return config


def limits_from_mapping(mapping: object) -> Limits:
    """The `handler.limits` section; raises InvalidConfig."""
    values = _checked_keys(mapping, [entry.name for entry in fields(Limits)], section="handler.limits")
    try:
        return Limits(**values)
    except ValueError as error:
        raise InvalidConfig(f"handler.{error}") from error


def _checked_keys(mapping: object, known: list[str], *, section: str) -> dict[str, Any]:
    """The section as a dict; an empty section (YAML's null) is an empty dict."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise InvalidConfig(f"{section} must be a section of keys and values, got {mapping!r}")
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        raise InvalidConfig(f"unknown key {section}.{unknown[0]}; known keys of {section}: {', '.join(known)}")
    return dict(mapping)


def _check_value(name: str, value: object) -> None:
    if name in _CHOICES:
        if not isinstance(value, str) or value not in _CHOICES[name]:
            raise InvalidConfig(f"handler.{name} must be one of {', '.join(_CHOICES[name])}, got {value!r}")
    elif name == "spec":
        if not isinstance(value, str):
            raise InvalidConfig(f"handler.spec must be the name of a spec, got {value!r}")
    elif name == "autorotate":
        if not isinstance(value, bool):
            raise InvalidConfig(f"handler.autorotate must be true or false, got {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidConfig(f"handler.{name} must be a whole number of at least 0, got {value!r}")
