"""Can its log Z be trusted: twenty densities with exact log Z, default settings, no tuning.

    python -m examples.benchmarks.calibration --seeds 0 1 2

Every run is `fit(Sampler(target), max_steps=...)`, one estimate and its verdict, on one thread. Beside it stands the
plain reference with particles for about the same number of target evaluations. Finished runs are kept in the folder
and not repeated. Prints, of all runs: how many are within 0.1 of the truth, the coverage of 95 % intervals among those
graded trustworthy, and how many of those are wrong.
"""

import json
import logging
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from diffsampler import Sampler, assess, fit
from diffsampler.estimators import GRADES, reference
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.densities import DENSITIES

WRONG = 0.1
EVALUATIONS_A_PARTICLE = 105  # the median over these densities; 50 to 230


def run(name: str, seed: int, max_steps: int, folder: Path) -> dict[str, Any]:
    """One density and seed, or what an earlier call has found."""
    file = folder / f"{'-'.join(name.replace(',', '').split())}_{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    target, start = DENSITIES[name](), time.process_time()
    sampler = Sampler(target)
    every = max(1, max_steps // 5)
    history = fit(sampler, max_steps, seed, steps_per_epoch=every, enable_progress_bar=False, accelerator="cpu")
    found = assess(sampler, seed=seed, history=history)
    estimate = found.estimate
    seconds = time.process_time() - start
    plain = reference(target, max(100, estimate.num_target_evaluations // EVALUATIONS_A_PARTICLE), seed).estimate
    result = {
        "name": name,
        "seed": seed,
        "error": estimate.log_z - target.log_z,
        "covered": estimate.low <= target.log_z <= estimate.high,
        "ess": estimate.ess,
        "khat": estimate.khat,
        **asdict(found.verdict),
        "num_target_evaluations": estimate.num_target_evaluations,
        "seconds": seconds,
        "plain_error": plain.log_z - target.log_z,
        "plain_num_target_evaluations": plain.num_target_evaluations,
    }
    file.write_text(json.dumps(result, indent=2) + "\n")
    return result


def summarise(results: list[dict[str, Any]]) -> str:
    """What the runs say together."""
    trusted = [result for result in results if result["grade"] == GRADES[0]]
    within = sum(abs(result["error"]) <= WRONG for result in results)
    plain_within = sum(abs(result["plain_error"]) <= WRONG for result in results)
    lines = [
        f"{len(results)} runs; within {WRONG} of the truth: {within / len(results):.0%} "
        f"(plain reference {plain_within / len(results):.0%})",
        f"mean absolute error: {statistics.mean(abs(result['error']) for result in results):.3f} "
        f"(plain reference {statistics.mean(abs(result['plain_error']) for result in results):.3f})",
        f"graded {GRADES[0]}: {len(trusted) / len(results):.0%}",
    ]
    if trusted:
        covered = sum(result["covered"] for result in trusted) / len(trusted)
        wrong = sum(abs(result["error"]) > WRONG for result in trusted) / len(trusted)
        lines.append(f"of those, covered by the 95 % interval: {covered:.0%}; wrong by more than {WRONG}: {wrong:.0%}")
    lines.append(f"median CPU seconds: {statistics.median(result['seconds'] for result in results):.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--densities", nargs="+", default=list(DENSITIES), choices=list(DENSITIES), metavar="NAME")
    parser.add_argument("--max_steps", type=count, default=2000, help="training steps")
    parser.add_argument("--jobs", type=count, default=1, help="runs side by side, one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/calibration"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'density':32s} seed   error    ESS  plain error  evaluations  CPU s  verdict")
    results = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        pending = [
            pool.submit(run, name, seed, arguments.max_steps, arguments.folder)
            for seed in arguments.seeds
            for name in arguments.densities
        ]
        for future in pending:
            result = future.result()
            results.append(result)
            print(
                f"{result['name']:32s} {result['seed']:4d} {result['error']:+7.3f} {result['ess']:6.2f} "
                f"{result['plain_error']:+12.3f} {result['num_target_evaluations']:12,d} {result['seconds']:6.0f}  "
                f"{result['grade']}",
                flush=True,
            )
    print(summarise(results))


if __name__ == "__main__":
    main()
