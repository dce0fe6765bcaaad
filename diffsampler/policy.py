"""What is learned: the two kernels P_F and P_B, a process and the networks that control it, and the state flow."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError, check_instance
from diffsampler.kernels import Kernel
from diffsampler.networks import Drift, Flow
from diffsampler.processes import Process
from diffsampler.streams import fixed_weights
from diffsampler.trajectory import ZERO_DENSITY_MARGIN

__all__ = ["Policy"]


class Policy(nn.Module):
    """A process with its networks.

    Arguments:
        dim: the dimension of the process's states.
        process: forward and backward kernels.
        drift: makes the control from the dimension, or is ready.
        backward_drift: the same for the control of the backward kernel, if it learns one; by default made as the
            drift is.
        flow: makes the state flow, or is ready; None leaves it out.

    Raises:
        InputError: if the parts do not fit together.
    """

    def __init__(
        self,
        dim: int,
        process: Process,
        drift: Drift | Callable[[int], Drift],
        backward_drift: Drift | Callable[[int], Drift] | None,
        flow: Flow | Callable[[int], Flow] | None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.process = process
        # What is made here begins alike in all samplers; what is ready stays as it is.
        with fixed_weights():
            process.adapt(dim)
            self.drift = self._make_drift(drift)
            self.backward_drift: Drift | None = None
            if process.learns_backward:
                self.backward_drift = self._make_backward_drift(drift if backward_drift is None else backward_drift)
            elif backward_drift is not None:
                raise InputError(
                    f"process {type(process).__name__} learns no backward control, so backward_drift must be None; "
                    "or use Bridge."
                )
            self.flow = None if flow is None else self._make("flow", flow, Flow)
        self.log_z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Policy":
        # log Z follows to a device, not to a dtype: to float32, one of 1e8 would be known to 8 nats.
        super()._apply(fn, recurse)
        self.log_z.data = self.log_z.data.double()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of states."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """The device of states."""
        return self._like.device

    @property
    def uses_score(self) -> bool:
        """Whether the target's score is needed at every state."""
        return self.drift.uses_score or self._backward_uses_score

    def controls(self, t: Tensor, x: Tensor, score: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What steers the forward kernel and the backward kernel, if anything does, at a time t with shape ()."""
        times = t.to(x.dtype).unsqueeze(0)
        control = self.drift(self.drift.embed(times)[0], x, score)
        if self.process.shares_control:
            return control, control
        return control, self._backward_control(self._backward_embedding(times)[0], x, score)

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, control: Tensor, score: Tensor | None) -> Kernel:
        """P_F(x_t | x_s = x) under a control, with its learned width if it brings one."""
        u, log_scale = self._split(control)
        kernel = self.process.forward_kernel(s, t, x, u, score)
        return kernel if log_scale is None else kernel.widened(log_scale)

    def backward_kernel(self, s: Tensor, t: Tensor, y: Tensor, control: Tensor | None, score: Tensor | None) -> Kernel:
        """P_B(x_s | x_t = y), likewise."""
        v, log_scale = self._split(control)
        kernel = self.process.backward_kernel(s, t, y, v, score)
        return kernel if log_scale is None else kernel.widened(log_scale)

    def _split(self, control: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The control, and the log of a factor on the kernel's width where the network learns one."""
        if control is None or control.shape[-1] == self.dim:
            return control, None
        return control[..., : self.dim], control[..., self.dim :]

    @property
    def _backward_network(self) -> Drift | None:
        return self.drift if self.process.shares_control else self.backward_drift

    @property
    def _backward_uses_score(self) -> bool:
        network = self._backward_network
        return self.process.uses_score or (network is not None and network.uses_score)

    def _backward_embedding(self, times: Tensor) -> Tensor:
        """The embedding of all times; times themselves where there is no backward control."""
        times = times.to(self.dtype)
        return times if self._backward_network is None else self._backward_network.embed(times)

    def _backward_control(self, embedding: Tensor, y: Tensor, score: Tensor | None) -> Tensor | None:
        return None if self._backward_network is None else self._backward_network(embedding, y, score)

    def _flow_at(self, embedding: Tensor, t: Tensor, x: Tensor, log_prob: Tensor | None) -> Tensor:
        """log F, with shape (*), at interior times t and states x with shape (*, D), where log R is known if needed."""
        return self.flow(embedding, x, self._interpolation(t, x, log_prob))

    def _interpolation(self, t: Tensor, x: Tensor, log_prob: Tensor | None) -> Tensor | None:
        """What a forward-looking flow starts from, between prior and target, with shape (*); other flows need none."""
        if not self.flow.uses_interpolation:
            return None
        log_prior_side = self.log_z + self.process.log_reference(t[..., None], x)
        # The flow is free to be anything where the density is zero; it only has to be finite there.
        log_prob = torch.where(log_prob.isfinite(), log_prob, log_prior_side.detach() - ZERO_DENSITY_MARGIN)
        inverse_temperature = self.process.inverse_temperature(t)
        return (1 - inverse_temperature) * log_prior_side + inverse_temperature * log_prob

    def _make_drift(self, drift: Drift | Callable[[int], Drift]) -> Drift:
        network = self._make("drift", drift, Drift)
        network.adapt(self.process)
        return network

    def _make(self, name: str, part: nn.Module | Callable[[int], nn.Module], family: type) -> nn.Module:
        if not isinstance(part, nn.Module) and not callable(part):
            raise InputError(f"{name} must be a {family.__name__}, or make one from the dimension, got {part!r}.")
        network = check_instance(
            name, part if isinstance(part, nn.Module) else part(self.dim), family, f"one of {family.__module__}"
        )
        if self.process.periodic and not network.periodic:
            raise InputError(
                f"process {type(self.process).__name__} needs periodic networks, but {name} {type(network).__name__} "
                "is not: pass drift=PeriodicMLP, and flow=PeriodicFlow or None, or wrappers around them."
            )
        return network

    def _make_backward_drift(self, drift: Drift | Callable[[int], Drift]) -> Drift:
        if drift is self.drift:
            raise InputError(
                f"process {type(self.process).__name__} learns a backward control: pass backward_drift, since a ready "
                "drift cannot serve both directions."
            )
        return self._make_drift(drift)
