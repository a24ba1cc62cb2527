"""Entry point of archives whose model takes a [slow, fast] list: SlowFast."""

from __future__ import annotations

try:
    from handlers.specs import ModelSpec
    from handlers.video.transforms import pack_pathways
    from handlers.video_handler import VideoHandler, Views
except ImportError as error:  # TorchServe would look for another module of this file's name, and blame that one
    raise RuntimeError(f"the Python package {error.name or error} is missing; install it for TorchServe") from error


class DualPathwayHandler(VideoHandler):
    """The fast pathway is every frame, the slow one every alpha-th."""

    pathways = 2

    def pack(self, views: Views, *, spec: ModelSpec) -> list[Views]:
        assert spec.alpha is not None  # the spec of a model with two pathways has one
        return pack_pathways(views, spec.alpha)
