"""The flags with which commands find a server and its keys, and how they say what went wrong. Needs only `clients`."""

from __future__ import annotations

import argparse
from pathlib import Path

from clients import ClientError, GrpcVideoClient, VideoClient
from clients.errors import ConnectionFailed, InvalidKey, KeyUnavailable
from clients.keys import KEY_FILE
from serving.environment import CONFIG, REPOSITORY, Ports

Client = VideoClient | GrpcVideoClient


def add_connection_arguments(parser: argparse.ArgumentParser, *, grpc: bool = True) -> None:
    """`--url`, `--management-url`, `--key-file`, `--token`, `--timeout` and, unless told not to, `--grpc`."""
    ports = default_ports()
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        metavar="URL",
        help=f"inference address; default http://127.0.0.1:{ports.inference}"
        + (f", with --grpc 127.0.0.1:{ports.grpc_inference}" if grpc else ""),
    )
    group.add_argument(
        "--management-url",
        metavar="URL",
        help=f"management address; default http://127.0.0.1:{ports.management}"
        + (f", with --grpc 127.0.0.1:{ports.grpc_management}" if grpc else "")
        + "; where --url names another host, TorchServe's usual port there",
    )
    if grpc:
        group.add_argument("--grpc", action="store_true", help="talk gRPC instead of HTTP")
    group.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help=f"TorchServe's {KEY_FILE}; default, for loopback addresses: the one in this folder, else the one beside "
        "config.properties",
    )
    group.add_argument("--token", metavar="KEY", help="the key itself, instead of a key file")
    group.add_argument(
        "--timeout", metavar="SEC", type=float, default=120.0, help="how long an answer may take; default 120"
    )


def open_client(options: argparse.Namespace) -> Client:
    """The client that the flags ask for. Raises ValueError for an address that is none."""
    return open_grpc_client(options) if options.grpc else open_http_client(options)


def open_http_client(options: argparse.Namespace) -> VideoClient:
    ports = default_ports()
    # Without --url it is the server of this repository, wherever its config.properties puts it.
    management_url = None if options.url else f"http://127.0.0.1:{ports.management}"
    return VideoClient(
        options.url or f"http://127.0.0.1:{ports.inference}",
        options.management_url or management_url,
        token=options.token,
        key_file=options.key_file,
        default_key_file=default_key_file(),
        timeout_sec=options.timeout,
    )


def open_grpc_client(options: argparse.Namespace) -> GrpcVideoClient:
    ports = default_ports()
    management_url = None if options.url else f"127.0.0.1:{ports.grpc_management}"
    return GrpcVideoClient(
        options.url or f"127.0.0.1:{ports.grpc_inference}",
        options.management_url or management_url,
        http_management_url=None if options.url else f"http://127.0.0.1:{ports.management}",
        token=options.token,
        key_file=options.key_file,
        default_key_file=default_key_file(),
        timeout_sec=options.timeout,
    )


def default_ports() -> Ports:
    """Those of this repository's config.properties; TorchServe's own where there is none."""
    return Ports.of_config() if CONFIG.is_file() else Ports()


def default_key_file() -> Path:
    """The current folder's key file if there is one, else this repository's."""
    here, beside_config = Path(KEY_FILE), REPOSITORY / KEY_FILE
    return here if here.is_file() or not beside_config.is_file() else beside_config


def advice(error: ClientError) -> str:
    """The error in one or two sentences: what went wrong, and which flag mends it where one does."""
    if isinstance(error, InvalidKey | KeyUnavailable):
        return f"{error.message}. Name the server's key file with --key-file, or give the key with --token"
    if isinstance(error, ConnectionFailed) and not error.sent:
        return f"{error.message} ./scripts/quickstart starts one; --url names another"
    return error.message
