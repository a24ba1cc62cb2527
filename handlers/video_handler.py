"""The adapter to TorchServe: rows and contexts in, bodies, statuses and metrics out. The only module that imports ts.

    preprocess    rows -> requests (envelopes), whose decoding starts at once
    inference     requests -> scores (pipeline)
    postprocess   scores -> one JSON body and one status per row (results), and metrics

N rows in, N answers out, in order; whatever goes wrong with one row is that row's answer.
"""

from __future__ import annotations

import logging
import sys
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

from handlers.archive import verify_package_origin
from handlers.envelopes import Envelope, Reply, error_reply, parse_row, render_reply, to_json
from handlers.errors import InternalError, InvalidOption, RequestError, SetupError
from handlers.inference import PendingVideo
from handlers.options import VideoRequest
from handlers.pipeline import VideoClassifier, read_config
from handlers.results import VideoScores, render
from handlers.specs import ModelSpec


@contextmanager
def _without_compiler() -> Iterator[None]:
    """TorchServe's handler cannot import torch.compile's OpenVINO backend meanwhile, unless that is there already.

    With it come all of torch's compiler and more than four seconds, half of the time until a worker is ready. Nothing
    here uses it; that it is missing is said as "OpenVINO is not enabled", which would mislead.
    """
    name, log = "openvino.torch", logging.getLogger("ts.torch_handler.base_handler")
    if name in sys.modules:
        yield
        return
    level = log.level
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        del sys.modules[name]


with _without_compiler():
    from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)

Row = Mapping[str, object]
Headers = Mapping[str, object]
Views = NDArray[np.float32]


@dataclass(slots=True)
class Batch:
    """One call's rows on their way: a row is an envelope of videos, or already has its reply.

    `requests`, `pending` and `scores` hold the videos of all envelopes, in order.
    """

    rows: list[Envelope | Reply]
    requests: list[VideoRequest | RequestError]
    pending: Sequence[PendingVideo | RequestError]
    scores: Sequence[VideoScores | RequestError] = ()


class VideoHandler(BaseHandler):  # type: ignore[misc]  # ts has no types
    """Serves one model. A subclass says how many pathways its models have, and how views become their inputs."""

    pathways: ClassVar[int]

    @abstractmethod
    def pack(self, views: Views, *, spec: ModelSpec) -> list[Views]:
        """Views (N, 3, T, S, S) -> the model's inputs, one array per pathway."""

    def initialize(self, context: Any) -> None:
        """Load the model; raises a SetupError of one sentence when it cannot be served."""
        try:
            self._load(context)
        except ImportError as error:
            raise SetupError(
                f"the Python package {error.name or error} is missing; install it for TorchServe"
            ) from error
        self.initialized = True

    def _load(self, context: Any) -> None:
        self.context, self.manifest = context, context.manifest
        properties = context.system_properties
        model_dir = Path(properties["model_dir"])
        verify_package_origin(model_dir)
        spec = read_config(model_dir).model_spec
        if spec.pathways != self.pathways:
            other = "dual_pathway_handler" if spec.pathways == 2 else "single_pathway_handler"
            raise SetupError(f"{spec.name} has {spec.pathways} pathway(s) and needs the entry {other}.py")
        gpu_id = properties.get("gpu_id")
        self.device = f"cuda:{gpu_id}" if torch.cuda.is_available() and gpu_id is not None else "cpu"
        self.classifier = VideoClassifier.from_directory(
            model_dir, device=self.device, pack=partial(self.pack, spec=spec)
        )
        self.mapping = {str(index): label for index, label in enumerate(self.classifier.labels)}
        # The name that it is registered under; an archive can be registered under any.
        self.model_name = str(context.model_name)
        self.model_version = str(context.manifest["model"].get("modelVersion", self.classifier.archive.version))
        self.classifier.warm_up()

    # The request's life ---------------------------------------------------------------------------------------------

    def preprocess(self, data: Sequence[Row]) -> Batch:
        rows = [self._read_row(row, self.context.get_all_request_header(index)) for index, row in enumerate(data)]
        requests = [request for row in rows if isinstance(row, Envelope) for request in row.requests]
        for request in requests:
            if isinstance(request, VideoRequest):
                self._count("VideoBytesReceived", len(request.payload), "bytes")
        return Batch(rows, requests, self._guarded(self.classifier.prepare, requests))

    def inference(self, data: Batch, *args: Any, **kwargs: Any) -> Batch:
        data.scores = self._guarded(self.classifier.score, data.pending)
        return data

    def postprocess(self, data: Batch) -> list[bytes]:
        videos = iter(zip(data.requests, data.scores, strict=True))
        replies = []
        for row in data.rows:
            if isinstance(row, Envelope):
                answers = [self._answer(*next(videos)) for _ in row.requests]
                row = render_reply(row, answers, model=self.model_name, version=self.model_version)
            replies.append(row)
        for index, reply in enumerate(replies):
            self._report_reply(index, reply)
        return [reply.body for reply in replies]

    def describe_handle(self) -> dict[str, Any]:
        """What `GET /models/{model}?customized=true` shows as customizedMetadata."""
        return {"model": self.model_name, "version": self.model_version, **self.classifier.describe()}

    # Each of these two would answer a whole batch for what one row asks; `_read_row` does it row by row.
    def _is_describe(self) -> bool:
        return False

    def _is_explain(self) -> bool:
        return False

    # One row --------------------------------------------------------------------------------------------------------

    def _read_row(self, row: Row, headers: Headers) -> Envelope | Reply:
        if headers.get("describe") == "True":
            return Reply(HTTPStatus.OK, to_json(self.describe_handle()))
        try:
            if headers.get("explain") == "True":
                raise InvalidOption("this model explains nothing; send the video to /predictions")
            return parse_row(
                row, headers, num_classes=len(self.classifier.labels), limits=self.classifier.config.limits
            )
        except Exception as error:  # noqa: BLE001  a row that cannot be read must not fail its neighbours
            return error_reply(self._failure(error))

    def _answer(
        self, request: VideoRequest | RequestError, scores: VideoScores | RequestError
    ) -> dict[str, Any] | list[dict[str, Any]] | RequestError:
        """One video's answer, or what went wrong."""
        try:
            if isinstance(request, RequestError):
                raise request
            if isinstance(scores, RequestError):
                raise scores
            answer = render(
                scores,
                request.options,
                self.classifier.labels,
                model=self.model_name,
                version=self.model_version,
                spec=self.classifier.spec,
            )
        except Exception as error:  # noqa: BLE001  as above
            return self._failure(error)
        self._report_times(scores)
        return answer

    def _guarded(self, step: Callable[[Any], Sequence[Any]], items: Sequence[Any]) -> Sequence[Any]:
        """A step over all videos of the batch. They fail one by one inside it; if it raises, the server is at fault."""
        try:
            return step(items)
        except Exception as error:  # noqa: BLE001  TorchServe would answer every row with its own 503, without a body
            return [item if isinstance(item, RequestError) else _unexpected(error) for item in items]

    def _failure(self, error: Exception) -> RequestError:
        """What the client is told, counted by type."""
        failure = error if isinstance(error, RequestError) else _unexpected(error)
        self._count("VideoRequestErrors", 1, "count", error_type=failure.type)
        return failure

    def _report_reply(self, index: int, reply: Reply) -> None:
        """Status and type of one row's answer. gRPC carries neither; its clients look at the body."""
        self.context.set_response_status(int(reply.status), reply.status.phrase, index)
        self.context.set_response_content_type(index, "application/json")
        headers = self.context.get_all_request_header(index)
        if not any(isinstance(value, str) for value in headers.values()):
            # A gRPC row: it has fields, but no headers. The server reads this one after a StreamPredictions call and
            # ends the worker if it is missing; an HTTP response, on the other hand, would never be finished.
            self.context.set_response_header(index, "ts_stream_next", "false")

    # Metrics; names, units and dimensions are those of metrics.yaml -------------------------------------------------

    def _report_times(self, scores: VideoScores) -> None:
        for name, milliseconds in (
            ("VideoDecodeTime", scores.report.decode_ms),
            ("VideoTransformTime", scores.report.transform_ms),
            ("VideoInferenceTime", scores.inference_ms),
            ("VideoTotalTime", scores.total_ms),
        ):
            self._add_metric(name, round(milliseconds / 1e3, 6), "s", MetricTypes.HISTOGRAM)
        self._count("VideoFramesDecoded", scores.report.frames_decoded, "count")

    def _count(self, name: str, value: int, unit: str, *, error_type: str | None = None) -> None:
        self._add_metric(name, value, unit, MetricTypes.COUNTER, error_type=error_type)

    def _add_metric(
        self, name: str, value: float, unit: str, kind: MetricTypes, *, error_type: str | None = None
    ) -> None:
        # All dimensions, in the declared order: TorchServe matches values to names by position.
        dimensions = [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]
        if error_type is not None:
            dimensions.append(Dimension("ErrorType", error_type))
        self.context.metrics.add_metric(name, value, unit, dimensions=dimensions, metric_type=kind)


def _unexpected(error: Exception) -> InternalError:
    """For the client one sentence; for the log what and where, without values: they may be a stranger's or a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
    logger.error("a request failed unexpectedly: %s in %s", type(error).__name__, where)
    return InternalError("the server failed on this request; try again")
