"""The text of an archive's model-config.yaml: every setting with its unit and its default, ready to be edited."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from handlers.config import HandlerConfig
from handlers.limits import Limits
from handlers.specs import Head

_SERVER = {
    "minWorkers: 1": "worker processes; one uses all cores (`threads`) and batches requests",
    "maxWorkers: 1": "on a machine with several GPUs: one per GPU",
    "batchSize: 8": "most requests that go through the model together",
    "maxBatchDelay: 1": "milliseconds to wait for a batch to fill; every lone request waits as long",
    "responseTimeout: 120": "seconds after which a worker that does not answer is replaced",
    "startupTimeout: 120": "seconds a worker may take to load",
}


def model_config(*, name: str, spec: str, head: Head, runtime: str, precision: str) -> str:
    """The YAML text; values are plain names and numbers, so nothing needs quoting."""
    chosen: dict[str, object] = {"spec": spec, "head": head, "runtime": runtime, "precision": precision}
    defaults, limits = HandlerConfig(spec=spec), Limits()
    lines = [f"# Settings of the model {name}, read when it loads: TorchServe's own first, then the handler's."]
    lines += [f"{setting:<24}# {comment}" for setting, comment in _SERVER.items()]
    lines += ["", "handler:"]
    for field in fields(HandlerConfig):
        value = "" if field.name == "limits" else f" {_yaml(chosen.get(field.name, getattr(defaults, field.name)))}"
        lines.append(f"  {f'{field.name}:{value}':<28}# {field.metadata['help']}")
    for field in fields(Limits):
        setting = f"{field.name}: {_yaml(getattr(limits, field.name))}"
        lines.append(f"    {setting:<32}# {_comment(field)}")
    return "\n".join(lines) + "\n"


def _comment(limit: Field[Any]) -> str:
    unit, text = limit.metadata["unit"], limit.metadata["help"]
    return text if unit == "count" else f"{unit}: {text}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
