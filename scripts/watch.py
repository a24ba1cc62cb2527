"""What happens now? `python -m scripts.watch SOURCE --model NAME`: `video-watch` for this repository's server."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from serving.connection import repository_defaults
from video_action_client.commands import watch


def main(arguments: Sequence[str] | None = None) -> int:
    return watch.main(arguments, prog="python -m scripts.watch", defaults=repository_defaults())


if __name__ == "__main__":
    sys.exit(main())
