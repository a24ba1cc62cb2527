"""The text of an archive's model-config.yaml: every setting with its unit and its default, ready to be edited."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

import psutil

from handlers.config import HandlerConfig
from handlers.cpu import cores
from handlers.limits import Limits
from handlers.specs import Head

_WORKER_BYTES = 320 * 2**20
"""Memory of a worker of x3d_s on OpenVINO, its decoding process included."""
_MEMORY_SHARE = 0.25  # of the machine, for the workers of one model
_FEWEST_WORKERS, _MOST_WORKERS = 4, 16

_SERVER = {
    "maxBatchDelay": (1, "milliseconds to wait for a batch to fill; every lone request waits as long"),
    "responseTimeout": (120, "seconds after which a worker that does not answer is replaced"),
    "startupTimeout": (120, "seconds a worker may take to load"),
}


def server_settings(*, light_workers: bool) -> dict[str, tuple[int, str]]:
    """TorchServe's own settings, with the comment beside each.

    `light_workers`: the model runs on OpenVINO. A worker is small then, so there are several and each takes one request
    at a time: a quick request finds a free one while others compute long ones. Elsewhere (torch, a GPU) one worker
    holds the model and computes the views of many requests together.
    """
    if light_workers:
        workers = default_workers()
        return {
            "minWorkers": (workers, "worker processes; a long request occupies one, and quick ones go to the others"),
            "maxWorkers": (workers, "about 0.3 GB of memory each for x3d_s"),
            "batchSize": (1, "requests that one worker takes at a time"),
            **_SERVER,
        }
    return {
        "minWorkers": (1, "worker processes; one uses all cores (`threads`) and batches requests"),
        "maxWorkers": (1, "on a machine with several GPUs: one per GPU"),
        "batchSize": (8, "most requests that go through the model together"),
        **_SERVER,
    }


def default_workers() -> int:
    """Light workers for this machine: one for each core, at least 4, as far as a quarter of its memory goes."""
    wanted = min(max(cores(), _FEWEST_WORKERS), _MOST_WORKERS)
    return max(min(wanted, int(psutil.virtual_memory().total * _MEMORY_SHARE / _WORKER_BYTES)), 1)


def model_config(*, name: str, spec: str, head: Head, runtime: str, precision: str, light_workers: bool) -> str:
    """The YAML text; values are plain names and numbers, so nothing needs quoting."""
    chosen: dict[str, object] = {"spec": spec, "head": head, "runtime": runtime, "precision": precision}
    defaults, limits = HandlerConfig(spec=spec), Limits()
    lines = [f"# Settings of the model {name}, read when it loads: TorchServe's own first, then the handler's."]
    for setting, (number, comment) in server_settings(light_workers=light_workers).items():
        lines.append(f"{f'{setting}: {number}':<23} # {comment}")
    lines += ["", "handler:"]
    for field in fields(HandlerConfig):
        value = "" if field.name == "limits" else f" {_yaml(chosen.get(field.name, getattr(defaults, field.name)))}"
        lines.append(f"  {f'{field.name}:{value}':<27} # {field.metadata['help']}")
    for field in fields(Limits):
        setting = f"{field.name}: {_yaml(getattr(limits, field.name))}"
        lines.append(f"    {setting:<31} # {_comment(field)}")
    return "\n".join(lines) + "\n"


def _comment(limit: Field[Any]) -> str:
    unit, text = limit.metadata["unit"], limit.metadata["help"]
    return text if unit == "count" else f"{unit}: {text}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
