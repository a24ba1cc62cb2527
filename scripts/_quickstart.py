"""What `./scripts/quickstart` does once the packages are installed: package, start, ask, leave running; or stop."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

import psutil

from camera_motion.sample_clips import sample_clip
from handlers.errors import SetupError, UnknownSpec
from handlers.specs import get_spec
from serving.environment import CONFIG, REPOSITORY, Ports, ServerError, serving_environment, temp_folder
from serving.server import Server, stop_processes

DEFAULT_MODEL = "x3d_s"
EMBEDDED_MODEL = "camera_motion"
MODEL_STORE = REPOSITORY / "model_store"
SAMPLE = REPOSITORY / "build" / "sample.mp4"

_READY_TIMEOUT_SEC = 180.0
_JVM = "org.pytorch.serve.ModelServer"


class QuickstartError(RuntimeError):
    """Quickstart cannot go on; the message is one sentence that says what to do."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./scripts/quickstart", description=__doc__)
    parser.add_argument("--model", metavar="NAME", help="the model to serve")
    parser.add_argument("--weights", choices=("published", "random"), default="published", help="random: for a try")
    parser.add_argument("--offline", action="store_true", help="download no weights, not even try")
    parser.add_argument("--stop", action="store_true", help="stop the server and all its workers")
    options = parser.parse_args(arguments)
    if options.stop and (options.model or options.offline or options.weights == "random"):
        parser.error("--stop stands alone")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in step with pip's and stderr's lines
    server = Server(REPOSITORY, Ports.of_config())
    try:
        if options.stop:
            stop(server)
        else:
            serve(server, options.model, weights=options.weights, offline=options.offline)
    except (QuickstartError, ServerError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    return 0


def serve(server: Server, model: str | None, *, weights: str, offline: bool) -> None:
    """Have a model served, ask it, print its answer and how to ask again."""
    process = running_server(server)
    served = server.models() if process else []
    # Without a name, a fallback that is being served already is as good as it was the first time.
    name = model or next((each for each in (DEFAULT_MODEL, EMBEDDED_MODEL) if each in served), None)
    if name is None or name not in served:
        name = have_archive(name, weights=weights, offline=offline)
    if process is None:
        start(server, name)
    elif name not in served:
        print(f"Registering {name}")
        server.register(f"{name}.mar", name=name)
    elif not server.is_ready(name):
        server.wait_ready([name], process=process, timeout_sec=_READY_TIMEOUT_SEC)
    answer(server, name)


def running_server(server: Server) -> psutil.Process | None:
    """The process of this repository's server, None if it is not up; raises if its ports are someone else's."""
    process = server_process()
    if process is not None:
        # It may be starting still, by another quickstart or by hand.
        server.wait_ready([], process=process, timeout_sec=_READY_TIMEOUT_SEC)
        return process
    if busy := server.ports.busy():
        ports = ", ".join(map(str, busy))
        what = "another TorchServe" if server.is_up() else "another program"
        raise QuickstartError(
            f"port {ports} of 127.0.0.1 is in use by {what}; stop that, or change the ports in config.properties"
        )
    return None


def server_process() -> psutil.Process | None:
    """The JVM that the launcher's pid file names, if it is alive and is TorchServe."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(pid_file().read_text()))
        if _JVM in process.cmdline():
            return process
    return None


def pid_file() -> Path:
    """Where TorchServe's launcher keeps the server's process id; see `serving_variables`."""
    return temp_folder(REPOSITORY) / ".model_server.pid"


def have_archive(name: str | None, *, weights: str, offline: bool) -> str:
    """The name of a model whose archive is in the model store afterwards: `name`, or the best that can be had."""
    if name is not None:
        build(name, weights=weights, offline=offline)
        return name
    try:
        build(DEFAULT_MODEL, weights=weights, offline=offline)
        return DEFAULT_MODEL
    except QuickstartError as error:
        reason = error
    print(f"{reason}: serving {EMBEDDED_MODEL} instead, which needs no download")
    build(EMBEDDED_MODEL, weights="published", offline=offline)
    return EMBEDDED_MODEL


def build(name: str, *, weights: str, offline: bool) -> None:
    """Write model_store/NAME.mar unless it is there; QuickstartError says why it cannot be had."""
    archive = MODEL_STORE / f"{name}.mar"
    if archive.is_file():
        if weights == "random":
            print(f"Note: model_store has {name}.mar already, and keeps it; --weights random is for a new one")
        if not holds_these_handlers(archive):
            print(
                f"Note: {name}.mar holds other code than handlers/; python -m scripts.package {name} --force renews it"
            )
        return
    try:
        get_spec(name)
    except UnknownSpec as error:
        raise QuickstartError(f"model_store has no {name}.mar, and {error}") from None
    print(f"Packaging {name}{' with RANDOM weights: its answers mean nothing' if weights == 'random' else ''}")
    # Here, because it imports torch, which takes longer than all the rest of a second run.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of no use to whoever starts here
        from serving.download import DownloadError
        from serving.package import package, summary
        from serving.package_options import PackageOptions

    options = PackageOptions(
        spec=name, weights=weights, output=MODEL_STORE, offline=offline, progress=sys.stderr.isatty()
    )
    try:
        print(summary(package(options)))
    except (SetupError, DownloadError) as error:
        raise QuickstartError(str(error)) from None


def holds_these_handlers(archive: Path) -> bool:
    """Whether the archive's handlers are those of this checkout, by their checksums."""
    with zipfile.ZipFile(archive) as file:
        packed = {each.filename: each.CRC for each in file.infolist() if each.filename.startswith("handlers/")}
    files = ((REPOSITORY / name, checksum) for name, checksum in packed.items() if name.endswith(".py"))
    return all(path.is_file() and zlib.crc32(path.read_bytes()) == checksum for path, checksum in files)


def start(server: Server, name: str) -> None:
    """Start TorchServe in the background, as `torchserve --start` does, and wait for the model."""
    env = serving_environment(REPOSITORY, CONFIG)
    console = REPOSITORY / "logs" / "console.log"
    # Logs of an earlier server would be searched for this one's errors, and its unpacked archives pile up.
    for old in (console, console.with_name("model_log.log"), server.key_file):
        old.unlink(missing_ok=True)
    shutil.rmtree(temp_folder(REPOSITORY) / "models", ignore_errors=True)
    print(f"Starting TorchServe with {name}", end="", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "ts.model_server", "--start", "--models", f"{name}={name}.mar"]
    with console.open("wb") as log:
        # A session of its own: Ctrl-C and a closed terminal leave the server up. Keys and logs are the owner's alone.
        subprocess.run(
            command,
            cwd=REPOSITORY,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            check=True,
        )
    process = server_process()
    if process is None:
        raise QuickstartError(f"TorchServe did not start:\n{console.read_text(errors='replace')}")
    try:
        server.wait_ready([name], process=process, timeout_sec=_READY_TIMEOUT_SEC)
    except BaseException:
        print()
        stop_tree(process)
        raise
    print(f": ready after {time.monotonic() - began:.0f} s")


def answer(server: Server, name: str) -> None:
    """Send the sample clip, print the answer and the line that repeats it."""
    clip = sample_clip(SAMPLE)
    url = f"{server.inference_url}/predictions/{name}"
    headers = {**server.headers(), "Content-Type": "video/mp4"}
    began = time.monotonic()
    try:
        request = urllib.request.Request(url, data=clip.read_bytes(), headers=headers)
        with urllib.request.urlopen(request, timeout=120) as reply:
            result = json.load(reply)
    except urllib.error.HTTPError as error:
        refuse(f"{name} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        refuse(f"{name} did not answer: {error}")
    print(f"\n{json.dumps(result, indent=2)}\n")
    print(f"Answered in {(time.monotonic() - began) * 1000:.0f} ms. Ask again, with this or your own video:\n")
    print(f"  {curl_line(server, name, clip)}\n")
    print("The server stays up; ./scripts/quickstart --stop stops it.")


def refuse(message: str) -> NoReturn:
    raise QuickstartError(message)


def curl_line(server: Server, name: str, clip: Path) -> str:
    """The command that repeats the request, from any folder: the key is read when it runs."""
    code = 'import json, sys; print(json.load(open(sys.argv[1]))["inference"]["key"])'
    # Quotes inside $(...) are the inner command's own, also within the double quotes around it.
    key = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {shlex.quote(str(server.key_file))}"
    return (
        f'curl -H "Authorization: Bearer $({key})" -T {shlex.quote(str(clip))} '
        f"{server.inference_url}/predictions/{name}"
    )


def stop(server: Server) -> None:
    """Stop this repository's server and every process that it started."""
    process = server_process()
    if process is None:
        print("TorchServe is not running.")
    else:
        stop_tree(process)
        print("TorchServe has stopped.")
    for file in (pid_file(), server.key_file):
        file.unlink(missing_ok=True)
    shutil.rmtree(temp_folder(REPOSITORY) / "models", ignore_errors=True)


def stop_tree(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        stop_processes([process, *process.children(recursive=True)])


if __name__ == "__main__":
    sys.exit(main())
