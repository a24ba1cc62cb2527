"""A camera that serves HTTP: a clip over and over as MPEG-TS, its timestamps going on, at real time or faster."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av


class LoopedCamera:
    """Each connection gets the clip from its start. `stop` ends all of them; `start` is at the same address again.

    `most_loops`: a connection ends after so many, or with `hangs` stays open with nothing more; None is never.
    """

    def __init__(self, clip: bytes, *, speed: float = 1.0, most_loops: int | None = None, hangs: bool = False) -> None:
        self._clip = clip
        self.speed = speed
        self._most_loops = most_loops
        self._hangs = hangs
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._stopping = threading.Event()
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/live.ts"

    def start(self) -> None:
        camera, self._stopping = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                with contextlib.suppress(OSError, av.FFmpegError):  # the watcher has gone
                    camera._send(self.wfile)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A watcher that hung up is part of a test."""

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def _send(self, target: Any) -> None:
        stopping, began_at = self._stopping, time.monotonic()
        with (
            av.open(io.BytesIO(self._clip), "r") as source,
            av.open(_Pipe(target), "w", format="mpegts", options={"flush_packets": "1"}) as output,
        ):
            stream: Any = output.add_stream_from_template(source.streams.video[0], opaque=True)
            for packet in self._packets():
                due = began_at + float(packet.dts * packet.time_base) / self.speed
                if stopping.wait(max(due - time.monotonic(), 0)):
                    return
                packet.stream = stream
                output.mux(packet)
            if self._hangs:
                stopping.wait()

    def _packets(self) -> Iterator[Any]:
        shift, loops = 0, 0
        while self._most_loops is None or loops < self._most_loops:
            with av.open(io.BytesIO(self._clip), "r") as source:
                stream = source.streams.video[0]
                assert stream.duration is not None
                for packet in source.demux(stream):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        yield packet
                shift += stream.duration
            loops += 1


class _Pipe:
    """What FFmpeg writes to: a socket's file, which cannot seek."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def write(self, data: bytes) -> int:
        self._target.write(data)
        return len(data)


@contextmanager
def looped_camera(
    clip: bytes, *, speed: float = 1.0, most_loops: int | None = None, hangs: bool = False
) -> Iterator[LoopedCamera]:
    camera = LoopedCamera(clip, speed=speed, most_loops=most_loops, hangs=hangs)
    camera.start()
    try:
        yield camera
    finally:
        camera.stop()


def length_sec(clip: bytes) -> Fraction:
    """How long one loop is."""
    with av.open(io.BytesIO(clip), "r") as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        return stream.duration * stream.time_base
