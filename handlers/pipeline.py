"""Requests -> scores, without TorchServe: the order of the steps, and how views of several videos share the model.

Served requests, evaluation, bulk classification and benchmarks all enter here, so what is measured is what is served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import yaml
from numpy.typing import NDArray

from handlers.archive import CONFIG_FILE, LABELS_FILE, ArchiveInfo
from handlers.assembly import VideoReader
from handlers.config import HandlerConfig
from handlers.decode_service import DecodeJob, DecodeService, Delivery, ThreadDecodeService
from handlers.errors import InternalError, InvalidConfig, InvalidLabels, RequestError
from handlers.isolation import ProcessDecodeService
from handlers.labels import read_labels
from handlers.options import VideoRequest
from handlers.results import VideoScores, WindowScores
from handlers.runtimes import Runtime, cores, create_runtime
from handlers.specs import ModelSpec
from handlers.transforms import pack_pathways
from handlers.version import __version__

logger = logging.getLogger(__name__)

Pack = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Views (N, 3, T, S, S) -> the model's pathways, one array each."""


@dataclass(slots=True)
class PendingVideo:
    """A video that is being decoded, and the scores of the windows that came so far."""

    request: VideoRequest
    job: DecodeJob
    started: float
    scores: dict[int, WindowScores] = field(default_factory=dict)
    inference_sec: float = 0.0
    failure: RequestError | None = None

    @property
    def ended(self) -> bool:
        return self.job.ended or self.failure is not None


class VideoClassifier:
    """One model, ready: its decoder, its runtime and its labels.

    `classify` is `prepare` (decoding starts) and `score` (the model runs): N requests in, N results out, in order. A
    failure is a value in its request's place.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        labels: tuple[str, ...],
        config: HandlerConfig,
        archive: ArchiveInfo,
        decoder: DecodeService,
        runtime: Runtime,
        pack: Pack | None = None,
    ) -> None:
        self.spec, self.labels, self.config, self.archive = spec, labels, config, archive
        self._decoder, self._runtime = decoder, runtime
        self._pack = pack or partial(_pack, spec)

    @classmethod
    def from_directory(cls, model_dir: Path, *, device: str | None = None, pack: Pack | None = None) -> VideoClassifier:
        """From an unpacked archive, on `device` ("cpu" or "cuda:N"; None: CPU). Raises SetupErrors."""
        config = read_config(model_dir)
        archive = ArchiveInfo.read(model_dir)
        if archive.spec != config.spec:
            raise InvalidConfig(f"the archive holds {archive.spec}, but handler.spec says {config.spec}")
        spec = config.model_spec
        labels = read_labels(model_dir / LABELS_FILE)
        if len(labels) != archive.num_classes:
            raise InvalidLabels(f"{len(labels)} labels for a model of {archive.num_classes} classes")
        runtime = create_runtime(spec, config, archive, model_dir, device=device or "cpu")
        decoder = create_decoder(spec, config)
        return cls(
            spec=spec, labels=labels, config=config, archive=archive, decoder=decoder, runtime=runtime, pack=pack
        )

    @classmethod
    @contextmanager
    def from_archive(cls, archive: Path, *, device: str | None = None) -> Iterator[VideoClassifier]:
        """From a .mar file, unpacked into a temporary folder for as long as the context lasts."""
        with TemporaryDirectory(prefix="archive-") as folder:
            try:
                with ZipFile(archive) as zipped:
                    zipped.extractall(folder)
            except (BadZipFile, OSError) as error:
                raise InvalidConfig(f"{archive.name} is not a readable model archive: {error}") from error
            classifier = cls.from_directory(Path(folder), device=device)
            try:
                yield classifier
            finally:
                classifier.close()

    def classify(self, requests: Sequence[VideoRequest | RequestError]) -> list[VideoScores | RequestError]:
        return self.score(self.prepare(requests))

    def prepare(self, requests: Sequence[VideoRequest | RequestError]) -> list[PendingVideo | RequestError]:
        """Start decoding every request; failures that are already known pass through."""
        return [request if isinstance(request, RequestError) else self._begin(request) for request in requests]

    def score(self, pending: Sequence[PendingVideo | RequestError]) -> list[VideoScores | RequestError]:
        """Run the model on the views as they come, those of all videos together, until every video is done."""
        videos = [video for video in pending if isinstance(video, PendingVideo)]
        while ready := self._gather(videos):
            self._run(ready, alone=all(video.ended or video is ready[0].video for video in videos))
        return [self._finish(video) if isinstance(video, PendingVideo) else video for video in pending]

    def warm_up(self) -> None:
        """One forward with an empty clip, so that the first request does not pay for it."""
        size = self.spec.crop_size
        self._runtime.logits(self._pack(np.zeros((1, 3, self.spec.num_frames, size, size), dtype=np.float32)))

    def describe(self) -> dict[str, Any]:
        """What `GET /models/NAME?customized=true` tells about the model."""
        return {
            "spec": {**asdict(self.spec), "clip_duration_sec": self.spec.clip_duration_sec},
            "num_labels": len(self.labels),
            "head": self.archive.head,
            "weights": asdict(self.archive.weights),
            **self._runtime.describe(),
            "decoder": self.config.decoder,
            "isolation": self.config.isolation,
            "package_version": __version__,
            "limits": asdict(self.config.limits),
        }

    def close(self) -> None:
        self._decoder.close()
        self._runtime.close()

    def _begin(self, request: VideoRequest) -> PendingVideo:
        started = time.perf_counter()
        return PendingVideo(request, self._decoder.submit(request.payload, request.options.sampling), started)

    def _gather(self, videos: Sequence[PendingVideo]) -> list[_Ready]:
        """Views to run next; empty when every video is done.

        Where views are computed one by one, any view is worth running at once. Elsewhere a batch is filled first, and
        views leave the decoder's memory meanwhile, so that it can go on.
        """
        ready: list[_Ready] = []
        while True:
            for video in videos:
                while video.job.deliveries:
                    ready.append(_Ready(video, video.job.deliveries.popleft()))
            if ready and self._runtime.runs_singly:
                return ready
            for one in ready:
                one.detach()
            decoding = any(not video.ended for video in videos)
            if not decoding or sum(len(one.views) for one in ready) >= self._runtime.max_batch:
                return ready
            self._decoder.wait()

    def _run(self, ready: Sequence[_Ready], *, alone: bool) -> None:
        """The model on these views, `alone` or beside decoders; a failure fails the videos they belong to, no other."""
        started = time.perf_counter()
        views = ready[0].views if len(ready) == 1 else np.concatenate([one.views for one in ready])
        try:
            logits = self._logits(views, alone=alone)
        except Exception as error:  # noqa: BLE001  whatever the runtime raises, the server is at fault
            logger.error("the model failed on %d views: %s", len(views), type(error).__name__)
            for one in ready:
                self._give_up(one.video)
            return
        finally:
            for one in ready:
                one.release()
        elapsed, at = time.perf_counter() - started, 0
        for one in ready:
            window = one.window
            one.video.scores[window.index] = WindowScores(window.window, logits[at : at + len(one.views)])
            at += len(one.views)
        for video in {id(one.video): one.video for one in ready}.values():
            video.inference_sec += elapsed

    def _logits(self, views: NDArray[np.float32], *, alone: bool) -> NDArray[np.float32]:
        size = len(views) if self._runtime.runs_singly else self._runtime.max_batch
        parts = [views[at : at + size] for at in range(0, len(views), size)]
        return np.concatenate([self._runtime.logits(self._pack(part), alone=alone) for part in parts])

    def _give_up(self, video: PendingVideo) -> None:
        video.failure = InternalError("the model failed on this video; try again")
        self._decoder.cancel(video.job)

    def _finish(self, video: PendingVideo) -> VideoScores | RequestError:
        if video.failure is not None:
            return video.failure
        if video.job.error is not None:
            return video.job.error
        if not video.scores or video.job.report is None:
            return InternalError("decoding gave no clip; try again")
        return VideoScores(
            windows=tuple(video.scores[index] for index in sorted(video.scores)),
            report=video.job.report,
            inference_ms=video.inference_sec * 1e3,
            total_ms=(time.perf_counter() - video.started) * 1e3,
        )


class _Ready:
    """One window's views on their way to the model."""

    def __init__(self, video: PendingVideo, delivery: Delivery) -> None:
        self.video, self.window = video, delivery.window
        self.views = delivery.window.views
        self._release: Callable[[], None] | None = delivery.release

    def detach(self) -> None:
        """Copy the views, so that the decoder gets its memory back."""
        if self._release is not None:
            self.views = self.views.copy()
            self.release()

    def release(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None


def read_config(model_dir: Path) -> HandlerConfig:
    """The `handler:` section of an unpacked archive's model-config.yaml; raises InvalidConfig."""
    try:
        content = yaml.safe_load((model_dir / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidConfig(f"the archive has no readable {CONFIG_FILE}: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise InvalidConfig(f"{CONFIG_FILE} holds no settings")
    return HandlerConfig.from_mapping(content.get("handler"))


def create_decoder(spec: ModelSpec, config: HandlerConfig) -> DecodeService:
    """The decoder that the configuration names, with its processes or threads started."""
    workers = config.decode_processes or cores()
    if config.decoder == "encoded_video":
        from handlers.encoded_video import EncodedVideoReader  # pytorchvideo's data package is slow to import

        return ThreadDecodeService(partial(EncodedVideoReader, spec=spec, limits=config.limits), workers=1)
    if config.isolation == "process":
        return ProcessDecodeService(spec, config.limits, processes=workers, autorotate=config.autorotate)
    return ThreadDecodeService(partial(_read_video, spec=spec, config=config), workers=workers)


def _read_video(payload: bytes | memoryview, *, spec: ModelSpec, config: HandlerConfig) -> VideoReader:
    return VideoReader(payload, spec, config.limits, autorotate=config.autorotate, allocate=_empty)


def _empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.empty(shape, dtype=np.float32)


def _pack(spec: ModelSpec, views: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [views] if spec.alpha is None else pack_pathways(views, spec.alpha)
