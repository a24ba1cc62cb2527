"""One TorchServe row -> the videos in it, and their answers -> the one body that goes back.

What TorchServe hands over (0.12): a raw body under `body`; multipart fields, gRPC inputs and the query parameters of
`/models/{model}/invoke` each under its name; `application/json` already parsed, `text/*` already decoded to str. Every
route reaches the handler without a service envelope, so KServe's v1 and v2 (Open Inference Protocol) are recognised by
their keys, `instances` and `inputs`.

    plain      a video and options                         the answer itself
    kserve_v1  {"instances": [...], "parameters": {}}      {"predictions": [answer, ...]}
    oip_v2     {"id", "inputs": [...], "parameters": {}}   {"model_name", "model_version", "id", "outputs": [...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal

from handlers.errors import InvalidEncoding, InvalidOption, MissingVideo, RequestError, RequestTimeout
from handlers.limits import Limits
from handlers.request.budgets import Demand, check_demand, planned_windows
from handlers.request.media_type import content_type, is_grpc, request_type
from handlers.request.options import (
    Given,
    VideoRequest,
    given_by_headers,
    given_by_name,
    kind_of,
    parse_options,
    shown,
)
from handlers.request.payloads import VIDEO_FIELDS, data_key, payload_bytes
from handlers.request.request_id import client_request_id
from handlers.request.tensors import bytes_elements, num_elements, only_element, sets_option, tensor_parameters

Form = Literal["plain", "kserve_v1", "oip_v2"]

BASE64_FIELD = "b64"
"""What KServe v1 and TensorFlow Serving call base64 text: `{"b64": "..."}`."""
OIP_OUTPUT = "predictions"
MAX_ID_CHARS = 1000
"""Length of the longest `id` that an answer repeats."""

_FORM_HELP = (
    "the body was sent as application/x-www-form-urlencoded (curl's default), which cannot hold a video; send it with "
    "curl -T FILE, curl -F data=@FILE, or name its type: -H 'Content-Type: application/octet-stream'"
)
_OTHERS = f"and the video as one of {', '.join(VIDEO_FIELDS)}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The videos of one row, in order, and how their answers are put together. A bad video is an error in its place."""

    form: Form
    requests: tuple[VideoRequest | RequestError, ...]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back for one row: the HTTP status and the body's bytes, JSON unless it was streamed in lines.

    `errors`: what went wrong with it, or with videos in it, for the log.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    errors: tuple[RequestError, ...] = ()


def parse_row(
    row: Mapping[str, object],
    headers: Mapping[str, object],
    *,
    num_classes: int,
    limits: Limits,
    explained: Sequence[str] | None = None,
) -> Envelope:
    """The row's videos with their options; raises RequestError when nothing in it can be used.

    `explained`: the model's labels if the row asks for explanations, None for predictions. If an option is given more
    than once, field or JSON key beats query, and query beats header.
    """
    if request_type(headers) == "application/x-www-form-urlencoded":
        raise InvalidEncoding(_FORM_HELP)
    reader = _Reader(given_by_headers(headers), num_classes, limits, client_request_id(headers), explained)
    envelope = _read_row(row, headers, reader)
    if any(isinstance(request, VideoRequest) and request.options.stream for request in envelope.requests):
        if is_grpc(headers):
            raise InvalidOption("stream is answered over HTTP alone; over gRPC leave it out")
        if envelope.form != "plain":
            raise InvalidOption("stream is for a body that is one video; instances and inputs are answered whole")
    return envelope


def _read_row(row: Mapping[str, object], headers: Mapping[str, object], reader: _Reader) -> Envelope:
    fields = [name for name in row if name in VIDEO_FIELDS]
    if len(fields) > 1:
        raise InvalidOption(f"the video is given {len(fields)} times, as {' and '.join(fields)}; give it once")
    around = {name: value for name, value in row.items() if name not in VIDEO_FIELDS}
    body = _parsed(row[fields[0]], content_type(headers, fields[0])) if fields else None
    reader = reader.within(around)
    if isinstance(body, Mapping):
        return reader.read_json(body)
    return reader.alone(reader.video(body, {}))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads videos with the options that hold around them."""

    given: Mapping[str, Given]
    num_classes: int
    limits: Limits
    request_id: str | None
    explained: Sequence[str] | None = None

    def within(self, entries: object, *, what: str = "parameters") -> _Reader:
        """The reader for what lies within an object that sets these options."""
        if entries is None:
            return self
        if not isinstance(entries, Mapping):
            raise InvalidOption(f"{what} must be an object of options, got {kind_of(entries)}")
        return replace(self, given={**self.given, **given_by_name(entries, others=_OTHERS)})

    def video(self, payload: object, entries: Mapping[str, object]) -> VideoRequest:
        """One video; its options first, since they are cheaper to refuse."""
        reader = self.within(entries)
        options = parse_options(
            reader.given, num_classes=self.num_classes, limits=self.limits, explained=self.explained
        )
        return VideoRequest(payload_bytes(payload, self.limits), options, self.request_id)

    def read_json(self, body: Mapping[str, object]) -> Envelope:
        if "instances" in body:
            return self._kserve_v1(body)
        if "inputs" in body:
            return self._oip_v2(body)
        return self.alone(self.json_video(body))

    def alone(self, request: VideoRequest) -> Envelope:
        """The envelope of a row that holds one video; raises InvalidOption when it asks for more than is allowed."""
        check_demand([_demand(request)], self.limits)
        return Envelope("plain", (request,))

    def json_video(self, entry: object) -> VideoRequest:
        """A JSON object with the video and its options, or the base64 text alone."""
        if isinstance(entry, str):
            return self.video(entry, {})
        if not isinstance(entry, Mapping):
            raise InvalidEncoding(f"a video must be base64 text or an object with {data_key()}, got {kind_of(entry)}")
        fields = [name for name in entry if name in (*VIDEO_FIELDS, BASE64_FIELD)]
        if len(fields) > 1:
            raise InvalidOption(f"the video is given {len(fields)} times, as {' and '.join(fields)}; give it once")
        payload = entry[fields[0]] if fields else None
        if isinstance(payload, Mapping) and set(payload) == {BASE64_FIELD}:
            payload = payload[BASE64_FIELD]
        return self.video(payload, {name: value for name, value in entry.items() if name not in fields})

    def _kserve_v1(self, body: Mapping[str, object]) -> Envelope:
        instances = _checked_list(body["instances"], "instances")
        _check_count(len(instances), self.limits)
        reader = self.within({key: value for key, value in body.items() if key not in ("instances", "parameters")})
        reader = reader.within(body.get("parameters"))
        return Envelope("kserve_v1", _caught_all([(reader, entry) for entry in instances], self.limits))

    def _oip_v2(self, body: Mapping[str, object]) -> Envelope:
        """`inputs`: tensors of base64 text whose elements are videos. A tensor named as an option sets that option."""
        tensors = _checked_list(body["inputs"], "inputs")
        _check_count(num_elements(tensors), self.limits)
        own_id = _checked_id(body.get("id"))
        reader = self.within(
            {key: value for key, value in body.items() if key not in ("id", "inputs", "parameters", "outputs")}
        )
        reader = reader.within(body.get("parameters"))
        videos: list[tuple[_Reader, object]] = []
        reader = reader.within({tensor["name"]: only_element(tensor) for tensor in tensors if sets_option(tensor)})
        for tensor in tensors:
            if not isinstance(tensor, Mapping):
                raise InvalidEncoding(f"each of inputs must be a tensor object, got {kind_of(tensor)}")
            if not sets_option(tensor):
                inner = reader.within(tensor_parameters(tensor))
                videos += [(inner, element) for element in bytes_elements(tensor)]
        if not videos:
            raise MissingVideo("inputs holds no video; give a BYTES tensor with base64 text")
        return Envelope("oip_v2", _caught_all(videos, self.limits), id=own_id)


def render_reply(
    envelope: Envelope, answers: Sequence[dict[str, Any] | list[Any] | RequestError], *, model: str, version: str
) -> Reply:
    """The answers, one per video, in the row's own form.

    The row fails as a whole when every video in it does, with the first one's error, or when its time is over.
    Otherwise a bad video among good ones is an error body in its place, and the status is 200.
    """
    errors = tuple(answer for answer in answers if isinstance(answer, RequestError))
    late = next((error for error in errors if isinstance(error, RequestTimeout)), None)
    if late is not None or len(errors) == len(answers):
        return replace(error_reply(late or errors[0]), errors=errors)
    bodies = [answer.body() if isinstance(answer, RequestError) else answer for answer in answers]
    if envelope.form == "plain":
        return Reply(HTTPStatus.OK, to_json(bodies[0]))
    if envelope.form == "kserve_v1":
        return Reply(HTTPStatus.OK, to_json({"predictions": bodies}), errors=errors)
    output = {
        "name": OIP_OUTPUT,
        "datatype": "BYTES",
        "shape": [len(bodies)],
        "data": [to_json(body).decode() for body in bodies],
    }
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "id": envelope.id, "outputs": [output]}
    if envelope.id is None:
        del answer["id"]
    return Reply(HTTPStatus.OK, to_json(answer), errors=errors)


def error_reply(error: RequestError) -> Reply:
    return Reply(error.status, to_json(error.body()), errors=(error,))


def to_json(value: object) -> bytes:
    """The value as JSON in UTF-8. A lone surrogate, which UTF-8 cannot hold, becomes JSON's own escape, `\\ud800`."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")


def _caught_all(videos: Sequence[tuple[_Reader, object]], limits: Limits) -> tuple[VideoRequest | RequestError, ...]:
    """Each video's request or error. Raises InvalidOption when all together ask for more than is allowed."""
    requests: list[VideoRequest | RequestError] = []
    demands: list[Demand] = []
    for reader, entry in videos:
        try:
            request = reader.json_video(entry)
        except RequestError as error:
            requests.append(error)
            continue
        demands.append(_demand(request))
        requests.append(request)
    check_demand(demands, limits)
    return tuple(requests)


def _demand(request: VideoRequest) -> Demand:
    """What the video is known to ask for before it is read."""
    return Demand(request.options, planned_windows(request.options.sampling))


def _parsed(value: object, media_type: str) -> object:
    """The field's value with JSON parsed, where TorchServe has not: it leaves what is not valid JSON as bytes."""
    if isinstance(value, str) and media_type.startswith("text/"):
        return value.encode(errors="surrogatepass")  # TorchServe decoded it; these are a file's bytes, not base64
    if not isinstance(value, bytes | bytearray) or not value:
        return value
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidEncoding("the body says it is JSON, but it is not valid JSON") from None
    return value


def _checked_list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidEncoding(f"{name} must be a list, got {kind_of(value)}")
    if not value:
        raise MissingVideo(f"{name} is empty; give at least one video")
    return value


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_videos:
        raise InvalidOption(f"this body holds {count} videos; at most {limits.max_videos} are allowed in one")


def _checked_id(given: object) -> str | None:
    """The request's own id, which its answer repeats; a value that is not text is ignored."""
    if not isinstance(given, str):
        return None
    if len(given) > MAX_ID_CHARS:
        raise InvalidEncoding(f"id has {len(given)} characters; at most {MAX_ID_CHARS} are allowed")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InvalidEncoding(f"id holds a character that UTF-8 cannot encode, got {shown(given)}") from None
    return given
