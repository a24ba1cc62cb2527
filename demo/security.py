"""Keeps other web pages out of the demo page: headers for the browser, and a check of each request's origin."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's own page needs inline scripts and styles; blob: is a recording before it is uploaded.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "connect-src 'self' blob: data:",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'self'",
    )
)
ALLOWED_HOSTS = ("127.0.0.1", "localhost")
"""A page of another name that resolves to this machine is refused (DNS rebinding)."""

_REFUSAL = "This page takes requests from itself only, not from pages of other addresses.\n"
_POLICY_VIOLATION = 1008  # RFC 6455's close code


class SameOriginOnly:
    """ASGI middleware: refuses what a page of another origin sends with 403, and adds the policy to every answer.

    Browsers say where a request comes from in `Origin` and `Sec-Fetch-Site`, which scripts cannot change. Another port
    of this machine is another origin. Programs such as curl send neither header; they are not refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        if scope["type"] == "websocket" and is_foreign(scope):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif scope["type"] == "http" and is_foreign(scope):
            await PlainTextResponse(_REFUSAL, status_code=403)(scope, receive, send_with_policy)
        else:
            await self._app(scope, receive, send_with_policy)


def is_foreign(scope: Scope) -> bool:
    """Whether a page of another origin sent the request. Following a link to the page itself is not foreign."""
    headers = Headers(scope=scope)
    scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
    if headers.get("origin", f"{scheme}://{headers.get('host')}") != f"{scheme}://{headers.get('host')}":
        return True
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return False
    return not (scope.get("method") == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate")
