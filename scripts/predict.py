"""What is in these videos? `python -m scripts.predict VIDEO...`: `video-predict` for this repository's server."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from serving.connection import repository_defaults
from video_action_client.commands import predict


def main(arguments: Sequence[str] | None = None) -> int:
    return predict.main(arguments, prog="python -m scripts.predict", defaults=repository_defaults())


if __name__ == "__main__":
    sys.exit(main())
