"""How many connections a server of this network namespace has, read from the kernel's tables."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_ESTABLISHED = "01"  # include/net/tcp_states.h
_TABLES = ("tcp", "tcp6")


def established(ports: Collection[int], *, tables: Path = Path("/proc/net")) -> int:
    """Connections whose local end is one of `ports`, those that wait to be accepted included.

    One that a client keeps open between two requests counts as well: the kernel does not know requests.
    """
    count = 0
    for name in _TABLES:
        table = tables / name
        if table.is_file():  # there is no tcp6 where IPv6 is switched off
            count += sum(_counts(line, ports) for line in table.read_text().splitlines()[1:])
    return count


def _counts(line: str, ports: Collection[int]) -> bool:
    """Whether a line of the table (proc(5), /proc/net/tcp) is such a connection."""
    _, local, _, state, *_ = line.split()
    return state == _ESTABLISHED and int(local.rpartition(":")[2], 16) in ports
