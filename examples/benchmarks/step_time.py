"""What a training step costs, and what it would cost on this machine if nothing but its arithmetic took time.

    python -m examples.benchmarks.step_time [--presets dgfs tb pis_lv pis_lp] [--targets funnel many_well ...] [--json]

Any preset on any target: seconds of a step (batch 256, T = 100 unless a preset says otherwise) split into paths
(rollouts and what else the behaviour does), densities with the loss, backward and optimiser; the FLOPs of its matrix
products and the bytes that its backward pass needs of its forward pass; how many times longer it takes than these at
the machine's measured ceilings; target evaluations a second, 10 000 draws with log-weights, and peak memory. Medians
over repeats, interleaved over all cases. On one thread seconds are CPU seconds; on more, or on a GPU, of the wall.
"""

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

import targets  # noqa: F401  (found by short name)
from diffsampler.training.build import build_module
from diffsampler.training.module import SamplerModule
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.arguments import device as device_type
from examples.benchmarks.cost_model import Ceilings, measure_ceilings, measure_need

EXAMPLES = Path(__file__).parents[1]
PARTS = ("paths", "densities", "backward", "optimiser")
WARM_UP = 2
NUM_DRAWS = 10_000


class Case(NamedTuple):
    """A preset on a target."""

    preset: str
    target: str
    batch_size: int
    compile: bool

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.preset} {self.target}" + (" compiled" if self.compile else "")

    def build(self, device: torch.device, seed: int = 0) -> SamplerModule:
        """The module that the files make, on a device."""
        settings = {"compile": self.compile}
        for kind, name in (("presets", self.preset), ("targets", self.target)):
            settings |= settings_of(kind, name)
        parser = ArgumentParser()
        parser.add_function_arguments(build_module)
        torch.manual_seed(seed)
        return build_module(**instantiated(parser, settings)).to(device)


def instantiated(parser: ArgumentParser, settings: dict[str, Any]) -> Namespace:
    """What a parser makes of settings."""
    # jsonargparse 4.49 has a new name for it, and warns of the old one.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return instantiate(parser.parse_object(settings))


def settings_of(kind: str, name: str) -> dict[str, Any]:
    """What a file of examples/ says of the model."""
    return yaml.safe_load((EXAMPLES / kind / f"{name}.yaml").read_text())["model"]


class Step:
    """One training step, timed part by part."""

    def __init__(self, case: Case, clock: Callable[[], float], device: torch.device) -> None:
        self.case = case
        self.clock = clock
        self.module = case.build(device)
        self.optimizer = torch.optim.Adam(self.module.parameters(), 1e-3)
        self.generator = torch.Generator(device).manual_seed(0)
        self.seconds = dict.fromkeys(PARTS, 0.0)
        behaviour = self.module.behaviour
        behaviour.paths = self._timed("paths", behaviour.paths)

    def run(self) -> dict[str, float]:
        """Seconds of each part."""
        module, self.seconds = self.module, dict.fromkeys(PARTS, 0.0)
        start = self.clock()
        loss = module.loss.step(module.sampler.dynamics, module.behaviour, self.case.batch_size, self.generator, 0.0)
        end = self.clock()
        self.seconds["densities"] = end - start - self.seconds["paths"]
        self.optimizer.zero_grad()
        loss.backward()
        start, self.seconds["backward"] = self.clock(), self.clock() - end
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        self.optimizer.step()
        self.seconds["optimiser"] = self.clock() - start
        return self.seconds

    def draw(self) -> float:
        """Seconds of 10 000 draws with log-weights."""
        start = self.clock()
        self.module.sampler.sample(NUM_DRAWS, generator=self.generator, return_log_weights=True)
        return self.clock() - start

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.clock()
            result = call(*args, **kwargs)
            self.seconds[part] += self.clock() - start
            return result

        return timed


def clock_of(device: torch.device, threads: int) -> Callable[[], float]:
    """Seconds of the CPU on one thread, otherwise of the wall; on a GPU once it has done all that was asked."""
    if device.type == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def wait() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return wait


def measure(
    cases: list[Case], repeats: int, device: torch.device, threads: int
) -> tuple[dict[str, dict[str, float]], Ceilings]:
    """The figures of each case but its memory, and the machine's ceilings: the best of before and after."""
    torch.set_num_threads(threads)
    before = measure_ceilings(device)
    steps = [Step(case, clock_of(device, threads), device) for case in cases]
    rows: dict[str, list[dict[str, float]]] = {case.name: [] for case in cases}
    draws: dict[str, list[float]] = {case.name: [] for case in cases}
    for repeat in tqdm(range(WARM_UP + repeats), "steps", leave=False, disable=None):
        for step in steps:
            row = step.run()
            if repeat >= WARM_UP:
                rows[step.case.name].append(row)
            if repeat < 1 + max(3, repeats // 10):
                draws[step.case.name].append(step.draw())
    ceilings = Ceilings(*map(max, before, measure_ceilings(device)))
    found = {step.case.name: figures(step, rows[step.case.name], draws[step.case.name], ceilings) for step in steps}
    return found, ceilings


def figures(step: Step, rows: list[dict[str, float]], draws: list[float], ceilings: Ceilings) -> dict[str, float]:
    """Medians, what the step needs, and the ratio of the two."""
    before = step.module.sampler.num_target_evaluations
    need = measure_need(lambda: step.run())
    evaluations = step.module.sampler.num_target_evaluations - before
    seconds = statistics.median(sum(row.values()) for row in rows)
    return {
        **{part: statistics.median(row[part] for row in rows) for part in PARTS},
        "step": seconds,
        "fastest": min(sum(row.values()) for row in rows),
        "gflop": need.flops / 1e9,
        "megabytes": need.bytes / 1e6,
        "needed": need.seconds(ceilings),
        "measured/needed": seconds / need.seconds(ceilings),
        "evaluations/s": evaluations / seconds,
        "10 000 draws": statistics.median(draws[1:]),
    }


def peak_memory(case: Case) -> float:
    """GB of resident memory at most, of a process that makes three steps of a case and nothing else."""
    torch.set_num_threads(1)
    step = Step(case, time.process_time, torch.device("cpu"))
    for _ in range(WARM_UP + 1):
        step.run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def peak_memories(cases: list[Case]) -> dict[str, float]:
    """Of each case in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return {case.name: peak for case, peak in zip(cases, pool.map(peak_memory, cases), strict=True)}


def show(title: str, results: dict[str, dict[str, float]]) -> None:
    """One line a case."""
    columns = list(next(iter(results.values())))
    print(f"\n{title}\n{'':<30}" + "".join(f"{column:>{max(10, len(column) + 2)}}" for column in columns))
    for name, row in results.items():
        cells = (
            f"{row[c]:>{max(10, len(c) + 2)},.{0 if row[c] > 1000 else 1 if row[c] > 10 else 3}f}" for c in columns
        )
        print(f"{name:<30}" + "".join(cells))


def main() -> None:
    parser = make_parser(__doc__)
    choices = {kind: sorted(file.stem for file in (EXAMPLES / kind).glob("*.yaml")) for kind in ("presets", "targets")}
    default_presets, default_targets = ["dgfs", "tb", "pis_lv", "pis_lp"], ["funnel", "many_well", "gaussian_mixture_9"]
    parser.add_argument("--presets", nargs="+", default=default_presets, choices=choices["presets"], metavar="NAME")
    parser.add_argument("--targets", nargs="+", default=default_targets, choices=choices["targets"], metavar="NAME")
    parser.add_argument("--batch_size", type=count, default=256, help="trajectories a step")
    parser.add_argument("--repeats", type=count, default=30, help="steps of each case")
    parser.add_argument("--threads", type=count, nargs="+", help="None: one, and all that there are")
    parser.add_argument("--compile", action="store_true", help="each case with compile=True too")
    parser.add_argument(
        "--device", type=device_type, default="cuda" if torch.cuda.is_available() else "cpu", help="of all"
    )
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
    arguments = parser.parse_args()
    device = arguments.device
    threads = arguments.threads or sorted({1, torch.get_num_threads() if device.type == "cpu" else 1})
    cases = [
        Case(preset, target, arguments.batch_size, compiled)
        for preset in arguments.presets
        for target in arguments.targets
        for compiled in ([False, True] if arguments.compile else [False])
    ]
    machine = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "device": str(device),
    }
    report: dict[str, Any] = {"machine": machine, "threads": {}}
    peaks = peak_memories(cases) if device.type == "cpu" else {}
    for num_threads in threads:
        results, ceilings = measure(cases, arguments.repeats, device, num_threads)
        for name, peak in peaks.items():
            results[name]["peak GB"] = peak
        report["threads"][num_threads] = {"ceilings": ceilings._asdict(), "cases": results}
        if not arguments.json:
            unit = "CPU seconds" if device.type == "cpu" and num_threads == 1 else "seconds of the wall"
            limits = f"{ceilings.flops / 1e9:.0f} GFLOP/s, copies at {ceilings.bytes / 1e9:.1f} GB/s"
            show(f"{device}, {num_threads} thread(s), {unit}; matrix products at {limits}", results)
    if arguments.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
