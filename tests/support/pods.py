"""Pods of the rendered Deployment on this machine: its containers by podman, without a cluster.

What the manifest says is what is started: limits, user, rights, folders, the order and the times of a stop. Two things
differ. The gateway is this machine's haproxy, run in the pod's network, since its image is not here; and it listens on
Unix sockets, through which one leaves a network namespace without a bridge.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.support.deployment import DEPLOY, program

READY_SEC = 180.0
_PROBE_SEC = 10.0


def rendered(overlay: str) -> list[Any]:
    """The objects of an overlay, as kustomize writes them."""
    kubectl = program("kubectl", "kubectl, or Kubernetes' own release of it")
    command = [kubectl, "kustomize", str(DEPLOY / "kubernetes" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def pod_template(overlay: str = "cpu") -> dict[str, Any]:
    """spec of the Deployment's pods."""
    (deployment,) = (each for each in rendered(overlay) if each["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def _podman_options(template: dict[str, Any]) -> list[str]:
    container = template["containers"][0]
    security, limits = container["securityContext"], container["resources"]["limits"]
    sizes = {each["name"]: each["emptyDir"].get("sizeLimit") for each in template["volumes"] if "emptyDir" in each}
    options = [
        f"--user={security['runAsUser']}:{security['runAsGroup']}",
        f"--memory={_podman_size(limits['memory'])}",
        f"--cpus={limits['cpu']}",
        *(f"--cap-drop={each}" for each in security["capabilities"]["drop"]),
    ]
    if security["readOnlyRootFilesystem"]:
        options.append("--read-only")
    if not security["allowPrivilegeEscalation"]:
        options.append("--security-opt=no-new-privileges")
    for mount in container["volumeMounts"]:
        options.append(f"--tmpfs={mount['mountPath']}:rw,size={_podman_size(sizes[mount['name']])},mode=1777")
    return options


def _podman_size(quantity: str) -> str:
    """Kubernetes' binary quantities (4Gi) as podman writes them (4g)."""
    return quantity.removesuffix("i").lower()


class Pod:
    """One replica: a TorchServe in a container, a gateway in its network."""

    def __init__(self, image: str, store: Path, folder: Path) -> None:
        folder.mkdir()
        self._podman, self.name = program("podman", "podman"), f"video-serving-{folder.name}-{os.getpid()}"
        self._template, self._folder = pod_template(), folder
        self._sockets = Path(tempfile.mkdtemp(prefix="pod-", dir="/tmp"))  # HAProxy takes 97 characters
        options = [*_podman_options(self._template), "--network=none", f"--volume={store}:/models:ro"]
        self._do("run", "--detach", f"--name={self.name}", *options, image)
        self.gateway = self._start_gateway()

    @property
    def address(self) -> str:
        """As nginx writes it."""
        return f"unix:{self._sockets / 'clients'}"

    def _start_gateway(self) -> subprocess.Popen[bytes]:
        keys = self._folder / "keys"
        keys.write_text("alices-key alice\n")
        (sidecar,) = self._template["initContainers"]
        env = {each["name"]: each["value"] for each in sidecar.get("env", [])} | {"KEYS": str(keys)}
        env |= {"BIND": f"unix@{self._sockets / 'clients'}", "OPS_BIND": f"unix@{self._sockets / 'operations'}"}
        command = [program("nsenter", "util-linux"), f"--net=/proc/{self.inspect('State', 'Pid')}/ns/net",
                   program("haproxy", "haproxy"), "-db", "-f", str(DEPLOY / "gateway" / "haproxy.cfg")]  # fmt: skip
        with (self._folder / "gateway.log").open("wb") as log:
            return subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT)

    def is_ready(self) -> bool:
        """What the pod's readiness probe sees."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PROBE_SEC)
            connection.connect(str(self._sockets / "operations"))
            asked = http.client.HTTPConnection("pod")
            asked.sock = connection
            asked.request("GET", "/healthz")
            return asked.getresponse().status == 200
        return False

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SEC
        while not self.is_ready():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def delete(self) -> None:
        """As the kubelet does: preStop, SIGTERM to TorchServe's container, and the sidecar after it."""
        before_sec = self._template["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        time.sleep(before_sec)
        self._do("stop", f"--time={self._template['terminationGracePeriodSeconds'] - before_sec}", self.name)
        self.gateway.send_signal(signal.SIGUSR1)
        self.gateway.wait(120)

    def kill(self) -> None:
        """Everything at once, as when the node is gone."""
        self.gateway.kill()
        self._do("kill", "--signal=KILL", self.name)
        self.gateway.wait()

    def inspect(self, *keys: str) -> Any:
        (found,) = json.loads(self._do("inspect", self.name))
        for key in keys:
            found = found[key]
        return found

    def run(self, *command: str) -> str:
        """What a command in TorchServe's container prints."""
        return self._do("exec", self.name, *command)

    def logs(self) -> str:
        done = subprocess.run([self._podman, "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def remove(self) -> None:
        self.gateway.kill()
        self.gateway.wait()
        subprocess.run([self._podman, "rm", "--force", "--time=0", self.name], capture_output=True)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _do(self, *arguments: str) -> str:
        done = subprocess.run([self._podman, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def pod(image: str, store: Path, folder: Path) -> Iterator[Pod]:
    """A pod that is not ready yet; removed at the end."""
    made = Pod(image, store, folder)
    try:
        yield made
    finally:
        made.remove()
