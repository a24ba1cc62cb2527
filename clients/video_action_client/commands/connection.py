"""The flags with which commands find a server and its keys, and how they say what went wrong."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..errors import ClientError, ConnectionFailed, InvalidKey, KeyUnavailable
from ..grpc_client import DEFAULT_TARGET, GrpcVideoClient
from ..http_client import DEFAULT_URL, VideoClient, management_of
from ..keys import KEY_FILE

Client = VideoClient | GrpcVideoClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The server that commands ask without flags, by its four addresses, and where its keys are.

    `start_hint` says how such a server is started, for whoever finds none: `./start starts one`.
    """

    url: str = DEFAULT_URL
    management_url: str = management_of(DEFAULT_URL)
    grpc_url: str = DEFAULT_TARGET
    grpc_management_url: str = "127.0.0.1:7071"
    key_file: Path = Path(KEY_FILE)
    key_file_text: str = "the one in this folder"
    start_hint: str = ""


def add_connection_arguments(
    parser: argparse.ArgumentParser,
    defaults: Defaults | None = None,
    *,
    grpc: bool = True,
    timeout_sec: float = 120.0,
) -> None:
    """`--url`, `--management-url`, `--key-file`, `--token`, `--timeout` and, unless `grpc` is False, `--grpc`."""
    chosen = defaults or Defaults()
    parser.set_defaults(connection=chosen)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        metavar="URL",
        help=f"inference address; default {chosen.url}" + (f", with --grpc {chosen.grpc_url}" if grpc else ""),
    )
    group.add_argument(
        "--management-url",
        metavar="URL",
        help=f"management address; default {chosen.management_url}"
        + (f", with --grpc {chosen.grpc_management_url}" if grpc else "")
        + "; where --url names another host, TorchServe's usual port there",
    )
    if grpc:
        group.add_argument("--grpc", action="store_true", help="talk gRPC instead of HTTP")
    group.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help=f"TorchServe's {KEY_FILE}; default, for loopback addresses: {chosen.key_file_text}",
    )
    group.add_argument("--token", metavar="KEY", help="the key itself, instead of a key file")
    group.add_argument(
        "--timeout",
        metavar="SEC",
        type=float,
        default=timeout_sec,
        help=f"how long an answer may take; default {timeout_sec:g}",
    )


def open_client(options: argparse.Namespace) -> Client:
    """The client that the flags ask for. Raises ValueError for an address that is none."""
    return open_grpc_client(options) if options.grpc else open_http_client(options)


def open_http_client(options: argparse.Namespace) -> VideoClient:
    known: Defaults = options.connection
    return VideoClient(
        options.url or known.url,
        # For another server than the usual one, its own usual port.
        options.management_url or (None if options.url else known.management_url),
        token=options.token,
        key_file=options.key_file,
        default_key_file=known.key_file,
        timeout_sec=options.timeout,
    )


def open_grpc_client(options: argparse.Namespace) -> GrpcVideoClient:
    known: Defaults = options.connection
    return GrpcVideoClient(
        options.url or known.grpc_url,
        options.management_url or (None if options.url else known.grpc_management_url),
        http_management_url=None if options.url else known.management_url,
        token=options.token,
        key_file=options.key_file,
        default_key_file=known.key_file,
        timeout_sec=options.timeout,
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which of the served models is asked."""
    parser.add_argument("--model", metavar="NAME", help="the served model; may be left out where there is only one")
    parser.add_argument("--version", metavar="V", help="its version; default: the server's default version")


def advice(error: ClientError, *, start_hint: str = "") -> str:
    """The error in one or two sentences: what went wrong, and which flag helps, if one does."""
    if isinstance(error, InvalidKey | KeyUnavailable):
        return f"{error.message}: name the server's key file with --key-file, or give the key with --token"
    if isinstance(error, ConnectionFailed) and not error.sent:
        return f"{error.message} {f'{start_hint}; ' if start_hint else ''}--url names another"
    return error.message
