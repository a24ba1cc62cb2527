"""Accuracy of the served pipeline on labelled videos: `python -m scripts.evaluate SPEC_OR_MAR --annotations FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from bulk.annotations import LAYOUTS
from bulk.class_rows import class_csv
from bulk.journal import write_atomically
from bulk.outcomes import AverageClips
from bulk.plots import PictureFormat, plots_available, write_plots
from bulk.report import SavedScores, summary
from bulk.samples import Metric
from handlers.errors import InvalidConfig
from handlers.video.sampling import Sampling
from scripts._bulk import (
    VIEWS_HELP,
    add_engine_arguments,
    add_model_argument,
    engine_options,
    run_command,
    views,
    whole,
)
from scripts._evaluation import EvaluateOptions, evaluate

_EXAMPLES = """\
examples:
  python -m scripts.evaluate x3d_s --annotations val.csv --videos kinetics400/val --views 10x3 --out x3d_s.json
  python -m scripts.evaluate model_store/gestures.mar --annotations val.txt --videos val --out gestures.json
      killed? the same command goes on where it stopped, and ends in the same bytes

annotations: 'path label' a line, MMAction2's 'video_id frames label', or a CSV with a header (video and label columns,
or Kinetics' own label,youtube_id,time_start,time_end). docs/evaluation.md has the details.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate",
        description="Measure a model's accuracy on labelled videos, through the pipeline that serves it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_argument(parser)
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="the labelled list")
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="the folder its paths start from")
    parser.add_argument("--views", type=views, default=Sampling(), metavar="NxM", help=VIEWS_HELP)
    parser.add_argument(
        "--eval",
        nargs="+",
        choices=get_args(Metric),
        default=list(get_args(Metric)),
        dest="metrics",
        metavar="METRIC",
        help=f"which metrics (default: all): {', '.join(get_args(Metric))}; docs/evaluation.md defines them",
    )
    parser.add_argument(
        "--average",
        "--average-clips",
        choices=get_args(AverageClips),
        default="prob",
        help="how a video's views are joined: mean of probabilities (default), of scores before the softmax, "
        "or not at all: then every view counts as a sample",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="the result, plots beside it; a journal until done"
    )
    parser.add_argument("--limit", type=whole, metavar="N", help="the first N annotated videos alone")
    parser.add_argument("--layout", choices=LAYOUTS, help="how to read the annotations (default: recognise it)")
    parser.add_argument(
        "--scores",
        choices=get_args(SavedScores),
        default="all",
        help="per-video scores in the result: of all classes (default; 80 MB for Kinetics-400) or of the best five",
    )
    parser.add_argument(
        "--save-views",
        type=Path,
        metavar="FILE.npy",
        help="the logits of every view, float32 (videos, views, classes), in numpy's format",
    )
    parser.add_argument("--no-plots", action="store_true", help="write no pictures")
    parser.add_argument(
        "--plot-format", choices=get_args(PictureFormat), default="svg", help="of the pictures (default svg)"
    )
    parser.add_argument("--force", action="store_true", help="begin anew, whatever FILE.json holds")
    add_engine_arguments(parser)
    return parser


def _options(argv: Sequence[str] | None) -> EvaluateOptions:
    arguments = _parser().parse_args(argv)
    return EvaluateOptions(
        model=arguments.model,
        annotations=arguments.annotations,
        videos=arguments.videos,
        sampling=arguments.views,
        metrics=tuple(arguments.metrics),
        average=arguments.average,
        out=arguments.out,
        limit=arguments.limit,
        layout=arguments.layout,
        scores=arguments.scores,
        save_views=arguments.save_views,
        batch_size=arguments.batch_size,
        plots=not arguments.no_plots,
        plot_format=arguments.plot_format,
        force=arguments.force,
        engine=engine_options(arguments),
    )


def _run(argv: Sequence[str] | None) -> int:
    options = _options(argv)
    if options.save_views is not None and (options.save_views.suffix != ".npy" or options.out is None):
        raise InvalidConfig("--save-views FILE.npy belongs to --out, which says what is done")
    if options.out is not None and options.plots and not plots_available():
        print("note: no plots, matplotlib is not installed (pip install -r requirements/bench.txt)", file=sys.stderr)
    evaluated = evaluate(options)
    if evaluated.listed.repeated:
        print(f"note: {evaluated.listed.repeated} lines repeat others and were not counted", file=sys.stderr)
    print(summary(evaluated.result, options.report))
    if options.out is not None:
        print(f"  result: {options.out}")
        if options.save_views is not None:
            print(f"  views:  {options.save_views}")
        classes = options.out.with_name(f"{options.out.stem}.classes.csv")
        write_atomically(classes, class_csv(evaluated.result["classes"]))
        print(f"  classes: {classes}")
        if options.plots and plots_available() and evaluated.result["counts"]["scored"]:
            for path in write_plots(evaluated.result, options.out, options.plot_format):
                print(f"  plot:   {path}")
    return 0 if evaluated.result["counts"]["scored"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0; 1 when nothing could be scored or anything else is wrong; 2 for wrong arguments, as a path
    to nothing; 130 after Ctrl-C."""
    return run_command(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
