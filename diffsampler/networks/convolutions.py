"""Convolutions on a periodic lattice: a control that does not know where on the lattice it is."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from diffsampler.errors import InputError, check_count, check_flag, check_positive
from diffsampler.networks.control import Control
from diffsampler.networks.equivariant import check_one_scale
from diffsampler.networks.fourier import FourierTimeEmbedding, TimeFunction
from diffsampler.networks.preconditioned import size_of_control
from diffsampler.networks.softened import SOFTENED_AT, softened
from diffsampler.processes import Process, as_process
from diffsampler.spaces import Lattice, Links, Space

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class LatticeConvolutions(Control):
    """Convolutions with periodic padding, a linear filter that reaches everywhere, and the widths of the step.

    All of it is equivariant under shifts along the lattice, to rounding. On `Links`, convolutions see plaquettes, and
    each link gets a sum over the plaquettes that it is part of: equivariant under gauge transformations too, where a
    step's width is one number. Control and width are zero at initialisation.

    References:
        Equivariant flow-based sampling for lattice gauge theory, Kanwar et al., 2020, arXiv:2003.06413: plaquettes.
        Learning Lattice Quantum Field Theories with Equivariant Continuous Flows, Gerdes et al., 2023,
            arXiv:2207.00283: filters that reach everywhere.

    Arguments:
        process: that it steers, on a `Lattice` of one to three dimensions.
        width: the channels of each layer.
        depth: the layers between the first and the last.
        reach: of a kernel, in sites to each side.
        bound: on the log of the factor on a step's width; positive.
        use_score: whether the target's own score is taken too, with a learned factor for each time. Where it is many
            times the size of a control it comes to an end, and a NaN counts as 0.
    """

    learns_width = True

    def __init__(
        self,
        process: Process | Space,
        width: int = 32,
        depth: int = 2,
        reach: int = 1,
        bound: float = 3.0,
        use_score: bool = False,
    ) -> None:
        super().__init__()
        process = as_process(process)
        self.space = space = process.space
        if not isinstance(space, Lattice) or len(space.shape) not in CONVOLUTIONS:
            raise InputError(
                f"{type(self).__name__} is for fields on a lattice of one to three dimensions, but process "
                f"{type(process).__name__} walks on {space!r}: declare the target's space, such as Lattice((8, 8))."
            )
        check_one_scale(type(self).__name__, process)
        check_count("width", width)
        check_count("depth", depth, minimum=0)
        if check_count("reach", reach, minimum=0) > min(space.shape):
            raise InputError(f"reach must be at most {min(space.shape)} on {space!r}, got {reach!r}.")
        self.bound = check_positive("bound", bound)
        self._gaussian_control = process.gaussian_control
        self.register_buffer("scale", process.scale.detach().clone(), persistent=False)
        self.of_links = isinstance(space, Links)
        self.num_axes = len(space.shape)
        num_seen = space.field_features(torch.zeros(space.dim)).shape[0]
        num_told = num_seen // 2 if self.of_links else space.site.dim
        convolution = CONVOLUTIONS[self.num_axes]
        self.first = convolution(num_seen, width, 2 * reach + 1)
        self.of_means = nn.Linear(num_seen, width)
        self.layers = nn.ModuleList(convolution(width, width, 2 * reach + 1) for _ in range(depth))
        self.of_time = nn.ModuleList(nn.Linear(width, width) for _ in range(depth + 1))
        self.output = convolution(width, num_told if self.of_links else 2 * num_told, 1)
        self.time = FourierTimeEmbedding(width)
        self.log_width = TimeFunction(1, width)
        self.filters_shape = (num_told, num_seen, *space.shape)
        self.filters = TimeFunction(math.prod(self.filters_shape), width)
        self.uses_score = check_flag("use_score", use_score)
        self.of_score = TimeFunction(1, width) if use_score else None
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def embed(self, t: Tensor) -> Tensor:
        size = size_of_control(self._gaussian_control, t).expand(*t.shape, 1)
        of_score = [] if self.of_score is None else [self.of_score(t)]
        return torch.cat([size, self.log_width(t), self.filters(t), self.time(t), *of_score], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        num_weights = math.prod(self.filters_shape)
        ends = [1, 2, 2 + num_weights, 2 + num_weights + self.of_means.out_features]
        size, log_width, weights, time, of_score = embedding.tensor_split(ends, -1)
        seen, fields = self.space.field_features(x), -self.num_axes - 1
        # What no convolution reaches: of which phase, or topological sector, a configuration is.
        sums = seen.sum(tuple(range(-self.num_axes, 0))) / math.sqrt(math.prod(self.space.shape))  # of order 1
        means = self.of_means(sums)[(..., *(None,) * self.num_axes)]
        now = [of_time(time)[(..., *(None,) * self.num_axes)] for of_time in self.of_time]
        hidden = silu(self._convolved(self.first, seen) + means + now[0])
        for layer, then in zip(self.layers, now[1:], strict=True):
            hidden = hidden + silu(self._convolved(layer, hidden) + then)
        told = self._convolved(self.output, hidden)
        filtered = self._filtered(weights.unflatten(-1, self.filters_shape), seen)
        if self.of_links:
            control, log_width = self.space.around(told + filtered), log_width.expand_as(x)
        else:
            told, widths = told.chunk(2, fields)
            control, log_width = (told + filtered).flatten(fields), log_width + widths.flatten(fields)
        control = size * control
        if self.uses_score:
            own = (score * self.scale.to(x.dtype)).unsqueeze(-1)
            control = control + of_score * softened(own, SOFTENED_AT * size.unsqueeze(-1)).squeeze(-1)
        return torch.cat([control, self.bound * torch.tanh(log_width / self.bound)], -1)

    def _convolved(self, layer: nn.Module, fields: Tensor) -> Tensor:
        """Of fields with shape (*, C, L_1, ...), each with the lattice as its own neighbour."""
        flat = fields.reshape(-1, *fields.shape[-self.num_axes - 1 :])
        reach = (layer.kernel_size[0] - 1) // 2
        if reach:  # in half the time of torch's circular padding
            for axis in range(-self.num_axes, 0):
                size = flat.shape[axis]
                flat = torch.cat([flat.narrow(axis, size - reach, reach), flat, flat.narrow(axis, 0, reach)], axis)
        found = layer(flat)
        return found.view(*fields.shape[: -self.num_axes - 1], *found.shape[1:])

    def _filtered(self, filters: Tensor, fields: Tensor) -> Tensor:
        """Sums over all sites, by filters with shape (*, C', C, L_1, ...) of fields with shape (*, C, L_1, ...)."""
        axes = tuple(range(-self.num_axes, 0))
        modes = torch.fft.rfftn(fields, dim=axes).unsqueeze(-self.num_axes - 2)
        summed = (torch.fft.rfftn(filters, dim=axes) * modes).sum(-self.num_axes - 1)
        return torch.fft.irfftn(summed, s=self.space.shape, dim=axes)
