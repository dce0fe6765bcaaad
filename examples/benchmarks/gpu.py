"""What a GPU does with the library, part by part: one table, as Markdown and as JSON.

    python -m examples.benchmarks.gpu [--parts batteries graphs bfloat16 steps draws] [--folder runs/gpu]

batteries: the tests of parts, on the device. graphs: rollouts as CUDA graphs beside plain ones, which they must equal.
bfloat16: how far log-weights move where a control works in it. steps: training steps at growing batches, and how many
times longer they take than their arithmetic at the device's measured ceilings. draws: many draws with log-weights.

Each part is written as it ends; a part that is there is not repeated, so that a run that was cut off goes on. With
`--device cpu --small` every part runs in seconds, on a CPU: it finds the typos before a card is paid for.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, NamedTuple, TypeVar

import torch

from diffsampler import Sampler
from diffsampler.networks import FourierMLP, LangevinControl, ReducedPrecision
from diffsampler.paths import Dynamics, Path, evaluate, rollout
from diffsampler.paths.cuda_graph import GraphedRollout
from examples.benchmarks.arguments import device, make_parser
from examples.benchmarks.cost_model import now
from examples.benchmarks.step_time import Case, measure
from targets import Funnel

ROOT = FilePath(__file__).parents[2]
BATTERIES = ("tests/processes", "tests/losses", "tests/networks", "tests/test_cuda_graph.py")
SMALL_BATTERY = ("tests/test_grids.py",)
PRESETS = ("dgfs", "tb", "pis_lv", "pis_lp")

Row = dict[str, float | str]
Result = TypeVar("Result")


class Size(NamedTuple):
    """How much is run."""

    batteries: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    presets: tuple[str, ...]
    repeats: int
    draws: int


FULL = Size(BATTERIES, (256, 1024, 4096, 16384), PRESETS, 10, 1_000_000)
SMALL = Size(SMALL_BATTERY, (16,), PRESETS[:1], 1, 1000)


def batteries(where: torch.device, size: Size) -> list[Row]:
    """How many tests of parts pass and fail there."""
    rows = []
    for name in size.batteries:
        command = [sys.executable, "-m", "pytest", "-q", name, f"--device={where.type}", "-p", "no:cacheprovider"]
        start = now(where)
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
        counts = {outcome: int(count) for count, outcome in re.findall(r"(\d+) (passed|failed|skipped|error)", printed)}
        rows.append({"tests": name, "passed": 0, "failed": 0, "skipped": 0, **counts, "seconds": now(where) - start})
    return rows


def graphs(where: torch.device, size: Size) -> list[Row]:
    """Rollouts with and without a recording."""
    rows = []
    for batch in size.batch_sizes:
        plain = _sampler(where, FourierMLP).dynamics
        recorded = replace(plain, graphed=GraphedRollout())
        difference, seconds = 0.0, []
        for _ in range(4 + size.repeats):  # the first few are not recorded
            found = [_timed(where, _roll, dynamics, batch) for dynamics in (plain, recorded)]
            difference = max(difference, float((found[0][1].x - found[1][1].x).abs().max()))
            seconds.append([one[0] for one in found])
        fastest = [min(column) for column in zip(*seconds, strict=True)]
        rows.append({"batch": batch, "plain s": fastest[0], "graph s": fastest[1], "largest difference": difference})
    return rows


def bfloat16(where: torch.device, size: Size) -> list[Row]:
    """The same paths under the same weights, in full precision and not."""
    rows = []
    for batch in size.batch_sizes:
        full, reduced = (_sampler(where, network).dynamics for network in (FourierMLP, ReducedPrecision))
        path = _roll(full, batch)
        weights, seconds = [], []
        for dynamics in (full, reduced):
            taken, trajectory = _timed(where, evaluate, dynamics, path, with_flow=False)
            weights.append(trajectory.log_weight.detach())
            seconds.append(taken)
        moved = (weights[0] - weights[1]).abs()
        row = {"batch": batch, "float32 s": seconds[0], "bfloat16 s": seconds[1]}
        rows.append({**row, "mean change of log w": float(moved.mean()), "largest": float(moved.max())})
    return rows


def steps(where: torch.device, size: Size) -> list[Row]:
    """Training steps of presets on the funnel."""
    rows = []
    for batch in size.batch_sizes:
        cases = [Case(preset, "funnel", batch, compile=False) for preset in size.presets]
        found, ceilings = measure(cases, size.repeats, where, threads=1)
        reached = {"GFLOP/s reached": ceilings.flops / 1e9, "GB/s reached": ceilings.bytes / 1e9}
        for name, figures in found.items():
            kept = {key: figures[key] for key in ("step", "gflop", "needed", "measured/needed")}
            rows.append({"case": name, "batch": batch, **kept, **reached})
    return rows


def draws(where: torch.device, size: Size) -> list[Row]:
    """Draws with log-weights, in batches of a tenth."""
    sampler = _sampler(where, FourierMLP)
    rows = []
    for _ in range(2):
        batch = size.draws // 10
        seconds, _ = _timed(where, sampler.sample, size.draws, seed=0, return_log_weights=True, batch_size=batch)
        memory = {"peak GB": torch.cuda.max_memory_allocated(where) / 1e9} if where.type == "cuda" else {}
        rows.append({"draws": size.draws, "seconds": seconds, **memory})
    return rows[1:]  # the first has warmed up


PARTS: dict[str, Callable[[torch.device, Size], list[Row]]] = {
    part.__name__: part for part in (batteries, graphs, bfloat16, steps, draws)
}


def _sampler(where: torch.device, network: type) -> Sampler:
    """One whose control says something, the same for every network."""
    torch.manual_seed(0)
    sampler = Sampler(Funnel(), control=lambda process: LangevinControl(process, network), grid=100, flow=None)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sampler.policy.control.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)
    return sampler.to(where)


def _roll(dynamics: Dynamics, batch: int) -> Path:
    return rollout(dynamics, batch, torch.Generator(dynamics.policy.device).manual_seed(2))


def _timed(where: torch.device, call: Callable[..., Result], *args: Any, **kwargs: Any) -> tuple[float, Result]:
    """Seconds of a call, and its result."""
    start = now(where)
    result = call(*args, **kwargs)
    return now(where) - start, result


def tables(report: dict[str, list[Row]]) -> str:
    """Markdown, a table a part."""
    lines = []
    for part, rows in report.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"\n## {part}\n", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="PART", help="in order")
    parser.add_argument(
        "--folder", type=FilePath, help="of gpu.json and gpu.md; by default runs/gpu, or runs/gpu_small"
    )
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="of all")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    arguments = parser.parse_args()
    where = arguments.device
    if where.type == "cpu" and not arguments.small:
        parser.error("there is no GPU here; with --device cpu --small every part runs, small.")
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    machine = [{"device": name, "torch": torch.__version__, "size": "small" if arguments.small else "full"}]
    folder = arguments.folder or FilePath("runs/gpu_small" if arguments.small else "runs/gpu")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "gpu.json"
    report = json.loads(file.read_text()) if file.is_file() else {"machine": machine}
    if report["machine"] != machine:
        parser.error(f"{folder} holds what was measured with {report['machine'][0]}: give another --folder.")
    for part in arguments.parts:
        if part in report:
            continue
        start = now(where)
        report[part] = PARTS[part](where, SMALL if arguments.small else FULL)
        file.write_text(json.dumps(report, indent=2))
        (folder / "gpu.md").write_text(tables(report))
        print(f"{part}: {now(where) - start:.0f} s", flush=True)
    print(tables(report))


if __name__ == "__main__":
    main()
