"""Metrics: against closed forms."""

import math
from functools import partial

import pytest
import torch
from helpers import Z_BOUND, random_sampler

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.networks import FourierMLP
from diffsampler.processes import PinnedBrownian
from diffsampler.report.angle_metrics import angle_divergence
from diffsampler.report.distances import distances_of_target
from diffsampler.report.metrics import energy_wasserstein2, eubo, wasserstein2
from diffsampler.report.noise_floor import with_floor
from diffsampler.report.particle_metrics import aligned_wasserstein2, pair_distance_total_variation
from diffsampler.spaces import Particles
from targets import Gaussian


def test_wasserstein_of_a_shift_and_of_a_permutation(generator: torch.Generator) -> None:
    x = torch.randn(60, 3, generator=generator)
    shift = torch.tensor([0.3, -0.4, 1.2])
    # The optimal plan of a translation is the translation: its length is 1.3.
    assert wasserstein2(x, (x + shift)[torch.randperm(60, generator=generator)]) == pytest.approx(1.3, abs=1e-9)
    assert wasserstein2(x, x.flip(0)) < 1e-12
    assert wasserstein2(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]])) == pytest.approx(math.sqrt(5))
    with pytest.raises(InputError, match="one shape"):
        wasserstein2(x, x[:5])


class Centred(Gaussian):
    """exp(0.7) N(0, diag(variances))."""

    log_z = 0.7

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return super().log_prob(x) + 0.7


def test_eubo_of_an_exact_sampler_is_log_z() -> None:
    target = Centred([0.0, 0.0], [0.49, 2.56])
    sampler = Sampler(target, partial(PinnedBrownian, sigma=[0.7, 1.6]), FourierMLP, grid=5)
    assert eubo(sampler, 50) == pytest.approx(0.7, abs=1e-9)


def test_eubo_of_brownian_motion_by_hand(generator: torch.Generator) -> None:
    # Without control the weight is R(x) / N(x; 0, sigma^2): EUBO - log Z is the KL of the two Gaussians.
    target = Gaussian([0.5, -0.2], [0.8, 0.5])
    sampler = Sampler(target, partial(PinnedBrownian, sigma=1.0), FourierMLP, flow=None, grid=5)
    expected = 0.5 * (0.8 + 0.5 + 0.25 + 0.04 - 2 - math.log(0.8) - math.log(0.5))
    before = sampler.num_target_evaluations
    x = target.sample(20_000, torch.Generator().manual_seed(3))
    spread = (target.log_prob(x) + 0.5 * x.square().sum(-1)).std() / math.sqrt(20_000)
    value = eubo(sampler, 20_000, generator, batch_size=7000)
    assert abs(value - expected) < Z_BOUND * spread
    assert sampler.num_target_evaluations == before


def test_eubo_needs_exact_samples() -> None:
    with pytest.raises(InputError, match="FunctionTarget has none"):
        eubo(random_sampler(FunctionTarget(lambda x: -x.square().sum(-1), dim=2), grid=2))


# --- particles, and energies


def test_energy_distance_by_hand() -> None:
    # Sorted: (0, 2, 5) against (1, 2, 3).
    x, y = torch.tensor([5.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])
    assert energy_wasserstein2(x, y) == pytest.approx(math.sqrt((1 + 0 + 4) / 3))
    assert energy_wasserstein2(x, y) == pytest.approx(wasserstein2(x[:, None], y[:, None]))
    with pytest.raises(InputError, match=r"one shape \(n\), got \(3,\) and \(2,\)"):
        energy_wasserstein2(x, y[:2])


def on_a_line(*distances: float) -> torch.Tensor:
    """Two particles in the plane, so far apart, a row each."""
    x = torch.zeros(len(distances), 4)
    x[:, 2] = torch.tensor(distances)
    return x


def test_total_variation_of_pair_distances_by_hand() -> None:
    pair = Particles(2, 2)
    y = on_a_line(0.5, 1.5, 2.5, 4.0)  # one in each of four bins of width 1
    assert pair_distance_total_variation(y, y, pair, num_bins=4) == 0
    # One and a half quarters have moved, one of them beyond the last bin.
    x = on_a_line(0.6, 0.7, 1.2, 2.2, 3.9, 3.2, 9.0, 50.0)
    assert pair_distance_total_variation(x, y, pair, num_bins=4) == pytest.approx(0.25)
    assert pair_distance_total_variation(on_a_line(9.0), y, pair) == 1


def test_pair_distances_know_neither_frame_nor_order(generator: torch.Generator) -> None:
    space = Particles(5, 3)
    x, y = torch.randn(2, 40, 15, generator=generator)
    moved = space.image(x, generator) + torch.randn(40, 1, 3, generator=generator).repeat(1, 5, 1).flatten(1)
    expected = pair_distance_total_variation(x, y, space)
    assert pair_distance_total_variation(moved, y, space) == pytest.approx(expected, abs=1e-3)  # rounding at an edge


def test_aligned_distance_by_hand() -> None:
    # Pairs at distances 2 and 4: particles at +-1 and +-2, whatever the direction and the order.
    pair = Particles(2, 2)
    x, y = torch.tensor([[1.0, 0.0, -1.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0, -2.0]])
    assert aligned_wasserstein2(x, y, pair) == pytest.approx(math.sqrt(2))
    assert aligned_wasserstein2(x + 5, y.roll(2, -1), pair) == pytest.approx(math.sqrt(2))
    # Where directions matter, the squares of (1, -2) and of (-1, 2).
    assert aligned_wasserstein2(x, y, Particles(2, 2, isotropic=False)) == pytest.approx(math.sqrt(10))
    # A triangle with three different sides, and its labels turned by one.
    triangle = torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0, 1.0]])
    turned = triangle.roll(2, -1)
    assert aligned_wasserstein2(triangle, turned, Particles(3, 2)) == pytest.approx(0, abs=1e-6)
    assert aligned_wasserstein2(triangle, turned, Particles(3, 2, identical=False)) > 0.5


def test_aligned_distance_knows_what_it_says_it_knows(generator: torch.Generator) -> None:
    labelled = Particles(6, 3, identical=False)
    x, y = torch.randn(2, 12, 18, generator=generator)
    expected = aligned_wasserstein2(x, y, labelled)
    # Kabsch is exact where no permutation is sought; one configuration after the other in any order.
    assert aligned_wasserstein2(labelled.image(x, generator).flip(0), y, labelled) == pytest.approx(expected)
    assert aligned_wasserstein2(x, labelled.image(x, generator).flip(0), labelled) == pytest.approx(0, abs=1e-6)
    plain = Particles(6, 3, identical=False, isotropic=False)
    centred = [(one.unflatten(-1, (6, 3)) - one.unflatten(-1, (6, 3)).mean(-2, True)).flatten(1) for one in (x, y)]
    assert aligned_wasserstein2(x, y, plain) == pytest.approx(wasserstein2(*centred))
    # Each freedom makes it smaller.
    both = aligned_wasserstein2(x, y, Particles(6, 3))
    assert both < aligned_wasserstein2(x, y, Particles(6, 3, isotropic=False)) < wasserstein2(*centred)
    assert expected < wasserstein2(*centred)


def test_mistakes_in_configurations_are_named() -> None:
    pair = Particles(2, 2)
    with pytest.raises(InputError, match=r"x must be configurations with shape \(n, 4\), got \(3, 5\)"):
        aligned_wasserstein2(torch.zeros(3, 5), torch.zeros(3, 4), pair)
    with pytest.raises(InputError, match="equally many configurations, got 3 and 2"):
        aligned_wasserstein2(torch.zeros(3, 4), torch.zeros(2, 4), pair)
    with pytest.raises(InputError, match="space must be a Particles"):
        pair_distance_total_variation(torch.zeros(3, 4), torch.zeros(3, 4), 2)


def of_mean(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x.mean() - y.mean()).abs())


def test_a_floor_is_what_two_halves_of_the_reference_have(generator: torch.Generator) -> None:
    reference = torch.arange(8.0)[:, None]
    found = with_floor(of_mean, torch.full((100, 1), 10.0), torch.zeros(100), reference, generator)
    assert found.num_draws == 4 and found.value == found.weighted
    # The halves' means are 3.5 -+ half of the floor.
    assert found.value == pytest.approx(6.5 + found.floor / 2) or found.value == pytest.approx(6.5 - found.floor / 2)
    with pytest.raises(InputError, match="at least 4 draws of the reference, got 3"):
        with_floor(of_mean, reference, torch.zeros(8), reference[:3])
    with pytest.raises(InputError, match="none of 8 draws has a usable density"):
        with_floor(of_mean, reference, torch.full((8,), math.nan), reference)


def test_weights_bring_draws_to_the_floor(generator: torch.Generator) -> None:
    # 4000 draws of N(0, 1.3^2) with their weights for N(0, 1).
    x = 1.3 * torch.randn(4000, 2, generator=generator)
    log_weight = (-0.5 + 0.5 / 1.69) * x.square().sum(-1)
    target = Gaussian([0.0, 0.0])
    (found,) = distances_of_target(target, x, log_weight, torch.randn(4000, 2, generator=generator), generator).values()
    # Energies are exponential, with mean 1.69 and 1, and so are all quantiles: 0.69 sqrt(2) = 0.98. Of 2000 draws the
    # distance has a standard error of about 0.05, and the floor is some 0.05.
    assert abs(found.value - 0.69 * math.sqrt(2)) < 0.25
    assert found.weighted < 0.3 and found.floor < 0.2 and found.num_draws == 2000


def test_distances_of_particles(generator: torch.Generator) -> None:
    target = FunctionTarget(lambda x: -0.5 * x.square().sum(-1), dim=6, mean_free=3)
    x, reference = torch.randn(2, 60, 6, generator=generator)
    found = distances_of_target(target, 4 * x, torch.zeros(60), reference, generator)
    assert found.keys() == {"energy_wasserstein2", "pair_distance_total_variation", "aligned_wasserstein2"}
    for name, one in found.items():
        # Four times as wide: energies are 16 times as large, and most pairs are farther apart than any of reference.
        assert one.num_draws == 30 and min(one.value, one.weighted) > 1.2 * one.floor > 0, name
        assert f"floor {one.floor:.2g} (30 draws)" in str(one) and one.to_dict()["floor"] == one.floor


def test_a_distance_that_is_infinite_is_none_in_a_file(generator: torch.Generator) -> None:
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -x[..., 0], -math.inf), dim=1)
    x = torch.tensor([[-1.0], [1.0], [2.0], [0.5]])
    found = distances_of_target(target, x, target.log_prob(x), x.abs(), generator)["energy_wasserstein2"]
    assert found.value == math.inf and found.to_dict()["value"] is None and math.isfinite(found.weighted)


# --- angles


def test_divergence_of_angles_by_hand() -> None:
    quarters = torch.tensor([-3.0, -1.0, 1.0, 2.0])  # one in each of four bins
    # Half a draw more in each bin: four equal ones stay equal.
    assert angle_divergence(quarters, quarters, num_bins=4) == pytest.approx(0, abs=1e-12)
    assert angle_divergence(quarters + 2 * math.pi, quarters, num_bins=4) == pytest.approx(0, abs=1e-12)
    # Six draws, all in the first bin: 6.5 / 8 of them there, 0.5 / 8 in each of the others.
    expected = math.log(0.25 / (6.5 / 8)) / 4 + 3 * math.log(0.25 / (0.5 / 8)) / 4
    assert angle_divergence(torch.full((6,), -3.0), quarters, num_bins=4) == pytest.approx(expected)
    # The other way round a bin that holds nothing of the reference counts nothing: log(1 / (1.5 / 6)).
    assert angle_divergence(quarters, torch.full((6,), -3.0), num_bins=4) == pytest.approx(math.log(4))


def test_divergence_of_weighted_angles() -> None:
    # Weights 3 : 1 are an effective sample of 16 / 10: 1.2 draws in one half and 0.4 in the other.
    angles, log_weight = torch.tensor([-1.0, 1.0]), torch.tensor([3.0, 1.0]).log()
    reference = torch.tensor([-2.0, 2.0])
    expected = -(math.log(2 * 1.7 / 2.6) + math.log(2 * 0.9 / 2.6)) / 2
    assert angle_divergence(angles, reference, log_weight, num_bins=2) == pytest.approx(expected)
    # A constant in all of them changes nothing, and draws without weight might as well not be there.
    more, infinite = torch.tensor([-1.0, 1.0, 0.5, 0.5]), torch.tensor([-math.inf, math.nan])
    padded = torch.cat([log_weight + 700, infinite])
    assert angle_divergence(more, reference, padded, num_bins=2) == pytest.approx(expected)


def test_divergence_of_equal_distributions_is_its_expected_noise(generator: torch.Generator) -> None:
    x = torch.rand(101_000, generator=generator, dtype=torch.float64, device="cpu") * 2 * math.pi
    # 2 n KL is chi-squared with 59 degrees, 1 % more by the noise of the reference, 6 % less by the half draws: it is
    # below 24 with chance 5e-5, above 120 with 7e-6.
    assert 0.012 < angle_divergence(x[:1000], x[1000:]) < 0.06


def test_divergence_says_what_it_needs() -> None:
    x = torch.zeros(3)
    with pytest.raises(InputError, match=r"angles must be finite angles with shape \(n\), got shape \(3, 1\)"):
        angle_divergence(x[:, None], x)
    with pytest.raises(InputError, match="reference must be finite angles"):
        angle_divergence(x, x / 0)
    with pytest.raises(InputError, match=r"log_weight must have shape \(3,\), got \(2,\)"):
        angle_divergence(x, x, x[:2])
    with pytest.raises(InputError, match="none of 3 draws has a usable weight"):
        angle_divergence(x, x, x - math.inf)
    with pytest.raises(InputError, match="num_bins"):
        angle_divergence(x, x, num_bins=0)
