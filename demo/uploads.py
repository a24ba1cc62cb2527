"""How much the demo page's uploads may take on disk: ASGI middleware in front of Gradio's upload."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A form's boundaries and part headers, beside the file itself.
_FORM_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """Of one upload, of what lies in the folder at once, and of uploads that may be under way at once."""

    max_upload_bytes: int = 200 * 2**20
    max_stored_bytes: int = 2**30
    max_stored_files: int = 50
    max_under_way: int = 2

    def __post_init__(self) -> None:
        # So that an upload always fits once everything older has gone.
        least = 2 * self.max_under_way * (self.max_upload_bytes + _FORM_BYTES)
        if self.max_stored_bytes < least:
            raise ValueError(f"max_stored_bytes must be at least {least}, got {self.max_stored_bytes}")


@dataclass(slots=True)
class UploadFolder:
    """Gradio's folder: an upload is written into it under a temporary name, then moved into a folder of its own."""

    path: Path
    limits: UploadLimits
    under_way: dict[int, int] = field(default_factory=dict)
    """Bytes that each upload under way may still write, by a number of its own."""

    def make_room(self, incoming_bytes: int) -> None:
        """Remove the oldest finished uploads until another one fits."""
        finished = (each for each in self.path.rglob("*") if each.parent != self.path and each.is_file())
        stored = sorted(finished, key=_modified_sec)
        total = sum(_bytes(each) for each in (*stored, *self._unfinished()))
        total += sum(self.under_way.values()) + incoming_bytes
        while stored and (total > self.limits.max_stored_bytes or len(stored) >= self.limits.max_stored_files):
            oldest = stored.pop(0)
            total -= _bytes(oldest)
            with contextlib.suppress(OSError):
                oldest.unlink()
                oldest.parent.rmdir()  # refuses while it holds another file

    def drop_unfinished(self) -> None:
        """Remove the files of interrupted uploads; only while no upload is under way."""
        for each in self._unfinished():
            with contextlib.suppress(OSError):
                each.unlink()

    def _unfinished(self) -> list[Path]:
        return [each for each in self.path.glob("*") if each.is_file()]


class UploadCap:
    """ASGI middleware: bounds each form that is sent, and removes the oldest uploads where a new one needs the room."""

    def __init__(self, app: ASGIApp, folder: Path, limits: UploadLimits) -> None:
        self._app = app
        self._limits = limits
        self._folder = UploadFolder(folder, limits)
        self._next_number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _sends_a_form(scope):
            await self._app(scope, receive, send)
            return
        most = self._limits.max_upload_bytes + _FORM_BYTES
        announced = Headers(scope=scope).get("content-length", "")
        incoming_bytes = int(announced) if announced.isdecimal() else most
        if incoming_bytes > most:
            await self._refuse_size(scope, receive, send)
        elif len(self._folder.under_way) >= self._limits.max_under_way:
            text = f"{self._limits.max_under_way} uploads are under way, and more are not taken at once; try again.\n"
            await PlainTextResponse(text, status_code=503)(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send, incoming_bytes)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, incoming_bytes: int) -> None:
        self._next_number += 1
        number, received, started = self._next_number, 0, False
        self._folder.make_room(incoming_bytes)
        self._folder.under_way[number] = incoming_bytes

        async def counted() -> Message:
            """The body's next part; a body that is longer than announced ends as if the sender had gone."""
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > incoming_bytes else message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except ClientDisconnect:
            if received > incoming_bytes and not started:
                await self._refuse_size(scope, receive, send)
        finally:
            del self._folder.under_way[number]
            if not self._folder.under_way:
                self._folder.drop_unfinished()

    async def _refuse_size(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"An upload may have {self._limits.max_upload_bytes} bytes, and this one has more.\n"
        await PlainTextResponse(text, status_code=413)(scope, receive, send)


def _sends_a_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").strip().lower().startswith("multipart/form-data")


def _bytes(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _modified_sec(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
