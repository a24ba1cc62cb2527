"""The result file, and the tables and plots made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plots import latency_bars, write_plots
from benchmarks.result_file import InvalidResult, check_result, read_result, write_result
from benchmarks.table import markdown, short_table
from tests.support.benchmark_results import make_result


def test_round_trip(tmp_path: Path) -> None:
    path, result = tmp_path / "deep" / "result.json", make_result()
    write_result(result, path)
    assert read_result(path) == json.loads(json.dumps(result))
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("key", ["format", "command", "settings", "machine", "versions", "git", "videos", "targets"])
def test_refuses_a_result_without(key: str) -> None:
    result = make_result()
    del result[key]
    with pytest.raises(InvalidResult, match=key):
        check_result(result)


def test_refuses_another_format() -> None:
    with pytest.raises(InvalidResult, match="format 99"):
        check_result({**make_result(), "format": 99})


def test_refuses_a_result_that_measured_nothing() -> None:
    result = make_result()
    for section in ("stages", "load", "memory", "startup"):
        del result[section]
    with pytest.raises(InvalidResult, match="nothing was measured"):
        check_result(result)


def test_refuses_a_target_with_other_keys() -> None:
    result = make_result()
    del result["targets"][0]["met"]
    with pytest.raises(InvalidResult, match="a target has the keys"):
        check_result(result)


@pytest.mark.parametrize(("content", "what"), [("{", "not JSON"), ("[]", "an object")])
def test_refuses_what_is_no_result(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(InvalidResult, match=what):
        read_result(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidResult, match="cannot be read"):
        read_result(tmp_path / "none.json")


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_table_holds_the_measured_figures() -> None:
    rows = _rows(markdown(make_result()))
    assert ["320x240", "100 ms", "401 ms", "4.0x", "95 ms", "1.05x"] in rows
    assert ["HTTP, 8 clients, 320x240", "43.0/s", "10.0/s", "4.3x"] in rows
    assert ["HTTP, 8 clients, 320x240, bfloat16", "56.0/s", "10.0/s", "5.6x"] in rows
    assert ["beside 1 of 12,288 views", "200 ms (200 ms)", "-"] in rows
    several = ["several workers (the default)", "4", "2.4 s", "300 to 305 MB", "310 to 340 MB", "190 ms of 4000 ms"]
    assert several in rows
    assert ["1920x1080", "torchcodec", "72 ms", "-", "36 ms", "145 ms"] in rows


def test_table_says_which_targets_are_missed_and_why() -> None:
    result = make_result()
    result["targets"][0] |= {"met": False, "measured": 3.0, "missed_by_percent": 25.0, "note": None}
    result["targets"][1] |= {"met": None, "measured": None, "note": "not measured: load"}
    verdicts = [row[-1] for row in _rows(markdown(result))[-len(result["targets"]) :]]
    assert verdicts[0] == "missed by 25 %"
    assert verdicts[1] == "not measured: load"
    assert set(verdicts[2:]) == {"met"}


def test_the_short_table_is_what_a_user_asks_first() -> None:
    result = make_result()
    text = short_table(result)
    rows = _rows(text)
    assert ["320x240, one client", "100 ms", "401 ms", "4.0x"] in rows
    assert ["320x240, 8 clients", "43.0 requests/s", "10.0 requests/s", "4.3x"] in rows
    above_idle = result["memory"]["contenders"]["ours"]["above_idle"]
    assert rows[-1][:3] == ["peak memory above idle, 3840x2160", f"{above_idle:.0f} MB", "not measured"]
    assert len(rows) == 2 + 3 + 1 + 1
    assert "Test CPU, 2 cores" in text
    assert len(_rows(short_table({key: value for key, value in result.items() if key not in ("load", "memory")}))) == 2


def test_table_names_machine_versions_commit_and_command() -> None:
    last = markdown(make_result()).splitlines()[-1]
    for fact in ("Test CPU, 2 cores, 8.0 GiB", "torch 2.0", "0123456789ab,", "python -m scripts.benchmark all"):
        assert fact in last


def test_every_table_is_well_formed() -> None:
    for block in markdown(make_result()).split("\n\n")[:-1]:
        assert len({len(row) for row in _rows(block)}) == 1


def test_table_of_a_partial_result_leaves_the_rest_out() -> None:
    result: dict[str, Any] = {key: value for key, value in make_result().items() if key not in ("load", "stages")}
    text = markdown(result)
    assert "one client |" not in text
    assert "in-process |" not in text


def test_plots_are_drawn_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install -r requirements/bench.txt")
    names = ["benchmark-latency.png", "benchmark-throughput.png", "benchmark-stages.png"]
    first, second = (write_plots(make_result(), tmp_path / folder) for folder in ("one", "two"))
    assert [path.name for path in first] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in first)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_floors_bar_has_the_round_trip_in_it() -> None:
    bars = latency_bars(make_result()["load"]["latency"]["http"])
    assert bars["floor"] == [95.0, 95.0, 95.0]
    assert bars["recipe"] == [401.0, 810.0, 1010.0]
