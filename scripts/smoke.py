"""One tiny prediction, for probes and people: `python -m scripts.smoke URL --model x3d_s`.

The clip is made on the spot, one second of 64 x 48 pixels. Nothing but a real prediction sees a worker that says READY
and answers no more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from serving.connection import repository_defaults
from serving.health import TinyPrediction, try_prediction
from video_action_client import ClientError, VideoClient
from video_action_client.commands.connection import add_connection_arguments, advice, open_http_client

_TIMEOUT_SEC = 10.0
_EPILOG = """\
exit status:
  0  the model answered
  1  it did not, or refused
  2  the server cannot be asked: it does not answer, or refuses the key
"""


def main(arguments: Sequence[str] | None = None) -> int:
    defaults = repository_defaults()
    parser = argparse.ArgumentParser(
        prog="python -m scripts.smoke",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "address", metavar="URL", nargs="?", help=f"inference address, or a proxy's; default {defaults.url}"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="the model to ask; default: the one that the management address lists"
    )
    parser.add_argument("--model-version", metavar="VERSION", help="its version; default: the default one")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    add_connection_arguments(parser, defaults, grpc=False, timeout_sec=_TIMEOUT_SEC)
    options = parser.parse_args(arguments)
    if options.address and options.url:
        parser.error("give the address once, as URL or with --url")
    options.url = options.address or options.url
    try:
        with open_http_client(options) as client:
            model = options.model or only_model(client)
            tried = try_prediction(client, model, options.model_version)
    except ClientError as error:
        print(f"smoke: {advice(error, start_hint=defaults.start_hint)}", file=sys.stderr)
        return 2
    except ValueError as error:
        parser.error(str(error))
    say(model, tried, as_json=options.json)
    return 0 if tried.ok else 2 if tried.unasked else 1


def only_model(client: VideoClient) -> str:
    """The served model, where there is one. Raises ValueError where there are more or none, and ClientErrors."""
    names = sorted({info.name for info in client.models()})
    if len(names) != 1:
        raise ValueError(f"name the model with --model; served are: {', '.join(names) or 'none'}")
    return names[0]


def say(model: str, tried: TinyPrediction, *, as_json: bool) -> None:
    if as_json:
        content = {"model": model, "ok": tried.ok, "ms": round(tried.milliseconds, 1), "problem": tried.error}
        print(json.dumps(content))
    elif tried.ok:
        print(f"{model} answered in {tried.milliseconds:.0f} ms")
    else:
        print(f"smoke: {model} gave no answer: {tried.error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
