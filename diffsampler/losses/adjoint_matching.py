"""Adjoint matching: a control regressed on the target's scores where the sampler's own paths end."""

from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_positive
from diffsampler.losses.end_points import EndPointRegression, Transitions
from diffsampler.paths import Dynamics


class AdjointMatching(EndPointRegression):
    """Each step regressed on what the target's score asks of it where the sampler's own paths end.

    The uncontrolled process ends in N(0, scale^2), and what is left in it of x_t is c_t x_t. The best control is that
    whose paths have grad log (p_t / N_t)(x_t) = c_t E[grad log (R / N)(x_1) | x_t], and x_t may be drawn afresh to an
    end point x_1 kept from earlier, by P_B: adjoint sampling. It needs neither draws of the target nor gradients
    through paths, and does not find modes that no path has reached. No bias comes of a Gaussian prior, which the
    uncontrolled process forgets, so there is no corrector to learn.

    Take it with `Replay`, whose draws last for some steps: `Replay(replays=50, capacity=10_000)`. End points whose
    score is not finite teach nothing.

    References:
        Adjoint Sampling, Havens et al., 2025, arXiv:2504.11713: matching on end points, and the buffer.
        Adjoint Matching, Domingo-Enrich et al., 2024, arXiv:2409.08861: why ends must not depend on starts.

    Arguments:
        num_transitions: of each training step; drawn to as many end points as its batch has trajectories.
        max_score_norm: of the score, in units of one over the process's scale; longer ones, of cores that early draws
            run into, are shortened to it, which moves the optimum where they are the target's own. None leaves them.
    """

    of_density = True

    def __init__(self, num_transitions: int = 1024, max_score_norm: float | None = None) -> None:
        super().__init__(num_transitions)
        self.max_score_norm = None if max_score_norm is None else check_positive("max_score_norm", max_score_norm)

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        process = dynamics.policy.process
        if not process.space.is_euclidean:
            raise InputError(
                f"loss AdjointMatching is for states in R^D, but process {type(process).__name__} walks on "
                f"{process.space!r}. Use LogVariance, or Matching on draws of a search."
            )
        super().check(dynamics, behaviour)
        if not dynamics.target.differentiable:
            raise InputError(
                "loss AdjointMatching needs the target's score, but the target says differentiable=False. "
                "Use LogVariance."
            )

    def estimate(self, dynamics: Dynamics, ends: Tensor, transitions: Transitions) -> Tensor:
        scale = dynamics.policy.process.scale
        score = dynamics.target.log_prob_and_score(ends)[1]
        if self.max_score_norm is not None:
            norm = (score * scale).double().norm(dim=-1, keepdim=True)  # in float32, squares of cores overflow
            score = score * (self.max_score_norm / norm).clamp(max=1.0).to(score.dtype)
        asked = (score + ends / scale.square()).to(ends.dtype)[transitions.row]
        # The share of end points in the variance of the uncontrolled x_t; at a Dirac start, of 0 in 0.
        of_ends = transitions.signal.square() * scale.square()
        share = (of_ends / (of_ends + transitions.std.square())).nan_to_num(0.0)
        left = (share / transitions.signal).nan_to_num(0.0)
        return left.to(ends.dtype) * transitions.x + ((1 - share) * scale.square()).to(ends.dtype) * asked
