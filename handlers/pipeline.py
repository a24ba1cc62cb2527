"""Requests -> scores, without TorchServe: the order of the steps, and how views of several videos share the model.

Served requests, evaluation, bulk classification and benchmarks all enter here, so what is measured is what is served.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakSet
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from handlers import __version__
from handlers.config import HandlerConfig
from handlers.decode.create import create_decoder
from handlers.decode.service import DecodeService
from handlers.errors import InternalError, InvalidConfig, InvalidLabels, InvalidOption, RequestError
from handlers.evidence import Evidence
from handlers.inference import create_inference
from handlers.model.archive_info import LABELS_FILE, ArchiveInfo, read_config
from handlers.model.labels import read_labels
from handlers.model.own_spec import spec_of
from handlers.model.runtimes import BatchedRuntime, StreamedRuntime, best_device, create_runtime
from handlers.neighbours import Activity, Neighbours
from handlers.pending import PendingVideo
from handlers.request.answer import VideoScores, aggregate
from handlers.request.budgets import Budget
from handlers.request.options import Explain, VideoRequest
from handlers.specs import EXPLAINED_FAMILIES, ModelSpec
from handlers.video.codecs import formats_of
from handlers.video.transforms import pack_pathways


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
        runtime: BatchedRuntime | StreamedRuntime,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.spec, self.labels, self.config, self.archive = spec, labels, config, archive
        self._decoder, self._runtime = decoder, runtime
        self._pack = partial(_pack, spec)
        self._neighbours = neighbours or Neighbours()
        self._evidence: WeakSet[Evidence] = WeakSet()
        self._inference = create_inference(runtime, decoder, self._pack, self._neighbours)

    @classmethod
    def from_directory(
        cls,
        model_dir: Path,
        *,
        device: str | None = None,
        videos_at_once: int | None = None,
        neighbours: Neighbours | None = None,
    ) -> VideoClassifier:
        """From an unpacked archive, on `device` ("cpu" or "cuda:N"; None: the best there is). Raises SetupErrors.

        `videos_at_once`: how many videos `classify` gets at most, where that is known; more decoding processes are not
        started. `neighbours`: other workers that share the cores, if there are any.
        """
        config = read_config(model_dir)
        archive = ArchiveInfo.read(model_dir)
        if archive.spec != config.spec:
            raise InvalidConfig(f"the archive holds {archive.spec}, but handler.spec says {config.spec}")
        spec = spec_of(model_dir, config.spec)
        labels = read_labels(model_dir / LABELS_FILE)
        if len(labels) != archive.num_classes:
            raise InvalidLabels(f"{len(labels)} labels for a model of {archive.num_classes} classes")
        neighbours = neighbours or Neighbours()
        with ExitStack() as undo:
            # The decoding processes start while the model is loaded.
            decoder = create_decoder(
                spec, config, videos_at_once=videos_at_once, others_busy=partial(_count_busy, neighbours)
            )
            undo.callback(decoder.close)
            runtime = create_runtime(spec, config, archive, model_dir, device=device or best_device(config))
            undo.callback(runtime.close)
            decoder.await_ready()
            undo.pop_all()
        return cls(
            spec=spec,
            labels=labels,
            config=config,
            archive=archive,
            decoder=decoder,
            runtime=runtime,
            neighbours=neighbours,
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

    def prepare(
        self, requests: Sequence[VideoRequest | RequestError], budgets: Sequence[Budget] | None = None
    ) -> list[PendingVideo | RequestError]:
        """Start decoding every request; failures that are already known pass through.

        `budgets` has one entry per request; requests that came in one body share theirs. Bodies that ask for few views
        are decoded first, so that a body of many views does not occupy every decoder while others run out of time.
        """
        shared: Sequence[Budget | None] = budgets or [None] * len(requests)
        pending: list[PendingVideo | RequestError | None] = [None] * len(requests)
        for index in sorted(range(len(requests)), key=lambda index: _planned_views(shared[index])):
            request = requests[index]
            pending[index] = request if isinstance(request, RequestError) else self._begin(request, shared[index])
        return [each for each in pending if each is not None]

    def score(self, pending: Sequence[PendingVideo | RequestError]) -> list[VideoScores | RequestError]:
        """Run the model on the views as they come, those of all videos together, until every video is done.

        An explanation of many views is computed a second time, when their best class is known; see `Evidence`.
        """
        scores = self._score(pending)
        again = [
            (index, self._second_look(video, first))
            for index, (video, first) in enumerate(zip(pending, scores, strict=True))
            if isinstance(video, PendingVideo) and isinstance(first, VideoScores) and _is_overfull(video)
        ]
        if again:
            for (index, _), second in zip(again, self._score([video for _, video in again]), strict=True):
                scores[index] = second
        return scores

    def _second_look(self, video: PendingVideo, scores: VideoScores) -> PendingVideo | RequestError:
        options = video.request.options
        try:
            best = int(aggregate(scores, options.average).argmax())
        except RequestError as error:
            return error
        explain = Explain(best, image=options.explain is not None and options.explain.image)
        return self._begin(replace(video.request, options=replace(options, explain=explain)), video.budget)

    def _score(self, pending: Sequence[PendingVideo | RequestError]) -> list[VideoScores | RequestError]:
        videos = [video for video in pending if isinstance(video, PendingVideo)]
        try:
            self._inference.run(sorted(videos, key=lambda video: video.started))  # the order in which decoding began
            return [self._finish(video) if isinstance(video, PendingVideo) else video for video in pending]
        except BaseException:
            for video in reversed(videos):  # otherwise their decoders would stay occupied
                self._decoder.cancel(video.job)
            raise
        finally:
            for video in videos:
                if video.evidence is not None:
                    video.evidence.let_go()

    def warm_up(self) -> None:
        """An empty clip through the model, so that the first request does not pay for what is set up then."""
        size = self.spec.crop_size
        self._runtime.logits(self._pack(np.zeros((1, 3, self.spec.num_frames, size, size), dtype=np.float32)))

    def describe(self) -> dict[str, Any]:
        """The model's description, which `GET /models/NAME?customized=true` returns."""
        formats = formats_of(self.config.codecs, self._decoder.sandbox)
        return {
            "spec": {**asdict(self.spec), "clip_duration_sec": self.spec.clip_duration_sec},
            "num_labels": len(self.labels),
            "head": self.archive.head,
            "embedding_length": self._runtime.features_length,
            "explanations": None if self._runtime.head is None else self._runtime.head.method,
            "weights": asdict(self.archive.weights),
            **self._runtime.describe(),
            "decoder": self.config.decoder,
            "isolation": self.config.isolation,
            "sandbox": list(self._decoder.sandbox),
            "codecs": {"profile": self.config.codecs, "allowed": list(formats.decoders)},
            "package_version": __version__,
            "limits": asdict(self.config.limits),
            "other_busy_workers": self.other_busy_workers,
        }

    @property
    def decoder_restarts(self) -> Mapping[str, int]:
        """How many decoding processes had to be replaced so far, by reason."""
        return self._decoder.restarts

    @property
    def other_busy_workers(self) -> int:
        """How many other workers of this model have requests now."""
        return len(self._neighbours.busy())

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Other workers of this model see for so long that this one has requests."""
        self._neighbours.set(Activity.QUICK)
        try:
            yield
        finally:
            self._neighbours.set(Activity.IDLE)

    def close(self) -> None:
        self._decoder.close()
        self._runtime.close()
        self._neighbours.close()

    def _begin(self, request: VideoRequest, budget: Budget | None) -> PendingVideo | RequestError:
        if request.options.output == "embedding" and self._runtime.features_length is None:
            return InvalidOption(
                "this model answers no embedding: its graph has no output named features; allowed: output scores"
            )
        evidence, explain, head = None, request.options.explain, self._runtime.head
        if explain is not None:
            if head is None:
                return InvalidOption(
                    "this model's answers cannot be explained: that works for the networks of the families "
                    f"{', '.join(EXPLAINED_FAMILIES)}; an archive of one of them that was packaged before explanations "
                    "has to be packaged again"
                )
            evidence = Evidence(explain, head, self.spec, self._evidence)
        started = time.perf_counter()
        job = self._decoder.submit(request.payload, request.options.sampling)
        return PendingVideo(request, job, started, budget, evidence=evidence)

    def _finish(self, video: PendingVideo) -> VideoScores | RequestError:
        if video.failure is not None:
            return video.failure
        if video.job.error is not None:
            return video.job.error
        if not video.scores or video.job.report is None:
            return InternalError("decoding gave no clip; try again")
        scores = VideoScores(
            windows=tuple(video.scores[index] for index in sorted(video.scores)),
            report=video.job.report,
            inference_ms=video.inference_sec * 1e3,
            total_ms=(time.perf_counter() - video.started) * 1e3,
            activation=self.spec.activation,
            combine=self.spec.combine,
        )
        if video.evidence is None or video.evidence.overfull:
            return scores
        try:
            best = int(aggregate(scores, video.request.options.average).argmax())
            return replace(scores, explanation=video.evidence.explanation(best))
        except RequestError as error:
            return error


def _is_overfull(video: PendingVideo) -> bool:
    return video.evidence is not None and video.evidence.overfull


def _planned_views(budget: Budget | None) -> int:
    return 0 if budget is None else budget.planned_views


def _count_busy(neighbours: Neighbours) -> int:
    return len(neighbours.busy())


def _pack(spec: ModelSpec, views: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    if spec.layout == "NT3SS":
        return [np.ascontiguousarray(views.transpose(0, 2, 1, 3, 4))]
    return [views] if spec.alpha is None else pack_pathways(views, spec.alpha)
