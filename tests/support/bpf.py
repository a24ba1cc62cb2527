"""An interpreter of seccomp's programs (classic BPF), so that a filter can be asked about calls that nobody makes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, value
_DATA = struct.Struct("=iIQ6Q")  # struct seccomp_data: number, architecture, instruction pointer, arguments
_LOAD_WORD, _AND, _JUMP, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x06


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(_INSTRUCTION.iter_unpack(program))


def verdict(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the filter returns for that call; missing arguments are 0. Raises where the kernel would refuse the program.

    `number` may be negative or above 2**31, as a register can hold it.
    """
    signed = (number + 2**31) % 2**32 - 2**31
    data = _DATA.pack(signed, architecture, 0, *[*arguments, *[0] * (6 - len(arguments))])
    steps = instructions(program)
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == _LOAD_WORD:
            assert value % 4 == 0, f"a load from {value}, which is not the start of a word"
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == _AND:
            accumulator &= value
        elif code == _JUMP:
            at += value
        elif code == _JUMP_IF_EQUAL:
            at += if_true if accumulator == value else if_false
        elif code == _RETURN:
            return value
        else:
            raise ValueError(f"unknown operation code {code:#x}")
