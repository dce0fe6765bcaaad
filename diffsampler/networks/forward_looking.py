"""The forward-looking flow: a network that only learns what an interpolation of the ends leaves over."""

from collections.abc import Callable

from torch import Tensor

from diffsampler.networks.flow import FourierFlow, StateFlow
from diffsampler.parts import make_part
from diffsampler.processes import Process, as_process


class ForwardLookingFlow(StateFlow):
    """log F(t, x) = network(t, x) + (1 - t) (log Z + log reference_t(x)) + t log R(x).

    The sampler hands the interpolation in: it evaluates the target once for control, flow and loss together.

    References:
        Better Training of GFlowNets with Local Credit and Incomplete Trajectories, Pan et al., 2023,
            arXiv:2302.01687.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679, section 3.

    Arguments:
        process: whose states it is a function of, or D.
        network: makes the wrapped flow from the process.
    """

    uses_interpolation = True

    def __init__(self, process: Process | int, network: Callable[[Process], StateFlow] = FourierFlow) -> None:
        super().__init__()
        self.network = make_part("network", network, StateFlow, as_process(process))

    @property
    def is_untouched(self) -> bool:
        return self.network.is_untouched

    def embed(self, t: Tensor) -> Tensor:
        return self.network.embed(t)

    def forward(self, embedding: Tensor, x: Tensor, interpolation: Tensor | None = None) -> Tensor:
        return self.network(embedding, x) + interpolation
