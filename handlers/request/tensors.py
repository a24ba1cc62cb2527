"""The tensors of the Open Inference Protocol (KServe v2): `inputs`, whose elements are videos or set an option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.errors import InvalidEncoding, InvalidOption
from handlers.request.option_table import OPTIONS
from handlers.request.options import shown

_MAX_ELEMENTS = 10**9  # of a tensor's shape; more cannot arrive, and longer numbers take long to multiply


def num_elements(tensors: Sequence[object]) -> int:
    """How many videos the tensors hold, without reading them; a tensor that is malformed counts as one."""
    data = [
        tensor.get("data") if isinstance(tensor, Mapping) else None for tensor in tensors if not sets_option(tensor)
    ]
    flat = [each for each in data if not isinstance(each, list)]
    lists = [each for each in data if isinstance(each, list)]
    nested = sum(len(entry) if isinstance(entry, list) else 1 for each in lists for entry in each)
    return len(flat) + nested


def sets_option(tensor: object) -> bool:
    return isinstance(tensor, Mapping) and isinstance(tensor.get("name"), str) and tensor["name"] in OPTIONS


def tensor_parameters(tensor: Mapping[str, object]) -> object:
    """A tensor's own options; `content_type` and `binary_data_size` are the protocol's, not ours."""
    parameters = tensor.get("parameters")
    if isinstance(parameters, Mapping):
        return {name: value for name, value in parameters.items() if name != "content_type"}
    return parameters


def bytes_elements(tensor: Mapping[str, object]) -> list[object]:
    """The elements of a BYTES tensor, in order; a single one may stand without its list."""
    if tensor.get("datatype") != "BYTES":
        raise InvalidEncoding(f"a video tensor must have datatype BYTES, got {shown(tensor.get('datatype'))}")
    data = tensor.get("data")
    elements = _flattened(data) if isinstance(data, list) else [data]
    shape = tensor.get("shape")
    if shape is not None and _size_of(shape) != len(elements):
        raise InvalidEncoding(f"a tensor says shape {shown(shape)}, but its data has {len(elements)} elements")
    return elements


def only_element(tensor: Mapping[str, object]) -> object:
    data = tensor.get("data")
    elements = _flattened(data) if isinstance(data, list) else [data]
    if len(elements) != 1:
        raise InvalidOption(f"{tensor['name']} must be a tensor of one element, got {len(elements)}")
    return elements[0]


def _flattened(data: list[Any]) -> list[object]:
    """Row-major; the protocol allows nested lists and flat ones."""
    flat: list[object] = []
    for entry in data:
        flat += entry if isinstance(entry, list) else [entry]
    return flat


def _size_of(shape: object) -> int | None:
    if not isinstance(shape, list):
        return None
    size = 1
    for length in shape:
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            return None
        size *= length
        if size > _MAX_ELEMENTS:
            return None
    return size
