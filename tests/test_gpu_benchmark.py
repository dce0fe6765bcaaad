"""The GPU benchmark runs, small, on a CPU: a card is not paid for to find a typo."""

import json
import sys

import pytest
import torch

from examples.benchmarks import gpu, step_time


def run(monkeypatch, *arguments):
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(step_time, "NUM_DRAWS", 100)
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    gpu.main()


@pytest.mark.slow
def test_every_part_runs_small(tmp_path, monkeypatch, capsys):
    command = ("--device", "cpu", "--small", "--folder", str(tmp_path))
    run(monkeypatch, *command)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert set(report) == {"machine", "batteries", "graphs", "bfloat16", "steps", "draws"}
    (battery,) = report["batteries"]
    assert battery["passed"] > 0 and battery["failed"] == 0
    assert report["graphs"][0]["largest difference"] == 0  # the same noise, and nothing is recorded on a CPU
    assert 0 < report["bfloat16"][0]["largest"] < 0.1
    assert report["steps"][0]["measured/needed"] > 1
    table = (tmp_path / "gpu.md").read_text()
    assert "| 1,000 |" in table and capsys.readouterr().out.endswith(table + "\n")
    # What is there is not run again, and what is missing is.
    kept = {**report, "draws": [{"draws": 1, "seconds": 2.0}]}
    del kept["bfloat16"]
    (tmp_path / "gpu.json").write_text(json.dumps(kept))
    run(monkeypatch, *command)
    again = json.loads((tmp_path / "gpu.json").read_text())
    # Nor is it taken for what another machine has done.
    (tmp_path / "gpu.json").write_text(json.dumps({**kept, "machine": [{"device": "a card"}]}))
    with pytest.raises(SystemExit):
        run(monkeypatch, *command)
    assert "give another --folder" in capsys.readouterr().err
    assert again["draws"] == kept["draws"] and again["bfloat16"][0]["batch"] == 16


def test_without_a_gpu_it_says_how_to_try(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--device", "cpu")
    assert "--device cpu --small" in capsys.readouterr().err
