"""Damaged files through the decoding processes: an answer or a 4xx, never anything else.

Three hundred mutants, and with `--all` 1,700 more; FUZZ_COUNT=5000 runs more than those, and FUZZ_FIRST=2000 starts
behind those of an earlier run.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
from tests.support.decoding import decode, decode_all
from tests.support.mutation import mutate, sampling, seed_files

FEW = 300
FIRST = int(os.environ.get("FUZZ_FIRST", FEW))
COUNT = int(os.environ.get("FUZZ_COUNT", "1700"))
BATCH = 10
SPEC = get_spec("x3d_xs")


@pytest.mark.parametrize(
    "chosen", [range(FEW), pytest.param(range(FIRST, FIRST + COUNT), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc, which only Linux has")
def test_mutants_get_an_answer_or_a_4xx(chosen: range, capsys: pytest.CaptureFixture[str]) -> None:
    files = seed_files()
    service = ProcessDecodeService(SPEC, Limits(max_windows=64, decode_timeout_sec=10.0), processes=2)
    try:
        good = decode(service, files[0])
        types: Counter[str] = Counter()
        slowest = 0.0
        for start in range(0, len(chosen), BATCH):
            numbers = chosen[start : start + BATCH]
            outcomes = decode_all(service, [mutate(files, number) for number in numbers], sampling(numbers[0]))
            for number, outcome in zip(numbers, outcomes, strict=True):
                assert outcome.status in ("ok", "4xx", "504"), f"mutant {number}: {outcome.error}"
                assert "Too many open files" not in str(outcome.error), f"mutant {number}: {outcome.error}"
            types.update(outcome.type for outcome in outcomes)
            slowest = max(slowest, *(outcome.seconds for outcome in outcomes))
        assert (decode(service, files[0]).views[0] == good.views[0]).all()
        losses = service.losses
    finally:
        service.close()
    with capsys.disabled():
        print(f"\n{len(chosen)} mutants of {len(files)} files: {dict(types)}; batch of {BATCH} at most "
              f"{slowest:.1f} s; {losses} processes lost")  # fmt: skip
    assert types["ok"] > len(chosen) // 20, "hardly a mutant can be decoded: they test the container check alone"
    assert len(types) > 2
