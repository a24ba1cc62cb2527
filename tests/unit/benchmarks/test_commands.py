"""The two commands' arguments, and a dry run of the GPU benchmark on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, machine
from benchmarks.result_file import write_result
from scripts import benchmark
from tests.support.benchmark_results import make_result


def options(*argv: str) -> benchmark.BenchmarkOptions:
    return benchmark.options_from(benchmark._parser().parse_args(argv))


def test_everything_by_default() -> None:
    found = options()
    assert found.parts == benchmark.PARTS
    assert (found.model, found.weights, found.resolutions, found.large) == (
        "x3d_s",
        "random",
        ("320x240", "1280x720", "1920x1080"),
        "3840x2160",
    )
    assert (found.load.clients, found.memory.requests, found.recipe_workers) == (8, 300, 1)


def test_one_part_and_rounds() -> None:
    found = options("load", "--rounds", "7", "--protocols", "grpc", "--clients", "3")
    assert found.parts == ("load",)
    assert (found.load.rounds, found.load.protocols, found.load.clients) == (7, ("grpc",), 3)


def test_quick_is_small_and_rounds_still_count() -> None:
    found = options("all", "--quick", "--rounds", "1")
    assert (found.resolutions, found.large) == (("320x240",), "320x240")
    assert (found.stages.rounds, found.load.rounds, found.memory.requests) == (1, 1, 6)


@pytest.mark.parametrize("argv", [["nothing"], ["--rounds", "0"], ["--rounds", "x"], ["--model", "none"]])
def test_refuses_with_code_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        options(*argv)
    assert left.value.code == 2


def test_settings_name_no_folder() -> None:
    found = benchmark._settings(options("--archive", "/home/someone/x3d_s.mar"))
    assert found["archive"] == "x3d_s.mar"
    assert "someone" not in json.dumps(found)


def test_table_and_plot_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install -r requirements/bench.txt")
    path = tmp_path / "result.json"
    write_result(make_result(), path)
    assert benchmark.main(["--table", str(path)]) == 0
    assert "| 320x240 | 100 ms | 401 ms |" in capsys.readouterr().out
    assert benchmark.main(["--plot", str(path), "--images", str(tmp_path / "images")]) == 0
    assert len(list((tmp_path / "images").glob("benchmark-*.png"))) == 3


def test_a_damaged_result_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    path.write_text("{}")
    assert benchmark.main(["--table", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: format must be")
    assert error.count("\n") == 1


def test_summary_says_met_missed_or_neither() -> None:
    result = make_result()
    result["targets"][0] |= {"met": False, "note": "2 requests failed"}
    result["targets"][1] |= {"met": None, "measured": None, "note": "not measured: load"}
    lines = benchmark.summary(result).splitlines()
    assert lines[0].split()[:2] == ["MISSED", "latency"]
    assert lines[0].endswith("(2 requests failed)")
    assert lines[1].endswith("not measured: load")
    assert all(line.split()[0] == "met" for line in lines[2:])


def test_machine_and_versions_name_no_host() -> None:
    import platform

    text = json.dumps([machine.machine(), machine.versions(), machine.git_state(), machine.load_average()])
    assert platform.node() not in text
    assert (machine.versions()["torch"] or "").split("+")[0] == torch.__version__.split("+")[0]


def test_gpu_arguments() -> None:
    found, output = gpu.options_from(["--models", "x3d_xs", "--batch-sizes", "2", "4", "--output", "gpu.json"])
    assert (found.models, found.batch_sizes, found.device, output) == (("x3d_xs",), (2, 4), "cuda:0", Path("gpu.json"))
    quick, _ = gpu.options_from(["--quick"])
    assert (quick.models, quick.variants, quick.precisions, quick.batch_sizes, quick.rounds) == (
        ("x3d_s",),
        ("eager", "channels_last_3d"),
        ("float32",),
        (1,),
        2,
    )


@pytest.mark.parametrize("argv", [["--batch-sizes", "0"], ["--rounds", "0"], ["--variants", "none"]])
def test_gpu_refuses_with_code_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        gpu.options_from(argv)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("device", "sentence"),
    [("cuda:0", "no CUDA device on this machine"), ("nonsense", "is no device"), ("meta", "not measured here")],
)
def test_gpu_without_the_device_is_one_sentence(
    device: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--device", device]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_gpu_dry_run_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--models", "x3d_xs", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    cases = result["models"]["x3d_xs"]
    assert [(case["variant"], case["precision"], case["batch_size"]) for case in cases] == [
        ("eager", "float32", 1),
        ("channels_last_3d", "float32", 1),
    ]
    assert all(case["views_per_sec"] == pytest.approx(1e3 / case["ms"]["median"], rel=0.05, abs=0.1) for case in cases)
    (whole,) = result["end_to_end"]["x3d_xs"]
    assert (whole["batch_size"], whole["ms"]["count"]) == (1, 2)
    assert whole["videos_per_sec"] > 0
