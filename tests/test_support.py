"""Declared supports: the same density and log Z, seen from coordinates that go anywhere."""

import math
from pathlib import Path

import pytest
import torch
from helpers import ZeroControl, assert_mean
from torch import Tensor
from torch.distributions import Beta, biject_to, constraints, transforms
from torch.distributions.constraints import Constraint

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fit
from diffsampler.baseline import reference
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.unbounded import UnboundedDensity, unbounded
from diffsampler.cli import main
from diffsampler.coordinates import AffineCoordinates, SearchedCoordinates, SupportCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.processes import PinnedBrownian, Torus
from diffsampler.report.figures import plot_samples
from diffsampler.support import Support, ordered_vector
from diffsampler.target import support_of

INF = math.inf


def flat(dim: int, support: object, **options: object) -> FunctionTarget:
    """A density that says nothing of its support."""
    return FunctionTarget(lambda x: -0.5 * (x / 3).square().sum(-1), dim, support=support, **options)


def support(dim: int, given: object) -> Support:
    found = support_of(flat(dim, given))
    assert found is not None
    return found


# Against torch's own maps, or by hand; a permutation of columns must come back in order.
SUPPORTS = {
    "positive": (2, constraints.positive),
    "above": (2, constraints.greater_than(torch.tensor([-1.0, 2.0]))),
    "below": (2, constraints.less_than(3.0)),
    "box": (3, ([0.0, -1, 2], (1.0, 2, 5))),
    "independent": (2, constraints.independent(constraints.interval(-1, 1), 1)),
    "all kinds": (5, ([0, -INF, -INF, 1, -INF], torch.tensor([INF, INF, 2, 3, 0]))),
    "ordered": (3, ordered_vector),
    "stack": (3, constraints.stack([constraints.real, constraints.unit_interval, constraints.positive])),
    "cat": (4, constraints.cat([ordered_vector, constraints.positive], lengths=[3, 1])),
    "one of them twice": (
        4,
        constraints.cat([constraints.positive, ordered_vector, constraints.positive], 0, [1, 2, 1]),
    ),
}


@pytest.mark.parametrize("case", SUPPORTS.values(), ids=SUPPORTS)
def test_map_is_inverted_and_its_jacobian_is_that_of_autograd(
    case: tuple[int, object], generator: torch.Generator
) -> None:
    dim, given = case
    onto = support(dim, given)
    y = 2 * torch.randn(4, 5, dim, generator=generator)
    x, log_det = onto.forward(y)
    assert onto.contains(x).all() and (onto.inside(x) == x).all() and log_det.shape == (4, 5)
    torch.testing.assert_close(onto.inverse(x), y)
    jacobian = torch.autograd.functional.jacobian(lambda y: onto.forward(y)[0], y[0, 0])
    torch.testing.assert_close(log_det[0, 0], torch.linalg.slogdet(jacobian).logabsdet)


def test_half_lines_are_mapped_as_torch_does(generator: torch.Generator) -> None:
    y = torch.randn(7, 2, generator=generator)
    for given in (constraints.positive, constraints.greater_than(-2.0), constraints.less_than(3.0)):
        torch.testing.assert_close(support(2, given).forward(y)[0], biject_to(given)(y))
    assert support_of(flat(2, constraints.real)) is None and support_of(flat(2, (-INF, INF))) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out_points_are_within_and_never_on_an_edge(dtype: torch.dtype) -> None:
    onto = support(4, ([0, 5, -INF, 0.1], [1, 7, 3, INF]))
    y = torch.tensor([-1e30, -300, -40, -9, 9, 40, 80.0], dtype=dtype).unsqueeze(-1).expand(-1, 4)
    x, log_det = onto.forward(y)
    assert onto.contains(x).all() and not log_det.isnan().any()
    assert (x > torch.tensor([0, 5, -INF, 0.1])).all() and (x < torch.tensor([1, 7, 3, INF])).all()
    # Towards an edge at 0 all digits are kept.
    torch.testing.assert_close(x[3, 0].double(), 0.5 * torch.erfc(torch.tensor(9 / math.sqrt(2))), rtol=1e-4, atol=0)
    on_edges = torch.tensor([[0.0, 7, 3, 0.1]], dtype=dtype)
    assert not onto.contains(on_edges).any() and onto.inverse(on_edges).isfinite().all()


def test_density_of_y_has_the_same_integral_and_the_score_of_autograd(generator: torch.Generator) -> None:
    target = FunctionTarget(lambda x: Beta(0.5, 2.0).log_prob(x).squeeze(-1), 1, support=constraints.unit_interval)
    walked = UnboundedDensity(target, support(1, (0, 1)))
    y = torch.linspace(-12, 12, 20_001)[:, None]
    assert math.isclose(float(torch.trapezoid(walked.log_prob(y).exp(), y[:, 0])), 1.0, rel_tol=1e-6)
    several = flat(5, SUPPORTS["all kinds"][1])
    walked = UnboundedDensity(several, support_of(several))
    y = torch.randn(6, 5, generator=generator)
    log_prob, score = walked.log_prob_and_score(y)
    torch.testing.assert_close(log_prob, walked.log_prob(y))
    by_autograd = torch.autograd.functional.jacobian(lambda y: walked.log_prob(y).sum(), y)
    torch.testing.assert_close(score, by_autograd)
    assert CountedTarget(walked).name == "FunctionTarget"
    coordinates = SupportCoordinates(several)
    x, log_det = coordinates(y)
    torch.testing.assert_close(several.log_prob(x) + log_det, log_prob)
    torch.testing.assert_close(coordinates.score_of(y, several.score(x)), score)
    torch.testing.assert_close(coordinates.inverse(x), y)


# (dim, log R, support, log Z): the density of nothing outside is asked for, and some is finite there.
EDGES = {
    "half-normal": (1, lambda x: -0.5 * x.square().sum(-1), constraints.positive, 0.5 * math.log(math.pi / 2)),
    "box": (2, lambda x: -3 * x.sum(-1), (0, 2), 2 * math.log((1 - math.exp(-6)) / 3)),
    "two poles": (1, lambda x: -0.5 * (x.log() + torch.log1p(-x)).sum(-1), (0, 1), math.log(math.pi)),
    "gamma": (1, lambda x: (-0.5 * x.log() - x).sum(-1), (0, INF), 0.5 * math.log(math.pi)),
    "ordered": (2, lambda x: -0.5 * x.square().sum(-1), ordered_vector, math.log(math.pi)),
    "tiny": (1, lambda x: -1e9 * x.sum(-1), (0, INF), -math.log(1e9)),
}


# The half-line has a fast test of its own below, where "gamma" is searched and trained on.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=name,
            marks=pytest.mark.slow if name in {"half-normal", "gamma", "box", "ordered", "two poles"} else (),
        )
        for name, case in EDGES.items()
    ],
)
def test_reference_knows_edges(case: tuple) -> None:
    dim, log_prob, given, log_z = case
    target = FunctionTarget(log_prob, dim, support=given)
    counter = CountedTarget(target)
    found = reference(counter, seed=0)
    # An interval of 95 %, at a fixed seed; twice its width is 4 standard errors, 1e-4.
    half = found.estimate.high - found.estimate.log_z
    assert abs(found.estimate.log_z - log_z) < min(2 * half, 0.03) and found.estimate.ess > 0.5
    assert support(dim, given).contains(found.x).all()
    torch.testing.assert_close(found.log_prob, target.log_prob(found.x))
    assert counter.num_evaluations >= found.estimate.num_target_evaluations > 10_000


@pytest.mark.slow
def test_a_target_alone_is_searched_and_learned_within_its_support(tmp_path: Path) -> None:
    dim, log_prob, given, log_z = EDGES["gamma"]
    target = FunctionTarget(log_prob, dim, log_z, support=given)
    sampler = Sampler(target)
    history = fit(sampler, max_steps=20, seed=0, tolerance=0.0, enable_progress_bar=False, accelerator="cpu")
    assert isinstance(sampler.coordinates, SearchedCoordinates) and (sampler.coordinates.points > 0).all()
    assert not sampler.search_is_outdated()
    x, log_weight = sampler.sample(2000, seed=1, return_log_weights=True)
    assert (x > 0).all()
    # The z-test's chance of a false alarm is 7e-6.
    assert_mean((log_weight - log_z).exp(), 1.0, "E[w] / Z")
    torch.testing.assert_close(sampler.coordinates(sampler.rollback(x[:9]).x[-1])[0], x[:9], rtol=1e-4, atol=1e-6)
    assert assess(sampler, 2000, seed=0, history=history).verdict.grade == "trustworthy"
    again = Sampler(target)
    again.load_state_dict(sampler.state_dict())
    torch.testing.assert_close(again.sample(5, seed=1), sampler.sample(5, seed=1))
    assert plot_samples(target, x) is not None


def test_explicit_processes_walk_in_the_coordinates_of_the_support() -> None:
    # The uniform density on a box is N(0, 1) in y: without control every weight is Z.
    box = FunctionTarget(lambda x: x.new_zeros(x.shape[:-1]), 2, support=((0, 1), (4, 3)), differentiable=False)
    sampler = Sampler(box, process=PinnedBrownian, control=ZeroControl(), flow=None, grid=4)
    assert isinstance(sampler.coordinates, SupportCoordinates)
    x, log_weight = sampler.sample(2000, seed=0, return_log_weights=True)
    torch.testing.assert_close(log_weight, torch.full_like(log_weight, math.log(8)), atol=1e-8, rtol=0)
    assert_mean(x[:, 0], 2.0, "mean of x0")
    with pytest.raises(InputError, match="declares a support, which AffineCoordinates knows nothing of"):
        Sampler(box, coordinates=AffineCoordinates(torch.zeros(2), torch.eye(2)))
    with pytest.raises(InputError, match="declares a support, which process Torus knows nothing of"):
        Sampler(box, process=Torus, control=ZeroControl())


@pytest.mark.slow
def test_validating_distributions_are_asked_inside_only() -> None:
    law = Beta(2.0, 3.0)
    target = FunctionTarget(lambda x: law.log_prob(x).sum(-1), 2, log_z=0.0, support=law.support)
    found = reference(target, seed=0)
    assert abs(found.estimate.log_z) < 0.03
    assert plot_samples(target, found.x[:100]) is not None


@pytest.mark.parametrize(
    ("dim", "given", "message"),
    [
        (3, constraints.simplex, "ModelTarget, simplex"),
        (3, constraints.corr_cholesky, "dimension"),
        (2, constraints.positive_definite, "no bijection"),
        (2, constraints.boolean, "no bijection"),
        (2, constraints.interval, "class Interval|class _Interval"),
        (2, (0, 0), "low must be below high"),
        (2, (1, 0), "low must be below high"),
        (2, (0, math.nan), "low must be below high"),
        (2, (INF, INF), "low must be below high"),
        (2, ([0, 0, 0], 1), "numbers or of 2 numbers each"),
        (2, ("low", "high"), "pair"),
        (2, (0, 1, 2), "pair"),
        (2, "positive", "pair"),
        (2, constraints.greater_than(torch.zeros(3)), "numbers or of 2 numbers each"),
        (2, constraints.stack([constraints.positive]), "1 coordinates"),
        (2, constraints.cat([constraints.positive], lengths=[3]), "3 coordinates"),
    ],
)
def test_refuses_what_is_no_support(dim: int, given: object, message: str) -> None:
    with pytest.raises(InputError, match=f"support of FunctionTarget must be None.*got .*{message}|{message}") as error:
        flat(dim, given)
    assert "\n" not in str(error.value)

    class Late(Target):
        support = given

        def log_prob(self, x: Tensor) -> Tensor:
            return -x.square().sum(-1)

    with pytest.raises(InputError, match="support of Late must be"):
        Sampler(Late(dim))
    with pytest.raises(InputError, match="support of Late must be"):
        reference(Late(dim))


@pytest.mark.parametrize(
    ("log_prob", "given", "message"),
    [
        (lambda x: 0 * x.sum(-1), (0, INF), r"falls too slowly as x\[0\] goes to infinity, as 0 log d"),
        (
            lambda x: -torch.log1p(-x).sum(-1),
            (-INF, 0),
            r"falls too slowly as x\[0\] goes to minus infinity, as -1 log d",
        ),
        (lambda x: (-x.log() - x).sum(-1), (0, INF), r"rises too fast as x\[0\] comes near 0, as -1 log d"),
        (lambda x: -1.5 * (5 - x).log().sum(-1), (2, 5), r"rises too fast as x\[0\] comes near 5, as -1.5 log d"),
    ],
)
def test_refuses_densities_without_integral_at_edges(
    log_prob: object, given: object, message: str, generator: torch.Generator
) -> None:
    target = FunctionTarget(log_prob, 2, support=given)
    counter = CountedTarget(target)
    with unbounded(counter), pytest.raises(InputError, match=message):
        check_proper(counter, torch.randn(9, 2, generator=generator))
    with pytest.raises(InputError, match=message):
        fit(Sampler(target, grid=3), max_steps=1, seed=0, enable_progress_bar=False, accelerator="cpu")


def test_bijections_of_ones_own_are_taken() -> None:
    class Even(Constraint):
        def check(self, value: Tensor) -> Tensor:
            return value > -1

    biject_to.register(
        Even,
        lambda _: transforms.ComposeTransform([transforms.SoftplusTransform(), transforms.AffineTransform(-1.0, 1.0)]),
    )
    x, log_det = support(2, Even()).forward(torch.zeros(3, 2))
    torch.testing.assert_close(x, torch.full((3, 2), math.log(2) - 1))
    torch.testing.assert_close(log_det, torch.full((3,), 2 * math.log(0.5)))


@pytest.mark.slow
def test_a_class_of_ones_own_works_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "with_support.py").write_text(
        "from torch.distributions import constraints\n"
        "from diffsampler import Target\n\n\n"
        "class Exponential(Target):\n"
        "    support = constraints.positive\n\n"
        "    def __init__(self):\n"
        "        super().__init__(2)\n"
        "        self.log_z = 0.0\n\n"
        "    def log_prob(self, x):\n"
        "        return -x.sum(-1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.set_default_dtype(torch.float32)
    main(["reference", "--target=with_support.Exponential", "--progress=false"])
    assert "true log Z" in capsys.readouterr().out
    parts = ["--model.process=VariancePreserving", "--model.grid=4", "--trainer.max_steps=2", "--report.figures=false"]
    sizes = ["--data.batch_size=16", "--data.num_eval_samples=50", "--data.num_test_samples=200"]
    main(["fit", "--model.target=with_support.Exponential", "--trainer.accelerator=cpu", *parts, *sizes])
    main(["test", "--ckpt_path", str(next(tmp_path.rglob("last.ckpt"))), "--report.figures=false"])
    assert "true log Z" in capsys.readouterr().out


def test_there_is_nothing_outside() -> None:
    sampler = Sampler(flat(2, (0, 1)), process=PinnedBrownian, control=ZeroControl(), flow=None, grid=4)
    x = torch.tensor([[0.5, 0.5], [-1.0, 0.5], [0.5, 1.5]])
    log_prob = sampler.log_prob(x)
    assert log_prob[0].isfinite() and (log_prob[1:] == -INF).all()
    assert sampler.rollback(x[:1]).x.isfinite().all()
    with pytest.raises(InputError, match="within the support that FunctionTarget declares, got 2 points that are not"):
        sampler.rollback(x)
