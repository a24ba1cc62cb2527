"""How the server is: its models, versions, workers and queues, its keys' ends, and a tiny prediction by each model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from serving.connection import repository_defaults
from serving.health import ModelStatus, ServerStatus, server_status
from video_action_client.commands.connection import add_connection_arguments, open_http_client
from video_action_client.text import table

_TIMEOUT_SEC = 30.0
_EPILOG = """\
exit status:
  0  every version of every model answers
  1  one does not, or no model is served
  2  the server cannot be asked: it does not answer, or refuses the key
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.status",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--no-predict", action="store_true", help="ask for no prediction, only what the server says")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    add_connection_arguments(parser, repository_defaults(), grpc=False, timeout_sec=_TIMEOUT_SEC)
    options = parser.parse_args(arguments)
    try:
        with open_http_client(options) as client:
            status = server_status(client, predict=not options.no_predict)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(as_json(status), indent=2) if options.json else "\n".join(text_lines(status)))
    return status.exit_code


def text_lines(status: ServerStatus) -> list[str]:
    """The server, its keys, a row per version of each model."""
    lines = [f"TorchServe at {status.url}: {status.problem or 'answers'}"]
    ends = [f"{api} {_left(end)}" for api, end in status.expiries.items() if end is not None]
    if ends:
        lines.append(f"keys: {', '.join(ends)}")
    if status.models:
        header = ("MODEL", "VERSION", "DEFAULT", "WORKERS", "QUEUED", "PREDICTION")
        lines += ["", *table(header, [_row(model) for model in status.models])]
    elif status.problem is None:
        lines.append("no model is served")
    return lines


def as_json(status: ServerStatus) -> dict[str, Any]:
    return {
        "url": status.url,
        "ok": status.exit_code == 0,
        "problem": status.problem,
        "keys": {api: None if end is None else end.isoformat() for api, end in status.expiries.items()},
        "models": [_model_json(model) for model in status.models],
    }


def _model_json(model: ModelStatus) -> dict[str, Any]:
    tried = model.prediction
    return {
        "name": model.name,
        "version": model.version,
        "default": model.default,
        "ready_workers": model.ready_workers,
        "min_workers": model.min_workers,
        "pending_requests": model.pending_requests,
        "queue_size": model.queue_size,
        "problem": model.problem,
        "prediction_ms": None if tried is None or not tried.ok else round(tried.milliseconds, 1),
    }


def _row(model: ModelStatus) -> tuple[str, ...]:
    answered = "" if model.prediction is None else f"{model.prediction.milliseconds:.0f} ms"
    return (
        model.name,
        model.version,
        "yes" if model.default else "",
        f"{model.ready_workers}/{model.min_workers}",
        f"{model.pending_requests}/{model.queue_size}",
        model.problem or answered or "not tried",
    )


def _left(end: datetime) -> str:
    seconds = (end - datetime.now(UTC)).total_seconds()
    return "has ended" if seconds <= 0 else f"ends in {seconds / 60:.0f} min"


if __name__ == "__main__":
    sys.exit(main())
