"""The codecs that may be decoded."""

from __future__ import annotations

DECODERS = (
    *("h264", "hevc", "vp8", "vp9", "libdav1d", "av1"),
    *("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4", "h263", "flv", "mjpeg"),
    *("wmv1", "wmv2", "wmv3", "vc1", "gif", "ffv1", "rawvideo"),
)
"""FFmpeg's names of every allowed decoder."""
