"""The forward-looking flow: a network that only learns what an interpolation of the ends leaves over."""

from collections.abc import Callable

from torch import Tensor

from diffsampler.networks.flow import Flow, FourierFlow

__all__ = ["ForwardLookingFlow"]


class ForwardLookingFlow(Flow):
    """log F(t, x) = network(t, x) + (1 - t) (log Z + log reference_t(x)) + t log R(x).

    The sampler hands the interpolation in: it evaluates the target once for drift, flow and loss together.

    References:
        Better Training of GFlowNets with Local Credit and Incomplete Trajectories, Pan et al., 2023,
            arXiv:2302.01687.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679, section 3.

    Arguments:
        dim: the dimension D.
        network: makes the wrapped flow from the dimension.
    """

    uses_interpolation = True

    def __init__(self, dim: int, network: Callable[[int], Flow] = FourierFlow) -> None:
        super().__init__()
        self.network = network(dim)

    @property
    def periodic(self) -> bool:
        return self.network.periodic

    @property
    def is_untouched(self) -> bool:
        return self.network.is_untouched

    def embed(self, t: Tensor) -> Tensor:
        return self.network.embed(t)

    def forward(self, embedding: Tensor, x: Tensor, interpolation: Tensor | None = None) -> Tensor:
        return self.network(embedding, x) + interpolation
