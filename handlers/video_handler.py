"""The adapter to TorchServe: rows and contexts in, bodies, statuses, metrics and one line of the log each out.

The only module that imports ts, but for `video_metrics`.

    preprocess    rows -> requests (request.wire), whose decoding starts at once
    inference     requests -> scores (pipeline)
    postprocess   scores -> one JSON body and one status per row (request.answer), and metrics

N rows in, N answers out, in order; whatever goes wrong with one row is that row's answer. Rows of gRPC's
StreamPredictions2, which this server's frontend cannot answer, get none.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from ts.handler_utils.utils import send_intermediate_predict_response

from handlers.batch import Batch, Outcome, failure_of, is_sequence
from handlers.cpu import cores
from handlers.errors import RequestError, SetupError
from handlers.model.archive_info import read_config, verify_package_origin
from handlers.model.own_spec import spec_of
from handlers.model.runtimes import assigned_device
from handlers.neighbours import Neighbours
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, render
from handlers.request.budgets import Budget, planned_views
from handlers.request.media_type import is_grpc
from handlers.request.options import LINES_TYPE, VideoRequest
from handlers.request.request_id import ANSWER_HEADER, client_request_id
from handlers.request.streaming import AnswerLines
from handlers.request.trace import log_line
from handlers.request.wire import Envelope, Reply, error_reply, parse_row, render_reply, to_json
from handlers.video_metrics import VideoMetrics


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


class VideoHandler(BaseHandler):  # type: ignore[misc]  # ts has no types
    """Serves one model. A subclass says how many pathways its models have."""

    pathways: ClassVar[int]
    _restarts: Mapping[str, int] = MappingProxyType({})  # of decoding processes, as far as they were counted

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
        spec = spec_of(model_dir, read_config(model_dir).spec)
        if spec.pathways != self.pathways:
            other = "dual_pathway_handler" if spec.pathways == 2 else "single_pathway_handler"
            raise SetupError(f"{spec.name} has {spec.pathways} pathway(s) and needs the entry {other}.py")
        self.device = assigned_device(properties.get("gpu_id"))
        # A batch of one row holds one video, but for KServe's bodies of several, whose videos then wait for each other.
        videos_at_once = 1 if properties.get("batch_size") == 1 else None
        self.classifier = VideoClassifier.from_directory(
            model_dir,
            device=self.device,
            videos_at_once=videos_at_once,
            neighbours=Neighbours(model_dir, cores=cores()),
        )
        self.mapping = {str(index): label for index, label in enumerate(self.classifier.labels)}
        # The name that it is registered under; an archive can be registered under any.
        self.model_name = str(context.model_name)
        self.model_version = str(context.manifest["model"].get("modelVersion", self.classifier.archive.version))
        self.classifier.warm_up()

    # The request's life ---------------------------------------------------------------------------------------------

    def handle(self, data: Sequence[Row], context: Any) -> list[bytes]:
        self._arrived = time.monotonic()
        self._metrics.under_way(len(data) + self.classifier.other_busy_workers)
        with self.classifier.serving():
            bodies: list[bytes] = super().handle(data, context)
        self._restarts = self._metrics.restarted(self.classifier.decoder_restarts, counted=self._restarts)
        return bodies

    def preprocess(self, data: Sequence[Row]) -> Batch:
        limits = self.classifier.config.limits
        deadline = time.monotonic() + limits.request_timeout_sec
        rows = [self._read_row(row, self.context.get_all_request_header(index)) for index, row in enumerate(data)]
        requests: list[VideoRequest | RequestError] = []
        budgets: list[Budget] = []
        for row in rows:
            if isinstance(row, Envelope):
                videos = [request for request in row.requests if isinstance(request, VideoRequest)]
                budget = Budget(limits, deadline, planned_views((video.options for video in videos), limits))
                requests += row.requests
                budgets += [budget] * len(row.requests)
                self._metrics.received(sum(len(video.payload) for video in videos))
        prepare = partial(self.classifier.prepare, budgets=budgets)
        batch = Batch(rows, requests, self._guarded(prepare, requests))
        batch.stream(self._lines)
        return batch

    def inference(self, data: Batch, *args: Any, **kwargs: Any) -> Batch:
        data.scores = self._guarded(self.classifier.score, data.pending)
        return data

    def postprocess(self, data: Batch) -> list[bytes]:
        bodies = []
        for index, row, videos in data.outcomes():
            if row is None:
                del self.context.request_ids[index]  # TorchServe then sends no answer to it
                bodies.append(b"")
                continue
            reply = self._reply(row, videos, data.lines.get(index)) if isinstance(row, Envelope) else row
            self._report_reply(index, reply)
            self._log(index, reply, len(videos))
            bodies.append(reply.body)
        return bodies

    def describe_handle(self) -> dict[str, Any]:
        """What `GET /models/{model}?customized=true` shows as customizedMetadata."""
        return {"model": self.model_name, "version": self.model_version, **self.classifier.describe()}

    # Each of these two would answer a whole batch for what one row asks; `_read_row` does it row by row.
    def _is_describe(self) -> bool:
        return False

    def _is_explain(self) -> bool:
        return False

    # One row --------------------------------------------------------------------------------------------------------

    def _read_row(self, row: Row, headers: Headers) -> Envelope | Reply | None:
        try:
            if is_sequence(headers):
                logger.warning("a StreamPredictions2 call gets no answer: this model takes no sequences")
                return None
            if headers.get("describe") == "True":
                return Reply(HTTPStatus.OK, to_json(self.describe_handle()))
            return parse_row(
                row,
                headers,
                num_classes=len(self.classifier.labels),
                limits=self.classifier.config.limits,
                explained=self.classifier.labels if headers.get("explain") == "True" else None,
            )
        except Exception as error:  # noqa: BLE001  a row that cannot be read must not fail others
            failure = failure_of(error)
            self._metrics.failed([failure])
            return error_reply(failure)

    def _lines(self, index: int, request: VideoRequest) -> AnswerLines:
        """The streamed answer to the row of that number."""

        def send(lines: bytes) -> None:
            self._report_reply(index, Reply(HTTPStatus.OK, lines, LINES_TYPE))
            row = {index: self.context.request_ids[index]}
            send_intermediate_predict_response({index: lines}, row, "Prediction success", 200, self.context)

        return AnswerLines(
            send,
            request.options,
            self.classifier.labels,
            model=self.model_name,
            version=self.model_version,
            spec=self.classifier.spec,
            weights=self.classifier.archive.weights.kind,
            request_id=request.request_id,
        )

    def _reply(self, row: Envelope, videos: Sequence[Outcome], lines: AnswerLines | None) -> Reply:
        """The reply to one row, or what is left of it to stream; an error while it is built becomes that reply."""
        if lines is not None:
            return self._end_of_lines(lines, *videos[0])
        answers = [self._answer(request, scores) for request, scores in videos]
        self._metrics.failed([answer for answer in answers if isinstance(answer, RequestError)])
        try:
            return render_reply(row, answers, model=self.model_name, version=self.model_version)
        except Exception as error:  # noqa: BLE001  as above
            failure = failure_of(error)
            self._metrics.failed([failure])
            return error_reply(failure)

    def _end_of_lines(
        self, lines: AnswerLines, request: VideoRequest | RequestError, scores: VideoScores | RequestError
    ) -> Reply:
        failure = next((each for each in (request, scores) if isinstance(each, RequestError)), None)
        if failure is None:
            try:
                reply = lines.end(scores)  # type: ignore[arg-type]  # it is no error
            except Exception as error:  # noqa: BLE001  as above
                failure = failure_of(error)
            else:
                self._metrics.answered(scores)  # type: ignore[arg-type]  # as above
                return reply
        self._metrics.failed([failure])
        return lines.failed(failure) if lines.begun else error_reply(failure)

    def _answer(
        self, request: VideoRequest | RequestError, scores: VideoScores | RequestError
    ) -> dict[str, Any] | list[dict[str, Any]] | RequestError:
        """One video's answer, or what went wrong."""
        if isinstance(request, RequestError):
            return request
        if isinstance(scores, RequestError):
            return scores
        try:
            answer = render(
                scores,
                request.options,
                self.classifier.labels,
                model=self.model_name,
                version=self.model_version,
                spec=self.classifier.spec,
                weights=self.classifier.archive.weights.kind,
                request_id=request.request_id,
            )
        except Exception as error:  # noqa: BLE001  as above
            return failure_of(error)
        self._metrics.answered(scores)
        return answer

    def _guarded(self, step: Callable[[Any], Sequence[Any]], items: Sequence[Any]) -> Sequence[Any]:
        """A step over all videos of the batch. They fail one by one inside it; if it raises, the server is at fault."""
        try:
            return step(items)
        except Exception as error:  # noqa: BLE001  TorchServe would answer every row with its own 503, without a body
            return [item if isinstance(item, RequestError) else failure_of(error) for item in items]

    @cached_property
    def _metrics(self) -> VideoMetrics:
        return VideoMetrics(self.context.metrics, self.model_name, self.model_version)

    def _log(self, index: int, reply: Reply, videos: int) -> None:
        """The one line that the log has about a row."""
        client_id = client_request_id(self.context.get_all_request_header(index))
        milliseconds = (time.monotonic() - self._arrived) * 1e3
        own_id = self.context.request_ids[index]
        logger.info(log_line(own_id, client_id, reply, videos=videos, milliseconds=milliseconds))

    def _report_reply(self, index: int, reply: Reply) -> None:
        """Status, type and client's id of one row's answer. gRPC carries none of them; its clients look at the body."""
        self.context.set_response_status(int(reply.status), reply.status.phrase, index)
        self.context.set_response_content_type(index, reply.content_type)
        headers = self.context.get_all_request_header(index)
        if (client_id := client_request_id(headers)) is not None:
            self.context.set_response_header(index, ANSWER_HEADER, client_id)
        if is_grpc(headers):
            # The server reads this header after a StreamPredictions call and ends the worker if it is missing; an HTTP
            # response, on the other hand, would never be finished.
            self.context.set_response_header(index, "ts_stream_next", "false")
