"""The served models: `python -m scripts.models list`: `video-models` for this repository's server."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from serving.connection import repository_defaults
from video_action_client.commands import models


def main(arguments: Sequence[str] | None = None) -> int:
    return models.main(arguments, prog="python -m scripts.models", defaults=repository_defaults())


if __name__ == "__main__":
    sys.exit(main())
