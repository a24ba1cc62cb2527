"""Entry point of archives whose model takes one tensor: X3D and Slow."""

from __future__ import annotations

try:
    from handlers.video_handler import VideoHandler
except ImportError as error:  # TorchServe would look for another module of this file's name, and blame that one
    raise RuntimeError(f"the Python package {error.name or error} is missing; install it for TorchServe") from error


class SinglePathwayHandler(VideoHandler):
    """Serves models whose input is the views themselves."""

    pathways = 1
