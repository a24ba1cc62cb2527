"""Show or change the settings of an archive: `python -m scripts.settings ARCHIVE [--set KEY=VALUE]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from handlers.errors import InvalidConfig, SetupError
from serving.archive_settings import MODEL_STORE, Change, change_archive, find_archive, read_archive
from serving.settings import given_settings

_EXAMPLES = """\
examples:
  python -m scripts.settings x3d_s
      every setting of model_store/x3d_s.mar, with what it means
  python -m scripts.settings x3d_s --set handler.limits.max_video_sec=600 --set batchSize=4
      change two of them, in place
  python -m scripts.settings model_store/x3d_s-2.0.mar --config mine.yaml
      take all that mine.yaml names: a model-config.yaml, or a part of one

A server reads an archive when it registers the model: unregister and register it again, or restart the server.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.settings",
        description="Show an archive's settings, or change them in place. An archive is replaced whole or not at all.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", metavar="ARCHIVE", help="a .mar file, or a name in model_store")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="change one setting, as in batchSize=4 or handler.decoder=encoded_video; may be given several times",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="change the settings that a YAML file names; --set goes over it"
    )
    parser.add_argument("--json", action="store_true", help="print every setting by its key as one JSON object")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    archive = find_archive(arguments.archive)
    if archive is None:
        raise InvalidConfig(f"there is no archive {arguments.archive}, nor {MODEL_STORE / arguments.archive}.mar")
    settings = given_settings(arguments.config, arguments.assignments)
    changes = change_archive(archive, settings) if settings else []
    if arguments.json:
        print(json.dumps(read_archive(archive).values, indent=2))
    elif settings:
        print(f"{archive}: {len(changes)} settings changed" if changes else f"{archive}: has these settings already")
        for change in changes:
            print(f"  {_told(change)}")
        if changes:
            print("a running server takes them when the model is registered again")
    else:
        print(read_archive(archive).text, end="")
    return 0


def _told(change: Change) -> str:
    old = "" if change.old is None else f" (was {json.dumps(change.old)})"
    return f"{change.key}: {json.dumps(change.new)}{old}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0; 1 with one sentence for what is wrong, and then nothing was changed; 2 for wrong arguments."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
