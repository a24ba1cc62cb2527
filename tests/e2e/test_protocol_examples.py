"""The examples of docs/protocol.md, run as they stand against a real server; only addresses and the model differ."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.server import TorchServe
from serving.shell_exports import key_function
from tests.support.paths import REPOSITORY
from tests.support.videos import VideoPlan, make_video

_PAGE = (REPOSITORY / "docs" / "protocol.md").read_text()
_EXAMPLES = re.findall(r"```(bash|python)\n(.*?)```\n\n```json\n(.*?)```", _PAGE, re.DOTALL)


def test_every_example_has_its_answer() -> None:
    assert len(re.findall(r"```(?:bash|python)\n", _PAGE)) == len(_EXAMPLES) >= 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: TorchServe) -> Path:
    """Where the examples run: with a video.mp4 and the server's keys."""
    path = tmp_path_factory.mktemp("examples")
    (path / "key_file.json").symlink_to(server.key_file)
    (path / "video.mp4").write_bytes(make_video(VideoPlan(num_frames=180)))
    return path


@pytest.mark.parametrize(("language", "code", "answer"), _EXAMPLES, ids=range(len(_EXAMPLES)))
def test_example(server: TorchServe, folder: Path, language: str, code: str, answer: str) -> None:
    code = (
        code.replace("http://127.0.0.1:8080", server.inference_url)
        .replace("127.0.0.1:7070", f"127.0.0.1:{server.grpc_inference_port}")
        .replace("x3d_s", "x3d_xs")
    )
    command = ["bash", "-euc", f"{key_function()}\n{code}"] if language == "bash" else [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    _compare(json.loads(answer.replace("x3d_s", "x3d_xs")), json.loads(done.stdout))


def _compare(shown: Any, got: Any) -> None:
    """The same shape: keys, kinds and names; scores, times and labels are the model's and the machine's."""
    if isinstance(shown, dict):
        assert isinstance(got, dict)
        if "code" in shown:
            assert (got["code"], got["type"]) == (shown["code"], shown["type"])
            assert shown["message"] in ("...", got["message"])
        elif all(isinstance(value, float) for value in shown.values()):  # labels to scores, or times
            assert len(got) == len(shown)
            assert all(isinstance(value, float) for value in got.values())
        else:
            assert list(got) == list(shown)
            for key, value in shown.items():
                _compare(value, got[key])
    elif isinstance(shown, list):
        assert isinstance(got, list)
        assert bool(got) == bool(shown)
        for one, other in zip(shown, got, strict=False):
            _compare(one, other)
    elif shown is None:
        assert got is None
    elif isinstance(shown, str):
        assert isinstance(got, str)
    else:
        assert isinstance(got, int | float)
