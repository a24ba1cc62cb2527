"""The served models: list, describe, register, upgrade, set-default, scale, unregister, wait; and their keys."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from ..errors import ClientError
from ..keys import Api
from ..results import ModelInfo
from ..text import models_table, random_weights_lines, table
from ..upgrade import DRAIN_SEC
from .connection import Client, Defaults, add_connection_arguments, advice, open_client

_EXAMPLES = """\
examples:
  {prog} list
  {prog} describe x3d_s
  {prog} register x3d_s_v2.mar --workers 2
  {prog} set-default x3d_s 2.0
  {prog} unregister x3d_s 1.0
  {prog} upgrade x3d_s x3d_s_v3.mar
  {prog} key management
"""


def main(
    arguments: Sequence[str] | None = None, *, prog: str = "video-models", defaults: Defaults | None = None
) -> int:
    """The command, whatever it is called; its exit code."""
    parser = make_parser(prog, defaults)
    options = parser.parse_args(arguments)
    try:
        with open_client(options) as client:
            options.run(client, options)
    except ClientError as error:
        print(f"models: {advice(error, start_hint=options.connection.start_hint)}", file=sys.stderr)
        return 1
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def make_parser(prog: str, defaults: Defaults | None) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="JSON instead of text")
    common.set_defaults(prog=prog)
    add_connection_arguments(common, defaults)
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: Callable[[Client, argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run)
        return sub

    command("list", list_models, "Every version of every served model.")
    describe = command("describe", describe_model, "One version: its workers, settings, weights, runtime, limits.")
    _model_and_version(describe, "the default version unless given")
    register = command("register", register_model, "Serve an archive of the model store, and wait until it is ready.")
    register.add_argument("archive", metavar="FILE.mar", help="its name in the model store")
    register.add_argument("--name", metavar="NAME", help="the model's name; default: the archive's own")
    register.add_argument("--workers", type=int, metavar="N", help="workers to start; default: as the archive says")
    register.add_argument(
        "--batch-size", type=int, metavar="N", help="requests per batch; default: as the archive says"
    )
    register.add_argument("--max-batch-delay", type=int, metavar="MS", help="how long a batch waits to be filled")
    default = command("set-default", set_default, "Make a version the one that answers when none is named.")
    default.add_argument("model", metavar="MODEL")
    default.add_argument("model_version", metavar="VERSION")
    scale = command("scale", scale_model, "Change the number of workers, and wait until they run.")
    _model_and_version(scale, "the default version unless given")
    scale.add_argument("--workers", type=int, required=True, metavar="N", help="workers to have")
    unregister = command(
        "unregister", unregister_model, "Stop serving a version, once its requests have been answered."
    )
    _drain_argument(unregister)
    _model_and_version(unregister, "the default version unless given, which must be the only one left")
    upgrade = command(
        "upgrade", upgrade_model, "Serve another version in place of the default one, without losing a request."
    )
    upgrade.add_argument("model", metavar="NAME")
    upgrade.add_argument("archive", metavar="FILE.mar", help="its name in the model store")
    upgrade.add_argument("--workers", type=int, metavar="N", help="workers to start; default: as the old version has")
    _drain_argument(upgrade)
    wait = command("wait", wait_for_model, "Wait until a version can answer, for --timeout seconds at most.")
    _model_and_version(wait, "the default version unless given")
    key = command("key", print_key, "Print a valid key, renewed first if it has expired.")
    key.add_argument(
        "api",
        metavar="API",
        nargs="?",
        choices=get_args(Api),
        default="inference",
        help="inference (default) or management",
    )
    return parser


def _drain_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--drain-sec",
        type=float,
        default=DRAIN_SEC,
        metavar="S",
        help="seconds that the version's requests may take (default: %(default)g); 0: remove it at once and lose them",
    )


def _model_and_version(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("model_version", metavar="VERSION", nargs="?", help=text)


def list_models(client: Client, options: argparse.Namespace) -> None:
    models = client.models()
    if options.json:
        print(json.dumps([dataclasses.asdict(each) for each in models], indent=2))
    elif models:
        print("\n".join(models_table(models)))
    else:
        print(f"No model is served. {options.prog} register FILE.mar serves one.")


def describe_model(client: Client, options: argparse.Namespace) -> None:
    info = client.describe(options.model, options.model_version)
    print(json.dumps(dataclasses.asdict(info), indent=2) if options.json else "\n".join(description_lines(info)))


def register_model(client: Client, options: argparse.Namespace) -> None:
    sentence = client.register(
        options.archive,
        model=options.name,
        workers=options.workers,
        batch_size=options.batch_size,
        max_batch_delay_ms=options.max_batch_delay,
    )
    say(sentence, options)


def set_default(client: Client, options: argparse.Namespace) -> None:
    say(client.set_default(options.model, options.model_version), options)


def scale_model(client: Client, options: argparse.Namespace) -> None:
    say(client.scale(options.model, options.model_version, min_workers=options.workers), options)


def unregister_model(client: Client, options: argparse.Namespace) -> None:
    say(client.unregister(options.model, options.model_version, drain_sec=options.drain_sec), options)


def upgrade_model(client: Client, options: argparse.Namespace) -> None:
    version = client.upgrade(options.model, options.archive, workers=options.workers, drain_sec=options.drain_sec)
    say(f"{options.model} is now served in version {version}", options)


def wait_for_model(client: Client, options: argparse.Namespace) -> None:
    """Exits with 1 if the model is not ready in time; one that is not registered yet is waited for, too."""
    if not client.ready(options.timeout, model=options.model, version=options.model_version):
        raise SystemExit(f"models: {options.model} is not ready after {options.timeout:g} s")
    say(f"{options.model} is ready", options)


def print_key(client: Client, options: argparse.Namespace) -> None:
    key = client.key(options.api)
    print(json.dumps({"key": key}) if options.json else key)


def say(sentence: str, options: argparse.Namespace) -> None:
    print(json.dumps({"status": sentence}) if options.json else sentence)


def description_lines(info: ModelInfo) -> list[str]:
    """A table of TorchServe's settings, then the handler's description, then the workers."""
    facts = {
        "model": info.name,
        "version": f"{info.version}{' (default)' if info.default else ''}",
        "archive": info.archive,
        "workers": f"{info.min_workers} to {info.max_workers}",
        "batch": f"up to {info.batch_size} requests, waiting up to {info.max_batch_delay_ms} ms to be filled",
        "response timeout": f"{info.response_timeout_sec} s",
        "queue": f"{info.pending_requests} waiting, room for {info.remaining_capacity} more",
    }
    width = max(len(name) for name in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts.items()]
    if info.metadata is not None:
        weights = info.metadata.get("weights")
        kind = weights.get("kind") if isinstance(weights, Mapping) else None
        lines += [line.strip() for line in random_weights_lines(kind)]
        lines += ["", *metadata_lines(info.metadata)]
    workers = [(each.id, each.status, str(each.pid), "yes" if each.gpu else "no") for each in info.workers]
    return [*lines, "", *table(("WORKER", "STATUS", "PID", "GPU"), workers)]


def metadata_lines(metadata: Mapping[str, Any], indent: str = "") -> list[str]:
    """Nested objects indented, lists of plain values on one line."""
    lines = []
    for name, value in metadata.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *metadata_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name}: {', '.join(map(str, value))}")
        else:
            lines.append(f"{indent}{name}: {'-' if value is None else value}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
