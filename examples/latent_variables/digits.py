"""scikit-learn's digits with two latents: GFlowNet-EM, a VAE and an IWAE of the same decoder and the same CPU time.

    python -m examples.latent_variables.digits --seeds 0 1 2

Pixels are sampled to be black or white with their grey value for the probability, anew for every batch, as in the
paper of the IWAE (Burda et al., 2016, arXiv:1509.00519); validation and test images are sampled once. All methods have
the same batches' size, decoder, hidden layers of the encoder, Adam with its rate along a cosine, and CPU seconds of
training on one thread. First each takes its rate and number of draws from a small grid by the validation images, on a
seed of its own; then the seeds are trained, and of each training the decoder that is best on the validation images is
kept. Prints exact mean test log-likelihoods, by quadrature, and how good the E-steps are.

`quadrature` is no competitor but what an E-step without error would give: the gradient of log p(x) itself.

What a run has found is a line of a JSON file as soon as it is done, and is not repeated.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept
from examples.latent_variables.decoders import BinomialDecoder
from examples.latent_variables.encoders import ImportanceWeighted, Variational
from examples.latent_variables.expectation import DiffusionPosterior
from examples.latent_variables.quadrature import Quadrature, exact_log_likelihood

BATCH_SIZE, RATES, TUNING_SEED = 64, (3e-3, 1e-2), 100
CHECKS = 25  # of the validation images in a training
METHODS: dict[str, Callable[[BinomialDecoder, Tensor, int], nn.Module]] = {
    "gflownet-em": lambda decoder, data, num_draws: DiffusionPosterior(decoder, data, num_draws),
    "vae": lambda decoder, data, num_draws: Variational(decoder, num_draws),
    "iwae": lambda decoder, data, num_draws: ImportanceWeighted(decoder, num_draws),
    "quadrature": lambda decoder, data, num_draws: Quadrature(decoder, num_draws),
}
# Of the draws of an image; of quadrature, the points of a line of its grid.
NUM_DRAWS = {"gflownet-em": (8, 16, 32), "vae": (1, 8), "iwae": (8, 16, 32), "quadrature": (40,)}


class Run(NamedTuple):
    """One training: its method and settings, a seed, and CPU seconds."""

    method: str
    num_draws: int
    lr: float
    seed: int
    seconds: int


class Digits(NamedTuple):
    """Grey values to train on, and black and white images to validate and test; with shape (n, 64).

    `label` says which digits those to train on are, with shape (n); no training sees it.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    label: Tensor


def load() -> Digits:
    """1197, 300 and 300 images, always the same."""
    from sklearn.datasets import load_digits

    found = load_digits()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(found.data), generator=generator)
    images = torch.as_tensor(found.data, dtype=torch.float32)[order] / 16
    train, validation, test = images.split([1197, 300, 300])
    validation, test = (torch.bernoulli(part, generator=generator) for part in (validation, test))
    return Digits(train, validation, test, torch.as_tensor(found.target)[order][: len(train)])


def make_model(run: Run, digits: Digits) -> nn.Module:
    return METHODS[run.method](BinomialDecoder(trials=1), digits.train, run.num_draws)


def train(model: nn.Module, run: Run, digits: Digits) -> dict[str, Any]:
    """Train a model; it is left as it was best on the validation images."""
    generator = torch.Generator().manual_seed(run.seed)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, fused=True)
    spent, num_steps, best, best_state, curve = 0.0, 0, -float("inf"), {}, []
    while spent < run.seconds:
        begun = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = run.lr * 0.5 * (1 + float(torch.tensor(torch.pi * spent / run.seconds).cos()))
        rows = torch.randint(len(digits.train), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        model.loss(torch.bernoulli(digits.train[rows], generator=generator), generator).backward()
        nn.utils.clip_grad_norm_(parameters, 100.0)
        optimizer.step()
        num_steps, spent = num_steps + 1, spent + time.process_time() - begun
        if spent >= (len(curve) + 1) * run.seconds / CHECKS:
            found = float(exact_log_likelihood(model.decoder, digits.validation, num_points=150).mean())
            curve.append((round(spent, 2), found))
            if found > best:
                best, best_state = found, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_state)
    return {"validation": best, "curve": curve, "num_steps": num_steps, "cpu_seconds": spent}


@torch.no_grad()
def measure(model: nn.Module, digits: Digits, num_draws: int = 1000) -> dict[str, float]:
    """Exact log-likelihoods, and what draws of latents are worth.

    "kl" is the mean of KL(q || p(z | x)); of a diffusion sampler that of whole paths, which is never less.
    """
    exact = exact_log_likelihood(model.decoder, digits.test)
    finer = exact_log_likelihood(model.decoder, digits.test, 8.0, 600)
    generator = torch.Generator().manual_seed(0)
    seen = torch.bernoulli(digits.train, generator=generator)
    found = {
        "test": float(exact.mean()),
        "test_error": float((exact - finer).abs().max()),
        "train": float(exact_log_likelihood(model.decoder, seen).mean()),
    }
    if hasattr(model, "weighted_draws"):
        _, log_weight = model.weighted_draws(digits.test, num_draws, generator)
        weight = log_weight.softmax(1)
        found["kl"] = float((exact - log_weight.double().mean(1)).mean())
        found["ess"] = float((1 / weight.square().sum(1)).mean() / num_draws)
    return found


def perform(run: Run, folder: Path) -> dict[str, Any]:
    """Train and measure; what was trained is kept in the folder."""
    torch.manual_seed(run.seed)
    digits = load()
    model = make_model(run, digits)
    found = {**run._asdict(), **train(model, run, digits), **measure(model, digits)}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), state_file(run, folder))
    return found


def state_file(run: Run, folder: Path) -> Path:
    return folder / f"{run.method}_{run.num_draws}_{run.lr}_{run.seed}_{run.seconds}.pt"


def tuned(method: str, seconds: int, file: Path) -> Run:
    """The settings of a method that are best on the validation images."""
    runs = [Run(method, k, lr, TUNING_SEED, seconds) for k, lr in itertools.product(NUM_DRAWS[method], RATES)]
    found = {run: kept(file, run, lambda run: perform(run, folder_of(file))) for run in runs}
    for run, result in found.items():
        print(f"{method}: {run.num_draws} draws, rate {run.lr}: validation {result['validation']:.3f}", flush=True)
    return max(runs, key=lambda run: found[run]["validation"])


def in_words(found: dict[str, Any]) -> str:
    latents = f", KL {found['kl']:.2f}, ESS {found['ess']:.2f}" if "kl" in found else ""
    return (
        f"{found['method']}, {found['num_draws']} draws, rate {found['lr']}, seed {found['seed']}: test "
        f"{found['test']:.3f}, validation {found['validation']:.3f}, train {found['train']:.3f}{latents}, "
        f"{found['num_steps']} steps, {found['cpu_seconds']:.0f} CPU s"
    )


def summary(found: dict[str, list[dict[str, Any]]]) -> str:
    """Means over seeds with their standard errors, and the differences from the first method, seed by seed."""
    lines = []
    first = torch.tensor([one["test"] for one in next(iter(found.values()))])
    for method, results in found.items():
        test = torch.tensor([one["test"] for one in results])
        text = f"{method}: test {mean_and_error(test)}"
        if lines and len(test) == len(first):
            text += f"; first method less this one, by seeds: {mean_and_error(first - test)}"
        lines.append(text)
    return "\n".join(lines)


def mean_and_error(values: Tensor) -> str:
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{float(values.mean()):.3f} +- {error:.3f}"


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=count, default=200, help="CPU seconds of a training")
    parser.add_argument("--tuning_seconds", type=count, default=50, help="the same while settings are chosen")
    parser.add_argument("--file", type=Path, default=Path("runs/digits.jsonl"), help="of finished runs")
    given: argparse.Namespace = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    for method in given.methods:
        best = tuned(method, given.tuning_seconds, given.file)
        for seed in given.seeds:
            run = best._replace(seed=seed, seconds=given.seconds)
            found.setdefault(method, []).append(kept(given.file, run, lambda run: perform(run, folder_of(given.file))))
            print(in_words(found[method][-1]), flush=True)
    print(summary(found))


def folder_of(file: Path) -> Path:
    """Of what was trained, beside the file of what was found."""
    return file.with_suffix("")


if __name__ == "__main__":
    main()
