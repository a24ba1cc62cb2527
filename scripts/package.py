"""Package a model into an archive that stock TorchServe serves: `python -m scripts.package SPEC`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from handlers.errors import SetupError, UnknownSpec
from handlers.specs import SPECS
from serving.download import DownloadError
from serving.package_options import PRECISIONS, RUNTIMES, PackageOptions
from serving.settings import given_settings

_EXAMPLES = """\
examples:
  python -m scripts.package x3d_s
      the published Kinetics-400 weights, downloaded once -> model_store/x3d_s.mar
  python -m scripts.package x3d_s --checkpoint runs/best.pth --labels my_labels.txt --name gestures
      your own fine-tuned model: a pytorchvideo, MMAction2 (X3D) or PySlowFast file; any number of classes
  python -m scripts.package my_model.yaml --checkpoint best.pth --labels my_labels.txt
      a spec of your own: a network that is known here with other preprocessing or a sigmoid (docs/your-own-model.md)
  python -m scripts.package path/to/hf_model_folder --name mine
      a Hugging Face VideoMAE, TimeSformer, ViViT or V-JEPA 2 classifier (pip install -r requirements/huggingface.txt)
  python -m scripts.package slowfast_r50 --version 2.0 --runtime eager --precision bfloat16
  python -m scripts.package x3d_s --version 2.0 --file x3d_s-2.0.mar
      another version beside model_store/x3d_s.mar, to be registered while the first one serves
  python -m scripts.package x3d_s --set handler.limits.max_video_sec=600 --set batchSize=4
      other settings than the defaults; python -m scripts.settings shows and changes them later
  python -m scripts.package x3d_xs --weights random --seed 1 --force
      no download and no meaning: for tests

specs: {specs}
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.package",
        description="Package a video action model into a .mar archive that stock TorchServe serves.",
        epilog=_EXAMPLES.format(specs=", ".join(SPECS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "spec",
        metavar="SPEC",
        help="the model: architecture and preprocessing (listed below), a spec file of yours, my_model.yaml, or the "
        "folder of a Hugging Face model",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint",
        metavar="FILE_OR_URL",
        help="your own weights: a pytorchvideo, MMAction2 (X3D) or PySlowFast checkpoint, or a .safetensors file",
    )
    weights.add_argument(
        "--weights",
        choices=("published", "random"),
        default="published",
        help="published: the spec's own, cached below torch hub's folder (default); random: for tests",
    )
    parser.add_argument(
        "--key", help="where in the checkpoint file its state dict is, as in ema_state (default: where it usually is)"
    )
    parser.add_argument(
        "--strip-prefix",
        metavar="PREFIX",
        help="take the checkpoint's entries that begin so, without it, as in student. (default: common prefixes)",
    )
    parser.add_argument("--seed", type=int, help="seed of random weights (default 0)")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="class names: one a line, or JSON id -> name or name -> id (default: the spec's own)",
    )
    parser.add_argument("--name", help="model name, and the archive's: NAME.mar (default: the spec's name)")
    parser.add_argument("--file", metavar="NAME.mar", help="the archive's file name, where it is not the model's")
    parser.add_argument("--version", default="1.0", help="model version, numbers and dots (default 1.0)")
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="what runs the model in a worker (default auto: OpenVINO on a CPU where it is installed, else torch)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="arithmetic of the model (default float32, exact)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="a setting of model-config.yaml, as in batchSize=4 or handler.limits.max_video_sec=600; "
        "may be given several times",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a YAML file with such settings; --set goes over it"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("model_store"),
        help="where to write (default model_store)",
    )
    parser.add_argument("--force", action="store_true", help="replace an archive of that name")
    parser.add_argument("--offline", action="store_true", help="never download; use what is cached")
    return parser


def _options(argv: Sequence[str] | None) -> PackageOptions:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.seed is not None and arguments.weights != "random":
        parser.error("--seed belongs to --weights random")
    if arguments.checkpoint is None and (arguments.key is not None or arguments.strip_prefix is not None):
        parser.error("--key and --strip-prefix belong to --checkpoint")
    if arguments.seed is not None and arguments.seed < 0:
        parser.error(f"--seed must not be negative, got {arguments.seed}")
    return PackageOptions(
        spec=arguments.spec,
        checkpoint=arguments.checkpoint,
        key=arguments.key,
        strip_prefix=arguments.strip_prefix,
        labels=arguments.labels,
        name=arguments.name,
        file=arguments.file,
        version=arguments.version,
        runtime=arguments.runtime,
        precision=arguments.precision,
        weights=arguments.weights,
        seed=arguments.seed or 0,
        output=arguments.output,
        force=arguments.force,
        offline=arguments.offline,
        progress=sys.stderr.isatty(),
        settings=given_settings(arguments.config, arguments.assignments),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 for what the command line got wrong, 1 for everything else, 130 after Ctrl-C."""
    # A terminated process cleans up behind itself as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        options = _options(argv)
        # Here, because it imports torch: --help and a mistyped option shall not wait for that.
        from serving.package import package, summary

        print(summary(package(options)))
    except (SetupError, DownloadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnknownSpec) else 1
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
