"""What a pretrained sampler does by itself, as the measure that weights compare rollouts with."""

from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.paths.measure import PathMeasure
from diffsampler.policy import Policy
from diffsampler.processes import Conditional, Process


class ForwardMeasure(PathMeasure):
    """The prior and the forward kernels of a policy, which is frozen.

    Its control takes the score that the sampler's takes, of the density that the policy was trained on: see
    `Dynamics.guide`.

    With it, E[w] is the mean of a reward over the draws of that policy, and balance losses are those of relative
    trajectory balance.

    References:
        Amortizing intractable inference in diffusion models, Venkatraman et al., 2024, arXiv:2405.20971, equation 8.

    Arguments:
        policy: which; nobody else's, since it is frozen.

    Raises:
        InputError: if its process asks for a score, or its control asks the density by itself, if it walks in momenta
            too, or if it is one of all members of a family.
    """

    compare = "Compare: assess(tuned, reference=mean_reward(pretrained, reward)), by diffsampler.fine_tuning."
    apart = "Train the pretrained sampler longer, or take product_sampler(tuned), which weighs by both densities."

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        name = type(policy.process).__name__
        if type(policy.process).extend is not Process.extend:
            raise InputError(f"{name} walks in momenta, of which a reward says nothing: take a process without.")
        if policy.process.uses_score:
            raise InputError(
                f"{name} uses the score in the kernels themselves: of a pretrained sampler, only the control may, such "
                "as LangevinControl or PairForces, with PinnedBrownian or VariancePreserving for a process."
            )
        if policy.evaluations_per_state:
            raise InputError(
                f"{type(policy.control).__name__} asks the density by itself, which would be the reward here: of a "
                "pretrained sampler, the control may use the score, such as LangevinControl, or nothing, such as "
                "FourierMLP."
            )
        if isinstance(policy.process, Conditional):
            raise InputError("The pretrained sampler is one of a family, or of its members: take one of one density.")
        self.policy = policy.requires_grad_(False)

    @property
    def uses_score(self) -> bool:
        return self.policy.control.uses_score

    def log_start(self, x: Tensor) -> Tensor:
        return self.policy.process.prior.log_prob(x)

    def log_step(self, s: Tensor, t: Tensor, x: Tensor, y: Tensor, score: Tensor | None = None) -> Tensor:
        embedding = self.policy.embed(s.flatten())
        embedding = embedding.unsqueeze(1) if s.ndim else embedding.squeeze(0)
        # With gradients to the states, which path-wise losses take; the networks themselves have none.
        return self.policy.forward_kernel(s, t, x, self.policy.control(embedding, x, score), None).log_prob(y)
