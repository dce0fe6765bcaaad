"""Matching: a control regressed on what leads to known end points, one call of the network for each of them."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_count, check_flag
from diffsampler.losses.base import Objective
from diffsampler.paths import Dynamics, kernel_at

FORGOTTEN = 0.02  # of what variances are estimated from, at every step


class Matching(Objective):
    """The mean of each step regressed on that of the step to a known end point, and its width on what is left.

    Two things are known of the end point x_1 of x_t = signal x_1 + std noise, both right in the mean: x_1 itself
    (denoising), which is precise while t is small, and (x_t + std^2 grad log R(x_1) / signal) / signal (by the target's
    score, as in adjoint matching), which is near the end. Their mixture has the weight of the smallest variance, as
    running means of both tell at every time. Transitions are random, each drawn by P_B from a draw of the target. On
    angles the end point is seen in the mean over all turns, and steps must be well below half a turn.

    References:
        A Connection Between Score Matching and Denoising Autoencoders, Vincent, 2011: denoising.
        Target Score Matching, De Bortoli et al., 2024, arXiv:2402.08667, section 3: the other one, and mixtures.
        Adjoint Sampling, Havens et al., 2025, arXiv:2504.11713: matching on end points, without trajectories.

    Arguments:
        num_transitions: of each training step; drawn from as many paths as its batch has.
        use_score: whether the target's score is asked for at end points, if it has one; else it is denoising alone,
            which costs no evaluation of the target, where the control takes no score.
    """

    uses_log_z = False
    backward = True

    def __init__(self, num_transitions: int = 1024, use_score: bool = True) -> None:
        super().__init__()
        self.num_transitions = check_count("num_transitions", num_transitions)
        self.use_score = check_flag("use_score", use_score)
        self.register_buffer("products", torch.zeros(0))
        self.register_buffer("squares", torch.zeros(0))

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        process = dynamics.policy.process
        if process.marginal(torch.full((1,), 0.5, dtype=torch.float64, device=dynamics.policy.device)) is None:
            raise InputError(
                "loss Matching needs a process whose backward kernel is a known Gaussian of the end point, which "
                f"{type(process).__name__} has not. Use VariancePreserving, PinnedBrownian, Torus or MaximumLikelihood."
            )

    def adapt(self, dynamics: Dynamics) -> None:
        like = dynamics.policy.log_z.detach()
        self.products, self.squares = like.new_zeros(2, dynamics.grid.num_steps).unbind()

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        grid, process = dynamics.times(generator), dynamics.policy.process
        ends = behaviour.end_points(dynamics, n, generator, progress)
        draws = {"generator": generator, "device": ends.device}
        step = torch.randint(len(grid) - 1, (self.num_transitions,), **draws)
        row = torch.randint(n, (self.num_transitions,), **draws)
        times, next_times = grid[step, None], grid[step + 1, None]
        # By P_B from the end, at once: no path is walked.
        (signal, std), (next_signal, next_std) = process.marginal(times), process.marginal(next_times)
        y = process.space.kernel(next_signal.to(ends.dtype) * ends[row], next_std).rsample(generator)
        x = process.backward_kernel(times, next_times, y).rsample(generator)
        kernel = kernel_at(dynamics, grid, step, x)
        mean, end = kernel.mean.squeeze(1), process.space.seen_from(x, ends[row], std)
        back = process.backward_kernel(times, next_times, torch.ones_like(x))
        # The mean of y given x and the end point, as y is given the end point and x given y.
        decay, lost = back.mean.double(), back.std.square()
        precision = decay.square() * next_std.square() + lost
        is_start = precision == 0  # a Dirac, which says nothing of where y is
        of_x = torch.where(is_start, 0.0, decay * next_std.square() / precision).to(x.dtype)
        of_end = torch.where(is_start, next_signal, next_signal * lost / precision).to(x.dtype)
        if self.use_score and dynamics.target.differentiable:
            score = dynamics.target.log_prob_and_score(ends)[1][row]
            guess = (mean.detach() - of_x * x) / of_end
            end = self._mixed(step, x, end, score, guess, signal, std)
        error = (of_x * x + of_end * end - mean) / kernel.std.detach().squeeze(1).to(x.dtype)
        width = kernel.around(kernel.mean.detach()).log_prob(y.unsqueeze(1)).squeeze(1)
        return (len(grid) - 1) * (0.5 * error.square().sum(-1) - width).mean().double()

    @torch.no_grad()
    def _mixed(
        self, step: Tensor, x: Tensor, end: Tensor, score: Tensor, guess: Tensor, signal: Tensor, std: Tensor
    ) -> Tensor:
        """End points, and what scores say of them, mixed so that their variance around the current guess is least."""
        signal, variance = signal.to(x.dtype), std.square().to(x.dtype)
        excess = end - (x + variance * score / signal) / signal
        excess = torch.where(excess.isfinite().all(-1, keepdim=True), excess, 0.0)
        # As earlier steps have it: a share that fits the noise of these points would bias their mean.
        share = (self.products / self.squares.clamp(min=1e-300)).clamp(0, 1)[step]
        wide = excess.double()
        for sums, values in ((self.products, (end - guess).double() * wide), (self.squares, wide.square())):
            sums.mul_(1 - FORGOTTEN).index_add_(0, step, values.sum(-1).nan_to_num(0.0))
        return end - share.unsqueeze(-1).to(x.dtype) * excess
