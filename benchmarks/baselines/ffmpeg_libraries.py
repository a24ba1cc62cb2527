"""FFmpeg's shared libraries for torchcodec, which brings none: those inside PyAV's wheel, else the system's.

With PyAV's both sides decode with the very same FFmpeg, and a system may have a part of FFmpeg alone. torchcodec looks
for `libavcodec.so.62`, where the wheel has `libavcodec-5e6b81c2.so.62.28.102`: a folder of links by the plain names, on
the library path, makes them meet.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

_WHEEL_NAME = re.compile(r"(lib.+?)-[0-9a-f]{8}\.so\.(\d+)[.\d]*")


def library_path(folder: Path) -> dict[str, str]:
    """The environment variable with which a child process finds the wheel's libraries; empty where it has none.

    Links are made in `folder`.
    """
    libraries = _wheel_libraries()
    if not libraries:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    for path in libraries:
        for name in {path.name, plain_name(path.name)}:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(path)
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{folder}:{inherited}" if inherited else str(folder)}


def plain_name(name: str) -> str:
    """`libavcodec-5e6b81c2.so.62.28.102` -> `libavcodec.so.62`; other names stay."""
    found = _WHEEL_NAME.fullmatch(name)
    return f"{found[1]}.so.{found[2]}" if found else name


def _wheel_libraries() -> list[Path]:
    spec = find_spec("av")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).resolve().parent.parent / "av.libs"
    return sorted(folder.iterdir()) if folder.is_dir() else []
