"""What is learned: the two kernels P_F and P_B, a process, its networks, the state flow and log Z."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffsampler.density import ZERO_DENSITY_MARGIN, Density
from diffsampler.errors import InputError
from diffsampler.networks import Control, StateFlow
from diffsampler.parts import make_part, twin
from diffsampler.processes import Process
from diffsampler.spaces.kernels import Kernel
from diffsampler.streams import fixed_weights


class Policy(nn.Module):
    """A process with its networks.

    Arguments:
        process: forward and backward kernels.
        control: what steers the process, or what makes it from the process.
        backward_control: the same for the backward kernel, if it learns one; by default made as the control is.
        flow: the state flow, or what makes it from the process; None leaves it out.

    Attributes:
        log_z: the learned log Z of the balance losses, a scalar parameter.
        log_z_network: what is added to it for a context, for families; else None.

    Raises:
        InputError: if the parts do not fit together.
    """

    def __init__(
        self,
        process: Process,
        control: Control | Callable[[Process], Control],
        backward_control: Control | Callable[[Process], Control] | None = None,
        flow: StateFlow | Callable[[Process], StateFlow] | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        # What is made here begins alike in all samplers; what is ready stays as it is.
        with fixed_weights():
            self.control = make_part("control", control, Control, process)
            self.backward_control: Control | None = None
            if process.learns_backward:
                again = control if backward_control is None else backward_control
                if again is self.control:
                    raise InputError(
                        f"process {type(process).__name__} learns a backward control: pass backward_control, since a "
                        "ready control cannot serve both directions."
                    )
                self.backward_control = make_part("backward_control", again, Control, process)
            elif backward_control is not None:
                raise InputError(
                    f"process {type(process).__name__} learns no backward control, so backward_control must be None; "
                    "or use Bridge."
                )
            self.flow = None if flow is None else make_part("flow", flow, StateFlow, process)
        self.log_z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        context = process.context_of(torch.zeros(1, process.space.dim))
        with fixed_weights():
            self.log_z_network = None if context is None else _LogZOfContext(context.shape[-1])
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Policy":
        # log Z follows to a device, not to a dtype: to float32, one of 1e8 would be known to 8 nats.
        super()._apply(fn, recurse)
        self.log_z.data = self.log_z.data.double()
        return self

    @property
    def dim(self) -> int:
        """The dimension of states."""
        return self.process.space.dim

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of states."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """The device of states."""
        return self._like.device

    @property
    def is_of_family(self) -> bool:
        """Whether it samples several densities, by their contexts."""
        return self.log_z_network is not None

    @property
    def uses_score(self) -> bool:
        """Whether the target's score is needed at every state."""
        return self.control.uses_score or self.backward_uses_score

    @property
    def backward_uses_score(self) -> bool:
        """Whether it is needed to walk back."""
        network = self._backward_network
        return self.process.uses_score or (network is not None and network.uses_score)

    @property
    def evaluations_per_state(self) -> int:
        """At how many points the control asks the density by itself, for each state."""
        return sum(part.evaluations_per_state for part in self._controls())

    def walk_on(self, density: Density) -> None:
        """Tell the controls which density their sampler walks on."""
        for part in self._controls():
            part.walk_on(density)

    def _controls(self) -> list[Control]:
        """All of them, those within others too."""
        return [part for part in self.modules() if isinstance(part, Control)]

    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n initial states, with shape (n, D)."""
        return self.process.prior.sample(n, generator, self.dtype, self.device)

    def embed(self, times: Tensor) -> Tensor:
        """What the control needs to know of times with shape (K), with shape (K, E)."""
        return self.control.embed(times.to(self.dtype))

    def embed_backward(self, times: Tensor) -> Tensor:
        """The same for the backward control; times themselves where there is none."""
        times = times.to(self.dtype)
        return times if self._backward_network is None else self._backward_network.embed(times)

    def backward_control_at(self, embedding: Tensor, y: Tensor, score: Tensor | None) -> Tensor | None:
        """What steers the backward kernel, if anything does, at states y with shape (*, D)."""
        return None if self._backward_network is None else self._backward_network(embedding, y, score)

    def backward_score(self, score_x: Tensor | None, score_y: Tensor | None) -> Tensor | None:
        """Of the scores at both ends of a step from x to y, the one that the backward kernel takes."""
        return score_x if self.process.scores_destination else score_y

    def controls(self, t: Tensor, x: Tensor, score: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What steers the forward kernel and the backward kernel, if anything does, at a time t with shape ()."""
        times = t.unsqueeze(0)
        control = self.control(self.embed(times)[0], x, score)
        if self.process.shares_control:
            return control, control
        return control, self.backward_control_at(self.embed_backward(times)[0], x, score)

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
    def _backward_network(self) -> Control | None:
        return self.control if self.process.shares_control else self.backward_control

    def log_flow(self, embedding: Tensor, t: Tensor, x: Tensor, log_prob: Tensor | None) -> Tensor:
        """log F, with shape (*), at interior times t and states x with shape (*, D), where log R is known if needed."""
        return self.flow(embedding, x, self.interpolation(t, x, log_prob))

    def interpolation(self, t: Tensor, x: Tensor, log_prob: Tensor | None) -> Tensor | None:
        """What a forward-looking flow starts from, between prior and target, with shape (*); other flows need none."""
        if not self.flow.uses_interpolation:
            return None
        log_prior_side = self.log_z_at(x) + self.process.log_reference(t[..., None], x)
        # The flow is free to be anything where the density is zero; it only has to be finite there.
        log_prob = torch.where(log_prob.isfinite(), log_prob, log_prior_side.detach() - ZERO_DENSITY_MARGIN)
        inverse_temperature = self.process.inverse_temperature(t)
        return (1 - inverse_temperature) * log_prior_side + inverse_temperature * log_prob

    def log_z_at(self, x: Tensor) -> Tensor:
        """The learned log Z, float64, with shape (); in a family that of the density of each state (*, D): (*)."""
        if not self.is_of_family:
            return self.log_z.double()
        return self.log_z.double() + self.log_z_network(self.process.context_of(x)).double()

    def with_process(self, process: Process) -> "Policy":
        """The same networks around another process of the same states."""
        policy = twin(self)
        policy.process = process
        return policy

    @torch.no_grad()
    def initialise_log_z(self, log_weight: Tensor) -> None:
        """Set the parameter log_z to the logmeanexp of log-weights with shape (n).

        Adam would take thousands of steps to walk there.
        """
        usable = log_weight[log_weight.isfinite()]
        if len(usable):
            self.log_z.copy_(usable.logsumexp(0) - math.log(len(log_weight)))


class _LogZOfContext(nn.Sequential):
    """A perceptron, zero at initialisation."""

    def __init__(self, context_dim: int, width: int = 64) -> None:
        super().__init__(nn.Linear(context_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.output = nn.Linear(width, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, context: Tensor) -> Tensor:
        """With shape (*), for contexts with shape (*, C)."""
        return super().forward(context).squeeze(-1)
