"""A page to try the served models: `python -m scripts.demo`, for a running server; `--start` starts one as well."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from serving.connection import repository_defaults
from serving.environment import REPOSITORY, ServerError
from video_action_client import VideoClient
from video_action_client.commands.connection import add_connection_arguments, open_http_client
from video_action_client.keys import is_loopback

MODEL_STORE = REPOSITORY / "model_store"

_EXAMPLES = """\
examples:
  python -m scripts.demo                      for the server that ./scripts/quickstart started
  python -m scripts.demo --start              starts a server with every archive of model_store
  python -m scripts.demo --start x3d_s.mar    with this one
"""


class DemoError(RuntimeError):
    """The page cannot be shown; one sentence that says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--start",
        nargs="*",
        metavar="FILE.mar",
        help="start a server of its own with these archives of the model store, all of them if none is named",
    )
    parser.add_argument("--model-store", type=Path, default=MODEL_STORE, metavar="DIR", help="where they are")
    parser.add_argument("--port", type=int, help="the page's port; default: the first free one from 7860")
    add_connection_arguments(parser, repository_defaults(), grpc=False)
    options = parser.parse_args(arguments)
    if options.start is not None and (options.url or options.token or options.key_file):
        parser.error("--start asks a server of its own: --url, --token and --key-file are for another")
    # So that a stopped page takes its server and its uploads with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with uploads_folder() as uploads, asked_server(options) as (client, key_file), client:
            show(client, key_file, uploads, options.port)
    except (DemoError, ServerError, ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@contextlib.contextmanager
def uploads_folder() -> Iterator[Path]:
    """Uploads go to a folder of their own, which is removed with the page. Must come before gradio is imported."""
    with tempfile.TemporaryDirectory(prefix="demo-uploads-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        yield Path(folder)


@contextlib.contextmanager
def asked_server(options: argparse.Namespace) -> Iterator[tuple[VideoClient, Path | None]]:
    """A client for the server to ask, with its key file; starts that server, and stops it, where asked to."""
    if options.start is None:
        client = open_http_client(options)
        yield client, None if options.token else key_file_in_use(options.key_file, client.url)
        return
    from serving.server import TorchServe  # here: asking a running server needs no psutil

    with TorchServe(options.model_store, archives(options.start, options.model_store)) as server:
        client = VideoClient(
            server.inference_url, server.management_url, key_file=server.key_file, timeout_sec=options.timeout
        )
        print(f"TorchServe: {server.inference_url}, its keys in {server.key_file}")
        yield client, server.key_file


def archives(named: Sequence[str], store: Path) -> list[str]:
    """The archives to serve: those named, or all of the store."""
    for name in named:
        if not (store / name).is_file():
            raise DemoError(f"there is no {name} in {store}; python -m scripts.package makes archives")
    found = list(named) or sorted(path.name for path in store.glob("*.mar"))
    if not found:
        raise DemoError(f"{store} holds no archive; python -m scripts.package camera_motion makes one")
    return found


def key_file_in_use(given: Path | None, url: str) -> Path | None:
    """The key file that the client reads for `url`, None where calls go out without a key."""
    path = given or repository_defaults().key_file
    return path.absolute() if path.is_file() and (given is not None or is_loopback(url)) else None


def show(client: VideoClient, key_file: Path | None, uploads: Path, port: int | None) -> None:
    try:
        from demo.page import PageSettings, serve
    except ImportError as error:
        raise DemoError(f"{error.name} is not installed; run: pip install -r requirements/demo.txt") from None
    serve(PageSettings(client=client, key_file=key_file, uploads=uploads), port=port)


if __name__ == "__main__":
    sys.exit(main())
