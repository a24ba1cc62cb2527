"""Which packets a window gets, which windows are missed, and how much is kept."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest

from video_action_client.live.cutter import Cut, Cutter, LivePacket, Missed

FPS = 10


def packet(shown: int, *, key_every: int = 5, decoded: int | None = None, size: int = 1) -> LivePacket:
    """Picture number `shown`, a tenth of a second each."""
    return LivePacket(
        data=bytes(size),
        pts=shown,
        show_sec=Fraction(shown, FPS),
        decode_sec=Fraction(shown if decoded is None else decoded, FPS),
        is_key=shown % key_every == 0,
        duration=1,
        duration_sec=Fraction(1, FPS),
    )


def cutter(window_sec: str, stride_sec: str, *, max_bytes: int = 10**6) -> Cutter:
    return Cutter(window_sec=Fraction(window_sec), stride_sec=Fraction(stride_sec), max_bytes=max_bytes)


def shown(cut: Cut) -> list[int]:
    return [each.pts for each in cut.packets]


def indices(settled: Sequence[Cut | Missed]) -> list[int]:
    return [
        index
        for each in settled
        for index in ([each.index] if isinstance(each, Cut) else range(each.first_index, each.first_index + each.count))
    ]


def test_a_stride_finer_than_the_key_frames_sends_from_the_key_frame_before() -> None:
    cutting = cutter("0.4", "0.2")
    settled = [each for number in range(12) for each in cutting.push(packet(number))]
    assert all(isinstance(each, Cut) for each in settled)
    cuts = [each for each in settled if isinstance(each, Cut)]
    assert [shown(each) for each in cuts] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [5, 6, 7, 8, 9],
    ]
    assert [float(each.offset_sec) for each in cuts] == [0, 0.2, 0.4, 0.1]


def test_a_window_is_there_as_soon_as_its_last_picture_has_a_successor() -> None:
    cutting = cutter("0.4", "0.4")
    assert [len(cutting.push(packet(number))) for number in range(9)] == [0, 0, 0, 0, 1, 0, 0, 0, 1]


def test_b_frames_are_waited_for_and_kept_in_the_order_of_decoding() -> None:
    cutting = cutter("0.4", "0.4")
    order = [(0, -1), (2, 0), (1, 1), (4, 2), (3, 3), (5, 4), (7, 5), (6, 6)]
    settled = [each for number, decoded in order for each in cutting.push(packet(number, decoded=decoded))]
    (cut,) = settled
    assert isinstance(cut, Cut)
    assert shown(cut) == [0, 2, 1, 4, 3]


def test_leading_pictures_are_left_out_where_a_clip_begins_with_their_key_frame() -> None:
    """An open group of pictures: 4 is shown before the key frame 5, and needs a picture from before it."""
    cutting = cutter("0.3", "0.5")
    order = [(0, 0), (1, 1), (2, 2), (3, 3), (5, 4), (4, 4), (6, 6), (7, 7), (8, 8), (9, 9)]
    settled = [each for number, decoded in order for each in cutting.push(packet(number, decoded=decoded))]
    assert [shown(each) for each in settled if isinstance(each, Cut)] == [[0, 1, 2], [5, 6, 7]]


def test_a_stride_longer_than_the_window_leaves_out_what_is_between() -> None:
    cutting = cutter("0.2", "1")
    settled = [each for number in range(25) for each in cutting.push(packet(number))]
    assert [shown(each) for each in settled if isinstance(each, Cut)] == [[0, 1], [10, 11], [20, 21]]


def test_the_end_completes_windows_that_reach_to_the_last_picture() -> None:
    cutting = cutter("0.4", "0.2")
    settled = [each for number in range(8) for each in cutting.push(packet(number))]
    assert indices(settled) == [0, 1]
    assert indices(cutting.finish()) == [2]
    assert cutting.finish() == []


def test_a_recording_shorter_than_a_window_has_one() -> None:
    cutting = cutter("4", "2")
    assert [cutting.push(packet(number)) for number in range(8)] == [[]] * 8
    assert indices(cutting.finish()) == [0]


def test_every_window_is_cut_or_missed_once_over_an_interruption() -> None:
    cutting = cutter("0.4", "0.2")
    settled = [each for number in range(13) for each in cutting.push(packet(number))]
    cutting.interrupt("lost")
    later = [each for number in range(42, 60) for each in cutting.push(packet(number))]
    missed = [each for each in later if isinstance(each, Missed)]
    assert {each.reason for each in missed} == {"lost"}
    assert indices([*settled, *later]) == list(range(28))
    # 4.5 s is the first key frame after it, so 4.6 s is the first start that can be decoded.
    first = next(each for each in later if isinstance(each, Cut))
    assert (first.index, shown(first)) == (23, [45, 46, 47, 48, 49])


def test_key_frames_that_are_too_far_apart_are_said_while_there_are_none() -> None:
    cutting = cutter("0.4", "0.4", max_bytes=100)
    settled = [each for number in range(50) for each in cutting.push(packet(number, key_every=1000, size=10))]
    assert indices(settled) == list(range(12))
    assert [each.reason for each in settled if isinstance(each, Missed)] == ["key_frame"] * 10


@pytest.mark.parametrize(("window_sec", "stride_sec"), [("0.4", "0.1"), ("2", "0.5"), ("0.1", "7")])
def test_what_is_kept_is_bounded_by_window_and_key_frames(window_sec: str, stride_sec: str) -> None:
    cutting = cutter(window_sec, stride_sec)
    kept = []
    for number in range(1000):
        cutting.push(packet(number, size=100))
        kept.append(cutting._bytes)
    # A window, up to its stride and the key frame before it.
    assert max(kept) <= 100 * (FPS * float(window_sec) + 5 + 1 + FPS * min(float(stride_sec), 1))
