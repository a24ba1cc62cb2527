"""The clients and their commands against a real TorchServe: same answers over HTTP and gRPC, keys, models, the page
docs/clients.md, and an environment with nothing but the client's wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.server import TorchServe
from tests.support.archives import tiny_archive
from tests.support.pages import run_blocks
from tests.support.paths import REPOSITORY
from tests.support.traffic import variant
from video_action_client import ClientError, GrpcVideoClient, Prediction, StreamEmbeddingEnd, VideoClient
from video_action_client.errors import (
    Conflict,
    EmptyClip,
    InvalidKey,
    InvalidOption,
    MissingVideo,
    ModelNotFound,
    PredictionFailed,
    ServerBusy,
    UnsupportedVideo,
    VideoTooLarge,
)
from video_action_client.retry import NO_RETRY

Client = VideoClient | GrpcVideoClient

PAGES = (REPOSITORY / "docs" / "clients.md", REPOSITORY / "clients" / "README.md")

# Answers with the number of bytes, slowly for `slow`, not at all for `boom`.
ECHO = """
import time
class Echo:
    def initialize(self, context):
        pass
    def handle(self, rows, context):
        bodies = [bytes(row.get("data") or row.get("body") or b"") for row in rows]
        if b"boom" in bodies:
            raise RuntimeError("boom")
        if b"slow" in bodies:
            time.sleep(2)
        return [{"bytes": len(body)} for body in bodies]
"""


def http_client(server: TorchServe) -> VideoClient:
    return VideoClient(server.inference_url, server.management_url, key_file=server.key_file)


def grpc_client(server: TorchServe) -> GrpcVideoClient:
    return GrpcVideoClient(
        f"127.0.0.1:{server.grpc_inference_port}",
        f"127.0.0.1:{server.grpc_management_port}",
        http_management_url=server.management_url,
        key_file=server.key_file,
    )


@pytest.fixture(params=[http_client, grpc_client], ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: TorchServe) -> Iterator[Client]:
    with request.param(server) as opened:
        yield opened


@pytest.fixture(scope="module")
def short_lived(torchserve_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A server whose keys live three seconds and whose queue holds one request."""
    store = tmp_path_factory.mktemp("store")
    tiny_archive(store, "echo", ECHO)
    settings = {"token_expiration_min": "0.05", "job_queue_size": "1"}
    with TorchServe(store, ["echo.mar"], settings=settings) as running:
        yield running


def essence(prediction: Prediction) -> tuple[object, ...]:
    """What two answers to the same video share; timings differ."""
    return prediction.model, prediction.version, prediction.predictions, prediction.clips, prediction.video


def test_both_clients_answer_the_same(server: TorchServe, h264_video: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(h264_video)
    with http_client(server) as http, grpc_client(server) as grpc, path.open("rb") as first, path.open("rb") as second:
        answers = [
            client.classify(video, model="x3d_xs", top_k=400, num_clips=2, num_crops=3)
            for client, file in ((http, first), (grpc, second))
            for video in (path, h264_video, file)
        ]
        assert len({essence(each) for each in answers}) == 1
        assert sum(each.score for each in answers[0].predictions) == pytest.approx(1, abs=1e-6)
        assert (answers[0].sampling.num_clips, answers[0].sampling.num_crops) == (2, 3)
        # The same labels as the plain wire format gives.
        assert http.answer(path, model="x3d_xs", options={"top_k": 5}) == http.classify(path, model="x3d_xs").as_dict()
        embeddings = [client.embed(path, model="x3d_xs", num_clips=2) for client in (http, grpc)]
        assert embeddings[0].vector == embeddings[1].vector
        assert (embeddings[0].length, len(embeddings[0].clips)) == (2048, 2)
        *_, end = http.stream(path, model="x3d_xs", output="embedding", num_clips=2)
        assert isinstance(end, StreamEmbeddingEnd)
        assert (end.answer.vector, end.answer.clips) == (embeddings[0].vector, embeddings[0].clips)
        timelines = [client.timeline(path, model="x3d_xs", stride_sec=0.25) for client in (http, grpc)]
    assert timelines[0].segments == timelines[1].segments
    assert timelines[0].windows == timelines[1].windows
    assert [window.start_sec for window in timelines[0].windows[:2]] == [0.0, 0.25]


@pytest.mark.parametrize(
    ("options", "video", "model", "expected"),
    [
        ({}, b"this is text, not a video" * 20, "x3d_xs", UnsupportedVideo),
        ({"top_k": "0"}, None, "x3d_xs", InvalidOption),
        ({"start_sec": "100"}, None, "x3d_xs", EmptyClip),
        ({}, b"", "x3d_xs", MissingVideo),
        ({}, None, "nonesuch", ModelNotFound),
    ],
)
def test_both_clients_raise_the_same(
    server: TorchServe,
    h264_video: bytes,
    options: dict[str, str],
    video: bytes | None,
    model: str,
    expected: type[ClientError],
) -> None:
    raised = []
    with http_client(server) as http, grpc_client(server) as grpc:
        for client in (http, grpc):
            with pytest.raises(expected) as caught:
                client.answer(h264_video if video is None else video, model=model, options=options)
            raised.append((type(caught.value), vars(caught.value)["type"], vars(caught.value)["status"]))
    assert raised[0] == raised[1]


def test_more_than_the_server_takes_is_too_large(client: Client) -> None:
    with pytest.raises(VideoTooLarge) as raised:
        client.classify(bytes(200 * 2**20 + 2**16), model="x3d_xs")
    assert raised.value.status == 413
    assert client.ready(5)


def test_an_expired_key_is_renewed(short_lived: TorchServe) -> None:
    """Three lives of a key: nothing that the caller sees. Without renewal the third call could not succeed."""
    keys = set()
    with http_client(short_lived) as http, grpc_client(short_lived) as grpc:
        for _ in range(3):
            assert http.answer(b"12345", model="echo") == {"bytes": 5}
            assert grpc.answer(b"1234", model="echo") == {"bytes": 4}
            assert [info.name for info in http.models()] == ["echo"]
            keys.add(json.loads(short_lived.key_file.read_text())["inference"]["key"])
            time.sleep(3.2)
        assert len(keys) >= 2
        expired = json.loads(short_lived.key_file.read_text())["inference"]["key"]
        with (
            VideoClient(short_lived.inference_url, token=expired) as bare,
            pytest.raises(InvalidKey, match="the inference token that was given"),
        ):
            bare.answer(b"12345", model="echo")
        assert grpc.answer(b"12", model="echo") == {"bytes": 2}


@pytest.mark.parametrize("make_client", [http_client, grpc_client], ids=["http", "grpc"])
def test_a_full_queue_is_busy_and_passes_with_retries(short_lived: TorchServe, make_client: type) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with make_client(short_lived) as client, ThreadPoolExecutor(6) as pool:
        client._retry = NO_RETRY

        def outcome(_: int) -> str:
            try:
                return str(client.answer(b"slow", model="echo"))
            except ServerBusy as error:
                return f"busy {error.status}"

        first = list(pool.map(outcome, range(5)))
    assert "busy 503" in first
    assert "{'bytes': 4}" in first
    with make_client(short_lived) as client:
        client.answer(b"1", model="echo")
        with pytest.raises(PredictionFailed, match="Prediction failed"):
            client.answer(b"boom", model="echo")


def with_version(archive: Path, version: str, target: Path) -> Path:
    """A copy of the archive that calls itself another version."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == "MAR-INF/MANIFEST.json":
                manifest = json.loads(content)
                manifest["model"]["modelVersion"] = version
                content = json.dumps(manifest).encode()
            copy.writestr(item, content)
    return target


def test_the_life_of_a_model(client: Client, model_store: Path) -> None:
    """Registered, asked, a second version, default, scaled, unregistered; refusals in between."""
    name = f"life_{type(client).__name__.lower()}"
    first = tiny_archive(model_store, name, ECHO)
    second = with_version(first, "2.0", model_store / f"{name}_v2.mar")
    assert f'"{name}" Version: 1.0 registered' in client.register(first.name)
    assert client.ready(10, model=name)
    with pytest.raises(Conflict):
        client.register(first.name)
    with pytest.raises(ModelNotFound):
        client.register("nonesuch.mar")
    client.register(second.name)
    found = {info.version: info for info in client.models() if info.name == name}
    assert {version: info.default for version, info in found.items()} == {"1.0": True, "2.0": False}
    assert "2.0" in client.set_default(name, "2.0")
    assert client.describe(name).version == "2.0"
    assert not client.describe(name, "1.0").default
    with pytest.raises(ModelNotFound):
        client.set_default(name, "3.0")
    client.scale(name, min_workers=2)
    assert sum(worker.status == "READY" for worker in client.describe(name, "2.0").workers) == 2
    client.unregister(name, "1.0")
    assert [info.version for info in client.models() if info.name == name] == ["2.0"]
    assert client.answer(b"12345", model=name) == {"bytes": 5}
    client.unregister(name)
    assert name not in {info.name for info in client.models()}
    with pytest.raises(ModelNotFound):
        client.unregister(name)
    assert not client.ready(0.3, model=name)


def test_a_description_tells_what_the_handler_tells(client: Client) -> None:
    info = client.describe("x3d_xs")
    assert info.default
    assert info.ready
    assert info.metadata is not None
    assert info.metadata["spec"]["name"] == "x3d_xs"
    assert info.metadata["weights"]["kind"] == "random"


def run_module(module: str, *arguments: str, stdin: bytes = b"", check: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, input=stdin, capture_output=True, check=False, timeout=120)
    assert done.returncode == check, done.stderr.decode()
    return done


@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_predict_and_models_as_commands(server: TorchServe, h264_video: bytes, tmp_path: Path, grpc: bool) -> None:
    (tmp_path / "a.mp4").write_bytes(h264_video)
    (tmp_path / "notes.mp4").write_text("not a video " * 50)
    where = ["--key-file", str(server.key_file)]
    if grpc:
        where += ["--grpc", "--url", f"127.0.0.1:{server.grpc_inference_port}"]
        where += ["--management-url", f"127.0.0.1:{server.grpc_management_port}"]
    else:
        where += ["--url", server.inference_url, "--management-url", server.management_url]
    done = run_module(
        "scripts.predict", "-", str(tmp_path), "--model", "x3d_xs", "--json", *where, stdin=h264_video, check=1
    )
    stdin, good, bad = (json.loads(line) for line in done.stdout.splitlines())
    assert stdin["answer"] == good["answer"]
    assert len(good["answer"]) == 5
    assert bad["error"]["type"] == "UnsupportedVideo"
    embedded = run_module("scripts.predict", "-", "--model", "x3d_xs", "--embedding", *where, stdin=h264_video)
    assert json.loads(embedded.stdout)["answer"]["length"] == 2048
    listed = run_module("scripts.models", "list", "--json", *where)
    assert "x3d_xs" in {entry["name"] for entry in json.loads(listed.stdout)}


def blocks(language: str) -> list[str]:
    return [block.code for page in PAGES for block in run_blocks(page, language)]


def test_the_examples_of_the_page_run(
    server: TorchServe, x3d_xs_archive: Path, tmp_path: Path, h264_video: bytes
) -> None:
    """Every example of docs/clients.md and clients/README.md, as it stands; only ports and the model's name differ."""
    server.register(variant(x3d_xs_archive, "page").name)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "video.mp4").write_bytes(h264_video)
    (folder / "key_file.json").symlink_to(server.key_file)
    env = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    texts = {
        "http://127.0.0.1:8080": server.inference_url,
        "http://127.0.0.1:8081": server.management_url,
        "127.0.0.1:7070": f"127.0.0.1:{server.grpc_inference_port}",
        "package x3d_s": f"package x3d_xs --weights random --name page --output {server.model_store}",
        "x3d_s": "page",
    }
    outputs = []
    for language, program in (("bash", ["bash", "-ec"]), ("python", [sys.executable, "-c"])):
        for block in blocks(language):
            for old, new in texts.items():
                block = block.replace(old, new)
            if language == "bash":
                block = pointed_at(block, server)
            done = subprocess.run(
                [*program, block], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120
            )
            assert done.returncode == 0, f"{block}\n{done.stderr}"
            outputs.append(done.stdout)
    server.unregister("page", "2.0")  # the page unregisters the first
    (server.model_store / "page-2.0.mar").unlink()
    assert len(outputs) == 15
    predicted, models = outputs[1], outputs[-3]
    assert predicted.count("ms in the server") == 3
    assert "Version: 2.0 registered with" in models
    assert any("windows of a video of" in output for output in outputs)
    assert "page 2.0 default ready" in models
    assert outputs[-2].strip() == "415 UnsupportedVideo"


def pointed_at(block: str, server: TorchServe) -> str:
    """The commands ask the server of config.properties; here they are told another one."""
    http = f"--url {server.inference_url} --management-url {server.management_url}"
    lines = []
    for line in block.splitlines():
        if "scripts.package" in line:  # asks no server
            lines.append(line)
            continue
        where = f"--url 127.0.0.1:{server.grpc_inference_port}" if "--grpc" in line else http
        command, redirect, source = line.partition(" <")
        lines.append(f"{command} {where}{redirect}{source}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from a copy: setuptools writes into the folder that it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "clients"
    shutil.copytree(REPOSITORY / "clients", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(folder), str(source)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = file.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    folders = {name.partition("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"video_action_client"}
    assert "video_action_client/py.typed" in names
    assert "video_action_client/commands/predict.py" in names
    assert "video_action_client/live/watch.py" in names
    assert "Requires-Python: >=3.10" in metadata
    # No application could be installed beside exact versions.
    requirements = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    assert [each for each in requirements if "extra ==" in each] == ['av<19,>=17.1; extra == "watch"']
    assert len(requirements) == 5
    assert not [each for each in requirements if "==" in each.partition(";")[0]]


def oldest_python() -> str:
    """Python 3.10 where this machine has it, else the one that runs."""
    found = shutil.which("python3.10")
    if found and subprocess.run([found, "-m", "venv", "--help"], capture_output=True, check=False).returncode == 0:
        return found
    return sys.executable


@pytest.mark.slow
def test_the_wheel_alone_in_a_bare_environment(
    server: TorchServe, wheel: Path, h264_video: bytes, tmp_path: Path
) -> None:
    """Command and library classify where there is nothing but the wheel and what it requires."""
    environment = tmp_path / "venv"
    subprocess.run([oldest_python(), "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_CONSTRAINT"))}
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    installed = subprocess.run(install, env=variables, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"pip cannot install the client's requirements here: {installed.stderr.strip().splitlines()[-1]}")
    (tmp_path / "clip.mp4").write_bytes(h264_video)
    (tmp_path / "key_file.json").symlink_to(server.key_file)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    script = (
        "from video_action_client import VideoClient\n"
        f"with VideoClient({server.inference_url!r}, {server.management_url!r}) as client:\n"
        "    print(client.classify('clip.mp4', model='x3d_xs').top.label)\n"
    )
    label = run(str(python), "-c", script).strip()
    targets = f"'127.0.0.1:{server.grpc_inference_port}', '127.0.0.1:{server.grpc_management_port}'"
    over_grpc = (
        "import importlib.util as u\n"
        "assert not any(u.find_spec(name) for name in ('torch', 'ts', 'numpy', 'handlers'))\n"
        "from video_action_client import GrpcVideoClient\n"
        f"with GrpcVideoClient({targets}, http_management_url={server.management_url!r}) as client:\n"
        "    print(client.classify('clip.mp4', model='x3d_xs').top.label)\n"
    )
    assert run(str(python), "-c", over_grpc).strip() == label
    where = ["--url", server.inference_url, "--management-url", server.management_url]
    told = run(str(environment / "bin" / "video-predict"), "clip.mp4", "--model", "x3d_xs", "--json", *where)
    assert next(iter(json.loads(told)["answer"])) == label
    listed = run(str(environment / "bin" / "video-models"), "list", "--json", *where)
    assert "x3d_xs" in {entry["name"] for entry in json.loads(listed)}
