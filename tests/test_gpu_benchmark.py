"""The one command for whoever has a GPU: python -m pytest -m slow tests/test_gpu_benchmark.py"""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_profile  # noqa: E402
from gpu_measure import Bench, Row, Skipped, Way  # noqa: E402


def bench(seconds: float = 60.0) -> Bench:
    return Bench(torch.device("cpu"), True, time.monotonic() + seconds, 0.05, ceiling=2.0)


def test_a_failure_is_a_row_with_its_reason() -> None:
    def out_of_memory(bench: Bench, row: Row) -> None:
        row.ours = Way(0.5, 3, 100.0)
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    def missing(bench: Bench, row: Row) -> None:
        raise Skipped("no family Flux in this version")

    failed = gpu.run(bench(), "full step", out_of_memory)
    assert (failed.state, failed.reason) == ("failed", "OutOfMemoryError: CUDA out of memory.")
    skipped = gpu.run(bench(), "FLUX", missing)
    assert (skipped.state, skipped.reason) == ("skipped", "no family Flux in this version")
    facts = {"device": "x", "torch": "2", "minutes": 2, "tiny": False, "ceiling_tflops": 2.0}
    said = gpu.table(facts, [failed, skipped, Row("late")])
    assert "| full step | 2 steps |" in said
    assert "CUDA out of memory. |" in said
    assert "| skipped: no family Flux in this version |" in said
    assert "| no time left |" in said


def test_ratio_and_share_are_what_they_say() -> None:
    row = Row("step", ours=Way(0.5, 9, 1.0), plain=Way(1.0, 9, 1.0), teraflops=0.25, ceiling=2.0)
    assert row.ratio == 2.0
    assert row.share == 0.25
    count = bench().teraflops(lambda: torch.ones(8, 16) @ torch.ones(16, 4))
    assert count == 2 * 8 * 16 * 4 / 1e12
    steps: list[int] = []
    way = bench().timed(lambda: steps.append(1), units=4, warm=1)
    assert way.timed == 4 * (len(steps) - 1)
    assert len(bench(-1.0).timed(lambda: None).__dict__) == 3  # one step even without time


def test_what_is_measured_is_kept_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[str]] = []

    def looks(bench: Bench, row: Row) -> None:
        rows = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
        found.append([each["state"] for each in rows])
        row.ours = Way(1.0, 1, 1.0)

    monkeypatch.setattr(gpu, "MEASUREMENTS", {"one": looks, "two": looks})
    options = ["--device", "cpu", "--tiny", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    gpu.main()
    assert found == [["no time left"] * 2, ["measured", "no time left"]]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--minutes", "0"])
    gpu.main()
    states = [
        each["state"] for each in json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    ]
    assert states == ["no time left"] * 2


def test_a_card_that_stops_answering_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fine(bench: Bench, row: Row) -> None:
        row.ours = Way(1.0, 1, 1.0)

    def breaks(bench: Bench, row: Row) -> None:
        def refuse() -> None:
            raise RuntimeError("CUDA error: an illegal memory access\nSearch for")

        monkeypatch.setattr(bench, "clear", refuse)
        refuse()

    started: list[list[str]] = []

    def execv(path: str, argv: list[str]) -> None:
        started.append(argv)
        raise KeyboardInterrupt  # the process is another from here

    monkeypatch.setattr(gpu, "MEASUREMENTS", {"one": fine, "two": breaks, "three": fine})
    monkeypatch.setattr("os.execv", execv)
    options = ["--device", "cpu", "--tiny", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    with pytest.raises(KeyboardInterrupt):
        gpu.main()
    monkeypatch.setattr(sys, "argv", started[0][1:])
    gpu.main()
    rows = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    assert [each["state"] for each in rows] == ["measured", "failed", "measured"]
    assert rows[1]["reason"] == "RuntimeError: CUDA error: an illegal memory access"
    assert "| two |" in (tmp_path / "gpu.md").read_text()


def test_what_a_step_waits_for_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "profile.csv"
    monkeypatch.setattr(sys, "argv", ["gpu_profile.py", "--tiny", "--output", str(output)])
    gpu_profile.main()
    with output.open() as file:
        rows = list(csv.DictReader(file))
    found = {(each["what"], each["unit"]): float(each["value"]) for each in rows}
    assert found["step, by the clock", "ms"] > 0
    assert found["kernels", "a step"] == 0  # there is no card
    assert sum(unit == "calls a step" for _, unit in found) == gpu_profile.LONGEST


@pytest.mark.slow
def test_recipes_run_to_their_end_on_a_small_model(tmp_path: Path) -> None:
    script = [sys.executable, str(BENCHMARKS / "gpu_recipes.py"), "--tiny", "--recipes", "sd35"]
    places = ["--folder", str(tmp_path / "models"), "--output", str(tmp_path / "results")]
    subprocess.run([*script, *places], check=True)
    (row,) = json.loads((tmp_path / "results/recipes.json").read_text())
    assert row["state"] == "ended", row
    assert row["took_gib"] > 0
    assert not (tmp_path / "models/sd35").exists()


@pytest.mark.slow
def test_it_runs_to_its_end_on_tiny_layouts(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--tiny", "--minutes", "60", "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py"), *options], check=True)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["ceiling_tflops"] > 0
    rows = {each["name"]: each for each in report["measurements"]}
    assert list(rows) == list(gpu.MEASUREMENTS)
    skipped = {name for name, each in rows.items() if each["state"] == "skipped"}
    assert {name for name, each in rows.items() if each["state"] != "measured"} == skipped, rows
    assert all("FLUX" in name or "compiled" in name for name in skipped)
    for name in rows.keys() - skipped:
        assert rows[name]["ratio"] > 0
        assert rows[name]["ours"]["peak_mib"] > 0
    assert 0 < rows[gpu.LORA]["share_of_ceiling"] < 1
    assert f"| {gpu.LORA} |" in (tmp_path / "gpu.md").read_text()
