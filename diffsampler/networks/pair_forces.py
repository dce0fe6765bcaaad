"""Forces between pairs of particles, learned: a control that knows no names of particles and no directions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from diffsampler.errors import InputError, check_count, check_flag, check_positive
from diffsampler.networks.control import Control
from diffsampler.networks.equivariant import check_one_scale
from diffsampler.networks.fourier import FourierTimeEmbedding, TimeFunction
from diffsampler.networks.preconditioned import size_of_control
from diffsampler.networks.softened import SOFTENED_AT, softened
from diffsampler.networks.springs import Springs
from diffsampler.processes import Process, as_process
from diffsampler.spaces import Particles, Space
from diffsampler.spaces.kernels import FAINTEST

DIFFERENCE = 0.25  # unit of what bumps differ by: training would else move inner ones by the steps of all others
SOFT = 1e-6  # of distances, where they are differentiated


class PairForces(Control):
    """Forces between pairs, passed through springs between pairs, and one width of the step for all coordinates.

    c(t) x_i + sum_j f_ij(t, all distances) (x_i - x_j), where f_ij is a radial force, bumps of the distance times
    coefficients of time, which is as sharp as cores are, and what messages between all pairs add to it, each a
    perceptron on the bumps. Then `Springs`, of strengths made in the same way. Equivariant under rotations, reflections
    and, of identical particles, permutations, to rounding, and dense, without scatter. Outputs are scaled to the size
    that a control has, as in `PreconditionedMLP`; control and width are zero at initialisation.

    References:
        E(n) Equivariant Graph Neural Networks, Satorras, Hoogeboom & Welling, 2021, arXiv:2102.09844: messages.

    Arguments:
        process: that it steers, on `Particles`.
        width: the size of each hidden layer.
        depth: rounds of messages.
        num_bumps: Gaussians of a distance, evenly spaced.
        reach: the largest of them, in units of the process's scale.
        bound: on the log of the factor on a step's width; positive.
        use_score: whether the target's own forces are taken too, with a learned factor for each time. Those of cores
            are softened before springs have them: they come to an end, `SOFTENED_AT` times the size of a control. A NaN
            counts as no force.
        springs: how often forces are passed on after they are balanced; None leaves all springs out.
    """

    learns_width = True

    def __init__(
        self,
        process: Process | Space,
        width: int = 64,
        depth: int = 2,
        num_bumps: int = 96,
        reach: float = 6.0,
        bound: float = 3.0,
        use_score: bool = False,
        springs: int | None = 2,
    ) -> None:
        super().__init__()
        process = as_process(process)
        self.space = process.space
        if not isinstance(self.space, Particles):
            raise InputError(
                f"{type(self).__name__} is for particles, but {type(process).__name__} walks on {self.space!r}: "
                "declare the target's space, as in FunctionTarget(fn, dim, mean_free=4), or take FourierMLP."
            )
        check_one_scale(type(self).__name__, process)
        check_count("width", width)
        check_count("depth", depth, minimum=0)
        self.bound = check_positive("bound", bound)
        self._gaussian_control = process.gaussian_control
        num_bumps, spacing = check_count("num_bumps", num_bumps, minimum=2), check_positive("reach", reach) / num_bumps
        self.register_buffer("centres", torch.linspace(0, reach, num_bumps), persistent=False)
        self.sharpness = 0.5 / spacing**2
        self.register_buffer("scale", process.scale.detach().clone(), persistent=False)
        n = self.space.num_particles
        first, second = torch.combinations(torch.arange(n)).T
        ends = nn.functional.one_hot(torch.stack([first, second]), n).to(torch.get_default_dtype())
        self.register_buffer("sums", (ends[0] + ends[1]).T.contiguous(), persistent=False)
        self.register_buffer("differences", (ends[0] - ends[1]).T.contiguous(), persistent=False)
        self.springs = None
        if springs is not None:
            self.springs = Springs(self.differences, check_count("springs", springs, minimum=0))
        num_strengths = 1 if self.springs is None else 1 + self.springs.num_strengths
        self.time = FourierTimeEmbedding(width)
        self.bumps = nn.Linear(num_bumps, width)
        # Particles that are not alike are told apart by their pairs.
        self.names = None if self.space.identical else nn.Parameter(0.1 * torch.randn(len(first), width))
        self.pair = nn.Linear(width, width)
        self.particle = nn.Linear(width, width)
        self.rounds = nn.ModuleList([Messages(width) for _ in range(depth)])
        self.strengths = nn.Linear(width, num_strengths)
        self.log_width = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.of_time = nn.Linear(width, 2)
        self.uses_score = check_flag("use_score", use_score)
        self.of_score = TimeFunction(1, width) if use_score else None
        self.radial_differences = TimeFunction(num_bumps * num_strengths, width)
        self.embedded = [1, num_bumps * num_strengths, width, int(use_score)]
        for layer in (self.strengths, self.log_width[-1], self.of_time):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def embed(self, t: Tensor) -> Tensor:
        size = size_of_control(self._gaussian_control, t).expand(*t.shape, 1)
        of_score = [] if self.of_score is None else [self.of_score(t)]
        # Learned are differences from the next bump outwards: nearer than pairs in training ever are, forces stay.
        radial = DIFFERENCE * self.radial_differences(t).unflatten(-1, (len(self.centres), -1)).flip(-2).cumsum(
            -2
        ).flip(-2)
        return torch.cat([size, radial.flatten(-2), self.time(t), *of_score], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        size, radial, time, of_score = embedding.split(self.embedded, -1)
        scale = self.scale.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):  # of positions in bfloat16, cores would be a blur
            particles = self.space.positions(x / scale)
            apart = self.differences.T @ particles
        distance = (apart.square().sum(-1, keepdim=True) + SOFT).sqrt()
        now = time.unsqueeze(-2)
        bumps = _bumps(distance - self.centres, self.sharpness)
        pairs = self.bumps(bumps)
        pairs = pairs if self.names is None else pairs + self.names
        pairs = silu(self.pair(silu(pairs + now)))
        of_particles = silu(self.particle(self.sums @ pairs) + now)
        for messages in self.rounds:
            pairs, of_particles = messages(pairs, of_particles, self.sums)
        linear, log_width = self.of_time(time).split(1, -1)
        strengths = bumps @ radial.unflatten(-1, (len(self.centres), -1)) + self.strengths(pairs)
        force, strengths = strengths[..., :1], strengths[..., 1:]
        forces = self.differences @ (force / (1 + distance) * apart) + linear.unsqueeze(-1) * particles
        if self.uses_score:
            given = softened(self.space.positions(score * scale), SOFTENED_AT * size.unsqueeze(-1))
            forces = forces + (of_score / size).unsqueeze(-1) * given
        if self.springs is not None:
            forces = self.springs(forces, strengths, apart / distance)
        log_width = log_width + self.log_width(of_particles.mean(-2))
        log_width = self.bound * torch.tanh(log_width / self.bound)
        return torch.cat([size * self.space.flattened(forces), log_width.expand_as(x)], -1)


def _bumps(apart: Tensor, sharpness: float) -> Tensor:
    """exp(-sharpness apart^2), in place where there is no gradient: of all that is computed, there is most of it."""
    if apart.requires_grad:
        return (-sharpness * apart.square()).clamp(min=FAINTEST).exp()
    return apart.square_().mul_(-sharpness).clamp_(min=FAINTEST).exp_()


class Messages(nn.Module):
    """One round: pairs hear of their particles, particles of their pairs.

    Arguments:
        width: the size of each layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_particle, self.of_pair = nn.Linear(width, width), nn.Linear(width, width)
        self.to_pair, self.to_particle = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, pairs: Tensor, particles: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Both anew, with shapes (*, P, width) and (*, n, width), by the incidence of pairs, (n, P)."""
        heard = sums.T @ self.of_particle(particles) + self.of_pair(pairs)
        pairs = silu(pairs + self.to_pair(silu(heard)))
        return pairs, particles + silu(self.to_particle(sums @ pairs))
