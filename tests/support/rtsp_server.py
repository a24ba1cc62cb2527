"""A real RTSP server, GStreamer's, with Debian's own Python, which has its bindings. Run as a program:

    /usr/bin/python3 rtsp_server.py PORT FILE

Serves rtsp://127.0.0.1:PORT/camera, the H.264 of an MP4 file in real time, and prints `ready`.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    import gi  # type: ignore[import-not-found, import-untyped, unused-ignore]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found, unused-ignore]

    port, file = sys.argv[1], sys.argv[2]
    Gst.init(None)
    server: Any = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory: Any = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( filesrc location={file} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )")
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
