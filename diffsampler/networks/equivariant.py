"""What networks with a symmetry ask of a process."""

import torch

from diffsampler.errors import InputError
from diffsampler.processes import Process


def check_one_scale(name: str, process: Process) -> None:
    """Raise InputError if the process has a scale for each coordinate, which knows particles, axes or sites apart.

    Arguments:
        name: of the network.
        process: that it steers.
    """
    p, _ = process.gaussian_control(torch.full((1, 1), 0.5, dtype=torch.float64))
    if p.shape[-1] > 1 or len(process.scale.unique()) > 1:
        raise InputError(
            f"{name} treats all coordinates alike, but {type(process).__name__} has a scale for each of them: give it "
            "one number, as in partial(VariancePreserving, sigma=2.0)."
        )
