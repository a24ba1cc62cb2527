"""Packets whose picture nobody refers to."""

from __future__ import annotations

from handlers.video.h264 import non_reference_test

AVCC = bytes([1, 100, 0, 31, 0xFF, 0xE1, 0])  # four-byte lengths


def _packet(*headers: int) -> bytes:
    return b"".join((3).to_bytes(4, "big") + bytes([header, 0, 0]) for header in headers)


def test_only_pictures_of_unreferenced_slices_count() -> None:
    test = non_reference_test(AVCC)
    assert test is not None
    assert test(_packet(0x01))  # a slice with nal_ref_idc 0
    assert test(_packet(0x06, 0x01, 0x01))  # behind other units
    assert not test(_packet(0x41))  # a reference
    assert not test(_packet(0x01, 0x21))  # one slice of a reference is enough
    assert not test(_packet(0x65))  # a key frame
    assert not test(_packet(0x68, 0x01))  # a parameter set outlives the picture that it comes with
    assert test(_packet(0x09, 0x06, 0x01, 0x0C))  # delimiter, SEI and filler do not
    assert not test(_packet(0x06))  # no picture at all
    assert not test(b"")
    assert not test((2**31).to_bytes(4, "big") + b"\x06")  # a length past the end, and no slice


def test_other_layouts_are_not_guessed_at() -> None:
    assert non_reference_test(None) is None
    assert non_reference_test(b"") is None
    assert non_reference_test(b"\x00\x00\x00\x01\x67\x64\x00") is None
