"""Matching: a control regressed on what leads to known draws of the target."""

import torch
from torch import Tensor

from diffsampler.errors import check_flag
from diffsampler.losses.end_points import EndPointRegression, Transitions
from diffsampler.paths import Dynamics

FORGOTTEN = 0.02  # of what variances are estimated from, at every step


class Matching(EndPointRegression):
    """The mean of each step regressed on that of the step to a draw of the target, and its width on what is left.

    Two things are known of the end point x_1 of x_t = signal x_1 + std noise, both right in the mean: x_1 itself
    (denoising), which is precise while t is small, and (x_t + std^2 grad log R(x_1) / signal) / signal (by the target's
    score), which is near the end. Their mixture has the weight of the smallest variance, as running means of both tell
    at every time. On angles the end point is seen in the mean over all turns, and steps must be well below half a turn.

    References:
        A Connection Between Score Matching and Denoising Autoencoders, Vincent, 2011: denoising.
        Target Score Matching, De Bortoli et al., 2024, arXiv:2402.08667, section 3: the other one, and mixtures.

    Arguments:
        num_transitions: of each training step; drawn to as many end points as its batch has trajectories.
        use_score: whether the target's score is asked for at end points, if it has one; else it is denoising alone,
            which costs no evaluation of the target, where the control takes no score. In fine-tuning it is that: the
            score of a reward is not that of the density.
    """

    backward = True

    def __init__(self, num_transitions: int = 1024, use_score: bool = True) -> None:
        super().__init__(num_transitions)
        self.use_score = check_flag("use_score", use_score)
        self.register_buffer("products", torch.zeros(0))
        self.register_buffer("squares", torch.zeros(0))

    def adapt(self, dynamics: Dynamics) -> None:
        like = dynamics.policy.log_z.detach()
        self.products, self.squares = like.new_zeros(2, dynamics.grid.num_steps).unbind()

    def estimate(self, dynamics: Dynamics, ends: Tensor, transitions: Transitions) -> Tensor:
        if not (self.use_score and dynamics.target.differentiable and dynamics.measure is None):
            return transitions.end
        step, x, end = transitions.step, transitions.x, transitions.end
        score = dynamics.target.log_prob_and_score(ends)[1][transitions.row]
        signal, variance = transitions.signal.to(x.dtype), transitions.std.square().to(x.dtype)
        excess = end - (x + variance * score / signal) / signal
        excess = torch.where(excess.isfinite().all(-1, keepdim=True), excess, 0.0)
        # As earlier steps have it: a share that fits the noise of these points would bias their mean.
        share = (self.products / self.squares.clamp(min=1e-300)).clamp(0, 1)[step]
        wide = excess.double()
        for sums, values in (
            (self.products, (end - transitions.guess).double() * wide),
            (self.squares, wide.square()),
        ):
            sums.mul_(1 - FORGOTTEN).index_add_(0, step, values.sum(-1).nan_to_num(0.0))
        return end - share.unsqueeze(-1).to(x.dtype) * excess
