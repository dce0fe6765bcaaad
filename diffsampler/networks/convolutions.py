"""Convolutions on a periodic lattice: a control that does not know where on the lattice it is."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.networks.control import Control
from diffsampler.networks.equivariant import check_one_scale
from diffsampler.networks.fourier import FourierTimeEmbedding, TimeFunction
from diffsampler.networks.preconditioned import size_of_control
from diffsampler.processes import Process, as_process
from diffsampler.spaces import Lattice, Links, Space

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
IN_CACHE = 1 << 19  # numbers of a layer; what leaves a CPU's cache takes three times as long


class LatticeConvolutions(Control):
    """Convolutions with periodic padding, filters that reach everywhere, products of both, and the widths of the step.

    What convolutions and filters say at every site, u, is passed on: u <- u + B (g A u), with filters A and B, and
    gains g by the convolutions. Of a stiffness H_0 + V(x), with V at sites, the factor (1 + s^2 (H_0 + V))^(-1) that
    the score has of what noise has moved by s is a series of such products, as `Springs` are of pairs.

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
        rounds: how often it is passed on, at least once.
    """

    learns_width = True

    def __init__(
        self,
        process: Process | Space,
        width: int = 32,
        depth: int = 2,
        reach: int = 1,
        bound: float = 3.0,
        rounds: int = 2,
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
        self.rows_in_cache = max(1, IN_CACHE // (check_count("width", width) * math.prod(space.shape)))
        check_count("depth", depth, minimum=0)
        if check_count("reach", reach, minimum=0) > min(space.shape):
            raise InputError(f"reach must be at most {min(space.shape)} on {space!r}, got {reach!r}.")
        self.bound = check_positive("bound", bound)
        self._gaussian_control = process.gaussian_control
        self.of_links = isinstance(space, Links)
        self.num_axes = len(space.shape)
        num_seen = space.field_features(torch.zeros(space.dim)).shape[0]
        num_told = num_seen // 2 if self.of_links else space.site.dim
        convolution = CONVOLUTIONS[self.num_axes]
        self.first = convolution(num_seen, width, 2 * reach + 1)
        self.of_means = nn.Linear(num_seen, width)
        self.layers = nn.ModuleList(convolution(width, width, 2 * reach + 1) for _ in range(depth))
        self.of_time = nn.ModuleList(nn.Linear(width, width) for _ in range(depth + 1))
        self.num_told, self.num_widths = num_told, 0 if self.of_links else num_told
        # The same at all loops is nothing at any link.
        self.output = convolution(width, num_told + self.num_widths, 1, bias=not self.of_links)
        self.time = FourierTimeEmbedding(width)
        self.log_width = TimeFunction(1, width)
        self.filters_shape = (num_told, num_seen, *space.shape)
        self.filters = TimeFunction(math.prod(self.filters_shape), width)
        # To fields in which the energy is local, and back: states are in coordinates of uncorrelated sites.
        self.into, self.out_of = (nn.Parameter(_identities(count, space.shape)) for count in (num_seen, num_told))
        self.passed_shape = (2, check_count("rounds", rounds), num_told, *space.shape)
        self.passed = TimeFunction(math.prod(self.passed_shape), width)
        self.alike = nn.Parameter(_identities(2 * rounds * num_told, space.shape).view(self.passed_shape))
        self.gains = convolution(width, rounds * num_told, 1)
        for layer in (self.output, self.gains):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def embed(self, t: Tensor) -> Tensor:
        size = size_of_control(self._gaussian_control, t).expand(*t.shape, 1)
        filters = self.filters(t).unflatten(-1, self.filters_shape)
        passed = self.passed(t).unflatten(-1, self.passed_shape) + self.alike
        # Their modes once for each time, and not for each state.
        modes = [torch.view_as_real(self._modes(one)).flatten(t.ndim) for one in (filters, passed)]
        return torch.cat([size, self.log_width(t), self.time(t), *modes], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        is_plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        if is_plain and x.is_cpu and x.shape[:-1].numel() > self.rows_in_cache:
            return self._in_parts(embedding.expand(*x.shape[:-1], -1), x)
        shapes = [_shape_of_modes(shape) for shape in (self.filters_shape, self.passed_shape)]
        sizes = [1, 1, self.of_means.out_features, *map(math.prod, shapes)]
        size, log_width, time, *modes = embedding.split(sizes, -1)
        filters, passed = (
            torch.complex(*one.unflatten(-1, s).unbind(-1)) for one, s in zip(modes, shapes, strict=True)
        )
        seen, fields = self.space.field_features(x), -self.num_axes - 1
        modes = self._modes(seen)
        # What no convolution reaches: of which phase, or topological sector, a configuration is.
        of_order_one = math.sqrt(math.prod(self.space.shape))  # unless there is order
        sums = seen.sum(tuple(range(-self.num_axes, 0))) / of_order_one
        means = self.of_means(sums)[(..., *(None,) * self.num_axes)]
        now = [of_time(time)[(..., *(None,) * self.num_axes)] for of_time in self.of_time]
        hidden = silu(self._convolved(self.first, self._at_sites(self._modes(self.into) * modes)) + means + now[0])
        for layer, then in zip(self.layers, now[1:], strict=True):
            hidden = hidden + silu(self._convolved(layer, hidden) + then)
        told, widths = self._convolved(self.output, hidden).split([self.num_told, self.num_widths], fields)
        told = self._modes(told) + (filters * modes.unsqueeze(fields - 1)).sum(fields)
        gains = self._convolved(self.gains, hidden).unflatten(fields, self.passed_shape[1:3])
        into, out_of = passed.unbind(fields - 2)
        for a, gain, b in zip(*(one.unbind(fields - 1) for one in (into, gains, out_of)), strict=True):
            told = told + b * self._modes(gain * self._at_sites(a * told))
        told = self._at_sites(self._modes(self.out_of) * told)
        control = self.space.around(told) if self.of_links else told.flatten(fields)
        log_width = log_width.expand_as(x) if self.of_links else log_width + widths.flatten(fields)
        return torch.cat([size * control, self.bound * torch.tanh(log_width / self.bound)], -1)

    def _in_parts(self, embedding: Tensor, x: Tensor) -> Tensor:
        """The same, some states at a time."""
        rows_of_each = x.shape[1:-1].numel()
        if rows_of_each > self.rows_in_cache:
            return torch.stack([self(*part) for part in zip(embedding, x, strict=True)])
        size = self.rows_in_cache // rows_of_each
        return torch.cat([self(*part) for part in zip(embedding.split(size), x.split(size), strict=True)])

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

    def _modes(self, fields: Tensor) -> Tensor:
        """Of waves around the lattice, for fields with shape (*, L_1, ...): sums over all sites are products here."""
        return torch.fft.rfftn(fields, dim=tuple(range(-self.num_axes, 0)))

    def _at_sites(self, modes: Tensor) -> Tensor:
        return torch.fft.irfftn(modes, s=self.space.shape, dim=tuple(range(-self.num_axes, 0)))


def _shape_of_modes(shape: Sequence[int]) -> tuple[int, ...]:
    """Of filters with this shape: real and imaginary parts are last."""
    return *shape[:-1], shape[-1] // 2 + 1, 2


def _identities(count: int, shape: Sequence[int]) -> Tensor:
    """Filters that change nothing, with shape (count, L_1, ...)."""
    filters = torch.zeros(count, *shape)
    filters[(slice(None), *(0,) * len(shape))] = 1.0
    return filters
