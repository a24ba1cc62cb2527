"""Settings of an archive: `KEY=VALUE` and YAML files -> checked values -> model-config.yaml with its comments kept.

A setting's key is its path in the file, as in `handler.limits.max_video_sec`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from handlers.errors import InvalidConfig, RuntimeUnavailable

Settings = Mapping[str, object]
"""Values by key, in the order in which they were given."""

# TorchServe's own settings of one model that make sense here, with the least value of those that are whole numbers
# (ModelConfig.java of TorchServe 0.12). It ignores a key that it does not know, so a mistyped one is refused here.
_LEAST: Mapping[str, int] = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 1,
    "maxBatchDelay": 0,
    "responseTimeout": 1,
    "startupTimeout": 1,
    "jobQueueSize": 1,
    "maxRetryTimeoutInSec": 0,
    "clientTimeoutInMills": 0,
}
_DEVICE_TYPES = ("cpu", "gpu")
SERVER_SETTINGS = (*_LEAST, "deviceType", "deviceIds")

# What the weights in the archive decide.
_FIXED = ("handler.spec", "handler.head")


def given_settings(file: Path | None, assignments: Sequence[str]) -> dict[str, object]:
    """The settings of a YAML file, if any, and over them those written `KEY=VALUE`. Raises InvalidConfig."""
    settings = {} if file is None else flattened(_read(file))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise InvalidConfig(f"{assignment!r} is no setting; write KEY=VALUE, as in batchSize=4")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InvalidConfig(f"the value of {assignment!r} cannot be read; it is written as in YAML") from None
    return settings


def flattened(content: object, prefix: str = "") -> dict[str, object]:
    """The values of nested sections by their keys; raises InvalidConfig for what is no section."""
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise InvalidConfig(f"settings are a section of keys and values, got {content!r}")
    values: dict[str, object] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            values |= flattened(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def check_server_settings(content: Mapping[str, Any]) -> None:
    """TorchServe's own settings of a parsed model-config.yaml. Raises InvalidConfig."""
    for key, value in content.items():
        if key == "handler":
            continue
        if key not in SERVER_SETTINGS:
            raise InvalidConfig(f"unknown setting {key}; known: {', '.join(SERVER_SETTINGS)}, and handler.NAME")
        if key in _LEAST and not _is_whole(value, least=_LEAST[key]):
            raise InvalidConfig(f"{key} must be a whole number of at least {_LEAST[key]}, got {value!r}")
    least, most = content.get("minWorkers", 1), content.get("maxWorkers", 1)
    if least > most:
        raise InvalidConfig(f"minWorkers ({least}) must not be larger than maxWorkers ({most})")
    if content.get("deviceType", "cpu") not in _DEVICE_TYPES:
        raise InvalidConfig(f"deviceType must be cpu or gpu, got {content['deviceType']!r}")
    ids = content.get("deviceIds", [])
    if not isinstance(ids, list) or not all(_is_whole(each, least=0) for each in ids):
        raise InvalidConfig(f"deviceIds must be a list of GPU numbers, as in [0, 1], got {ids!r}")


def check_fixed(settings: Settings, present: Settings) -> None:
    """Raises InvalidConfig for another value of a setting that belongs to the archive's weights."""
    for key in _FIXED:
        if key in settings and settings[key] != present.get(key):
            raise InvalidConfig(
                f"{key} belongs to the weights and is {present.get(key)}, got {settings[key]!r}; "
                "package another archive"
            )


def check_runtime(runtime: object, precision: object) -> None:
    """Raises RuntimeUnavailable for a precision that the runtime does not have."""
    if runtime == "openvino" and precision == "float16":
        raise RuntimeUnavailable("the openvino runtime runs on CPUs, in float32 or bfloat16; float16 needs a GPU")


def edited(text: str, settings: Settings) -> str:
    """The YAML text with these values; comments and order are kept where the text is laid out as this package does."""
    for key, value in settings.items():
        text = _edited(text, key.split("."), value)
    return text


def _edited(text: str, path: Sequence[str], value: object) -> str:
    wanted = copy.deepcopy(yaml.safe_load(text))
    section = wanted
    for number, name in enumerate(path[:-1], start=1):
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise InvalidConfig(f"{'.'.join(path[:number])} is a setting and no section; got {'.'.join(path)}")
    if isinstance(section.get(path[-1]), dict):
        raise InvalidConfig(f"{'.'.join(path)} is a section; name one of its settings: {', '.join(section[path[-1]])}")
    section[path[-1]] = value
    changed = _replaced(text, path, value)
    if changed is not None and yaml.safe_load(changed) == wanted:
        return changed
    return yaml.safe_dump(wanted, sort_keys=False)


def _replaced(text: str, path: Sequence[str], value: object) -> str | None:
    """The text with one value replaced, or a line for it added to its section; None where that cannot be done."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in path[:-1]:
        node = _child(node, name)
    if not isinstance(node, yaml.MappingNode) or node.flow_style or not node.value:
        return None
    written = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
    old = _child(node, path[-1])
    if old is None:
        first = node.value[0][0].start_mark
        start = first.index - first.column
        return f"{text[:start]}{' ' * first.column}{path[-1]}: {written}\n{text[start:]}"
    before, after = text[: old.start_mark.index], text[old.end_mark.index :]
    gap = re.match(r" +(?=#)", after)
    if gap is not None:  # the comment stays in its column while there is room
        width = len(gap[0]) + (old.end_mark.index - old.start_mark.index) - len(written)
        after = " " * max(width, 1) + after[gap.end() :]
    return before + written + after


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _read(file: Path) -> object:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read the settings {file}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidConfig(f"the settings {file} are not YAML: {error}") from None
