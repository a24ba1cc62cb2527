"""What is in these videos? Files, folders or - for standard input."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import ApiError, ClientError, InvalidAnswer, ModelNotFound, UnreadableVideo
from ..events import StreamEnd, StreamEvent, StreamStart, StreamWindow
from ..explanation import Explanation
from ..http_client import VideoClient
from ..results import Prediction, Timeline
from ..source import VIDEO_SUFFIXES
from ..text import clock, explanation_lines, is_plain, prediction_lines, shortened, timeline_lines
from .connection import Client, Defaults, add_connection_arguments, add_model_arguments, advice, open_client
from .suggestions import served_instead

DEFAULT_STRIDE_SEC = 1.0
STDIN = "-"

_EXAMPLES = """\
examples:
  {prog} clip.mp4
  {prog} holidays/ --model x3d_s --num-clips 10 --num-crops 3
  {prog} match.mp4 --timeline --stride-sec 0.5
  {prog} lecture.mp4 --stream --stride-sec 10
  {prog} clip.mp4 --explain heat.png
  {prog} clip.mp4 --embedding | jq .answer.length
  {prog} *.mp4 --json | jq -r '.video + ": " + (.answer | keys_unsorted[0])'
  ffmpeg -i rtsp://camera -t 4 -f matroska - | {prog} -

The exit code is 1 if any video failed, the answers of the others are printed all the same; 2 for wrong usage, as a
path to nothing, and then nothing is sent.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One video's end: its answer in the form asked for, or what went wrong."""

    name: str
    answer: Any = None
    error: ClientError | None = None


def main(
    arguments: Sequence[str] | None = None, *, prog: str = "video-predict", defaults: Defaults | None = None
) -> int:
    """The command, whatever it is called; its exit code."""
    parser = make_parser(prog, defaults)
    options = parser.parse_args(arguments)
    if options.videos.count(STDIN) > 1:
        parser.error("- may be given once: standard input can be read only once")
    if options.stride_sec is None and (options.timeline or (options.stream and options.num_clips is None)):
        options.stride_sec = DEFAULT_STRIDE_SEC
    options.output = "embedding" if options.embedding else None
    if options.format is not None or options.embedding:
        options.json = True
    if options.stride_sec is not None and options.num_clips is not None:
        parser.error("--stride-sec and --timeline exclude --num-clips")
    if options.explain is not None:
        _check_explain(parser, options)
    if options.stream and options.embedding:
        parser.error("--stream prints labels as they come; leave it out with --embedding")
    if options.stream and options.grpc:
        parser.error("--stream works over HTTP alone; leave --grpc out")
    if options.stream and options.format not in (None, "full"):
        parser.error("the lines of --stream hold what --format full holds; leave --format out")
    try:
        client = open_client(options)
    except ValueError as error:
        parser.error(str(error))
    for video in options.videos:
        if (problem := mistyped(video)) is not None:
            parser.error(problem)
    try:
        with client:
            return run(client, options)
    except ClientError as error:
        print(f"predict: {advice(error, start_hint=options.connection.start_hint)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the program that reads the output has closed it
        sys.stderr.close()
        return 1


def _check_explain(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.grpc or options.stream or options.embedding or options.json:
        parser.error("--explain works over HTTP alone, and without --stream, --embedding, --json and --format")
    if len(options.videos) > 1 or (options.videos[0] != STDIN and Path(options.videos[0]).is_dir()):
        parser.error("--explain writes one picture: give one video")
    if not options.explain.parent.is_dir():
        parser.error(f"--explain {options.explain}: there is no such folder")


def make_parser(prog: str, defaults: Defaults | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="a video file, a folder of them (hidden ones left out), or - for standard input",
    )
    add_model_arguments(parser)
    what = parser.add_argument_group("what to look at")
    what.add_argument("--start-sec", type=float, metavar="S", help="start of the part to look at; default 0")
    what.add_argument("--end-sec", type=float, metavar="S", help="its end; default: the end of the video")
    what.add_argument("--num-clips", type=int, metavar="N", help="clips spread over that part, averaged; default 1")
    what.add_argument("--num-crops", type=int, metavar="N", help="1: the centre; 3: the whole frame; default 1")
    what.add_argument("--stride-sec", type=float, metavar="S", help="slide the clip in such steps: a timeline")
    what.add_argument(
        "--average",
        "--average-clips",
        choices=("prob", "score"),
        help="average probabilities (default) or logits",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--top-k", type=int, metavar="N", help="labels to show; default 5")
    output.add_argument("--threshold", type=float, metavar="P", help="leave out labels with a lower score; default 0")
    output.add_argument(
        "--timeline", action="store_true", help=f"draw what happens when; --stride-sec is {DEFAULT_STRIDE_SEC:g} then"
    )
    output.add_argument(
        "--stream", action="store_true", help="print each window as soon as the server has computed it (HTTP only)"
    )
    output.add_argument(
        "--json",
        action="store_true",
        help='one line per video: {"video", "answer"} or {"video", "error"}; with --stream one for each event',
    )
    output.add_argument("--format", choices=("dict", "list", "full"), help="the answer's form in JSON; implies --json")
    output.add_argument(
        "--embedding",
        action="store_true",
        help="instead of labels the features that go into the model's last layer, and their length; implies --json",
    )
    output.add_argument(
        "--explain",
        type=Path,
        metavar="FILE",
        help="write a PNG picture of the frames with heat where the model saw the label, and print when (HTTP only)",
    )
    output.add_argument(
        "--target", metavar="LABEL", help="with --explain: the label, or class id, that is explained; default: the best"
    )
    output.add_argument("--jobs", type=int, default=1, metavar="N", help="videos sent at the same time; default 1")
    add_connection_arguments(parser, defaults)
    return parser


def run(client: Client, options: argparse.Namespace) -> int:
    """Send every video, print every answer in the order of the arguments; the exit code."""
    model = options.model or only_model(client)
    videos = list(expanded(options.videos))
    failures: Counter[str] = Counter()
    unknown = False
    started = time.monotonic()
    # Progress goes to standard error only, so that the answers on standard output can be piped.
    bar = tqdm(total=len(videos), unit="video", file=sys.stderr, disable=len(videos) < 2 or not sys.stderr.isatty())
    with bar, ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        for outcome in pool.map(lambda video: outcome_of(client, video, model, options), videos):
            if outcome.error is not None:
                failures[str(error_json(outcome.error)["type"])] += 1
            report(outcome, options)
            unknown = unknown or isinstance(outcome.error, ModelNotFound)
            bar.update()
    if unknown and (hint := served_instead(client, model)) is not None:
        print(f"predict: {hint}", file=sys.stderr)
    if len(videos) > 1:
        print(summary(len(videos), failures, time.monotonic() - started), file=sys.stderr)
    return 1 if failures else 0


def summary(videos: int, failures: Counter[str], seconds: float) -> str:
    """How many, how fast, and why videos failed, the most frequent reason first."""
    text = f"{videos} videos in {seconds:.1f} s, {videos / max(seconds, 1e-9):.2g} a second"
    reasons = ", ".join(f"{count} {kind}" for kind, count in failures.most_common())
    return f"{text}, {failures.total()} failed: {reasons}" if failures else text


def only_model(client: Client) -> str:
    """The one model that is served; raises InvalidAnswer if that is no clear choice."""
    names = sorted({info.name for info in client.models()})
    if len(names) == 1:
        return names[0]
    served = f"served are {', '.join(names)}" if names else "none is served"
    raise InvalidAnswer(f"name a model with --model: {served}")


def mistyped(argument: str) -> str | None:
    """Why an argument cannot mean a video, before anything is sent; None where it can."""
    if argument == STDIN or os.path.lexists(argument):
        return None
    if "://" in argument:
        return f"{argument} is a URL; download it first, or pipe it in: curl -sL URL | ... -"
    return f"{argument} does not exist; name a video file, a folder of them, or - for standard input"


def expanded(arguments: Sequence[str]) -> Iterator[Path | str | UnreadableVideo]:
    """The videos behind the arguments, folders searched through; a folder without any is an error in its place."""
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN:
            yield argument
        elif path.is_dir():
            files = sorted(folder_videos(path))
            yield from files
            if not files:
                yield UnreadableVideo(f"{argument}: the folder holds no video file")
        else:
            yield path


def folder_videos(folder: Path) -> Iterator[Path]:
    """Files with a video's suffix, to the bottom; hidden files and folders (.venv, .git) are left out, and links to
    folders not followed. A link to nothing counts, so that its error is reported."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(parent, name)
            is_video = not name.startswith(".") and file.suffix.lower() in VIDEO_SUFFIXES
            if is_video and (file.is_file() or (file.is_symlink() and not file.exists())):
                yield file


def outcome_of(client: Client, video: Path | str | UnreadableVideo, model: str, options: argparse.Namespace) -> Outcome:
    """Ask for one video; what goes wrong is a value, so that the others go on."""
    if isinstance(video, UnreadableVideo):
        return Outcome(video.message.partition(":")[0], error=video)
    try:
        return Outcome(str(video), answer=ask(client, video, model, options))
    except ClientError as error:
        return Outcome(str(video), error=error)


def ask(client: Client, video: Path | str, model: str, options: argparse.Namespace) -> Any:
    """The answer: parsed JSON where it is to be printed as such, else a Prediction or Timeline."""
    content = io.BytesIO(sys.stdin.buffer.read()) if video == STDIN else video
    if options.explain is not None:
        return explained(client, content, model, options)
    if isinstance(client, VideoClient) and (options.stream or (options.stride_sec is not None and not options.json)):
        return streamed(client, content, str(video), model, options)
    names = ("top_k", "start_sec", "end_sec", "num_clips", "num_crops", "stride_sec", "average", "format", "threshold")
    wanted = {name: getattr(options, name) for name in (*names, "output")}
    if not options.json:
        wanted["format"] = "full"
    answer = client.answer(content, model=model, version=options.version, options=wanted)
    if options.json:
        return answer
    return Timeline.from_json(answer) if options.stride_sec is not None else Prediction.from_json(answer)


def streamed(
    client: VideoClient, content: Path | str | io.BytesIO, name: str, model: str, options: argparse.Namespace
) -> Prediction | Timeline | None:
    """The answer, with a bar that counts windows as they come; with --stream each event is printed, too.

    None where the events were all that was asked for.
    """
    names = ("stride_sec", "top_k", "start_sec", "end_sec", "num_clips", "num_crops", "average", "threshold")
    wanted = {each: getattr(options, each) for each in names}
    answer: Prediction | Timeline | None = None
    with tqdm(desc=shortened(name, 30), unit="window", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for event in client.stream(content, model=model, version=options.version, **wanted):
            if isinstance(event, StreamStart):
                bar.total = event.windows
            elif isinstance(event, StreamWindow):
                bar.update()
            elif isinstance(event, StreamEnd):
                answer = event.answer
            if options.stream and (options.json or isinstance(event, StreamWindow)):
                tqdm.write(event_json(name, event) if options.json else window_line(name, event), file=sys.stdout)
                sys.stdout.flush()
    return None if options.stream and options.json else answer


def explained(client: Client, content: Path | str | io.BytesIO, model: str, options: argparse.Namespace) -> Explanation:
    """The explanation; its picture is written."""
    names = ("target", "stride_sec", "start_sec", "end_sec", "num_clips", "num_crops", "average")
    wanted = {name: getattr(options, name) for name in names}
    explanation = client.explain(content, model=model, version=options.version, image=True, **wanted)
    options.explain.write_bytes(explanation.image or b"")
    return explanation


def event_json(name: str, event: StreamEvent) -> str:
    """One line of JSON; the end has the whole answer."""
    kind = type(event).__name__.removeprefix("Stream").lower()
    content = {"answer": event.answer.answer} if isinstance(event, StreamEnd) else dataclasses.asdict(event)
    return json.dumps({"video": name, "event": kind, **content}, ensure_ascii=False)


def window_line(name: str, event: StreamEvent) -> str:
    assert isinstance(event, StreamWindow)
    clip = event.clip
    top = f"{clip.predictions[0].label} {clip.predictions[0].score:.2f}" if clip.predictions else "-"
    return f"{name}  {clock(clip.start_sec):>9} - {clock(clip.end_sec):>9}  {top}"


def report(outcome: Outcome, options: argparse.Namespace) -> None:
    """Answers to standard output; what failed to standard error, and in JSON in its place too."""
    if options.json and options.stream and outcome.error is None:
        return  # its events have been printed
    if options.json:
        value = {"answer": outcome.answer} if outcome.error is None else {"error": error_json(outcome.error)}
        tqdm.write(json.dumps({"video": outcome.name, **value}, ensure_ascii=False), file=sys.stdout)
    elif isinstance(outcome.answer, Explanation):
        lines = explanation_lines(outcome.name, outcome.answer, plain=is_plain())
        tqdm.write("\n".join([*lines, f"  the heat is in {options.explain}"]) + "\n", file=sys.stdout)
    elif isinstance(outcome.answer, Timeline):
        tqdm.write("\n".join(timeline_lines(outcome.name, outcome.answer, plain=is_plain())) + "\n", file=sys.stdout)
    elif isinstance(outcome.answer, Prediction):
        tqdm.write("\n".join(prediction_lines(outcome.name, outcome.answer, plain=is_plain())) + "\n", file=sys.stdout)
    if outcome.error is not None:
        message = advice(outcome.error, start_hint=options.connection.start_hint)
        prefix = "" if message.startswith(outcome.name) else f"{outcome.name}: "
        tqdm.write(prefix + message, file=sys.stderr)


def error_json(error: ClientError) -> dict[str, Any]:
    """The server's own body for a refusal; `code` is null for what never reached it."""
    if isinstance(error, ApiError):
        return {"code": error.status, "type": error.type, "message": error.message}
    return {"code": None, "type": type(error).__name__, "message": error.message}


if __name__ == "__main__":
    sys.exit(main())
