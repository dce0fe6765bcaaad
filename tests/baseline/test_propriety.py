"""Densities without an integral are refused by name; those with one are not, however wide, narrow or heavy-tailed."""

import math
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from on_spaces import angles_beside_a_real, centred, pair_distances, springs, two_angles
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.baseline import reference
from diffsampler.baseline.propriety import check_proper
from diffsampler.coordinates import ScaledCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.losses import LogVariance
from diffsampler.networks import FourierMLP
from diffsampler.processes import Torus
from diffsampler.spaces import Lattice, Particles
from targets import DoubleWell4, LennardJones, U1Gauge, VonMisesMixture, XYModel

LogProb = Callable[[Tensor], Tensor]
MAX_EVALUATIONS = 8000


def random_matrix(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ROTATION = torch.linalg.qr(random_matrix(5, 5))[0]
DESIGN = random_matrix(60, 10, 2)
LABELS = torch.sign(DESIGN @ random_matrix(10, 1, 3)).squeeze(-1)
CLASSES = torch.arange(60) % 3


def student(degrees: float, dim: int) -> LogProb:
    return lambda x: -(degrees + dim) / 2 * torch.log1p(x.square().sum(-1) / degrees)


def where(inside: Tensor, log_prob: Tensor) -> Tensor:
    return torch.where(inside, log_prob, -math.inf)


def normal(x: Tensor, std: float = 1.0) -> Tensor:
    return -0.5 * (x / std).square().sum(-1)


def rotated(x: Tensor) -> Tensor:
    return x @ ROTATION.to(x)


def likelihood(x: Tensor) -> Tensor:
    """Of a logistic regression that separates its classes."""
    return torch.nn.functional.logsigmoid(LABELS.to(x) * (x @ DESIGN.T.to(x))).sum(-1)


def funnel(x: Tensor) -> Tensor:
    v = x[..., 0]
    return -(v**2) / 18 - 0.5 * (x[..., 1:].square().sum(-1) * (-v).exp() + 9 * v)


def hierarchy(x: Tensor) -> Tensor:
    """A flat mean, the logarithm of a scale, and six effects."""
    mean, log_scale, effect = x[..., :1], x[..., 1:2], x[..., 2:]
    prior = (-0.5 * ((effect - mean) / log_scale.exp()).square() - log_scale).sum(-1)
    return prior - 0.5 * (effect - torch.arange(6).to(x)).square().sum(-1) + (log_scale - log_scale.exp()).squeeze(-1)


def narrowing_ridge(x: Tensor) -> Tensor:
    """Flat along one diagonal, on which it has no mass."""
    u, v = x[..., 0] + x[..., 1], x[..., 0] - x[..., 1]
    return -0.5 * (u * v).square() * (1 + v.square()) - 0.5 * u.square()


def gives_up(x: Tensor) -> Tensor:
    if (x.abs() > 1e8).any():
        raise RuntimeError("too large")
    return normal(x)


def kernel_regression(x: Tensor) -> Tensor:
    """Hyperparameters whose covariance has a Cholesky factor not everywhere."""
    length, noise = x.exp().unsqueeze(-1).unsqueeze(-1).unbind(-3)
    grid = torch.linspace(0, 1, 5).to(x)
    covariance = (-0.5 * ((grid.unsqueeze(-1) - grid) / length).square()).exp() + noise * torch.eye(5).to(x)
    return -torch.linalg.cholesky(covariance).diagonal(dim1=-2, dim2=-1).log().sum(-1) + normal(x)


def factors(x: Tensor) -> Tensor:
    """Of a matrix with three rows and two columns, in two dimensions each."""
    rows, columns = x[..., :6].unflatten(-1, (3, 2)), x[..., 6:].unflatten(-1, (2, 2))
    return normal((rows @ columns - random_matrix(3, 2, 4).to(x)).flatten(-2))


def product(x: Tensor) -> Tensor:
    return -((x[..., 0] * x[..., 1] - 1) ** 2)


PROPER: dict[str, tuple[int, LogProb]] = {
    "Cauchy": (1, student(1, 1)),
    "Cauchy, 20-d": (20, student(1, 20)),
    "Student t": (8, student(2, 8)),
    "products of Cauchy": (10, lambda x: -torch.log1p(x.square()).sum(-1)),
    "half Cauchy": (3, lambda x: where((x > 0).all(-1), -torch.log1p(x.square()).sum(-1))),
    "log Cauchy": (1, lambda x: where(x[..., 0] > 0, -(u := x[..., 0].abs().log()) - torch.log1p(u.square()))),
    "a tail of 1.2": (2, lambda x: -1.2 * torch.log1p(x.abs()).sum(-1)),
    "width 1e14": (3, lambda x: normal(x, 1e14)),
    "width 1e-12": (3, lambda x: normal(x, 1e-12)),
    "widths 1e14, 1 and 1e-12": (3, lambda x: normal(x * x.new_tensor([1e-14, 1.0, 1e12]))),
    "rotated, widths from 1e-5 to 1e5": (5, lambda x: normal(rotated(x) * torch.logspace(-5, 5, 5).to(x))),
    "a long diagonal": (2, lambda x: normal(x.sum(-1, keepdim=True)) + normal(x.diff(dim=-1), 1e6)),
    "a narrowing ridge": (2, narrowing_ridge),
    "a flat box": (4, lambda x: where((x.abs() < 1).all(-1), 0 * x.sum(-1))),
    "a flat box, 1e12": (2, lambda x: where((x.abs() < 1e12).all(-1), 0 * x.sum(-1))),
    "a hole": (3, lambda x: where(x.norm(dim=-1) > 1, normal(x, 2.0))),
    "NaN in half of it": (3, lambda x: torch.where(x[..., 0] > 1, math.nan, normal(x, 2.0))),
    "NaN outside": (3, lambda x: 0.3 * x.sqrt().sum(-1) - x.sum(-1)),
    "funnel": (10, funnel),
    "hierarchy": (8, hierarchy),
    "Laplace": (5, lambda x: -x.abs().sum(-1)),
    "Gumbel": (5, lambda x: (-x - (-x).exp()).sum(-1)),
    "Rosenbrock": (2, lambda x: -((1 - x[..., 0]) ** 2) / 20 - 5 * (x[..., 1] - x[..., 0] ** 2) ** 2),
    "stretched exponential": (6, lambda x: -x.abs().pow(0.3).sum(-1)),
    "log-normal": (3, lambda x: where((x > 0).all(-1), -(u := x.abs().log()).sum(-1) + normal(u))),
    "logit of beta": (4, lambda x: (0.5 * x - 1.5 * torch.nn.functional.softplus(x)).sum(-1)),
    "regression with a prior": (10, lambda x: likelihood(x) + normal(x, 10.0)),
    "regression with a Cauchy prior": (10, lambda x: likelihood(x) - torch.log1p((x / 2.5).square()).sum(-1)),
    "one period": (2, lambda x: where((x.abs() < math.pi).all(-1), 3 * x.cos().sum(-1))),
    "ripples on a wide Gaussian": (2, lambda x: 3 * x.cos().sum(-1) + normal(x, 1e5)),
    "ripples on Cauchy": (3, lambda x: 3 * (2 * math.pi * x).cos().sum(-1) - torch.log1p(x.square()).sum(-1)),
    "a large constant": (2, lambda x: 1e8 + normal(x)),
    "gives up far out": (3, gives_up),
    "kernel regression": (2, kernel_regression),
    "a product and one factor": (2, lambda x: product(x) - x[..., 0] ** 2),
    "a product and a wide Gaussian": (2, lambda x: product(x) + normal(x, 1e5)),
    "a product and Cauchy": (2, lambda x: product(x) - torch.log1p(x.square()).sum(-1)),
    "a product in a box": (2, lambda x: where(x.abs().amax(-1) < 1e3, product(x))),
    "factors with a prior": (10, lambda x: factors(x) + normal(x, 10.0)),
    "a ratio with a prior": (2, lambda x: -((x[..., 0] / x[..., 1] - 1) ** 2) + normal(x)),
    "zero but in name": (2, lambda x: torch.where((x.abs() < 20).all(-1), normal(x), -1e185)),
    "float32 inside": (3, lambda x: -x.float().pow(4).sum(-1).to(x.dtype)),
}


def scattered(dim: int, kind: str) -> Tensor:
    noise = random_matrix(40, dim, 5)
    return {
        "near": noise,
        "at all distances": torch.logspace(-2, 2.5, 40, dtype=torch.float64).unsqueeze(-1) * noise,
        "one": torch.full((1, dim), 0.5, dtype=torch.float64),
        "far": 1e6 * noise[:8],
    }[kind]


def reason(log_prob: LogProb, x: Tensor, differentiable: bool = True) -> str | None:
    """What the check says, if it refuses, at its price."""
    target = CountedTarget(FunctionTarget(log_prob, x.shape[1], differentiable=differentiable))
    try:
        check_proper(target, x)
    except InputError as error:
        return str(error)
    finally:
        assert target.num_evaluations < MAX_EVALUATIONS and target.num_invalid == 0
    return None


@pytest.mark.parametrize("kind", ["near", "at all distances", "one", "far"])
@pytest.mark.parametrize("name", PROPER)
def test_raises_no_false_alarm(name: str, kind: str) -> None:
    dim, log_prob = PROPER[name]
    for differentiable in (True, False):
        assert reason(log_prob, scattered(dim, kind), differentiable) is None


def modes_in_a_cube(x: Tensor) -> Tensor:
    """A broad Gaussian, and a narrow one whose mean is on a face."""
    face, width = x.new_tensor([1.0, 0.5, 0.5, 0.5]), x.new_tensor([0.02, 0.05, 0.05, 0.05])
    both = torch.logaddexp(2 + normal((x - face) / width), normal(x - 0.4, 0.06))
    return where(((x >= 0) & (x <= 1)).all(-1), both)


def wedge(x: Tensor) -> Tensor:
    return where((x[..., 0] - x[..., 1]).abs() <= 0.1 * x.sum(-1), -x.sum(-1))


# With a point on an edge or in a corner, in units of the scale.
CUT: dict[str, tuple[LogProb, list[float]]] = {
    "a mode on a face": (modes_in_a_cube, [1.0, 0.5, 0.5, 0.5]),
    "a corner of exponentials": (lambda x: where((x >= 0).all(-1), -x.sum(-1)), [0.0] * 5),
    "an oblique half space": (lambda x: where(x.sum(-1) <= 3, normal(x - 1.5)), [0.5] * 6),
    "the tip of a wedge": (wedge, [0.0, 0.0]),
    "an order": (lambda x: where((x.diff(dim=-1) >= 0).all(-1), normal(x)), [0.0] * 6),
    "a ball": (lambda x: where(x.norm(dim=-1) <= 1, 20 * x.sum(-1)), [0.5 - 1e-12] * 4),
    "a narrow mode in a corner of a wide one": (
        lambda x: where((x >= 0).all(-1), torch.logaddexp(40 + normal(x, 1e-6), -x.sum(-1) / 30)),
        [0.0] * 3,
    ),
}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", CUT)
def test_points_on_edges_raise_no_false_alarm(name: str, scale: float) -> None:
    log_prob, place = CUT[name]
    edge = scale * torch.tensor([place], dtype=torch.float64)
    # Alone, as where all draws around it are outside, and with others at all distances.
    around = edge + scale * torch.logspace(-16, 0, 40, dtype=torch.float64).unsqueeze(-1) * random_matrix(
        40, len(place)
    )
    for x in (edge, torch.cat([edge, around]), around):
        for differentiable in (True, False):
            assert reason(lambda x: log_prob(x / scale), x, differentiable) is None


def distances(x: Tensor) -> Tensor:
    """Of four particles, with shape (*, 6), for x with shape (*, 4, 3)."""
    i, j = torch.triu_indices(4, 4, 1)
    return (x[..., i, :] - x[..., j, :]).square().sum(-1).add(1e-12).sqrt()


def logit(x: Tensor) -> Tensor:
    """Of three classes, each with its own coefficients: one set too many."""
    return (DESIGN[:, :4].to(x) @ x.unflatten(-1, (4, 3))).log_softmax(-1)[..., torch.arange(60), CLASSES].sum(-1)


def nearest_images(x: Tensor, length: float) -> Tensor:
    """Squared distances of all pairs of particles, with shape (*, n, d), in a box that repeats."""
    first, second = torch.triu_indices(x.shape[-2], x.shape[-2], 1)
    apart = x[..., first, :] - x[..., second, :]
    return (apart - length * (apart / length).round()).square().sum(-1)


def one_angle(period: float) -> LogProb:
    return lambda x: 4 * (2 * math.pi * x[..., 2] / period - 1).cos() + normal(x[..., [0, 1, 3, 4]])


IMPROPER: dict[str, tuple[int, LogProb, str]] = {
    "a flat ridge": (2, lambda x: normal(x.sum(-1, keepdim=True) - 1), r"stays at .* along \(1, -1\)"),
    "a constant": (3, lambda x: 0 * x.sum(-1), "stays at 0 in every direction"),
    "a floor": (2, lambda x: (normal(x).exp() + 1e-12).log(), "stays at -27.*added inside a logarithm"),
    "1/x": (1, lambda x: -torch.log1p(x[..., 0].abs()), "falls too slowly in every direction, as -1 log t"),
    "|x|^-3": (3, lambda x: -1.5 * torch.log1p(x.square().sum(-1)), "every direction, as -3 log t where less than -3"),
    "one tail of four": (
        4,
        lambda x: -torch.log1p(x[..., 2].abs()) + normal(x[..., [0, 1, 3]]),
        r"falls too slowly along x\[2\], as -1 log t where less than -1 log t is needed",
    ),
    "two angles": (
        2,
        lambda x: 3 * (x[..., 0] - 1).cos() + 2 * (x[..., 1] + 0.5).cos() + (x[..., 0] - x[..., 1]).cos(),
        r"x\[0\] and x\[1\] have period 6.283; of angles .* periodic=True",
    ),
    "a sharp angle": (2, lambda x: 500 * x.cos().sum(-1), r"x\[0\] and x\[1\] have period 6.283"),
    "hours and degrees": (
        3,
        lambda x: 3 * (math.pi * x[..., 0] / 12).cos() + (math.pi * x[..., 1] / 180).sin() - x[..., 2] ** 2,
        r"x\[0\] has period 24 and x\[1\] has period 360",
    ),
    **{
        f"period {p:g} of five": (5, one_angle(p), rf"x\[2\] has period {p:g};") for p in (1.0, 24.0, 360.0, 5.7, 0.037)
    },
    "a gap in each period": (1, lambda x: x[..., 0].cos().log(), r"x\[0\] has period 6.283"),
    "a saw": (2, lambda x: -9 * x[..., 0].remainder(1.0) + normal(x[..., 1:]), r"x\[0\] has period 1;"),
    "particles in a periodic box": (
        8,
        lambda x: -2 * (-nearest_images(x.unflatten(-1, (4, 2)), 4.0)).exp().sum(-1),
        r"x\[0\], x\[1\], x\[2\], x\[3\] and 4 more have period 4; in a box of length L write .* x \* L / \(2 pi\); of",
    ),
    "two periods in one": (1, lambda x: (x.cos() + (math.sqrt(2) * x).cos()).sum(-1), "in every direction"),
    "clamped": (2, lambda x: normal(x.clamp(-3, 3)), "stays at .* in every direction"),
    "energy": (2, lambda x: -normal(x), "rises without bound in every direction.*if it is an energy return minus that"),
    "quartic energy": (5, lambda x: (x.square() - 1).square().sum(-1), "rises without bound in every direction"),
    "overflowing energy": (2, lambda x: (x.exp() - x).sum(-1), "rises without bound in every direction"),
    "linear": (3, lambda x: x @ x.new_tensor([1.0, -2.0, 3.0]), r"rises without bound as x\[0\] goes to infinity"),
    "linear in one": (3, lambda x: x[..., 0] + normal(x[..., 1:]), r"rises without bound as x\[0\] goes to infinity,"),
    "a scale without a prior": (
        2,
        lambda x: normal(x[..., :1]) - 3 * torch.nn.functional.softplus(2 * x[..., 1]),
        r"stays at .* as x\[1\] goes to -infinity",
    ),
    "a half-line": (3, lambda x: where((x > 0).all(-1), normal(x[..., 1:])), r"as x\[0\] goes to infinity"),
    "a rotated ridge": (5, lambda x: normal(rotated(x)[..., :4]), r"along \(1, -0.408, 0.587, -0.157, 0.445\)"),
    "particles": (12, lambda x: -(distances(x.unflatten(-1, (4, 3))) - 2).square().sum(-1), "say mean_free=4"),
    "particles, by axis": (12, lambda x: -(distances(x.unflatten(-1, (3, 4)).mT) - 2).square().sum(-1), "translation"),
    "particles held in a plane": (
        12,
        lambda x: -(distances(x.unflatten(-1, (4, 3))) - 2).square().sum(-1) + normal(x[..., 1:3]),
        r"the translation of blocks of 3 coordinates \(x\[0\], x\[3\] and so on\)",
    ),
    "differences": (24, lambda x: normal(x.diff(dim=-1)), "the translation of all coordinates alike"),
    "softmax": (3, lambda x: x.log_softmax(-1) @ x.new_tensor([3.0, 4.0, 5.0]), "translation of all coordinates alike"),
    "multinomial logit": (12, logit, "translation of all coordinates alike"),
    "separable regression": (10, likelihood, "stays at 0 along"),
    "a product": (2, product, r"is the same at x\[0\] times c and x\[1\] times 1 / c for every c"),
    "a positive product": (2, lambda x: where((x > 0).all(-1), product(x)), r"x\[1\] times 1 / c for every c"),
    "a product of powers": (
        3,
        lambda x: -((x[..., 0] * x[..., 2] ** 2 - 1) ** 2) + normal(x[..., 1:2]),
        r"is the same at x\[0\] times c and x\[2\] times c\^-0.5 for every c",
    ),
    "factors": (10, factors, r"at x\[.\], x\[.\] and x\[.\] times c and x\[.\] and x\[.\] times 1 / c for every c"),
}


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("name", IMPROPER)
def test_names_what_has_no_end(name: str, differentiable: bool) -> None:
    dim, log_prob, expected = IMPROPER[name]
    for kind in ("near", "at all distances", "one"):
        message = reason(log_prob, scattered(dim, kind), differentiable)
        assert message is not None and re.search(expected, message), f"{kind}: {message}"
        assert message.startswith("FunctionTarget.log_prob ") and ". " not in message, "one sentence"


def undeclared(target: Target) -> tuple[int, LogProb]:
    """The density of a target that forgets to say where it lives."""
    return target.dim, target.log_prob


def coulomb(x: Tensor) -> Tensor:
    """Six charges in the plane in a trap around their mean."""
    return -3 * (1 / pair_distances(x, 6)).sum(-1) - 0.5 * centred(x, 6).square().sum((-1, -2))


def chain(x: Tensor) -> Tensor:
    """Five beads in space, each bound to the next."""
    return -50 * (x.unflatten(-1, (5, 3)).diff(dim=-2).norm(dim=-1) - 1).square().sum(-1)


MEAN_FREE = r"if x is {0} particles whose centre does not matter, say mean_free={0} in FunctionTarget; or add a prior"
PERIODIC = (
    r"have period 6.283; of angles in radians \(period 2 pi\) say so by FunctionTarget\(fn, dim, periodic=True\), or"
)
UNDECLARED: dict[str, tuple[tuple[int, LogProb], str]] = {
    "DW-4": (undeclared(DoubleWell4()), MEAN_FREE.format(4)),
    "LJ-7": (undeclared(LennardJones(7)), MEAN_FREE.format(7)),
    "LJ-2 on a line": (undeclared(LennardJones(2, 1)), MEAN_FREE.format(2)),
    "springs in the plane": (undeclared(springs(3, 2)), MEAN_FREE.format(3)),
    "springs on a line": (undeclared(springs(6, 1)), MEAN_FREE.format(6)),
    "charges": ((12, coulomb), MEAN_FREE.format(6)),
    "a chain": ((15, chain), MEAN_FREE.format(5)),
    "U(1)": (undeclared(U1Gauge((2, 2))), PERIODIC),
    "XY": (undeclared(XYModel((3, 3))), PERIODIC),
    "two angles": (undeclared(two_angles()), rf"x\[0\] and x\[1\] {PERIODIC}"),
    "angles and a real": (undeclared(angles_beside_a_real()), rf"x\[0\] and x\[2\] {PERIODIC}"),
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_says_what_physicists_forget_to_declare(name: str) -> None:
    (dim, log_prob), expected = UNDECLARED[name]
    for kind in ("near", "at all distances"):
        for differentiable in (True, False):
            message = reason(log_prob, scattered(dim, kind), differentiable)
            assert message is not None and re.search(expected, message), f"{kind}: {message}"


def lennard_jones(x: Tensor, n: int) -> Tensor:
    """Without a trap, so that they evaporate."""
    sixth = pair_distances(x, n) ** -6
    return -(sixth * (sixth - 2)).sum(-1)


def one_that_leaves(x: Tensor) -> Tensor:
    """Of three particles in space two are bound by a spring, the third has a well of finite depth."""
    ab, ac, bc = pair_distances(x, 3).unbind(-1)
    return -4 * (ab - 1) ** 2 + 2 / (1 + ac**2) + 2 / (1 + bc**2)


FLYING_APART: dict[str, tuple[int, int, LogProb]] = {
    "LJ-4 in the plane": (4, 8, partial(lennard_jones, n=4)),
    "LJ-13": (13, 39, partial(lennard_jones, n=13)),
    "LJ-3 on a line": (3, 3, partial(lennard_jones, n=3)),
    "Morse": (4, 8, lambda x: -3 * (1 - (2 - 2 * pair_distances(x, 4)).exp()).square().sum(-1)),
    "repulsion": (3, 6, lambda x: -(1 / pair_distances(x, 3)).sum(-1)),
    "one that leaves": (3, 9, one_that_leaves),
    "logarithms": (5, 10, lambda x: -0.3 * torch.log1p(pair_distances(x, 5).square()).sum(-1)),
}
TRAP = r"add a trap or a wall about their mean \(docs/particles.md says how\)"


@pytest.mark.parametrize("name", FLYING_APART)
def test_says_that_particles_fly_apart(name: str) -> None:
    n, dim, log_prob = FLYING_APART[name]
    expected = (
        rf"no integral: if x is {n} particles, they fly apart: say mean_free={n} in FunctionTarget, and {TRAP}; or"
    )
    for kind in ("near", "at all distances", "far"):
        for differentiable in (True, False):
            message = reason(log_prob, scattered(dim, kind), differentiable)
            assert message is not None and re.search(expected, message) and ". " not in message, f"{kind}: {message}"
    space = Particles(n, dim // n, identical=name != "one that leaves")
    with pytest.raises(InputError, match=rf"as particles fly apart, .* no integral: {TRAP}\.$"):
        reference(FunctionTarget(log_prob, dim, space=space), seed=0)


def test_a_target_of_its_own_class_is_told_what_it_can_declare() -> None:
    class Own(Target):
        def __init__(self, dim: int, fn: LogProb) -> None:
            super().__init__(dim)
            self.fn = fn

        def log_prob(self, x: Tensor) -> Tensor:
            return self.fn(x)

    def said(fn: LogProb, dim: int) -> str:
        with pytest.raises(InputError) as caught:
            check_proper(CountedTarget(Own(dim, fn)), scattered(dim, "near"))
        return str(caught.value)

    three = r"particles whose centre does not matter, give Own space = Particles\(3, 2\); or"
    assert re.search(three, said(springs(3, 2).log_prob, 6))
    assert re.search(r"fly apart: give Own space = Particles\(4, 2\), and add", said(partial(lennard_jones, n=4), 8))
    assert "(period 2 pi) give Own space = Circle(2): log Z" in said(two_angles().log_prob, 2)
    some = "give Own space = Product([Circle(1), Euclidean(1), Circle(1)]): log Z"
    assert some in said(angles_beside_a_real().log_prob, 3)


def test_the_order_of_coordinates_is_told_from_their_number() -> None:
    def by_axis(x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)

    for log_prob in (lambda x: springs(4, 2).log_prob(by_axis(x)), lambda x: lennard_jones(by_axis(x), 4)):
        message = reason(log_prob, scattered(8, "near"))
        assert message is not None and "let x hold one particle after the other, say mean_free=4" in message


def test_a_lattice_is_no_particles_and_says_itself_that_its_sites_are_angles() -> None:
    def said(fn: LogProb) -> str:
        with pytest.raises(InputError) as caught:
            reference(FunctionTarget(fn, dim=6, space=Lattice((6,))), seed=0)
        return str(caught.value)

    massless = said(lambda x: -(x - x.roll(1, -1)).square().sum(-1))
    assert "the translation of all coordinates alike" in massless and "particles" not in massless
    assert "say so by space=Lattice((6,), Circle(1)): log Z" in said(lambda x: (x - x.roll(1, -1)).cos().sum(-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNDECLARED)
def test_the_search_says_it_too(name: str) -> None:
    (dim, log_prob), expected = UNDECLARED[name]
    with pytest.raises(InputError, match=expected):
        reference(FunctionTarget(log_prob, dim), seed=0)


@pytest.mark.parametrize("name", ["U(1)", "XY", "two angles", "angles and a real"])
def test_tells_angles_from_points_where_no_period_is_resolved(name: str) -> None:
    """A search without gradients walks away for good along what does not fall."""
    (dim, log_prob), expected = UNDECLARED[name]
    x = scattered(dim, "near")
    x[:, [0, 2] if name == "angles and a real" else slice(None)] *= 1e16
    message = reason(log_prob, x, differentiable=False)
    assert message is not None and re.search(expected, message), message


def test_the_search_without_gradients_says_so_too() -> None:
    target = FunctionTarget.from_energy(lambda x: -math.cos(x[0] - x[1]), dim=2, batched=False)
    with pytest.raises(InputError, match=rf"x\[0\] and x\[1\] {PERIODIC}"):
        reference(target, num_particles=100, seed=0)


def test_draws_of_others_do_not_change() -> None:
    before = torch.get_rng_state()
    assert reason(funnel, scattered(10, "near")) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_points_of_no_density_are_no_points() -> None:
    nowhere = torch.full((5, 3), math.nan)
    for x in (nowhere, nowhere[:0], torch.full((5, 3), -1.0)):
        assert reason(lambda x: where((x > 0).all(-1), 0 * x.sum(-1)), x) is None
    far = 1e200 * torch.ones(4, 2, dtype=torch.float64)
    assert "rises without bound" in reason(lambda x: -normal(x), far)


def test_the_search_refuses() -> None:
    with pytest.raises(InputError, match=r"FunctionTarget.log_prob stays at .* along \(1, -1\).*add a prior"):
        reference(FunctionTarget(lambda x: normal(x.sum(-1, keepdim=True) - 1), dim=2), seed=0)


QUIET = {"max_steps": 1, "steps_per_epoch": 1, "enable_progress_bar": False, "accelerator": "cpu"}


def test_training_refuses() -> None:
    target = FunctionTarget(lambda x: 3 * x.cos().sum(-1), dim=2)
    for coordinates in (None, partial(ScaledCoordinates, scale=3.0)):
        with pytest.raises(InputError, match="has no integral: x.* have period 6.283"):
            fit(Sampler(target, grid=5, coordinates=coordinates), **QUIET)


def test_angles_on_a_torus_are_right() -> None:
    sampler = Sampler(VonMisesMixture(1), process=Torus, control=FourierMLP, flow=None, grid=5)
    assert len(fit(sampler, loss=LogVariance(), **QUIET)) == 1
