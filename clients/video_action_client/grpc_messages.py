"""TorchServe's gRPC messages, built when imported: no generated code, no proto files, only protobuf.

The names and numbers are those of `inference.proto` and `management.proto` inside torchserve 0.12's model-server.jar; a
test compares them with stubs generated from there. Fields that are not used here are left out, which the wire allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

FieldType = Literal["string", "bytes", "int32", "bool", "map"]
Fields = Mapping[str, tuple[int, FieldType]]

INFERENCE = "org.pytorch.serve.grpc.inference"
MANAGEMENT = "org.pytorch.serve.grpc.management"
INFERENCE_SERVICE = f"{INFERENCE}.InferenceAPIsService"
MANAGEMENT_SERVICE = f"{MANAGEMENT}.ManagementAPIsService"

MESSAGES: Mapping[str, Mapping[str, Fields]] = {
    INFERENCE: {
        "PredictionsRequest": {"model_name": (1, "string"), "model_version": (2, "string"), "input": (3, "map")},
        "PredictionResponse": {"prediction": (1, "bytes")},
        "TorchServeHealthResponse": {"health": (1, "string")},
    },
    MANAGEMENT: {
        "ManagementResponse": {"msg": (1, "string")},
        "DescribeModelRequest": {
            "model_name": (1, "string"),
            "model_version": (2, "string"),
            "customized": (3, "bool"),
        },
        "ListModelsRequest": {"limit": (1, "int32"), "next_page_token": (2, "int32")},
        "RegisterModelRequest": {
            "batch_size": (1, "int32"),
            "initial_workers": (3, "int32"),
            "max_batch_delay": (4, "int32"),
            "model_name": (5, "string"),
            "response_timeout": (6, "int32"),
            "synchronous": (8, "bool"),
            "url": (9, "string"),
            "startup_timeout": (11, "int32"),
        },
        "ScaleWorkerRequest": {
            "model_name": (1, "string"),
            "model_version": (2, "string"),
            "max_worker": (3, "int32"),
            "min_worker": (4, "int32"),
            "synchronous": (6, "bool"),
        },
        "SetDefaultRequest": {"model_name": (1, "string"), "model_version": (2, "string")},
        "UnregisterModelRequest": {"model_name": (1, "string"), "model_version": (2, "string")},
    },
}
"""Package -> message -> field -> (number, type); `map` is a map<string, bytes>."""

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "bool": _Field.TYPE_BOOL,
}


def _file(package: str, messages: Mapping[str, Fields]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            if kind == "map":
                _add_map(message, field, number, f".{package}.{name}")
            else:
                message.field.add(name=field, number=number, type=_TYPES[kind], label=_Field.LABEL_OPTIONAL)
    return file


def _add_map(message: descriptor_pb2.DescriptorProto, field: str, number: int, scope: str) -> None:
    """What `map<string, bytes> field = number;` is short for: a repeated nested message of key and value."""
    entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    message.field.add(
        name=field,
        number=number,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=f"{scope}.{entry.name}",
    )


def _build() -> dict[str, Any]:
    # A pool of its own: generated stubs, if a program imports them too, register the same names in the default one.
    pool = descriptor_pool.DescriptorPool()
    classes = {}
    for package, messages in MESSAGES.items():
        pool.Add(_file(package, messages))
        for name in messages:
            classes[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return classes


CLASSES: Mapping[str, Any] = _build()
"""Message class by name."""
