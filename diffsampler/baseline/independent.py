"""What stands beside a sampler's estimate."""

from dataclasses import dataclass

from torch import Tensor

from diffsampler.log_z.estimate import LogZEstimate


@dataclass(frozen=True)
class Independent:
    """An estimate that a sampler had no part in.

    Attributes:
        estimate: of log Z.
        x: points with shape (n, D): equally weighted, about draws of the target.
    """

    estimate: LogZEstimate
    x: Tensor
