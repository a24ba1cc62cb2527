"""Writes theora.ogv, which no test can make: PyAV's wheel reads Theora, but has no encoder for it.

    python -m tests.golden.theora_video FFMPEG

FFMPEG is an ffmpeg program with libtheora. The file that is here was made by 9.0.2, which the wheel
imageio-ffmpeg 0.8.1 holds. Its frames are those of tests.support.videos and carry their index.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.videos import VideoPlan, make_video

THEORA_VIDEO = Path(__file__).with_name("theora.ogv")
_SOURCE = VideoPlan(num_frames=60, width=96, height=80, codec="ffv1", container="nut", b_frames=0)
_INPUT = ("-v", "error", "-i", "-")
_OUTPUT = ("-c:v", "libtheora", "-q:v", "7", "-g", "12", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "ogg")


def main() -> None:
    command = [sys.argv[1], *_INPUT, *_OUTPUT, "-y", str(THEORA_VIDEO)]
    subprocess.run(command, input=make_video(_SOURCE), check=True)


if __name__ == "__main__":
    main()
