"""The decoder that a model's settings name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from handlers.config import HandlerConfig
from handlers.cpu import cores
from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeService
from handlers.decode.threads import ThreadDecodeService
from handlers.errors import InvalidConfig
from handlers.specs import ModelSpec
from handlers.video.codecs import formats_of


def create_decoder(
    spec: ModelSpec,
    config: HandlerConfig,
    *,
    videos_at_once: int | None = None,
    others_busy: Callable[[], int] | None = None,
) -> DecodeService:
    """The decoder that the configuration names; its processes have been started, `await_ready` waits for them.

    `videos_at_once`: how many there are at most, where that is known. `others_busy`: how many other workers of the
    model have requests now.
    """
    workers = config.decode_processes or min(cores(), videos_at_once or cores())
    if config.decodes_in_processes:
        return ProcessDecodeService(
            spec,
            config.limits,
            processes=workers,
            cores=config.decode_processes or cores(),
            others_busy=others_busy,
            autorotate=config.autorotate,
            sandbox=config.sandbox,
            codecs=config.codecs,
            one_job_each=config.isolation == "request",
            ready=False,
        )
    return _decode_in_threads(spec, config, workers)


def _decode_in_threads(spec: ModelSpec, config: HandlerConfig, workers: int) -> DecodeService:
    """Imports FFmpeg's libraries, which a server that decodes in processes of their own does without."""
    formats = formats_of(config.codecs, ())  # no process is confined
    if config.decoder == "encoded_video":
        if not spec.follows_recipe:
            raise InvalidConfig(
                f"decoder: encoded_video is PyTorchVideo's recipe, and {spec.name} has preprocessing of its own; "
                "use decoder: sampled"
            )
        from handlers.video.recipe import EncodedVideoReader  # pytorchvideo's data package is slow to import

        return ThreadDecodeService(
            partial(EncodedVideoReader, spec=spec, limits=config.limits, formats=formats), workers=1
        )
    from handlers.video.view_reader import VideoReader

    read = partial(
        VideoReader, spec=spec, limits=config.limits, autorotate=config.autorotate, allocate=_empty, formats=formats
    )
    return ThreadDecodeService(read, workers=workers)


def _empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.empty(shape, dtype=np.float32)
