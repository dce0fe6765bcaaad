"""Local search: points of a buffer moved to better ones nearby."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline.mcmc import MALA, MarkovChain
from diffsampler.baseline.moves import TargetPath
from diffsampler.behaviours.base import Stateful
from diffsampler.errors import check_count, check_non_negative
from diffsampler.paths import Dynamics, back_and_forth
from diffsampler.spaces.kernels import uniform_like


class LocalSearch(Stateful, ABC):
    """Moves points; what it returns goes into a buffer."""

    @abstractmethod
    def improve(
        self, dynamics: Dynamics, x: Tensor, log_prob: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """New points with shape (m, D), for any m, and their log R, with shape (m), in the sampler's coordinates.

        Arguments:
            dynamics: the sampler in training, as it walks.
            x: points with shape (n, D), in the sampler's coordinates.
            log_prob: their log R, with shape (n).
            generator: the source of all noise.
        """


class MarkovChainSearch(LocalSearch):
    """Chains on the target from the given points; every state after the burn-in counts, repeated where it stayed.

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 4.

    Arguments:
        chain: by default `MALA()`; its step size adapts during the burn-in of every call.
        num_steps: of each chain, burn-in included.
        burn_in: steps that do not count; less than `num_steps`.
        keep_every: of the steps after the burn-in, every how many are kept.
    """

    def __init__(
        self, chain: MarkovChain | None = None, num_steps: int = 200, burn_in: int = 100, keep_every: int = 10
    ) -> None:
        self.chain = MALA() if chain is None else chain
        self.burn_in = check_count("burn_in", burn_in, minimum=0)
        self.num_steps = check_count("num_steps", num_steps, minimum=burn_in + 1)
        self.keep_every = check_count("keep_every", keep_every)

    def improve(
        self, dynamics: Dynamics, x: Tensor, log_prob: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        state = TargetPath(dynamics.target).at(x)
        kept = []
        for k in range(self.num_steps):
            state, _ = self.chain.step(dynamics.target, state, generator, adapt=k < self.burn_in)
            if k >= self.burn_in and (k - self.burn_in) % self.keep_every == 0:
                kept.append(state)
        return torch.cat([s.x for s in kept]), torch.cat([s.log_prob for s in kept])

    def state_dict(self) -> dict[str, Any]:
        return {"step_size": self.chain.step_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chain.step_size = state["step_size"]


class BackAndForth(LocalSearch):
    """Walk the last steps back by P_B and forth again by P_F; keep the new end point if R rose enough.

    References:
        Local Search GFlowNets, Kim et al., 2024, arXiv:2310.02710.

    Arguments:
        num_steps: how many steps to walk back.
        num_rounds: how often.
        temperature: an end point worse by d nats is kept with probability exp(-d / temperature); 0 is greedy.
    """

    def __init__(self, num_steps: int = 20, num_rounds: int = 4, temperature: float = 1.0) -> None:
        self.num_steps = check_count("num_steps", num_steps)
        self.num_rounds = check_count("num_rounds", num_rounds)
        self.temperature = check_non_negative("temperature", temperature)

    def improve(
        self, dynamics: Dynamics, x: Tensor, log_prob: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        for _ in range(self.num_rounds):
            new, new_log_prob = back_and_forth(dynamics, x, self.num_steps, generator)
            rise = (new_log_prob - log_prob).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
            accepted = rise >= self.temperature * uniform_like(rise, generator).log()
            x = torch.where(accepted.unsqueeze(-1), new, x)
            log_prob = torch.where(accepted, new_log_prob, log_prob)
        return x, log_prob
