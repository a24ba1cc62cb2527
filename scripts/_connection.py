"""The flags with which commands find a server and its keys, and how they say what went wrong. Needs only `clients`."""

from __future__ import annotations

import argparse
from pathlib import Path

from clients import ClientError, GrpcVideoClient, VideoClient
from clients.errors import ConnectionFailed, InvalidKey, KeyUnavailable
from clients.keys import KEY_FILE
from scripts._environment import CONFIG, REPOSITORY, Ports

Client = VideoClient | GrpcVideoClient


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """`--url`, `--management-url`, `--grpc`, `--key-file`, `--token` and so on, in a group of their own."""
    ports = default_ports()
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        metavar="URL",
        help=f"inference address; default http://127.0.0.1:{ports.inference}, "
        f"with --grpc 127.0.0.1:{ports.grpc_inference}",
    )
    group.add_argument(
        "--management-url",
        metavar="URL",
        help=f"management address; default http://127.0.0.1:{ports.management}, "
        f"with --grpc 127.0.0.1:{ports.grpc_management}; where --url names another host, that host's usual port",
    )
    group.add_argument("--grpc", action="store_true", help="talk gRPC instead of HTTP")
    group.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help=f"TorchServe's {KEY_FILE}; default: the one in this folder, else the one beside config.properties",
    )
    group.add_argument("--token", metavar="KEY", help="the key itself, instead of a key file")
    group.add_argument(
        "--timeout", metavar="SEC", type=float, default=120.0, help="how long an answer may take; default 120"
    )


def open_client(options: argparse.Namespace) -> Client:
    """The client that the flags ask for. Raises ValueError for an address that is none."""
    ports = default_ports()
    url, management_url = options.url, options.management_url
    local = url is None  # the server of this repository, wherever its config.properties puts it
    key_file = options.key_file or default_key_file()
    if options.grpc:
        return GrpcVideoClient(
            url or f"127.0.0.1:{ports.grpc_inference}",
            management_url or (f"127.0.0.1:{ports.grpc_management}" if local else None),
            http_management_url=f"http://127.0.0.1:{ports.management}" if local else None,
            token=options.token,
            key_file=key_file,
            timeout_sec=options.timeout,
        )
    return VideoClient(
        url or f"http://127.0.0.1:{ports.inference}",
        management_url or (f"http://127.0.0.1:{ports.management}" if local else None),
        token=options.token,
        key_file=key_file,
        timeout_sec=options.timeout,
    )


def default_ports() -> Ports:
    """Those of this repository's config.properties; TorchServe's own where there is none."""
    return Ports.of_config() if CONFIG.is_file() else Ports()


def default_key_file() -> Path | None:
    """This repository's key file, unless the current folder has one, which the client finds by itself."""
    beside_config = REPOSITORY / KEY_FILE
    return beside_config if beside_config.is_file() and not Path(KEY_FILE).is_file() else None


def advice(error: ClientError) -> str:
    """The error in one or two sentences: what went wrong, and which flag mends it where one does."""
    if isinstance(error, InvalidKey | KeyUnavailable):
        return f"{error.message}. Name the server's key file with --key-file, or give the key with --token"
    if isinstance(error, ConnectionFailed) and not error.sent:
        return f"{error.message} ./scripts/quickstart starts one; --url names another"
    return error.message
