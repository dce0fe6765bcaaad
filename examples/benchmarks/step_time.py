"""CPU seconds of one DGFS training step: SubTB, forward-looking flow, Langevin drift, T = 100, batch 256, width 64.

`python -m examples.benchmarks.step_time [--targets Funnel ManyWell GaussianMixture9] [--repeats 30] [--json]`

One thread; the median over interleaved repeats, split into rollout, evaluate with loss, backward, and optimiser.
"""

import argparse
import json
import statistics
import time

import torch

import targets
from diffsampler import Sampler
from diffsampler.losses import SubTrajectoryBalance

PARTS = ("rollout", "evaluate", "backward", "optimiser")


class Step:
    """One training step of a fresh sampler, timed part by part."""

    def __init__(self, name: str, batch_size: int) -> None:
        torch.manual_seed(0)
        self.name = name
        self.batch_size = batch_size
        self.sampler = Sampler(getattr(targets, name)())
        self.loss = SubTrajectoryBalance()
        self.optimizer = torch.optim.Adam(self.sampler.parameters(), 1e-3)
        self.generator = torch.Generator().manual_seed(0)

    def run(self) -> list[float]:
        """CPU seconds of each part."""
        clock = [time.process_time()]
        path = self.sampler.rollout(self.batch_size, self.generator)
        clock.append(time.process_time())
        loss = self.loss(self.sampler.evaluate(path))
        clock.append(time.process_time())
        self.optimizer.zero_grad()
        loss.backward()
        clock.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(self.sampler.parameters(), 1.0)
        self.optimizer.step()
        clock.append(time.process_time())
        return [after - before for before, after in zip(clock, clock[1:], strict=False)]


def measure(names: list[str], batch_size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median CPU seconds of each part and of the whole step, for each target."""
    steps = [Step(name, batch_size) for name in names]
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    for repeat in range(repeats + 2):
        for step in steps:
            seconds = step.run()
            if repeat >= 2:  # the first two warm up
                samples[step.name].append(seconds)
    return {
        name: {
            **{part: statistics.median(row[i] for row in rows) for i, part in enumerate(PARTS)},
            "step": statistics.median(sum(row) for row in rows),
            "fastest": min(sum(row) for row in rows),
        }
        for name, rows in samples.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["Funnel", "ManyWell", "GaussianMixture9"])
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(arguments.targets, arguments.batch_size, arguments.repeats)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    columns = (*PARTS, "step", "fastest")
    print(f"{'CPU seconds':<18}" + "".join(f"{column:>12}" for column in columns))
    for name, row in results.items():
        print(f"{name:<18}" + "".join(f"{row[column]:>12.4f}" for column in columns))


if __name__ == "__main__":
    main()
