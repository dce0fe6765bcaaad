"""log Z of the log-Gaussian Cox process on 126 Finnish pines, in 1600 dimensions, with its verdict: about ten minutes.

    python -m examples.cox_process

In the coordinates of its Laplace approximation the posterior is nearly N(0, I), and tempered SMC from there needs few
temperatures. A first run finds them; a second one, with noise of its own along the same ladder, is free of the bias of
adapting. Each is the other's reference.
"""

import torch

from diffsampler.assessment import format_table
from diffsampler.baseline import GaussianComponents, smc
from diffsampler.coordinates import DensityInCoordinates, LaplaceCoordinates
from diffsampler.log_z import judge
from targets import CoxProcess


def main(size: int = 40, num_particles: int = 400, num_moves: int = 6) -> None:
    """Estimate log Z twice, and judge."""
    target = CoxProcess(size)
    walked = DensityInCoordinates(target, LaplaceCoordinates(target))
    laplace = GaussianComponents(torch.zeros(1, target.dim), torch.eye(target.dim)[None])
    print("Laplace approximation found; two runs of SMC.")
    adaptive = smc(walked, laplace, num_particles, num_moves, seed=0)
    again = smc(walked, laplace, num_particles, num_moves, ladder=adaptive.ladder, seed=1)
    print(format_table(again.estimate, target.log_z, adaptive.estimate))
    verdict = judge(again.estimate, adaptive.estimate)
    print(f"  verdict: {verdict.grade}", *verdict.reasons, sep="\n    ")


if __name__ == "__main__":
    main()
