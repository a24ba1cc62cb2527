"""Write docs/openapi.json, the OpenAPI description of requests and answers, from the option table and the error tree.

python -m scripts.openapi          writes docs/openapi.json
python -m scripts.openapi --check  exits with 1 when it is not what would be written
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from handlers import __version__
from handlers.errors import REQUEST_ERRORS
from handlers.model.archive_info import WeightsKind
from handlers.request.option_table import OPTIONS, OptionSpec
from handlers.request.payloads import VIDEO_FIELDS
from handlers.request.request_id import HEADER
from handlers.request.wire import MAX_ID_CHARS, OIP_OUTPUT

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"

Json = dict[str, Any]


def document() -> Json:
    """The whole description, OpenAPI 3.0.3."""
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "x3d_s"}
    version = {**model, "name": "version", "example": "1.0"}
    options = [_ref("parameters", option.header) for option in OPTIONS.values() if not option.explains]
    queries = [_ref("parameters", option.name) for option in OPTIONS.values() if not option.explains]
    explained = [_ref("parameters", option.header) for option in OPTIONS.values()]
    explain = {"requestBody": _ref("requestBodies", "ExplainedVideo"), "responses": _responses("Explanation")}
    plain = {"requestBody": _ref("requestBodies", "Video"), "responses": _responses("Answer")}
    routes: list[tuple[str, list[Json], Json]] = [
        ("/predictions/{model}", [model, *options], {"operationId": "predict", **plain}),
        ("/predictions/{model}/{version}", [model, version, *options], {"operationId": "predictVersion", **plain}),
        ("/explanations/{model}", [model, *explained], {"operationId": "explain", **explain}),
        ("/explanations/{model}/{version}", [model, version, *explained], {"operationId": "explainVersion", **explain}),
        ("/models/{model}/invoke", [model, *options, *queries], {"operationId": "invoke", **plain}),
        (
            "/v1/models/{model}:predict",
            [model, *options],
            {
                "operationId": "predictKServeV1",
                "requestBody": _ref("requestBodies", "Instances"),
                "responses": _responses("Predictions"),
            },
        ),
        (
            "/v2/models/{model}/infer",
            [model, *options],
            {
                "operationId": "inferOpenInferenceProtocol",
                "requestBody": _ref("requestBodies", "Tensors"),
                "responses": _responses("OutputTensors"),
            },
        ),
    ]
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Video action recognition on TorchServe",
            "version": __version__,
            "description": "What a model of this repository takes and answers, on every route of the inference API. "
            "docs/protocol.md says the same in words.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{"token": []}],
        "paths": {path: {"parameters": parameters, "post": call} for path, parameters, call in routes},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": _parameters(),
            "requestBodies": _request_bodies(),
            "responses": {"Error": _json_content("What was wrong, what was got and what is allowed.", "Error")},
            "schemas": _schemas(),
        },
    }


def render() -> str:
    return json.dumps(document(), indent=2) + "\n"


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _schema_ref(name: str) -> Json:
    return _ref("schemas", name)


def _json_content(description: str, schema: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": _schema_ref(schema)}}}


def option_schema(option: OptionSpec) -> Json:
    """The JSON schema of one option's value. Bounds that depend on the model are said in words."""
    kinds = {"choice": "string", "share": "number", "class": "string"}
    schema: Json = {"type": kinds.get(option.kind, option.kind)}
    if option.choices:
        schema["enum"] = list(option.choices)
    if option.minimum is not None:
        schema["minimum"] = option.minimum
    if option.exclusive_minimum:
        schema["exclusiveMinimum"] = True
    if option.maximum is not None:
        schema["maximum"] = option.maximum
    bound = {"num_classes": " At most the number of classes.", "max_windows": " At most the limit max_windows."}
    bound["last_class"] = " An id is below the number of classes."
    schema["description"] = option.help + (bound[option.maximum_is] if option.maximum_is else "")
    schema["description"] += f" Default: {option.default}."
    return schema


def _option_properties(*, explains: bool = False) -> Json:
    return {name: option_schema(option) for name, option in OPTIONS.items() if explains or not option.explains}


def _parameters() -> Json:
    found: Json = {}
    for option in OPTIONS.values():
        schema = option_schema(option)
        description = schema.pop("description")
        common = {"required": False, "description": description, "schema": schema}
        found[option.header] = {"name": option.header, "in": "header", **common}
        found[option.name] = {"name": option.name, "in": "query", **common}
    return found


def _video_body(schema: str, *, explains: bool) -> Json:
    form = {
        "type": "object",
        "properties": {
            VIDEO_FIELDS[0]: {"type": "string", "format": "binary"},
            **_option_properties(explains=explains),
        },
        "required": [VIDEO_FIELDS[0]],
        "additionalProperties": False,
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "application/octet-stream": raw,
            "video/*": raw,
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": _schema_ref(schema)},
        },
    }


def _request_bodies() -> Json:
    return {
        "Video": _video_body("Video", explains=False),
        "ExplainedVideo": _video_body("ExplainedVideo", explains=True),
        "Instances": {"required": True, "content": {"application/json": {"schema": _schema_ref("Instances")}}},
        "Tensors": {"required": True, "content": {"application/json": {"schema": _schema_ref("InputTensors")}}},
    }


def _responses(answer: str) -> Json:
    statuses = sorted({int(error.status) for error in REQUEST_ERRORS.values()})
    return {
        "200": _json_content("The answer.", answer),
        **{str(status): _ref("responses", "Error") for status in statuses},
    }


def _object(properties: Json, *, optional: Sequence[str] = ()) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _array(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def _schemas() -> Json:
    return {**_request_schemas(), **_answer_schemas()}


def _request_schemas() -> Json:
    text = {"type": "string", "description": "The video file, base64; data:...;base64, in front is allowed."}
    video = {
        "type": "object",
        "properties": {VIDEO_FIELDS[0]: text, **_option_properties()},
        "required": [VIDEO_FIELDS[0]],
        "additionalProperties": False,
    }
    options = {"type": "object", "properties": _option_properties(), "additionalProperties": False}
    tensor = _object(
        {
            "name": {"type": "string"},
            "datatype": {"type": "string", "enum": ["BYTES"]},
            "shape": _array({"type": "integer", "minimum": 0}),
            "data": _array(text, minItems=1),
            "parameters": {"type": "object"},
        },
        optional=("shape", "parameters"),
    )
    explained = {**video, "properties": {VIDEO_FIELDS[0]: text, **_option_properties(explains=True)}}
    return {
        "Video": video,
        "ExplainedVideo": explained,
        "Options": options,
        "Instances": _object(
            {
                "instances": _array({"oneOf": [text, _schema_ref("Video")]}, minItems=1),
                "parameters": _schema_ref("Options"),
            },
            optional=("parameters",),
        ),
        "InputTensors": _object(
            {
                "id": {"type": "string", "maxLength": MAX_ID_CHARS},
                "inputs": _array(tensor, minItems=1),
                "parameters": _schema_ref("Options"),
            },
            optional=("id", "parameters"),
        ),
    }


def _explanation_schema(span: Json, share: Json) -> Json:
    number, string = {"type": "number"}, {"type": "string"}
    crop = _object(dict.fromkeys(("left", "top", "width", "height"), number))
    each = _object({"time_sec": number, "weight": share, "heatmap": _array(_array(share)), "crop": crop})
    return {
        **_object(
            {
                "label": string,
                "class_id": {"type": "integer"},
                "score": share,
                "method": {"type": "string", "enum": ["cam", "grad_cam"]},
                "times": _array(_object({**span, "weight": share})),
                "maps": _array(each),
                "pathways": _object({"slow": _array(each), "fast": _array(each)}),
                "image": {"type": "string", "description": "A PNG picture, base64."},
            },
            optional=("pathways", "image"),
        ),
        "description": "With the format full also what a prediction in that format has.",
    }


def _answer_schemas() -> Json:
    number, string, integer = {"type": "number"}, {"type": "string"}, {"type": "integer"}
    maybe = {"type": "number", "nullable": True}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    span = {"start_sec": number, "end_sec": number}
    milliseconds = dict.fromkeys(("decode", "transform", "inference", "total"), number)
    video = {
        "duration_sec": maybe,
        "width": integer,
        "height": integer,
        "fps": maybe,
        "codec": string,
        "frames_decoded": integer,
        "plan_fallback": {"type": "string", "nullable": True},
        "warnings": _array(string),
    }
    sampling = {
        "num_frames": integer,
        "sampling_rate": integer,
        "clip_duration_sec": number,
        "start_sec": number,
        "end_sec": maybe,
        "num_clips": integer,
        "num_crops": integer,
        "stride_sec": maybe,
        "average": {"type": "string", "enum": list(OPTIONS["average"].choices)},
    }
    embedding = {"embedding": _array(number), "length": integer}
    full = {
        "model": string,
        "version": string,
        "weights": {"type": "string", "enum": list(get_args(WeightsKind)), "description": "random: for tests"},
        "request_id": {"type": "string", "description": f"the request's {HEADER}"},
        "predictions": _schema_ref("List"),
        **embedding,
        "clips": _array(_schema_ref("Clip")),
        "timeline": _array(_schema_ref("Clip")),
        "segments": _array(_object({**span, "label": string, "score": score})),
        "video": _object(video),
        "sampling": _object(sampling),
        "timing_ms": _object(milliseconds),
    }
    output = {
        "name": {"type": "string", "enum": [OIP_OUTPUT]},
        "datatype": {"type": "string", "enum": ["BYTES"]},
        "shape": _array(integer),
        "data": _array({"type": "string", "description": "One answer or error as JSON text."}),
    }
    answer = {"anyOf": [_schema_ref(name) for name in ("Dict", "List", "Full", "Embedding")]}
    error = {"code": integer, "type": {"type": "string", "enum": list(REQUEST_ERRORS)}, "message": string}
    return {
        "Error": _object(error),
        "Dict": {"type": "object", "additionalProperties": score, "description": "Label to score, highest first."},
        "List": _array(_object({"label": string, "score": score, "class_id": integer})),
        "Embedding": {
            **_object(embedding),
            "description": "With output: embedding in the format dict; the format list has a list of it.",
        },
        "Clip": _object(
            {**span, "predictions": _schema_ref("List"), **embedding}, optional=("predictions", *embedding)
        ),
        "Full": {
            **_object(
                full, optional=("weights", "request_id", "predictions", *embedding, "clips", "timeline", "segments")
            ),
            "description": "With stride_sec, timeline and segments take the place of clips. With output: embedding, "
            "embedding and length take the place of predictions, and there are no segments.",
        },
        "Answer": answer,
        "Explanation": _explanation_schema(span, score),
        "Predictions": _object({"predictions": _array({"anyOf": [_schema_ref("Answer"), _schema_ref("Error")]})}),
        "OutputTensors": _object(
            {"model_name": string, "model_version": string, "id": string, "outputs": _array(_object(output))},
            optional=("id",),
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write docs/openapi.json from the option table.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is out of date")
    if parser.parse_args(arguments).check:
        if TARGET.is_file() and TARGET.read_text() == render():
            return 0
        print(f"docs/{TARGET.name} is out of date; run: python -m scripts.openapi", file=sys.stderr)
        return 1
    TARGET.write_text(render())
    print(f"docs/{TARGET.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
