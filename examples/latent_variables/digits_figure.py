"""Latent planes, decoded images and validation curves of the trainings that `digits` has kept.

python -m examples.latent_variables.digits_figure --seed 0 --output docs/latent_variables.png
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import read
from examples.latent_variables.decoders import Decoder, log_prior
from examples.latent_variables.digits import TUNING_SEED, Run, folder_of, load, make_model, state_file
from examples.latent_variables.quadrature import grid

NAMES = {"gflownet-em": "GFlowNet-EM", "iwae": "IWAE", "vae": "VAE", "quadrature": "quadrature"}
COLOURS = {"gflownet-em": "C3", "iwae": "C0", "vae": "C2", "quadrature": "0.5"}
NUM_TILES, HALF_WIDTH = 16, 2.5


def trained(run: Run, folder: Path) -> nn.Module:
    model = make_model(run, load())
    model.load_state_dict(torch.load(state_file(run, folder), weights_only=True))
    return model


@torch.no_grad()
def likeliest_latents(decoder: Decoder, x: Tensor) -> Tensor:
    """Where p(z | x) is highest on a grid, with shape (n, 2)."""
    points = grid(4.0, 250)
    return points[(log_prior(points)[:, None] + decoder.log_likelihood_of_pairs(points, x)).argmax(0)]


@torch.no_grad()
def decoded(decoder: nn.Module) -> Tensor:
    """The grey values of a square of the latent plane, as one picture; upwards is the second latent."""
    line = torch.linspace(-HALF_WIDTH, HALF_WIDTH, NUM_TILES)
    z = torch.stack(torch.meshgrid(line, line.flip(0), indexing="xy"), -1).reshape(-1, 2)
    tiles = decoder.network(z).sigmoid().view(NUM_TILES, NUM_TILES, 8, 8)
    return tiles.permute(0, 2, 1, 3).reshape(8 * NUM_TILES, 8 * NUM_TILES)


def draw_plane(axes: Axes, decoder: Decoder, x: Tensor, digit: Tensor) -> None:
    z = likeliest_latents(decoder, x)
    axes.scatter(z[:, 0], z[:, 1], c=digit, cmap="tab10", s=5)
    for one in range(10):
        middle = z[digit == one].median(0).values
        axes.text(*middle.tolist(), str(one), ha="center", va="center", weight="bold")
    axes.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])


def draw_curves(axes: Axes, found: dict[Run, dict[str, Any]]) -> None:
    named = set()
    for run, result in found.items():
        seconds, values = zip(*result["curve"], strict=True)
        label = None if run.method in named else NAMES[run.method]
        axes.plot(seconds, values, color=COLOURS[run.method], label=label, linewidth=1)
        named.add(run.method)
    lowest = min(result["validation"] for result in found.values())
    axes.set(xlabel="CPU seconds", ylabel="validation log-likelihood", ylim=(lowest - 1.0, None))
    axes.legend(frameon=False, fontsize=8)


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--file", type=Path, default=Path("runs/digits.jsonl"), help="of finished runs")
    parser.add_argument("--seed", type=int, default=0, help="of the latent planes")
    parser.add_argument("--seconds", type=count, default=200, help="of the trainings that are shown")
    parser.add_argument("--output", type=Path, default=Path("runs/digits.png"))
    given = parser.parse_args(arguments)
    found = {
        run: result
        for run, result in read(given.file, Run).items()
        if run.seconds == given.seconds and run.seed != TUNING_SEED
    }
    digits = load()
    shown = {run.method: run for run in found if run.seed == given.seed}
    figure, axes = plt.subplot_mosaic([["a", "b", "c"], ["d", "e", "f"], ["g"] * 3], figsize=(8.4, 8.6))
    for above, below, method in zip("abc", "def", ("gflownet-em", "iwae", "vae"), strict=True):
        decoder = trained(shown[method], folder_of(given.file)).decoder
        draw_plane(axes[above], decoder, digits.train.round(), digits.label)
        axes[above].set_title(NAMES[method])
        axes[below].imshow(decoded(decoder), cmap="gray_r", extent=(-HALF_WIDTH, HALF_WIDTH) * 2, vmin=0, vmax=1)
        axes[below].set(xticks=[], yticks=[])
    draw_curves(axes["g"], found)
    figure.tight_layout()
    figure.savefig(given.output, dpi=80)


if __name__ == "__main__":
    main()
