"""Each in-process contender in a process of its own: no shared thread pool, allocator or library, and memory that can
be told apart. The parent's side is `ContenderProcess`; the child is this module, run with a
contender's name and a folder.

Messages are lines of JSON. Times are taken in the child, around the work alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.baselines.contender import Contender, ContenderAbsent, Run
from benchmarks.baselines.ffmpeg_libraries import library_path

ROOT = Path(__file__).resolve().parent.parent.parent
CONTENDERS = ("ours", "recipe", "torchcodec", "floor")


class ContenderProcess:
    """A contender that is ready. Raises ContenderAbsent where it cannot run here, RuntimeError where it fails."""

    def __init__(self, name: str, model_dir: Path) -> None:
        self.name = name
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        if name == "torchcodec":
            environment |= library_path(ROOT / "build" / "benchmarks" / "lib")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.baselines.process", name, str(model_dir)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._prepared: set[Path] = set()
        self.about: dict[str, str] = {}
        try:
            self._ask({"load": True})
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    def run(self, video: Path) -> Run:
        """One run; the video is prepared when it is another one than before."""
        if self._prepared != {video}:
            self.about = self._ask({"prepare": str(video)})["about"]
            self._prepared = {video}
        answer = self._ask({"run": str(video)})["run"]
        return Run(answer["stages_ms"], answer["total_ms"], tuple(answer["top"]))

    def close(self) -> None:
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        try:
            self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, message: dict[str, Any]) -> Any:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            self._popen.stdin.write(json.dumps(message) + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass  # the end of its output says so, too
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"the contender {self.name} ended unexpectedly")
        answer = json.loads(line)
        if "absent" in answer:
            raise ContenderAbsent(answer["absent"])
        if "error" in answer:
            raise RuntimeError(f"the contender {self.name} failed: {answer['error']}")
        return answer


def create(name: str, model_dir: Path) -> Contender:
    """The contender, in this process. Only the wanted one's libraries are imported."""
    if name == "ours":
        from benchmarks.baselines.served import Served

        return Served(model_dir)
    if name == "recipe":
        from benchmarks.baselines.recipe import Recipe

        return Recipe(model_dir)
    if name == "torchcodec":
        from benchmarks.baselines.torchcodec_openvino import TorchcodecOpenVino

        return TorchcodecOpenVino(model_dir)
    if name == "floor":
        from benchmarks.baselines.floor import Floor

        return Floor(model_dir)
    raise ValueError(f"unknown contender {name!r}; known: {', '.join(CONTENDERS)}")


class _Child:
    """Answers the parent's messages."""

    def __init__(self, name: str, model_dir: Path) -> None:
        self._name, self._model_dir = name, model_dir
        self._contender: Contender | None = None
        self._videos: dict[str, bytes] = {}

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._contender is None:
            self._contender = create(self._name, self._model_dir)
        if "prepare" in message:
            self._contender.prepare(self._video(message["prepare"]))
            return {"about": self._contender.describe()}
        if "run" in message:
            return {"run": asdict(self._contender.run(self._video(message["run"])))}
        return {"ready": True}

    def close(self) -> None:
        if self._contender is not None:
            self._contender.close()

    def _video(self, path: str) -> bytes:
        if path not in self._videos:
            self._videos = {path: Path(path).read_bytes()}
        return self._videos[path]


def main() -> None:
    """The child: lines of JSON in, lines of JSON out, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    child = _Child(sys.argv[1], Path(sys.argv[2]))
    for line in sys.stdin:
        try:
            answer = child.answer(json.loads(line))
        except ContenderAbsent as error:
            answer = {"absent": str(error)}
        except Exception as error:  # noqa: BLE001  the parent reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    child.close()


if __name__ == "__main__":
    main()
