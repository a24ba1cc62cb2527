"""Entry point of archives whose model takes a [slow, fast] list: SlowFast."""

from __future__ import annotations

try:
    from handlers.video_handler import VideoHandler
except ImportError as error:  # TorchServe would look for another module of this file's name, and blame that one
    raise RuntimeError(f"the Python package {error.name or error} is missing; install it for TorchServe") from error


class DualPathwayHandler(VideoHandler):
    """Serves models whose fast pathway takes every frame of a view, and the slow one every alpha-th."""

    pathways = 2
