"""Two moons from simulations alone: how near draws are to posteriors that are known, within minutes of one core.

    python -m examples.benchmarks.two_moons --seeds 0 1 2

The model of the benchmark of simulation-based inference: theta uniform on [-1, 1]^2, data on a narrow crescent about a
place that two theta share, so that posteriors are two crescents, a hundredth thick. Every run is
`fit(Sampler(Simulated(prior, simulate)))` as it is, on one thread; no likelihood is given. Prints

- C2ST: the accuracy of a classifier that tells draws from exact ones, mean and worst of ten data sets; 0.5 is best;
- the divergence of what was learned, the mean of log p(theta | data) - log q(theta | data) over joint draws that were
  not trained on, bounded from above by 64 walks back from each, and with one as validations in training do;
- how many draws are within three thicknesses of the crescents, whose truth is 0.997, and CPU seconds.

What a run has found is a line of a JSON file as soon as it is done, and is not repeated.

References:
    Benchmarking simulation-based inference, Lueckmann et al., 2021, arXiv:2101.04653.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.distributions import Independent, Uniform

from diffsampler import Sampler, fit
from diffsampler.families import Simulated
from diffsampler.training.held_out import log_likelihood_by_one_walk
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept

RADIUS, THICKNESS, PLACE = 0.1, 0.01, 0.25
NUM_DATA, NUM_DRAWS, NUM_HELD_OUT, NUM_WALKS, NUM_FOR_EVIDENCE = 10, 2000, 500, 64, 100_000


class Run(NamedTuple):
    seed: int
    max_steps: int
    batch_size: int


def place(theta: Tensor) -> Tensor:
    """Where data are about, with shape (*, 2): the same for theta and its mirror image."""
    return torch.stack([-theta.sum(-1).abs(), theta[..., 1] - theta[..., 0]], -1) / math.sqrt(2)


def crescent(n: int, generator: torch.Generator | None = None) -> Tensor:
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    angle = math.pi * (uniform - 0.5)
    radius = RADIUS + THICKNESS * torch.randn(n, generator=generator, dtype=torch.float64)
    return torch.stack([radius * angle.cos() + PLACE, radius * angle.sin()], -1)


def log_likelihood(theta: Tensor, data: Tensor) -> Tensor:
    offset = data - place(theta)
    radius = (offset - torch.tensor([PLACE, 0.0], dtype=torch.float64)).norm(dim=-1)
    log_prob = -0.5 * ((radius - RADIUS) / THICKNESS) ** 2 - math.log(THICKNESS * math.sqrt(2 * math.pi))
    return torch.where(offset[..., 0] > PLACE, log_prob - (math.pi * radius).log(), -math.inf)


def preimages(data: Tensor, generator: torch.Generator, n: int) -> Tensor:
    """Both theta for each of n draws of the crescent, wherever they are, with shape (2, n, 2)."""
    offset = math.sqrt(2) * (data - crescent(n, generator))
    both = [torch.stack([0.5 * (side - offset[:, 1]), 0.5 * (side + offset[:, 1])], -1) for side in _sides(offset)]
    return torch.where(offset[:, :1] <= 0, torch.stack(both), math.inf)


def _sides(offset: Tensor) -> tuple[Tensor, Tensor]:
    return offset[:, 0], -offset[:, 0]


def inside(theta: Tensor) -> Tensor:
    return (theta.abs() < 1).all(-1)


def log_evidence(data: Tensor, generator: torch.Generator) -> float:
    """The share of preimages that the prior allows, times its density: the map keeps areas."""
    return math.log(0.25 * float(inside(preimages(data, generator, NUM_FOR_EVIDENCE)).sum(0).double().mean()))


def exact_draws(data: Tensor, n: int, generator: torch.Generator) -> Tensor:
    theta = preimages(data, generator, 8 * n).flatten(0, 1)
    theta = theta[inside(theta)]
    return theta[torch.randperm(len(theta), generator=generator)[:n]]


def family() -> Simulated:
    prior = {"theta": Independent(Uniform(-torch.ones(2), torch.ones(2)), 1)}
    return Simulated(prior, lambda values: crescent(len(values["theta"])) + place(values["theta"]))


def c2st(draws: Tensor, exact: Tensor) -> float:
    """Of a small network, by five-fold cross-validation."""
    classifier = make_pipeline(StandardScaler(), MLPClassifier((20, 20), early_stopping=True, random_state=0))
    labels = torch.cat([torch.zeros(len(draws)), torch.ones(len(exact))]).numpy()
    return float(cross_val_score(classifier, torch.cat([draws, exact]).numpy(), labels, cv=5).mean())


def divergence(sampler: Sampler, generator: torch.Generator) -> tuple[float, float, float]:
    """By many walks back from each draw, with its standard error, and by one; of the numbers that stand for theta."""
    members = sampler.family
    x, data = members.sample_jointly(NUM_HELD_OUT, generator)
    theta, prior = members.unknowns.values(x)["theta"], members.unknowns.log_prob(x)
    exact = log_likelihood(theta, data) + prior - torch.tensor([log_evidence(one, generator) for one in data])
    walks = log_likelihood_by_one_walk(sampler, x.repeat(NUM_WALKS, 1), data.to(x).repeat(NUM_WALKS, 1), generator)
    walks = walks.view(NUM_WALKS, -1)
    apart = exact - (walks.logsumexp(0) - math.log(NUM_WALKS))
    return float(apart.mean()), float(apart.std() / NUM_HELD_OUT**0.5), float((exact - walks.mean(0)).mean())


def perform(run: Run) -> dict[str, Any]:
    torch.set_num_threads(1)
    start, sampler = time.process_time(), Sampler(family())
    options = {"max_steps": run.max_steps, "batch_size": run.batch_size, "seed": run.seed, "accelerator": "cpu"}
    fit(sampler, steps_per_epoch=max(1, run.max_steps // 10), **options)
    seconds = time.process_time() - start
    generator = torch.Generator().manual_seed(10_000 + run.seed)
    scores, near = [], []
    for one in sampler.family.sample_jointly(NUM_DATA, generator)[1]:
        member = sampler.given(one)
        theta = member.target.constrain(member.sample(NUM_DRAWS, generator=generator))["theta"].double()
        radius = (one - place(theta) - torch.tensor([PLACE, 0.0], dtype=torch.float64)).norm(dim=-1)
        near.append(float(((radius - RADIUS).abs() < 3 * THICKNESS).double().mean()))
        scores.append(c2st(theta, exact_draws(one, NUM_DRAWS, generator)))
    apart, error, bound = divergence(sampler, generator)
    return {
        **run._asdict(),
        "cpu_seconds": seconds,
        "c2st": scores,
        "near": near,
        "divergence": apart,
        "divergence_error": error,
        "divergence_by_one_walk": bound,
    }


def in_words(found: dict[str, Any]) -> str:
    scores, near = (torch.tensor(found[name]) for name in ("c2st", "near"))
    return (
        f"seed {found['seed']}, {found['max_steps']} steps of {found['batch_size']}: C2ST {scores.mean():.3f}, at most "
        f"{scores.max():.3f}; divergence {found['divergence']:.3f} +- {found['divergence_error']:.3f}, by one walk "
        f"{found['divergence_by_one_walk']:.3f}; {near.mean():.1%} near the crescents; {found['cpu_seconds']:.0f} CPU s"
    )


def main(args: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max_steps", type=count, default=6000, help="training steps")
    parser.add_argument("--batch_size", type=count, default=256, help="simulations of a step")
    parser.add_argument("--file", type=Path, default=Path("runs/two_moons.jsonl"), help="of what was found")
    options: argparse.Namespace = parser.parse_args(args)
    for seed in options.seeds:
        print(in_words(kept(options.file, Run(seed, options.max_steps, options.batch_size), perform)), flush=True)


if __name__ == "__main__":
    main()
