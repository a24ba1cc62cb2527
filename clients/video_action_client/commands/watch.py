"""What happens now? Labels of a live source, window by window, until it ends or Ctrl-C is pressed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from ..errors import ClientError
from ..live.events import WatchEnd, WatchEvent, WatchLost, WatchReconnected, WatchSkipped, WatchWindow
from ..live.watch import Watch
from ..text import random_weights_lines
from .connection import Client, Defaults, add_connection_arguments, add_model_arguments, advice, open_client
from .predict import only_model

_LABELS_SHOWN = 3

_EXAMPLES = """\
examples:
  {prog} rtsp://camera/stream --model x3d_s
  {prog} https://host/live.m3u8 --model x3d_s --stride-sec 1 --smooth 3
  {prog} /dev/video0 --model x3d_s --json | jq -r 'select(.event == "window") | .predictions[0].label'
  {prog} match.mp4 --model x3d_s

Ctrl-C, or SIGTERM, ends it after the windows that the server is asked about, with a summary; a second Ctrl-C at once.
The exit code is 0 then and when the source has ended; 1 if the source or the server cannot be asked, the source was
lost for good, or not one window got labels; 2 for wrong usage.
"""


def main(arguments: Sequence[str] | None = None, *, prog: str = "video-watch", defaults: Defaults | None = None) -> int:
    """The command, whatever it is called; its exit code."""
    parser = make_parser(prog, defaults)
    options = parser.parse_args(arguments)
    try:
        with open_client(options) as client, opened(client, options) as watch:
            return run(watch, options)
    except ValueError as error:
        parser.error(str(error))
    except ClientError as error:
        print(f"watch: {advice(error, start_hint=options.connection.start_hint)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the program that reads the output has closed it
        sys.stderr.close()
        return 1


def make_parser(prog: str, defaults: Defaults | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an address (rtsp://, http://, ...), a capture device (/dev/video0), or a file, played in real time",
    )
    add_model_arguments(parser)
    what = parser.add_argument_group("what to look at")
    what.add_argument(
        "--stride-sec", type=float, metavar="S", help="a window every so many seconds; default: one after the other"
    )
    what.add_argument("--window-sec", type=float, metavar="S", help="how long it is; default: the model's clip")
    what.add_argument("--num-crops", type=int, metavar="N", help="1: the centre; 3: the whole frame; default 1")
    what.add_argument("--smooth", type=int, default=1, metavar="N", help="average scores over N windows; default 1")
    what.add_argument("--duration-sec", type=float, metavar="S", help="stop after so long; default: never")
    what.add_argument("--speed", type=float, default=1.0, metavar="X", help="of a file: 2 is twice as fast; default 1")
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--under-way", type=int, default=2, metavar="N", help="windows asked about at once; default 2")
    bounds.add_argument(
        "--waiting",
        type=int,
        default=4,
        metavar="N",
        help="windows that may wait; the oldest gives way; default 4",
    )
    bounds.add_argument("--give-up-sec", type=float, metavar="S", help="of a lost source; default: try for ever")
    bounds.add_argument(
        "--source-timeout", type=float, default=10.0, metavar="S", help="without a picture it is lost; default 10"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--top-k", type=int, metavar="N", help=f"labels a window; default {_LABELS_SHOWN}, in JSON 5")
    output.add_argument("--threshold", type=float, metavar="P", help="leave out labels with a lower score; default 0")
    output.add_argument(
        "--json",
        action="store_true",
        help='a line for each event: {"event": "window" | "skipped" | "lost" | "reconnected" | "end", ...}',
    )
    add_connection_arguments(parser, defaults)
    return parser


def opened(client: Client, options: argparse.Namespace) -> Watch:
    """The source at work. Raises ClientError, and ValueError for an option that cannot be."""
    if options.duration_sec is not None and not options.duration_sec > 0:
        raise ValueError(f"--duration-sec must be positive, got {options.duration_sec:g}")
    return client.watch(
        options.source,
        model=options.model or only_model(client),
        version=options.version,
        stride_sec=options.stride_sec,
        window_sec=options.window_sec,
        top_k=options.top_k,
        num_crops=options.num_crops,
        threshold=options.threshold,
        smooth=options.smooth,
        under_way=options.under_way,
        waiting=options.waiting,
        give_up_sec=options.give_up_sec,
        source_timeout_sec=options.source_timeout,
        speed=options.speed,
    )


def run(watch: Watch, options: argparse.Namespace) -> int:
    """Print every event as it comes, then a summary; the exit code."""
    for line in random_weights_lines(watch.weights):
        print(line.strip(), file=sys.stderr)
    timer = None
    if options.duration_sec is not None:
        timer = threading.Timer(options.duration_sec, watch.stop)
        timer.daemon = True
        timer.start()
    try:
        with stopped_by_signals(watch.stop):
            for event in watch:
                report(event, options)
    except ClientError as error:
        print(f"watch: {error.message}", file=sys.stderr)
        print(summary_line(watch.summary()), file=sys.stderr)
        return 1
    finally:
        if timer is not None:
            timer.cancel()
    end = watch.summary()
    print(summary_line(end), file=sys.stderr)
    return 1 if end.windows == 0 and end.skipped > 0 else 0


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `stop`; a second one has its usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def stop_once(number: int, _: object) -> None:
        signal.signal(number, usual[signal.Signals(number)])
        # In a thread: this one may hold the lock that stopping takes.
        threading.Thread(target=stop, daemon=True).start()

    for each in usual:
        signal.signal(each, stop_once)
    try:
        yield
    finally:
        for each, handler in usual.items():
            signal.signal(each, handler)


def report(event: WatchEvent, options: argparse.Namespace) -> None:
    """To standard output: windows, and in JSON everything; the rest is for people, to standard error."""
    if options.json:
        print(json.dumps(event_json(event), ensure_ascii=False), flush=True)
    elif isinstance(event, WatchWindow):
        print(window_line(event, most=options.top_k or _LABELS_SHOWN), flush=True)
    elif isinstance(event, WatchSkipped):
        which = f"{event.count} windows" if event.count > 1 else "1 window"
        print(f"{_span(event)}  skipped {which}: {event.message}", file=sys.stderr)
    elif isinstance(event, WatchLost):
        print(f"{_clock(event.time)}  lost: {event.message}; trying again", file=sys.stderr)
    elif isinstance(event, WatchReconnected):
        print(f"{_clock(event.time)}  there again after {event.lost_sec:.1f} s", file=sys.stderr)


def event_json(event: WatchEvent) -> dict[str, Any]:
    """Its fields and its kind; times as in ISO 8601, in UTC. The server's own answer is left out."""
    kind = type(event).__name__.removeprefix("Watch").lower()
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if field.name == "predictions":
            value = [dataclasses.asdict(each) for each in value]
        elif isinstance(value, datetime):
            value = value.isoformat(timespec="milliseconds")
        if field.name != "answer":
            fields[field.name] = value
    return {"event": kind, **fields}


def window_line(event: WatchWindow, *, most: int) -> str:
    labels = ", ".join(f"{each.label} {each.score:.2f}" for each in event.predictions[:most])
    return f"{_span(event)}  {labels or '-'}"


def summary_line(end: WatchEnd) -> str:
    text = f"{end.windows} windows with labels, {end.skipped} skipped, in {end.elapsed_sec:.1f} s"
    if end.reconnections:
        text += f"; the source was lost and found {end.reconnections} times"
    return text


def _span(event: WatchWindow | WatchSkipped) -> str:
    return f"{_clock(event.start_time)} - {_clock(event.end_time)}"


def _clock(time: datetime) -> str:
    """The local time of day, to a tenth of a second."""
    local = time.astimezone()
    return f"{local:%H:%M:%S}.{local.microsecond // 100_000}"


if __name__ == "__main__":
    sys.exit(main())
