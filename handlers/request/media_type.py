"""How a row came, by its headers: over gRPC or HTTP, and with which media types."""

from __future__ import annotations

from collections.abc import Mapping


def is_grpc(headers: Mapping[str, object]) -> bool:
    """Whether a row came by gRPC: it has fields, but none of the headers that every HTTP request has."""
    return not any(isinstance(value, str) for value in headers.values())


def content_type(headers: Mapping[str, object], field: str) -> str:
    """The media type of a field: its own part's, which TorchServe keeps under the field's name, or the request's."""
    own = headers.get(field)
    found = own.get("content-type") if isinstance(own, Mapping) else None
    return _media_type(found) if found else request_type(headers)


def request_type(headers: Mapping[str, object]) -> str:
    return _media_type(next((value for name, value in headers.items() if name.lower() == "content-type"), ""))


def _media_type(value: object) -> str:
    """`Application/JSON; charset=utf-8` -> `application/json`."""
    return str(value).split(";", 1)[0].strip().lower()
